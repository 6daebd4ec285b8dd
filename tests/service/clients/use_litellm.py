"""litellm as its users have it: completions of both kinds, streams, embeddings, tools, and its classes of errors."""

import litellm
from checks import QUESTION, STORY, main

litellm.suppress_debug_info = True

TOOL = {
    "type": "function",
    "function": {
        "name": "judge",
        "parameters": {
            "type": "object",
            "properties": {"verdict": {"enum": ["good", "bad"]}},
            "required": ["verdict"],
            "additionalProperties": False,
        },
    },
}


def ask(url: str, text: str = QUESTION, **settings: object) -> object:
    settings = {"model": "openai/groundup-chat", "temperature": 0, "num_retries": 0, **settings}
    return litellm.completion(messages=[{"role": "user", "content": text}], api_base=url, api_key="none", **settings)


def stream(url: str) -> list[str]:
    return [chunk.choices[0].delta.content or "" for chunk in ask(url, stream=True)]


def complete(url: str) -> str:
    model = "text-completion-openai/groundup-base"
    answer = litellm.text_completion(
        model=model, prompt=STORY, max_tokens=16, temperature=0, api_base=url, api_key="none"
    )
    return answer.choices[0].text


def embed(url: str) -> list[float]:
    answer = litellm.embedding(model="openai/groundup-base", input=["a boat"], api_base=url, api_key="none")
    return answer.data[0]["embedding"]


def call(url: str) -> str:
    answer = ask(url, "Is bread good?", model="openai/wide-chat", tools=[TOOL], tool_choice="required")
    return answer.choices[0].message.tool_calls[0].function.name


main(
    {
        "chat": lambda url: ask(url).choices[0].message.content,
        "stream": stream,
        "completion": complete,
        "embedding": embed,
        "tool": call,
        "too long": lambda url: ask(url, "boat " * 2000),
        "no such model": lambda url: ask(url, model="openai/nope"),
    }
)
