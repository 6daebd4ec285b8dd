"""The harness on our models, beside the harness on transformers with the same weights."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from model.chat import ChatTemplate
from model.checkpoint import load_gpt, save_checkpoint
from model.tokenizer import Tokenizer
from tests.tiny import make_config, make_gpt
from training.data.errors import DataError
from training.decode import greedy_answers
from training.evaluation.choices import choice_metrics, choose, read_choices
from training.evaluation.continuations import encode_pair, score_pairs
from training.evaluation.harness import GroundupLM, _numbers, run_tasks
from training.evaluation.last_word import last_word_metrics, read_passages
from training.evaluation.mmlu import ask_mmlu, mmlu_metrics, read_mmlu

pytestmark = pytest.mark.filterwarnings("ignore")  # the harness and what it imports warn of many things

CLOZE = """\
task: cloze
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: loglikelihood
doc_to_text: "{{{{text.split(' ')[:-1]|join(' ')}}}}"
doc_to_target: "{{{{' '+text.split(' ')[-1]}}}}"
metric_list: [{{metric: perplexity}}, {{metric: acc}}]
"""
WHOLE = """\
task: whole
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{text}}}}"
metric_list: [{{metric: bits_per_byte}}]
"""
FREE = """\
task: free
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{text[:40]}}}}"
doc_to_target: "{{{{text}}}}"
generation_kwargs: {{until: ["."], max_gen_toks: 12, do_sample: false}}
metric_list: [{{metric: exact_match}}]
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Path:
    path = tmp_path_factory.mktemp("harness") / "base"
    model = make_gpt(make_config("gpt2", block_size=512))
    save_checkpoint(path, model, tokenizer, model_card="# Random\n")
    return path


@pytest.fixture(scope="module")
def peer(checkpoint: Path) -> HFLM:
    """transformers, on the same weights."""
    return HFLM(pretrained=str(checkpoint), device="cpu", batch_size=4, dtype="float32")


@pytest.fixture(scope="module")
def ours(checkpoint: Path, tokenizer: Tokenizer) -> GroundupLM:
    return GroundupLM(load_gpt(checkpoint), tokenizer, batch_size=4)


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    return


PASSAGES = [
    "The quick brown fox jumps over the lazy dog, and the lazy dog sleeps on.",
    "Whenever thunder rolled above those empty hills, seven children counted slowly until silence came back.",
    "A small boat crossed the wide river in 1869; nobody saw it land.",
] * 4


def requests(kind: str, arguments: list[tuple[object, ...]]) -> list[Instance]:
    return [Instance(kind, {}, each, number) for number, each in enumerate(arguments)]


def test_log_probs_equal_those_of_transformers(ours: GroundupLM, peer: HFLM) -> None:
    pairs: list[tuple[object, ...]] = [
        ("The quick brown", " fox jumps"),
        ("The quick brown ", "fox jumps"),
        ("", "The lazy dog"),
        ("Seven children\n", " counted"),
        ("A small boat " * 200, " crossed the wide river"),  # far longer than the context
    ]
    found = ours.loglikelihood(requests("loglikelihood", pairs))
    expected = peer.loglikelihood(requests("loglikelihood", pairs))
    for (log_prob, is_greedy), (peer_log_prob, peer_is_greedy) in zip(found, expected, strict=True):
        assert log_prob == pytest.approx(peer_log_prob, abs=1e-4)
        assert is_greedy == peer_is_greedy
    assert ours.num_cut == 1


def test_log_probs_of_whole_texts_equal_those_of_transformers(ours: GroundupLM, peer: HFLM) -> None:
    texts: list[tuple[object, ...]] = [
        ("The quick brown fox.",),
        ("A small boat crossed the wide river. " * 80,),
        ("x",),
    ]
    found = ours.loglikelihood_rolling(requests("loglikelihood_rolling", texts))
    expected = peer.loglikelihood_rolling(requests("loglikelihood_rolling", texts))
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-4)


