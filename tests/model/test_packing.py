"""Packed documents are read as if each stood alone: the same hidden states, the same gradients, no leak."""

import pytest
import torch
from torch import Tensor

from model.gpt import GPT
from model.packing import DocumentMask, document_ends
from tests.tiny import KINDS, make_config, make_gpt

LENGTHS = [[5, 1, 17, 9], [32], [31, 1]]
"""Lengths of the documents of each row."""


def pack(lengths: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Positions and document ids (B, T) of rows of documents."""
    positions = [torch.cat([torch.arange(length) for length in row]) for row in lengths]
    documents = [torch.repeat_interleave(torch.arange(len(row)), torch.tensor(row)) for row in lengths]
    return torch.stack(positions), torch.stack(documents)


def alone(model: GPT, idx: Tensor, lengths: list[list[int]]) -> Tensor:
    """Hidden states (B, T, C) when every document is a batch of its own."""
    rows = [
        torch.cat([model(document[None])[0] for document in tokens.split(row)])
        for tokens, row in zip(idx, lengths, strict=True)
    ]
    return torch.stack(rows)


@pytest.fixture(params=KINDS)
def model(request: pytest.FixtureRequest) -> GPT:
    return make_gpt(make_config(request.param)).double()


@pytest.mark.parametrize("lengths", [LENGTHS, [[32], [32]]], ids=["several", "one document a row"])
def test_packed_documents_give_the_states_and_gradients_of_each_alone(model: GPT, lengths: list[list[int]]) -> None:
    idx = torch.randint(384, (len(lengths), 32))
    positions, documents = pack(lengths)
    weights = torch.randn(len(lengths), 32, 32, dtype=torch.float64)
    packed = model(idx, positions, DocumentMask(documents))
    (packed * weights).sum().backward()
    gradients = [parameter.grad for parameter in model.parameters()]
    model.zero_grad()
    expected = alone(model, idx, lengths)
    (expected * weights).sum().backward()
    torch.testing.assert_close(packed, expected, atol=1e-12, rtol=1e-10)
    for ours, parameter in zip(gradients, model.parameters(), strict=True):
        torch.testing.assert_close(ours, parameter.grad, atol=1e-10, rtol=1e-8)


@pytest.mark.parametrize("forgotten", ["mask", "positions"])
def test_a_document_that_sees_its_neighbour_or_counts_on_is_noticed(model: GPT, forgotten: str) -> None:
    idx = torch.randint(384, (3, 32))
    positions, documents = pack(LENGTHS)
    with torch.no_grad():
        if forgotten == "mask":
            wrong = model(idx, positions)
        else:
            wrong = model(idx, torch.arange(32).expand(3, 32), DocumentMask(documents))
        difference = (wrong - alone(model, idx, LENGTHS)).abs().amax(-1)  # (B, T)
    assert (difference[1] < 1e-12).all()  # one document, which fills its row
    learned = model.wpe is not None  # rotary attention looks at distances only, so a shift changes nothing
    assert (difference[0, 5:] > 1e-3).all() or (forgotten == "positions" and not learned)


def test_attention_weights_are_dropped_in_training_only() -> None:
    model = make_gpt(make_config("llama", dropout=0.5))
    for block in model.h:
        block.drop.p = 0.0
    model.drop.p = 0.0
    idx = torch.randint(384, (3, 32))
    positions, documents = pack(LENGTHS)

    def run() -> Tensor:
        with torch.no_grad():
            return model(idx, positions, DocumentMask(documents))

    assert torch.equal(run(), run())
    model.train()
    assert not torch.equal(run(), run())


def test_documents_end_at_their_last_token_and_at_the_end_of_their_row() -> None:
    _, documents = pack([[2, 3], [5], [4, 1]])
    assert document_ends(documents).tolist() == [0, 2, 5, 10, 14, 15]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kind", KINDS)
def test_on_a_gpu_packed_documents_give_the_states_and_gradients_of_the_mask_on_a_cpu(kind: str) -> None:
    model = make_gpt(make_config(kind))
    idx = torch.randint(384, (3, 32))
    positions, documents = pack(LENGTHS)
    expected = model(idx, positions, DocumentMask(documents))
    expected.square().mean().backward()
    expected_grad = model.wte.weight.grad.clone()
    model.zero_grad()
    model.cuda()
    with torch.autocast("cuda", dtype=torch.bfloat16):
        packed = model(idx.cuda(), positions.cuda(), DocumentMask(documents.cuda()))
        alone_too = alone(model, idx.cuda(), LENGTHS)
    packed.float().square().mean().backward()
    scale = expected.abs().max()
    assert (packed.cpu() - expected).abs().max() < 0.05 * scale
    assert (packed - alone_too).abs().max() < 0.05 * scale
    assert (model.wte.weight.grad.cpu() - expected_grad).abs().max() < 0.1 * expected_grad.abs().max()
