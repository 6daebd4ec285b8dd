"""Models of transformers with the weights of ours, in float64, for tests that hold one to the other."""

from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedModel

from model.checkpoint import public_views
from model.classifier import GPTClassifier
from model.config import GPTConfig
from model.gpt import GPT
from model.public_config import config_to_public
from tests.tiny import make_gpt


def pair(config: GPTConfig) -> tuple[GPT, PreTrainedModel]:
    """Our model and transformers' with the same float64 weights."""
    ours = make_gpt(config).double()
    return ours, twin(ours)


def twin(ours: GPT | GPTClassifier) -> PreTrainedModel:
    """transformers' model with the weights of ours, in float64; its own RMSNorms would go through float32."""
    public = config_to_public(ours.config)
    if isinstance(ours, GPTClassifier):
        config = AutoConfig.for_model(**public, num_labels=ours.num_labels, pad_token_id=0)
        theirs = AutoModelForSequenceClassification.from_config(config)
    else:
        theirs = AutoModelForCausalLM.from_config(AutoConfig.for_model(**public))
    theirs = theirs.double().eval()
    for parent in list(theirs.modules()):
        for name, child in parent.named_children():
            if type(child).__name__.endswith("RMSNorm"):
                setattr(parent, name, nn.RMSNorm(child.weight.shape, eps=child.variance_epsilon).double())
    missing, unexpected = theirs.load_state_dict(dict(public_views(ours)), strict=False)
    assert not unexpected
    assert set(missing) <= {"lm_head.weight"}
    theirs.tie_weights()
    return theirs
