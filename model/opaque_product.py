"""Products that a compiled model calls as they are: `torch.compile` cannot see into weights that a library has packed.

Compiled code can only name such a product by a number. It is the product's place in its model, so that models of one
shape have the same code; whose products are meant is said when the code runs.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, library, nn

Multiply = Callable[[Tensor], Tensor]
"""From inputs (..., in_features) to outputs (..., out_features) of the same type."""


class OpaqueProduct:
    """A product by a packed weight; called by itself it costs nothing more."""

    def __init__(self, multiply: Multiply, out_features: int) -> None:
        self.multiply = multiply
        self.out_features = out_features
        self.number: int | None = None
        """Its place among those of its model, once they are numbered."""

    def __call__(self, x: Tensor) -> Tensor:
        """Return (..., out_features) for `x` (..., in_features)."""
        if not torch.compiler.is_dynamo_compiling():  # in this thread, while `is_compiling` tells of any
            return self.multiply(x)
        out: Tensor = torch.ops.groundup.product.default(x, self.number, self.out_features)
        return out


class _Thread(threading.local):
    products: Sequence[OpaqueProduct] = ()
    """Those that numbers mean in this thread."""


_thread = _Thread()


def number_products(model: nn.Module) -> list[OpaqueProduct]:
    """Number the products of a model, and return them in that order."""
    attributes = [value for module in model.modules() for value in vars(module).values()]
    products = [value for value in attributes if isinstance(value, OpaqueProduct)]
    for number, product in enumerate(products):
        product.number = number
    return products


@contextmanager
def meaning(products: Sequence[OpaqueProduct]) -> Iterator[None]:
    """Let numbers mean these products, within and in this thread."""
    _thread.products = products
    try:
        yield
    finally:
        _thread.products = ()


_library = library.Library("groundup", "DEF")  # type: ignore[no-untyped-call]
_library.define("product(Tensor x, int number, int out_features) -> Tensor")  # type: ignore[no-untyped-call]
for _key, _function in {
    "CPU": lambda x, number, _: _thread.products[number].multiply(x),
    "Meta": lambda x, _, out_features: x.new_empty(*x.shape[:-1], out_features),
}.items():
    _library.impl("product", _function, _key)  # type: ignore[no-untyped-call]
