"""Operations that cost many instructions an element: exponentials, logarithms, trigonometry, activations."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as nn

import dlc
from benchmarks.calls import jax, jnp
from benchmarks.harness import Case, case, peers
from dlc import f32

M, N = dlc.dims("M N")


def _one(name: str) -> Any:
    function = getattr(dlc, name)

    @dlc.kernel
    def apply(x: f32[M, N]):
        return function(x)

    return apply


@dlc.kernel
def _power(x: f32[M, N], y: f32[M, N]):
    return dlc.pow(x, y)


@dlc.kernel
def _mixed(x: f32[M, N]):
    return dlc.tanh(dlc.exp(-x * x) * dlc.cos(x)) + dlc.log1p(dlc.abs(x))


_UNARY: dict[str, Callable[..., object]] = {
    "exp": torch.exp, "log": torch.log, "log1p": torch.log1p, "expm1": torch.expm1, "tanh": torch.tanh, "sigmoid": torch.sigmoid,
    "erf": torch.erf, "sin": torch.sin, "cos": torch.cos, "atan": torch.atan, "sqrt": torch.sqrt, "rsqrt": torch.rsqrt,
    "gelu": nn.gelu, "silu": nn.silu, "softplus": nn.softplus,
}


def _in_jax(name: str) -> Callable[..., object]:
    """JAX has most under the same name, in one module or another; its gelu is the approximate one unless told otherwise."""
    if name == "gelu":
        return lambda x: jax.nn.gelu(x, approximate=False)

    def function(*x: Any) -> Any:
        return next(getattr(module, name) for module in (jnp, jax.nn, jax.lax) if hasattr(module, name))(*x)

    return function


def _mixed_of(np: Any) -> Callable[..., Any]:
    return lambda x: np.tanh(np.exp(-x * x) * np.cos(x)) + np.log1p(np.abs(x))


def cases() -> Iterable[Case]:
    """Every case of the family."""
    m, n = 1000, 1000
    for name, function in _UNARY.items():
        yield case(f"{name} {m}x{n}", lambda: [torch.rand(m, n) * 4 + 0.01], {"dlc": _one(name), **peers(function, _in_jax(name))},
                   bytes=8 * m * n)
    yield case(f"pow {m}x{n}", lambda: [torch.rand(m, n) * 4, torch.randn(m, n)], {"dlc": _power, **peers(torch.pow, _in_jax("pow"))},
               bytes=12 * m * n)
    yield case(f"tanh exp cos log1p {m}x{n}", lambda: [torch.randn(m, n)],
               {"dlc": _mixed, **peers(_mixed_of(torch), _mixed_of(jnp))}, bytes=8 * m * n)
