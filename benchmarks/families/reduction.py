"""Reductions over everything, over rows, columns and a middle axis, from one row of 16 million to 16 million rows of one; scans."""

from collections.abc import Callable, Iterable
from typing import Any

import torch

import dlc
from benchmarks.families.matmul import peers
from benchmarks.harness import Case, case
from dlc import bf16, f32

_SHAPES = ((1, 1 << 24), (64, 1 << 18), (4096, 4096), (1000, 777), (1 << 18, 64), (1 << 21, 8))


def _kernel(name: str, axis: Any, rank: int, dtype: Any = f32) -> Any:
    function = getattr(dlc, name)
    shape = tuple(dlc.dims("A B C").__iter__())[:rank] if rank > 1 else (dlc.dims("A"),)

    @dlc.kernel
    def reduce(x: dtype[shape]):
        return function(x, axis=axis) if axis is not None else function(x)

    return reduce


def _case(title: str, name: str, axis: Any, shape: tuple[int, ...], function: Callable[..., object],
          dtype: torch.dtype = torch.float32) -> Case:
    ours = _kernel(name, axis, len(shape), bf16 if dtype is torch.bfloat16 else f32)
    size = torch.Size(shape).numel()
    return case(f"{title} {'x'.join(map(str, shape))}", lambda: [torch.randn(shape).to(dtype)], {"dlc": ours, **peers(function)},
                flops=size, bytes=size * dtype.itemsize)


def cases() -> Iterable[Case]:
    """Every case of the family."""
    for shape in _SHAPES:
        yield _case("sum all", "sum", None, shape, lambda x: x.sum())
        yield _case("sum rows", "sum", 1, shape, lambda x: x.sum(1))
        yield _case("sum columns", "sum", 0, shape, lambda x: x.sum(0))
    for shape in ((4096, 4096), (1000, 777), (1 << 18, 64)):
        yield _case("max rows", "max", 1, shape, lambda x: x.amax(1))
        yield _case("max columns", "max", 0, shape, lambda x: x.amax(0))
        yield _case("argmax rows", "argmax", 1, shape, lambda x: x.argmax(1))
        yield _case("mean rows", "mean", 1, shape, lambda x: x.mean(1))
        yield _case("var rows", "var", 1, shape, lambda x: x.var(1))
    yield _case("argmax columns", "argmax", 0, (4096, 4096), lambda x: x.argmax(0))
    yield _case("argmax all", "argmax", None, (4096, 4096), lambda x: x.argmax())
    for shape3 in ((64, 256, 512), (32, 1000, 77)):
        yield _case("sum middle", "sum", 1, shape3, lambda x: x.sum(1))
        yield _case("max middle", "max", 1, shape3, lambda x: x.amax(1))
        yield _case("sum outer and inner", "sum", (0, 2), shape3, lambda x: x.sum((0, 2)))
    yield _case("logsumexp rows", "logsumexp", 1, (4096, 1000), lambda x: x.logsumexp(1))
    yield _case("bf16 sum rows", "sum", 1, (4096, 4096), lambda x: x.sum(1), torch.bfloat16)
    yield _case("bf16 sum columns", "sum", 0, (4096, 4096), lambda x: x.sum(0), torch.bfloat16)
    yield _case("cumsum rows", "cumsum", 1, (1000, 4096), lambda x: x.cumsum(1))
    yield _case("cumsum columns", "cumsum", 0, (4096, 1000), lambda x: x.cumsum(0))