def test_answers_equal_those_of_transformers(ours: GroundupLM, peer: HFLM) -> None:
    rules = {"until": ["e", "\n\n"], "max_gen_toks": 16, "do_sample": False}
    asked: list[tuple[object, ...]] = [(text[:30], dict(rules)) for text in PASSAGES[:3]]
    asked += [("The quick brown fox " * 150, dict(rules)), ("Nobody", {**rules, "until": []})]
    assert ours.generate_until(requests("generate_until", asked)) == peer.generate_until(
        requests("generate_until", asked)
    )


def test_every_end_token_of_a_checkpoint_ends_an_answer_as_on_transformers(
    tmp_path: Path, ours: GroundupLM, tokenizer: Tokenizer
) -> None:
    prompt = tokenizer.encode("The quick brown fox")
    (ids,) = greedy_answers(ours.model, [prompt], end_ids=[], max_tokens=8)
    ends = [tokenizer.eos_id, ids[2]]
    save_checkpoint(tmp_path / "base", ours.model, tokenizer, eos_token_ids=ends, model_card="# Random\n")
    peer = HFLM(pretrained=str(tmp_path / "base"), device="cpu", dtype="float32")
    lm = GroundupLM(ours.model, tokenizer, end_ids=ends)
    asked = requests("generate_until", [("The quick brown fox", {"until": ["\n\n"], "max_gen_toks": 8})])
    assert lm.generate_until(asked) == peer.generate_until(asked) == [tokenizer.decode(ids[:3])]


def test_each_filter_of_answers_has_its_figures_with_an_interval() -> None:
    values = {"exact_match,strict": 0.5, "exact_match_stderr,strict": 0.1, "acc,none": 1.0, "acc_stderr,none": 0.0}
    assert _numbers(values) == {"exact_match_strict": 0.5, "exact_match_strict_stderr": 0.1, "acc": 1, "acc_stderr": 0}


def test_local_tasks_measure_what_they_measure_on_transformers(tmp_path: Path, ours: GroundupLM, peer: HFLM) -> None:
    data = tmp_path / "passages.jsonl"
    data.write_text("\n".join(json.dumps({"text": text}) for text in PASSAGES))
    for name, task in (("cloze", CLOZE), ("whole", WHOLE), ("free", FREE)):
        (tmp_path / f"{name}.yaml").write_text(task.format(data=data))
    names = ["cloze", "whole", "free"]
    found = run_tasks(ours, names, folder=tmp_path, limit=10)
    expected = run_tasks(peer, names, folder=tmp_path, limit=10)
    assert found["cloze"]["acc"] == expected["cloze"]["acc"]
    assert found["cloze"]["perplexity"] == pytest.approx(expected["cloze"]["perplexity"], rel=1e-4)
    assert found["whole"]["bits_per_byte"] == pytest.approx(expected["whole"]["bits_per_byte"], rel=1e-5)
    assert found["free"]["exact_match"] == expected["free"]["exact_match"]
    (passages,) = [read_passages(data)]
    metrics, _ = last_word_metrics(ours.model, ours.tokenizer, passages[:10])
    assert metrics["perplexity"] == pytest.approx(expected["cloze"]["perplexity"], rel=1e-4)
    assert metrics["acc"] == expected["cloze"]["acc"]


def test_hellaswag_from_a_local_file_measures_the_same_three_ways(
    data_dir: Path, tmp_path: Path, ours: GroundupLM, peer: HFLM
) -> None:
    file = tmp_path / "hellaswag.jsonl"
    lines = (data_dir / "eval-hellaswag-1k" / "hellaswag_val_1000.jsonl").read_text().splitlines()[:40]
    file.write_text("\n".join(lines))
    found = run_tasks(ours, ["hellaswag"], files={"hellaswag": file})["hellaswag"]
    expected = run_tasks(peer, ["hellaswag"], files={"hellaswag": file})["hellaswag"]
    assert (found["acc"], found["acc_norm"]) == (expected["acc"], expected["acc_norm"])
    questions = read_choices(file)
    own = choice_metrics(questions, choose(ours.model, ours.tokenizer, questions))
    assert (own["acc"], own["acc_norm"]) == (expected["acc"], expected["acc_norm"])


