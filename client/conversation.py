"""What was said so far, and the commands about it. It knows no terminal: commands return what to show."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from client.endpoint import EndpointError, Message

HELP = """\
/help            this list
/reset           forget what was said
/system [TEXT]   put instructions before the conversation; alone: none
/save FILE       add the conversation to FILE, as a record that `groundup instruct --data` reads
/model [NAME]    let another model answer; alone: list them
Ctrl-C stops an answer, Ctrl-D ends. A message that begins with / is written with //."""


class Conversation:
    """Turns of a user and an assistant, and which model is asked."""

    def __init__(self, model: str, system: str | None, chat_models: Callable[[], Sequence[str]]) -> None:
        """`chat_models` lists what there is to choose from."""
        self.model = model
        self.system = system
        self.turns: list[Message] = []
        self._chat_models = chat_models

    @property
    def messages(self) -> list[Message]:
        """What the model is shown."""
        return [*([] if self.system is None else [{"role": "system", "content": self.system}]), *self.turns]

    def command(self, line: str) -> str:
        """Carry out a line that begins with a slash, and return what to tell the user.

        Raises:
            ValueError, OSError: it cannot be done.
        """
        name, _, argument = line[1:].partition(" ")
        argument = argument.strip()
        match name:
            case "help":
                return HELP
            case "reset":
                self.turns.clear()
                return "Everything is forgotten."
            case "system":
                self.system = argument or None
                return f"Instructions: {self.system or 'none'}"
            case "save":
                return self._save(argument)
            case "model":
                return self._choose(argument)
        raise ValueError(f"/{name}: unknown command; /help lists them")

    def _save(self, name: str) -> str:
        if not name:
            raise ValueError("/save: which file?")
        if not self.turns:
            raise ValueError("/save: nothing was said yet")
        path = Path(name).expanduser()
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"messages": self.messages}, ensure_ascii=False) + "\n")
        return f"Saved to {path}."

    def _choose(self, name: str) -> str:
        models = self._chat_models()
        if not name:
            return "\n".join(f"{'*' if model == self.model else ' '} {model}" for model in models)
        if name not in models:
            raise ValueError(f"/model: no {name} here; there are: {', '.join(models)}")
        self.model = name
        return f"{name} answers from now on."


def choose_model(models: Sequence[str]) -> str:
    """Return the only model.

    Raises:
        EndpointError: there is none, or a choice.
    """
    if not models:
        raise EndpointError("--model: no model of this server chats")
    if len(models) > 1:
        raise EndpointError(f"--model: choose one of {', '.join(models)}")
    return models[0]
