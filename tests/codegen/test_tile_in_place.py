"""Results that are written over an input: found where the input has been read by then, and the same bits as apart."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

import dlc
from codegen.tile.in_place import find_in_place
from dlc import f32, i64
from dsl.errors import ArgumentError

M, N = dlc.dims("M N")


def momentum(p: f32[N], g: f32[N], m: f32[N]):
    new = 0.9 * m + g
    return p - 0.1 * new, new


def softmax(x: f32[M, N]):
    return dlc.softmax(x, -1)


def norm(x: f32[M, N], w: f32[N]):
    return dlc.layer_norm(x, (N,), w)


def prefix(x: f32[M, N]):
    return dlc.cumsum(x, -1)


def copied(x: f32[M, N]):
    return dlc.compute((M, N), lambda i, j: x[i, j])


def product(x: f32[M, M], w: f32[M, M]):
    return x @ w


def turned(x: f32[M, M]):
    return dlc.transpose(x, 0, 1)


def flipped(x: f32[N]):
    return dlc.flip(x, (0,))


def rolled(x: f32[N]):
    return dlc.roll(x, 1, 0)


def neighbours(x: f32[N]):
    return dlc.compute((N,), lambda i: x[i] + dlc.where(i > 0, x[i - 1], 0.0))


def both(x: f32[M, N], y: f32[M, N]):
    return x + y, dlc.transpose(x, 0, 1) @ y


def taken(x: f32[N], at: i64[N]):
    return dlc.compute((N,), lambda i: x[at[i]] + x[i])


FOUND: dict[str, tuple[Callable[..., Any], list[tuple[int, ...]], set[tuple[int, int]]]] = {
    "an update": (momentum, [(1001,)] * 3, {(n, k) for n in range(3) for k in range(2)}),
    "rows": (softmax, [(13, 101)], {(0, 0)}),
    "long rows": (softmax, [(3, 5000)], {(0, 0)}),
    "normalised rows": (norm, [(13, 101), (101,)], {(0, 0)}),
    "running sums": (prefix, [(7, 50)], {(0, 0)}),
    "a copy": (copied, [(5, 33)], {(0, 0)}),
    "a product": (product, [(100, 100), (100, 100)], set()),
    "a transpose": (turned, [(20, 20)], set()),
    "backwards": (flipped, [(50,)], set()),
    "moved": (rolled, [(50,)], set()),
    "neighbours": (neighbours, [(50,)], set()),
}


def _args(shapes: list[tuple[int, ...]]) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(s) for s in shapes]


@pytest.mark.parametrize("name", FOUND)
def test_what_may_lie_where(name: str) -> None:
    fn, shapes, pairs = FOUND[name]
    args = _args(shapes)
    assert set(find_in_place(dlc.kernel(fn).plan(*args).tile)) == pairs


@pytest.mark.parametrize("name", [n for n, (*_, pairs) in FOUND.items() if pairs])
def test_the_same_bits(name: str) -> None:
    fn, shapes, pairs = FOUND[name]
    kernel, args = dlc.kernel(fn), _args(shapes)
    apart = kernel(*args)
    wanted = apart if isinstance(apart, tuple) else (apart,)
    for n, k in sorted(pairs):
        mine = [a.clone() for a in args]
        outs = [torch.empty_like(w) for w in wanted]
        outs[k] = mine[n]
        for _ in range(2):  # by the checks, then by the function written for these arguments
            mine[n].copy_(args[n])
            kernel(*mine, out=tuple(outs) if len(outs) > 1 else outs[0])
            assert all(torch.equal(o, w) for o, w in zip(outs, wanted))


def test_everything_at_once() -> None:
    p, g, m = _args([(1001,)] * 3)
    kernel = dlc.kernel(momentum)
    wanted = kernel(p, g, m)
    kernel(p, g, m, out=(p, m))
    assert torch.equal(p, wanted[0]) and torch.equal(m, wanted[1])


def test_numpy_arrays_and_sizes_that_change() -> None:
    kernel = dlc.kernel(momentum)
    for n in (5, 17, 33, 70, 129, 257):
        args = _args([(n,)] * 3)
        wanted = kernel(*args)
        p, g, m = (a.numpy().copy() for a in args)
        kernel(p, g, m, out=(p, m))
        assert (p == wanted[0].numpy()).all() and (m == wanted[1].numpy()).all()


@pytest.mark.parametrize("name", [n for n, (*_, pairs) in FOUND.items() if not pairs])
def test_refused(name: str) -> None:
    fn, shapes, _ = FOUND[name]
    args = _args(shapes)
    with pytest.raises(ArgumentError, match="overlaps another argument"):
        dlc.kernel(fn)(*args, out=args[0])


def test_an_input_that_is_still_read() -> None:
    x, y = _args([(6, 6), (6, 6)])
    kernel = dlc.kernel(both)
    with pytest.raises(ArgumentError, match="overlaps another argument"):
        kernel(x, y, out=(x, torch.empty(6, 6)))


def test_a_kernel_that_may_stop_half_way_leaves_its_input_alone() -> None:
    x = torch.randn(8)
    with pytest.raises(ArgumentError, match="overlaps another argument"):
        dlc.kernel(taken)(x, torch.arange(8), out=x)


def test_part_of_an_input_is_no_place() -> None:
    base = torch.randn(11)
    with pytest.raises(ArgumentError, match="overlaps another argument"):
        dlc.kernel(momentum)(base[:10], torch.randn(10), torch.randn(10), out=(base[1:], torch.empty(10)))
