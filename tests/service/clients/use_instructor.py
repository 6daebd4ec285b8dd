"""instructor as its users have it: an answer as an object, by each way it has of asking for one."""

from typing import Literal

import instructor
from checks import main
from openai import OpenAI
from pydantic import BaseModel, ConfigDict


class Verdict(BaseModel):
    model_config = ConfigDict(extra="forbid")  # a random model would go on adding properties

    verdict: Literal["good", "bad"]
    is_sure: bool


class Anything(BaseModel):
    verdict: str | None = None


def ask(url: str, mode: instructor.Mode, kind: type[BaseModel], **settings: object) -> object:
    client = instructor.from_openai(OpenAI(base_url=url, api_key="none", max_retries=0), mode=mode)
    question = [{"role": "user", "content": "Is bread good?"}]
    answer = client.chat.completions.create(
        model="wide-chat", messages=question, response_model=kind, max_retries=0, temperature=0, **settings
    )
    return sorted(answer.model_dump())


def any_object(url: str) -> object:
    """A random model ends its object only when told to: the token of a closing brace is made likely."""
    tokens = OpenAI(base_url=url, api_key="none").post(
        "../tokenize", body={"model": "wide-chat", "prompt": "}"}, cast_to=dict[str, object]
    )["tokens"]
    return ask(url, instructor.Mode.JSON, Anything, logit_bias={str(token): 100 for token in tokens})


main(
    {
        "JSON": any_object,
        "JSON_SCHEMA": lambda url: ask(url, instructor.Mode.JSON_SCHEMA, Verdict),
        "TOOLS": lambda url: ask(url, instructor.Mode.TOOLS, Verdict),
    }
)
