"""A language model as a judge: what it is asked, how its reply is read, and an endpoint that is asked once for each.

Grades run from 0 to 100. Of two answers it says which is better, asked both ways round, since judges favour a place
(Zheng et al. 2023, section 3.3). A reply that does not hold exactly one verdict is no verdict.
"""

import hashlib
import json
import logging
import os
import re
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO

from tqdm import tqdm

from training.data.errors import DataError
from training.evaluation.crew import run_in_threads
from training.evaluation.saved_answers import SavedAnswer

if TYPE_CHECKING:
    from openai import OpenAI

logger = logging.getLogger(__name__)

Verdict = Literal["first", "second", "tie"]

GRADE = """\
You grade how well an assistant did what it was asked.

{task}
<answer>
{answer}
</answer>

Give a whole number from 0 to 100 for the answer between the answer tags.
100: everything that was asked, all of it correct{as_reference}.
75: what was asked, with a small fault.
50: about half of it is right or useful.
25: mostly wrong, or mostly beside the point.
0: wrong, empty, or no answer to this.
Other words than expected are no fault. Length is no merit.
Reply with the number and nothing else."""

COMPARE = """\
You decide which of two answers does better what was asked.

{task}
<first>
{first}
</first>
<second>
{second}
</second>

Look at whether they are right, whether they do all that was asked, and whether they do only that. Neither their order
nor their length counts. Reply with one word: first if the first answer is better, second if the second one is, tie if
they are equally good or equally bad."""


def grade_prompt(response: SavedAnswer) -> str:
    """Return what the judge is asked to get a grade."""
    as_reference = "" if response.wanted is None else ", as good as the reference"
    return GRADE.format(task=_task(response), answer=response.text, as_reference=as_reference)


def compare_prompt(response: SavedAnswer, first: str, second: str) -> str:
    """Return what the judge is asked about two answers to the prompt of a response."""
    return COMPARE.format(task=_task(response), first=first, second=second)


def _task(response: SavedAnswer) -> str:
    turns = response.messages
    if len(turns) == 1:
        text = f"<question>\n{turns[0]['content']}\n</question>"
    else:
        said = "\n".join(f"{turn['role']}: {turn['content']}" for turn in turns)
        text = f"<conversation>\n{said}\n</conversation>"
    if response.wanted is not None:
        text += f"\n<reference>\n{response.wanted}\n</reference>"
    return text


def read_grade(reply: str) -> float | None:
    """Return the grade in a reply: `85`, `85/100`, `Score: 85`; None if there is none, or more than one number.

    A number out of another one than 100 (`9/10`, `5 out of 5`) is none.
    """
    text = _without_thoughts(reply)
    found = re.findall(r"(?<![\w.,-])\d+(?:\.\d+)?(?=\s*(?:/|out of)\s*100\b)", text)
    if not found and re.search(r"\d\s*(?:/|out of)\s*\d", text):
        return None
    found = found or re.findall(r"(?<![\w.,-])\d+(?:\.\d+)?(?![\w]|[.,]\d)", text)
    grades = {float(number) for number in found}
    return grades.pop() if len(grades) == 1 and max(grades) <= 100 else None


def read_verdict(reply: str) -> Verdict | None:
    """Return the verdict in a reply; None if it names none, or more than one."""
    names: tuple[Verdict, ...] = ("first", "second", "tie")
    words = set(re.findall(r"\w+", _without_thoughts(reply).lower()))
    found = [name for name in names if name in words]
    return found[0] if len(found) == 1 else None


def _without_thoughts(reply: str) -> str:
    """Leave out what a reasoning model says to itself; its server may have left out the tag that opens it."""
    spoken = re.sub(r"<think>.*?(?:</think>|\Z)", "", reply, flags=re.DOTALL)
    return spoken.rpartition("</think>")[2]


