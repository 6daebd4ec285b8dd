"""Products that a compiled model calls as they are: `torch.compile` cannot see into weights that a library has packed.

Compiled code can only name such a product by a number.
"""

from collections.abc import Callable
from itertools import count
from weakref import WeakValueDictionary

import torch
from torch import Tensor, library

Multiply = Callable[[Tensor], Tensor]
"""From inputs (..., in_features) to outputs (..., out_features) of the same type."""


class OpaqueProduct:
    """A product by a packed weight; called by itself it costs nothing more."""

    def __init__(self, multiply: Multiply, out_features: int) -> None:
        self.multiply = multiply
        self.out_features = out_features
        self.number = next(_numbers)
        _products[self.number] = self

    def __call__(self, x: Tensor) -> Tensor:
        """Return (..., out_features) for `x` (..., in_features)."""
        if not torch.compiler.is_compiling():
            return self.multiply(x)
        out: Tensor = torch.ops.groundup.product.default(x, self.number, self.out_features)
        return out


_numbers = count()
_products: WeakValueDictionary[int, OpaqueProduct] = WeakValueDictionary()
_library = library.Library("groundup", "DEF")  # type: ignore[no-untyped-call]
_library.define("product(Tensor x, int number, int out_features) -> Tensor")  # type: ignore[no-untyped-call]
for _key, _function in {
    "CPU": lambda x, number, _: _products[number].multiply(x),
    "Meta": lambda x, _, out_features: x.new_empty(*x.shape[:-1], out_features),
}.items():
    _library.impl("product", _function, _key)  # type: ignore[no-untyped-call]
