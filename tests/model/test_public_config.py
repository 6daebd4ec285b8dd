"""Public `config.json` files become the right shapes and back; what we do not compute is refused by name."""

import pytest

from model.config import PRESETS, GPTConfig
from model.public_config import architecture, config_from_public, config_to_public
from tests.tiny import KINDS, make_config

LLAMA = {
    "model_type": "llama",
    "vocab_size": 32000,
    "max_position_embeddings": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "rope_scaling": None,
    "tie_word_embeddings": False,
}
LLAMA3_SCALING = {
    "factor": 32.0,
    "high_freq_factor": 4.0,
    "low_freq_factor": 1.0,
    "original_max_position_embeddings": 8192,
    "rope_type": "llama3",
}
LLAMA3 = {
    **LLAMA,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "num_hidden_layers": 16,
    "num_key_value_heads": 8,
    "hidden_size": 2048,
    "head_dim": 64,
    "intermediate_size": 8192,
    "rope_scaling": LLAMA3_SCALING,
    "rope_theta": 500000.0,
    "tie_word_embeddings": True,
    "attention_bias": False,
    "mlp_bias": False,
}
QWEN3 = {
    **LLAMA,
    "model_type": "qwen3",
    "vocab_size": 151936,
    "max_position_embeddings": 40960,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "hidden_size": 1024,
    "head_dim": 128,
    "intermediate_size": 3072,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000,
    "tie_word_embeddings": True,
    "sliding_window": None,
    "use_sliding_window": False,
    "max_window_layers": 28,
}
MISTRAL = {**LLAMA, "model_type": "mistral", "num_key_value_heads": 8, "max_position_embeddings": 32768}


@pytest.mark.parametrize(("public", "preset"), [(LLAMA, "llama-2-7b"), (LLAMA3, "llama-3.2-1b"), (QWEN3, "qwen3-0.6b")])
def test_the_public_files_of_version_4_are_the_presets(public: dict[str, object], preset: str) -> None:
    expected = PRESETS[preset]
    assert config_from_public(public) == expected.model_copy(update={"n_kv_head": expected.num_kv_heads})


def test_the_rope_keys_of_version_5_mean_the_same() -> None:
    old = {"rope_theta", "rope_scaling"}
    new = {**{key: value for key, value in LLAMA3.items() if key not in old}}
    new["rope_parameters"] = {**LLAMA3_SCALING, "rope_theta": 500000.0}
    assert config_from_public(new) == PRESETS["llama-3.2-1b"]


@pytest.mark.parametrize("config", [*PRESETS.values(), *map(make_config, KINDS)])
def test_what_is_written_reads_back_the_same(config: GPTConfig) -> None:
    expected = config
    if config.family == "llama":  # what followed from other sizes is written out
        expected = config.model_copy(update={"n_inner": config.inner_dim, "n_kv_head": config.num_kv_heads})
    assert config_from_public(config_to_public(config)) == expected


def test_a_window_as_long_as_the_context_changes_nothing() -> None:
    plain = config_from_public({**MISTRAL, "sliding_window": None})
    assert plain == config_from_public({**MISTRAL, "sliding_window": 32768})
    assert plain == config_from_public({**LLAMA, "num_key_value_heads": 8, "max_position_embeddings": 32768})
    qwen2 = {**LLAMA, "model_type": "qwen2", "sliding_window": 1024, "use_sliding_window": False}
    assert config_from_public(qwen2).attention_bias == "qkv"


@pytest.mark.parametrize(
    ("kind", "changes", "name"),
    [
        ("gpt2", {}, "GPT2LMHeadModel"),
        ("llama", {"attention_bias": "all"}, "LlamaForCausalLM"),
        ("llama3", {}, "LlamaForCausalLM"),
        ("qwen2", {}, "Qwen2ForCausalLM"),
        ("qwen3", {"attention_bias": "all"}, "Qwen3ForCausalLM"),
    ],
)
def test_each_kind_names_the_public_class_that_computes_it(kind: str, changes: dict[str, object], name: str) -> None:
    config = make_config(kind, **changes)
    assert architecture(config, is_classifier=False) == name
    classifier = name.replace("LMHeadModel", "For").replace("ForCausalLM", "For") + "SequenceClassification"
    assert architecture(config, is_classifier=True) == classifier


@pytest.mark.parametrize(
    ("public", "message"),
    [
        ({**MISTRAL, "sliding_window": 4096}, "sliding_window: 4096 is not supported where .* context of 32768"),
        (MISTRAL, "sliding_window: 4096 is not supported"),  # what transformers takes where the file says nothing
        ({**LLAMA, "quantization_config": {"quant_method": "gptq"}}, "quantization_config: quantized weights"),
        ({**LLAMA, "rope_parameters": {"full_attention": {"rope_theta": 1e6}}}, "different ones for different layers"),
        ({**LLAMA, "model_type": ["llama"]}, "model_type .* is not supported"),
        ({**LLAMA, "rope_scaling": [8.0]}, "a value is of the wrong type"),
        ({**MISTRAL, "max_position_embeddings": "32768"}, "a value is of the wrong type"),
        ({**QWEN3, "sliding_window": 512, "use_sliding_window": True}, "sliding_window: 512 is not supported"),
        ({**LLAMA, "mlp_bias": True}, "mlp_bias: True is not supported"),
        ({**LLAMA, "hidden_act": "gelu"}, "hidden_act 'gelu' is not supported"),
        ({**LLAMA, "rope_scaling": {"type": "linear", "factor": 2.0}}, "rope scaling of type 'linear'"),
        ({**LLAMA, "rope_scaling": {"rope_type": "llama3", "factor": 2.0}}, "key 'low_freq_factor' is missing"),
        ({**LLAMA, "partial_rotary_factor": 0.5}, "partial_rotary_factor: other than 1"),
        ({**LLAMA, "model_type": "gemma"}, "model_type 'gemma' is not supported; supported: gpt2, llama, mistral"),
    ],
)
def test_what_we_do_not_compute_is_refused_by_name(public: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config_from_public(public)
