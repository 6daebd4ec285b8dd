import math

import numpy as np
import pytest
import torch

from model.tokenizer import Tokenizer
from tests.tiny import make_config, make_gpt
from tests.vocabularies import LLAMA2_CONFIG, llama2
from training.data.encoding import encode_documents
from training.data.errors import DataError
from training.evaluation.text import text_metrics, token_metrics


def test_bits_per_byte_of_an_even_guess_follow_from_the_vocabulary(tokenizer: Tokenizer) -> None:
    model = make_gpt(make_config("llama"))
    with torch.no_grad():
        model.ln_f.weight.zero_()  # every logit is 0: each of the 384 tokens is as likely
    text = "The quick brown fox jumps over the lazy dog. " * 9
    metrics = text_metrics(model, [text, text], tokenizer)
    num_tokens = 2 * (len(tokenizer.encode(text)) + 1)
    assert metrics["num_targets"] == num_tokens
    assert metrics["loss"] == pytest.approx(math.log(384), rel=1e-5)
    assert metrics["perplexity"] == pytest.approx(384, rel=1e-4)
    assert metrics["bits_per_byte"] == pytest.approx(num_tokens * math.log2(384) / (2 * len(text)), rel=1e-5)


def test_each_token_is_scored_as_if_alone_with_its_context(tokenizer: Tokenizer) -> None:
    model = make_gpt(make_config("gpt2", block_size=16))
    text = "Whenever thunder rolled above those empty hills, seven children counted slowly."
    ids = [tokenizer.eos_id, *tokenizer.encode(text), tokenizer.eos_id]
    nats = 0.0
    for place in range(1, len(ids)):
        start = 0 if place <= 16 else 8 * math.ceil((place - 16) / 8)  # windows start every half context
        logits = model.logits(model(torch.tensor([ids[start:place]])))[0, -1].log_softmax(-1)
        nats -= logits[ids[place]].item()
    assert text_metrics(model, [text], tokenizer)["loss"] == pytest.approx(nats / (len(ids) - 1), rel=1e-5)


def test_a_text_opens_once_whether_its_ids_bring_the_opening_token_or_not() -> None:
    tokenizer = Tokenizer(llama2(), LLAMA2_CONFIG)
    model = make_gpt(make_config("llama", vocab_size=tokenizer.vocab_size, block_size=16))
    texts = ["The quick brown fox.", "Nobody saw it land."]
    num_bytes = sum(map(len, texts))
    as_trained = encode_documents(texts, tokenizer)
    assert as_trained[0] == tokenizer.bos_ids[0]
    expected = token_metrics(model, [as_trained[1:]], tokenizer, num_bytes=num_bytes)
    assert token_metrics(model, [as_trained], tokenizer, num_bytes=num_bytes) == expected
    assert text_metrics(model, texts, tokenizer) == expected
    assert expected["num_targets"] == len(as_trained) - 1


def test_a_text_without_bytes_is_refused(tokenizer: Tokenizer) -> None:
    model = make_gpt(make_config("llama"))
    for shards in ([], [np.array([tokenizer.eos_id], np.uint16)]):
        with pytest.raises(DataError, match="--data: there is no text in it"):
            token_metrics(model, shards, tokenizer, num_bytes=0)
