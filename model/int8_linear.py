"""Linear layers with weights of 8 bits, for serving on a CPU: exact products of small integers between scales.

Each output channel has a scale of its own, and so has each token's input, found when it comes. The sums in between are
whole numbers, so a token's result has the same bits whichever tokens stand beside it. It knows nothing of GPTs;
docs/benchmarks.md says what the weights lose and which ways were slower.
"""

import warnings

import torch
from torch import Tensor, nn

from model.opaque_product import Multiply, OpaqueProduct

WEIGHT_LEVELS = 127
"""Weights become whole numbers from -127 to 127."""
TINY = torch.finfo(torch.float32).tiny
"""Instead of a scale of 0."""


class Int8Linear(nn.Module):
    """Stands in for an `nn.Linear` whose weights no longer change; inputs and outputs are float32."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight, scales = quantize_rows(linear.weight.detach().float())
        self._product = OpaqueProduct(make_product(weight, scales), linear.out_features)
        self._bias = torch.zeros(1) if linear.bias is None else linear.bias.detach().float()

    def forward(self, x: Tensor) -> Tensor:
        # In place and without `abs`: of a long prompt, each copy of inputs or outputs is tens of megabytes.
        scale = torch.maximum(x.amax(-1, keepdim=True), x.amin(-1, keepdim=True).neg_()).clamp_min_(TINY)  # (..., 1)
        out = self._product(x / scale)
        return torch.addcmul(self._bias, out, scale, out=out)


def quantize_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Round a matrix to int8 (N, K), with the scale of each row (N,) that turns it back."""
    scales = weight.abs().amax(dim=1).clamp_min(TINY) / WEIGHT_LEVELS
    return (weight / scales[:, None]).round().to(torch.int8), scales


def make_product(weight: Tensor, scales: Tensor) -> Multiply:
    """Pack an int8 weight for the fastest product that this build of PyTorch has, of inputs within -1 and 1.

    FBGEMM's takes half of oneDNN's time at one row, but PyTorch has announced to remove the kind of tensor that it
    packs its weights from. Both multiply the same integers.

    Raises:
        ValueError: the build has neither, as on other processors than x86.
    """
    if "fbgemm" in torch.backends.quantized.supported_engines and hasattr(torch, "quantize_per_channel"):
        return make_fbgemm_product(weight, scales)
    if hasattr(torch.ops.onednn, "qlinear_prepack"):
        return make_onednn_product(weight, scales)
    raise ValueError("--quantize int8: this build of PyTorch has no products of 8-bit numbers for this processor")


def make_fbgemm_product(weight: Tensor, scales: Tensor) -> Multiply:
    """The product through FBGEMM."""
    # Without VNNI, two products are added in 16 bits, which 8-bit inputs would overflow: 7 bits then.
    levels = 127 if torch.cpu._is_vnni_supported() else 63
    zero = levels + 1  # inputs are unsigned on this way
    engine = torch.backends.quantized.engine
    torch.backends.quantized.engine = "fbgemm"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.quantize_per_tensor", category=UserWarning)
        whole = torch._make_per_channel_quantized_tensor(weight, scales.double(), torch.zeros_like(scales).long(), 0)
    packed = torch.ops.quantized.linear_prepack(whole, None)
    torch.backends.quantized.engine = engine
    # `_op`: the call in front of it looks through all arguments each time, a tenth of a product of one row.
    multiply = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32.default._op
    return lambda x: multiply(x, 1 / levels, zero, packed)


def make_onednn_product(weight: Tensor, scales: Tensor) -> Multiply:
    """The product through oneDNN."""
    levels, zero = 127, 128
    packed = torch.ops.onednn.qlinear_prepack(weight, None)
    zeros = torch.zeros_like(scales).long()
    shift = torch.tensor(float(zero))
    multiply = torch.ops.onednn.qlinear_pointwise

    def product(x: Tensor) -> Tensor:
        whole = torch.add(shift, x, alpha=levels).round_().to(torch.uint8)
        out: Tensor = multiply(
            whole, 1 / levels, zero, packed, scales, zeros, None, 1.0, 0, torch.float32, "none", [], ""
        )
        return out

    return product
