import pytest
import torch

from model.chat import DEFAULT_TEMPLATE, ChatTemplate
from model.tokenizer import Tokenizer
from tests.tiny import make_config, make_gpt
from training.data.errors import DataError
from training.data.preference import Preference
from training.evaluation.preferences import preference_metrics

QUESTION = [{"role": "user", "content": "Who saw the fox?"}]
PREFERENCES = [
    Preference(1, QUESTION, "Nobody.", "The quick brown dog, twice."),
    Preference(2, QUESTION, "Seven children in a small boat.", "No."),
    Preference(3, QUESTION, "It is late.", "long " * 200),
]


@torch.no_grad()
def test_a_model_prefers_what_it_finds_likelier(tokenizer: Tokenizer) -> None:
    model, reference = (make_gpt(make_config("llama"), seed=seed) for seed in (0, 1))
    template = ChatTemplate(DEFAULT_TEMPLATE, tokenizer)
    found = preference_metrics(model, PREFERENCES, template, tokenizer, reference=reference, batch_size=1)
    margins: dict[str, list[float]] = {"": [], "_per_token": [], "_gain": []}
    for each in PREFERENCES[:2]:
        sums, counts, known = [], [], []
        for answer in (each.chosen, each.rejected):
            prompt, ids = template.encode_answer([*QUESTION, {"role": "assistant", "content": answer}])
            row = torch.tensor([[*prompt, *ids]])
            of_both = []
            for each_model in (model, reference):
                log_probs = torch.log_softmax(each_model.logits(each_model(row[:, :-1]))[0, len(prompt) - 1 :], -1)
                of_both.append(float(log_probs[torch.arange(len(ids)), torch.tensor(ids)].sum()))
            sums.append(of_both[0])
            known.append(of_both[1])
            counts.append(len(ids))
        margins[""].append(sums[0] - sums[1])
        margins["_per_token"].append(sums[0] / counts[0] - sums[1] / counts[1])
        margins["_gain"].append(sums[0] - known[0] - sums[1] + known[1])
    for name, values in margins.items():
        assert found[f"margin{name}"] == pytest.approx(sum(values) / 2, rel=1e-4)
        assert found[f"accuracy{name}"] == sum(value > 0 for value in values) / 2
    assert (found["num_pairs"], found["num_left_out"]) == (2, 1)
    alone = preference_metrics(model, PREFERENCES, template, tokenizer)
    assert alone == pytest.approx({name: value for name, value in found.items() if not name.endswith("_gain")})


def test_against_itself_a_model_gains_nothing(tokenizer: Tokenizer) -> None:
    model = make_gpt(make_config("llama"))
    template = ChatTemplate(DEFAULT_TEMPLATE, tokenizer)
    found = preference_metrics(model, PREFERENCES, template, tokenizer, reference=model)
    assert found["margin_gain"] == found["accuracy_gain"] == 0


def test_if_no_pair_fits_it_is_an_error(tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match="none of 1 pairs fits"):
        preference_metrics(
            make_gpt(make_config("llama")), PREFERENCES[2:], ChatTemplate(DEFAULT_TEMPLATE, tokenizer), tokenizer
        )