class Judge:
    """An endpoint that is asked at temperature 0, and remembers in a file what it said."""

    def __init__(
        self,
        *,
        model: str,
        base_url: str | None,
        memory: Path,
        parallel: int = 4,
        retries: int = 5,
        timeout_s: float = 120.0,
        max_tokens: int | None = None,
    ) -> None:
        """Connect, and read what was said before.

        Args:
            model: its name at the endpoint.
            base_url: of the endpoint; None: that of OPENAI_BASE_URL.
            memory: JSON lines of what it said; made if it is not there.
            parallel: questions asked at once.
            retries: when the endpoint is busy, broken or silent, after longer and longer waits.
            timeout_s: for one reply.
            max_tokens: longest reply; None: the endpoint's own limit.

        Raises:
            ValueError: the openai package or the address is missing.
            DataError: the file holds something else.
        """
        self.client = _connect(base_url, retries, timeout_s)
        self.model = model
        self._parallel = parallel
        self._settings: dict[str, Any] = {} if max_tokens is None else {"max_tokens": max_tokens}
        self._memory = memory
        self._lock = threading.Lock()
        self.said = _read_memory(memory)

    def ask(self, prompts: Sequence[str]) -> list[str | None]:
        """Return the reply to each prompt; None where the endpoint refuses this one.

        What was said before is not asked again, and each reply is on disk as soon as it is there. A refusal is not
        remembered: its reason may be gone the next time.

        Raises:
            JudgeError: the endpoint cannot be reached or refuses everything; what it said is kept.
        """
        missing = list(dict.fromkeys(prompt for prompt in prompts if self._key(prompt) not in self.said))
        if len(missing) < len(set(prompts)):
            logger.info("%d replies are in %s already", len(set(prompts)) - len(missing), self._memory)
        try:
            self._memory.parent.mkdir(parents=True, exist_ok=True)
            with (
                self._memory.open("a", encoding="utf-8") as file,
                tqdm(total=len(missing), desc="judge", unit="question", leave=False, disable=None) as bar,
            ):
                for _ in run_in_threads(lambda prompt: self._ask_one(prompt, file), missing, self._parallel):
                    bar.update()
        except OSError as error:
            raise JudgeError(f"--out: {self._memory}: cannot be written: {error.strerror}") from None
        return [self.said.get(self._key(prompt)) for prompt in prompts]

    def _key(self, prompt: str) -> str:
        about = json.dumps([self.model, str(self.client.base_url), self._settings, prompt])
        return hashlib.sha256(about.encode()).hexdigest()

    def _remember(self, file: TextIO, prompt: str, reply: str) -> None:
        key = self._key(prompt)
        with self._lock:
            self.said[key] = reply
            file.write(json.dumps({"key": key, "reply": reply}, ensure_ascii=False) + "\n")
            file.flush()

    def _ask_one(self, prompt: str, file: TextIO) -> None:
        import openai

        try:
            answer = self.client.chat.completions.create(
                model=self.model, messages=[{"role": "user", "content": prompt}], temperature=0, **self._settings
            )
        except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
            logger.warning("the judge refuses a question: %s", error.message)
            return
        except openai.OpenAIError as error:
            raise JudgeError(
                f"--base-url: {self.client.base_url}: {type(error).__name__}: {error}; what the judge said so far is "
                f"in {self._memory}, and the same command goes on from there"
            ) from None
        self._remember(file, prompt, (answer.choices[0].message.content or "") if answer.choices else "")


class JudgeError(ValueError):
    """The judge cannot be asked; the message says what to do."""


def _connect(base_url: str | None, retries: int, timeout_s: float) -> "OpenAI":
    try:
        from openai import OpenAI
    except ModuleNotFoundError:
        raise ValueError("--model: asking a judge needs the openai package: pip install 'groundup[judge]'") from None
    address = base_url or os.environ.get("OPENAI_BASE_URL")
    if not address:
        raise ValueError("--base-url: required, or OPENAI_BASE_URL; such as https://api.openai.com/v1")
    key = os.environ.get("OPENAI_API_KEY") or "none"  # a server of one's own needs none, but the client wants one
    return OpenAI(base_url=address, api_key=key, max_retries=retries, timeout=timeout_s)


def _read_memory(path: Path) -> dict[str, str]:
    """Read what was said; a last line that a kill cut short is forgotten, and taken out of the file."""
    if not path.exists():
        return {}
    said: dict[str, str] = {}
    content = path.read_text("utf-8", errors="replace")
    whole = content[: content.rfind("\n") + 1]
    if whole != content:
        path.write_text(whole, "utf-8")
    for number, line in enumerate(whole.split("\n")[:-1], 1):  # not splitlines: JSON strings may hold U+2028
        try:
            record: Mapping[str, Any] = json.loads(line)
            said[record["key"]] = record["reply"]
        except (ValueError, KeyError, TypeError):
            raise DataError(f"--out: {path}: line {number} is not what a judge said; name another folder") from None
    return said
