"""lm-evaluation-harness through our server, beside the harness on transformers and on our model, on equal weights."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.models.openai_completions import LocalCompletionsAPI

from model.checkpoint import load_gpt, save_checkpoint
from model.tokenizer import Tokenizer
from tests.e2e.conftest import start_server
from tests.tiny import make_config, make_gpt
from training.evaluation.harness import GroundupLM, run_tasks

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # the harness and its imports warn of many things

TEXTS = [
    "The quick brown fox jumps over the lazy dog, twice.",
    "A small boat crossed the wide river in 1869; nobody saw it land.",
    "Whenever thunder rolled above those empty hills, seven children counted slowly until silence came back.",
]
TASK = """\
task: boats
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{text[:20]}}}}"
doc_to_choice: "{{{{[text[20:], ' boat', ' nobody saw it']}}}}"
doc_to_target: 0
metric_list: [{{metric: acc}}, {{metric: acc_norm}}]
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Path:
    path = tmp_path_factory.mktemp("harness") / "base"
    save_checkpoint(path, make_gpt(make_config("gpt2", block_size=256)), tokenizer, model_card="# Random\n")
    return path


@pytest.fixture(scope="module")
def served(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCompletionsAPI]:
    with start_server(checkpoint.parent, tmp_path_factory.mktemp("log") / "log", "base") as server:
        yield LocalCompletionsAPI(
            model="base",
            base_url=f"{server.url}/v1/completions",
            tokenizer=str(checkpoint),
            tokenizer_backend="huggingface",
            max_length=256,
            batch_size=3,
        )


@pytest.fixture(scope="module")
def peer(checkpoint: Path) -> HFLM:
    return HFLM(pretrained=str(checkpoint), device="cpu", batch_size=4, dtype="float32")


def requests(kind: str, arguments: list[tuple[object, ...]]) -> list[Instance]:
    return [Instance(kind, {}, each, number) for number, each in enumerate(arguments)]


def test_log_probs_through_the_server_equal_those_of_transformers(served: LocalCompletionsAPI, peer: HFLM) -> None:
    # No whole text twice with different borders: the harness on transformers would take one for the other.
    pairs: list[tuple[object, ...]] = [(text[: 10 * i], text[10 * i :]) for i, text in enumerate(TEXTS, 1)]
    pairs += [("The quick brown", " fox"), ("", "The lazy dog")]
    found = served.loglikelihood(requests("loglikelihood", pairs))
    expected = peer.loglikelihood(requests("loglikelihood", pairs))
    for (log_prob, is_greedy), (peer_log_prob, peer_is_greedy) in zip(found, expected, strict=True):
        assert log_prob == pytest.approx(peer_log_prob, abs=1e-4)
        assert is_greedy == peer_is_greedy


def test_answers_through_the_server_equal_those_of_transformers(served: LocalCompletionsAPI, peer: HFLM) -> None:
    rules = {"until": ["e", "\n\n"], "max_gen_toks": 16, "do_sample": False}
    asked: list[tuple[object, ...]] = [(text, dict(rules)) for text in TEXTS]
    assert served.generate_until(requests("generate_until", asked)) == peer.generate_until(
        requests("generate_until", asked)
    )


def test_a_task_measures_the_same_through_the_server_on_transformers_and_on_our_model(
    tmp_path: Path, checkpoint: Path, tokenizer: Tokenizer, served: LocalCompletionsAPI, peer: HFLM
) -> None:
    data = tmp_path / "boats.jsonl"
    data.write_text("\n".join(json.dumps({"text": text}) for text in TEXTS * 4))
    (tmp_path / "boats.yaml").write_text(TASK.format(data=data))
    ours = GroundupLM(load_gpt(checkpoint), tokenizer)
    results = [run_tasks(lm, ["boats"], folder=tmp_path)["boats"] for lm in (served, peer, ours)]
    assert results[0]["acc"] == results[1]["acc"] == results[2]["acc"]
    assert results[0]["acc_norm"] == results[1]["acc_norm"] == results[2]["acc_norm"]