def test_mmlu_measures_what_the_harness_measures(data_dir: Path, tmp_path: Path, ours: GroundupLM, peer: HFLM) -> None:
    subjects = [subject for subject in read_mmlu(data_dir / "eval-mmlu", limit=25) if subject.name == "anatomy"]
    for split, items in (("test", subjects[0].items), ("dev", subjects[0].examples)):
        rows = [{"question": each.question, "choices": each.choices, "answer": each.answer} for each in items]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for name, variant in (("mmlu_anatomy", "default"), ("mmlu_anatomy_continuation", "continuation")):
        import lm_eval.tasks

        source = Path(lm_eval.tasks.__file__).parent / "mmlu" / variant / "mmlu_anatomy.yaml"
        splits = {split: str(tmp_path / f"{split}.jsonl") for split in ("test", "dev")}
        (tmp_path / f"{name}.yaml").write_text(
            f"include: {source}\ntask: my_{name}\ntag: my_tag\ndataset_path: json\ndataset_name: null\n"
            f"dataset_kwargs: {json.dumps({'data_files': splits})}\n"
        )
    names = ["my_mmlu_anatomy", "my_mmlu_anatomy_continuation"]
    for num_examples in (0, 2):
        expected = run_tasks(peer, names, folder=tmp_path, num_fewshot=num_examples)
        results = ask_mmlu(ours.model, ours.tokenizer, subjects, num_examples=num_examples)
        own = mmlu_metrics(subjects, results)
        assert own["letter"] == expected["my_mmlu_anatomy"]["acc"]
        assert own["acc"] == expected["my_mmlu_anatomy_continuation"]["acc"]
        assert own["acc_norm"] == expected["my_mmlu_anatomy_continuation"]["acc_norm"]
        assert own["num_questions"] == 25
    assert own["num_cut"] > 0  # with worked examples some prompts are longer than the context


def test_a_chat_model_is_asked_in_its_own_words(tiny_checkpoints: Path, tokenizer: Tokenizer) -> None:
    path = tiny_checkpoints / "tiny-chat"
    template = ChatTemplate.from_directory(path, tokenizer)
    lm = GroundupLM(load_gpt(path), tokenizer, template=template)
    prompt = lm.apply_chat_template([{"role": "user", "content": "The quick?"}])
    context_ids = tuple(template.encode([{"role": "user", "content": "The quick?"}]))
    (found,) = lm.loglikelihood(requests("loglikelihood", [(prompt, "fox")]))
    pair = encode_pair(prompt, "fox", tokenizer, parse_special=True)
    assert pair.context_ids == context_ids
    assert found[0] == score_pairs(lm.model, [pair])[0].log_prob


def test_tasks_that_cannot_run_are_refused_by_name(tmp_path: Path, ours: GroundupLM) -> None:
    with pytest.raises(DataError, match=r"--harness.tasks: no_such_task: no such task"):
        run_tasks(ours, ["no_such_task"])
    with pytest.raises(DataError, match=r"--harness.files: .*gone.jsonl: no such file"):
        run_tasks(ours, ["hellaswag"], files={"hellaswag": tmp_path / "gone.jsonl"})
    with pytest.raises(DataError, match=r"asks for sampling"):
        ours.generate_until(requests("generate_until", [("x", {"do_sample": True})]))
    with pytest.raises(DataError, match=r"answers of 512 tokens, and the model's context has 512"):
        ours.generate_until(requests("generate_until", [("x", {"until": ["."], "max_gen_toks": 512})]))
    with pytest.raises(DataError, match=r"a continuation has \d+ tokens, more than the model's context of 512"):
        ours.loglikelihood(requests("loglikelihood", [("x", "nobody saw it land " * 100)]))
