"""`llm` as its users have it: models named in a YAML file, and its command line."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from checks import QUESTION, STORY, main

MODELS = """\
- {{model_id: chat, model_name: groundup-chat, api_base: "{url}"}}
- {{model_id: base, model_name: groundup-base, api_base: "{url}", completion: true}}
"""


def llm(url: str, *args: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "extra-openai-models.yaml").write_text(MODELS.format(url=url))
        command = [sys.executable, "-m", "llm", "prompt", "--no-log", "--key", "none", *args]
        env = {**os.environ, "LLM_USER_PATH": folder}
        done = subprocess.run(
            command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
        )
    return done.stdout.strip() or done.stderr.strip()


main(
    {
        "stream": lambda url: llm(url, "-m", "chat", "-o", "temperature", "0", QUESTION),
        "completion": lambda url: llm(url, "-m", "base", "-o", "temperature", "0", "-o", "max_tokens", "16", STORY),
    }
)
