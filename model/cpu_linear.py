"""Linear layers for serving on a CPU: the same products through oneDNN, with weights in its blocked layout.

PyTorch multiplies float32 matrices through MKL, whose kernels for a few rows at a time, the shape of a decode step, run
far below memory speed on CPUs that are not Intel's. docs/benchmarks.md has the figures. It knows nothing of GPTs.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from model.int8_linear import Int8Linear
from model.opaque_product import OpaqueProduct

Quantization = Literal["int8"]

EXPECTED_ROWS = 32
"""The number of rows the blocked layout is chosen for; others work as well, if not always as fast."""


class CpuLinear(nn.Module):
    """Stands in for an `nn.Linear` whose weights no longer change."""

    def __init__(self, linear: nn.Linear, *, is_shared: bool) -> None:
        super().__init__()
        weight = linear.weight.detach()
        if not is_shared:  # a shared weight is also read row by row, so it keeps its layout rather than a second copy
            weight = torch.ops.mkldnn._reorder_linear_weight(weight, EXPECTED_ROWS)
        self.weight = weight
        bias = None if linear.bias is None else linear.bias.detach()
        multiply = torch.ops.mkldnn._linear_pointwise.default
        self._product = OpaqueProduct(lambda x: multiply(x, weight, bias, "none", [], ""), linear.out_features)

    def forward(self, x: Tensor) -> Tensor:
        return self._product(x)


def pack_linears(model: nn.Module, quantization: Quantization | None = None) -> None:
    """Swap every linear layer of a CPU model for a faster one, in place; the model can no longer be trained or saved.

    One copy of the weights remains, but for a head of 8 bits beside the embedding it was shared with, whose rows are
    still looked up as they were. Where PyTorch was built without oneDNN nothing is changed, unless 8 bits are wanted.

    Raises:
        ValueError: this build of PyTorch cannot multiply such weights on this processor.
    """
    if quantization is None and not hasattr(torch.ops.mkldnn, "_reorder_linear_weight"):
        return
    owners: dict[int, int] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.Linear):
                packed = (
                    CpuLinear(child, is_shared=owners[id(child.weight)] > 1)
                    if quantization is None
                    else Int8Linear(child)
                )
                setattr(parent, name, packed)
