"""Reductions over everything, over rows, columns and a middle axis, from one row of 16 million to 16 million rows of one; scans."""

from collections.abc import Callable, Iterable
from typing import Any

import torch

import dlc
from benchmarks.calls import jax
from benchmarks.harness import Case, case, peers
from dlc import f32

_SHAPES = ((1, 1 << 24), (64, 1 << 18), (4096, 4096), (1000, 777), (1 << 18, 64), (1 << 21, 8), (1 << 24, 1))
_DTYPES = {torch.float32: dlc.f32, torch.bfloat16: dlc.bf16, torch.float16: dlc.f16, torch.float64: dlc.f64, torch.int32: dlc.i32,
           torch.int64: dlc.i64}


def _kernel(name: str, axis: Any, rank: int, dtype: Any = f32) -> Any:
    function = getattr(dlc, name)
    shape = tuple(dlc.dims("A B C").__iter__())[:rank] if rank > 1 else (dlc.dims("A"),)

    @dlc.kernel
    def reduce(x: dtype[shape]):
        return function(x, axis=axis) if axis is not None else function(x)

    return reduce


def _operand(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(shape).to(dtype) if dtype.is_floating_point else torch.randint(-1000, 1000, shape, dtype=dtype)


def _case(title: str, name: str, axis: Any, shape: tuple[int, ...], function: Callable[..., object],
          in_jax: Callable[..., object], dtype: torch.dtype = torch.float32) -> Case:
    ours = _kernel(name, axis, len(shape), _DTYPES[dtype])
    size = torch.Size(shape).numel()
    return case(f"{title} {'x'.join(map(str, shape))}", lambda: [_operand(shape, dtype)], {"dlc": ours, **peers(function, in_jax)},
                flops=size, bytes=size * dtype.itemsize)


def cases() -> Iterable[Case]:
    """Every case of the family."""
    for shape in _SHAPES:
        yield _case("sum all", "sum", None, shape, lambda x: x.sum(), lambda x: x.sum())
        yield _case("sum rows", "sum", 1, shape, lambda x: x.sum(1), lambda x: x.sum(1))
        yield _case("sum columns", "sum", 0, shape, lambda x: x.sum(0), lambda x: x.sum(0))
    for shape in ((4096, 4096), (1000, 777), (1 << 18, 64)):
        yield _case("max rows", "max", 1, shape, lambda x: x.amax(1), lambda x: x.max(1))
        yield _case("max columns", "max", 0, shape, lambda x: x.amax(0), lambda x: x.max(0))
        yield _case("argmax rows", "argmax", 1, shape, lambda x: x.argmax(1), lambda x: x.argmax(1))
        yield _case("mean rows", "mean", 1, shape, lambda x: x.mean(1), lambda x: x.mean(1))
        yield _case("var rows", "var", 1, shape, lambda x: x.var(1), lambda x: x.var(1, ddof=1))
    yield _case("argmax columns", "argmax", 0, (4096, 4096), lambda x: x.argmax(0), lambda x: x.argmax(0))
    yield _case("argmax all", "argmax", None, (4096, 4096), lambda x: x.argmax(), lambda x: x.argmax())
    for shape3 in ((64, 256, 512), (32, 1000, 77)):
        yield _case("sum middle", "sum", 1, shape3, lambda x: x.sum(1), lambda x: x.sum(1))
        yield _case("max middle", "max", 1, shape3, lambda x: x.amax(1), lambda x: x.max(1))
        yield _case("sum outer and inner", "sum", (0, 2), shape3, lambda x: x.sum((0, 2)), lambda x: x.sum((0, 2)))
    yield _case("logsumexp rows", "logsumexp", 1, (4096, 1000), lambda x: x.logsumexp(1),
                lambda x: jax.nn.logsumexp(x, 1))
    yield _case("bf16 sum rows", "sum", 1, (4096, 4096), lambda x: x.sum(1), lambda x: x.sum(1),
                torch.bfloat16)
    yield _case("bf16 sum columns", "sum", 0, (4096, 4096), lambda x: x.sum(0), lambda x: x.sum(0),
                torch.bfloat16)
    for dtype in (torch.float16, torch.float64, torch.int32, torch.int64):
        name = str(dtype).removeprefix("torch.")
        yield _case(f"{name} sum rows", "sum", 1, (1000, 2000), lambda x: x.sum(1), lambda x: x.sum(1), dtype)
        yield _case(f"{name} max columns", "max", 0, (1000, 2000), lambda x: x.amax(0), lambda x: x.max(0), dtype)
    yield _case("cumsum rows", "cumsum", 1, (1000, 4096), lambda x: x.cumsum(1), lambda x: x.cumsum(1))
    yield _case("cumsum columns", "cumsum", 0, (4096, 1000), lambda x: x.cumsum(0), lambda x: x.cumsum(0))
