"""LangChain as its users have it: chat, streams, completions, embeddings and structured answers."""

from typing import Literal

from checks import QUESTION, STORY, main
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings
from pydantic import BaseModel, ConfigDict


class Verdict(BaseModel):
    """Whether something is good."""

    model_config = ConfigDict(extra="forbid")  # a random model would go on adding properties

    verdict: Literal["good", "bad"]
    is_sure: bool


def chat(url: str, model: str = "groundup-chat") -> ChatOpenAI:
    return ChatOpenAI(base_url=url, api_key="none", model=model, temperature=0, max_retries=0)


def embeddings(url: str) -> OpenAIEmbeddings:
    return OpenAIEmbeddings(base_url=url, api_key="none", model="groundup-base", check_embedding_ctx_length=False)


def structured(url: str, method: str) -> object:
    answer = chat(url, "wide-chat").with_structured_output(Verdict, method=method).invoke("Is bread good?")
    return sorted(answer.model_dump())


main(
    {
        "chat": lambda url: chat(url).invoke(QUESTION).content,
        "usage": lambda url: chat(url).invoke(QUESTION).usage_metadata["output_tokens"],
        "stream": lambda url: [chunk.content for chunk in chat(url).stream(QUESTION)],
        "batch": lambda url: [answer.content for answer in chat(url).batch([QUESTION] * 3)],
        "completion": lambda url: OpenAI(
            base_url=url, api_key="none", model="groundup-base", temperature=0, max_tokens=16
        ).invoke(STORY),
        "embeddings": lambda url: embeddings(url).embed_documents(["a boat", "a river"]),
        "query": lambda url: embeddings(url).embed_query("a boat"),
        "function": lambda url: structured(url, "function_calling"),
        "schema": lambda url: structured(url, "json_schema"),
    }
)
