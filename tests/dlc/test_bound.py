"""kernel.bind: constants are packed once, noticed when they change, given back on request; the results are the kernel's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import dlc
from dlc import bf16, f32, i64
from dsl.errors import ArgumentError, DlcError, ShapeError

M, N, K, V, B = dlc.dims("M N K V B")


@dlc.kernel
def linear(x: f32[M, K], w: f32[N, K], b: f32[N]):
    return dlc.gelu(dlc.linear(x, w, b))


@dlc.kernel
def product(x: f32[M, K], w: f32[K, N]):
    return x @ w


@dlc.kernel
def gated(x: f32[B, M, K], u: f32[N, K], v: f32[N, K]):
    return dlc.silu(dlc.linear(x, u)) * dlc.linear(x, v)


@dlc.kernel
def twice(x: f32[M, K], w: f32[K, K]):
    return (x @ w) @ w


@dlc.kernel
def brain(x: bf16[M, K], w: bf16[N, K]):
    return dlc.linear(x, w)


def same(got: Any, expected: Any) -> None:
    torch.testing.assert_close(got, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("m", [1, 2, 4, 5, 7, 13, 64])
@pytest.mark.parametrize(("n", "k"), [(70, 37), (16, 64), (130, 5)])
def test_the_results_are_those_of_the_kernel(m: int, n: int, k: int) -> None:
    x, w, b = torch.randn(m, k), torch.randn(n, k), torch.randn(n)
    same(linear.bind(w=w, b=b)(x), linear(x, w, b))
    same(product.bind(w=w.T.contiguous())(x), x @ w.T)
    same(product.bind(w=w.T)(x), x @ w.T)  # a view


def test_every_dimension_but_the_constants_may_change() -> None:
    w = torch.randn(40, 24)
    bound = linear.bind(w=w, b=torch.zeros(40))
    for m in (4, 9, 17, 5, 33, 1, 64, 8):
        x = torch.randn(m, 24)
        same(bound(x), linear(x, w, torch.zeros(40)))


def test_several_constants_and_batches() -> None:
    x, u, v = torch.randn(2, 9, 20), torch.randn(33, 20), torch.randn(33, 20)
    bound = gated.bind(u=u, v=v)
    same(bound(x), gated(x, u, v))
    assert set(bound.packed) == {"u", "v"}
    half = gated.bind(v=v)
    same(half(x, u), gated(x, u, v))
    same(half(u=u, x=x), gated(x, u, v))
    assert set(half.packed) == {"v"} and repr(half).startswith("<gated of x, u>")


def test_a_weight_of_two_products_is_read_as_it_lies() -> None:
    x, w = torch.randn(8, 16), torch.randn(16, 16)
    bound = twice.bind(w=w)
    same(bound(x), twice(x, w))
    assert bound.packed == {} and bound.explain() == "w: f32[16, 16], read as it lies"


def test_low_precision_is_converted_as_it_is_read() -> None:
    x, w = torch.randn(8, 64).bfloat16(), torch.randn(48, 64).bfloat16()
    torch.testing.assert_close(brain.bind(w=w)(x), brain(x, w), rtol=1e-2, atol=1e-2)


def test_a_change_of_the_weight_is_noticed() -> None:
    x, w, b = torch.randn(8, 20), torch.nn.Parameter(torch.randn(30, 20)), torch.randn(30)
    bound = linear.bind(w=w, b=b)
    with torch.no_grad():
        first = bound(x)
        kept = bound.constants["w"].packed
        w.add_(1.0)
        b.mul_(2.0)
        same(bound(x), linear(x, w, b))
        assert bound.constants["w"].packed is kept and not torch.equal(bound(x), first)
        w.data = torch.randn(30, 20)  # other memory
        same(bound(x), linear(x, w, b))
        w.data.fill_(1.0)  # not counted by torch
        assert not torch.allclose(bound(x), linear(x, w, b))
        bound.refresh()
        same(bound(x), linear(x, w, b))


def test_memory_is_stated_and_given_back() -> None:
    x, w = torch.randn(8, 100), torch.randn(70, 100)
    bound = linear.bind(w=w, b=torch.zeros(70))
    width = bound.constants["w"].panels.width  # type: ignore[union-attr]
    total = -(-70 // width) * width * 100 * 4
    assert bound.packed == {} and f"w: f32[70, 100], in panels of {width} along dimension 0, {total} bytes when first called" in repr(bound)
    bound(x)
    packed = bound.constants["w"].packed
    assert packed is not None and bound.packed == {"w": total} and packed.numel() * 4 == total
    assert bound.explain() == f"w: f32[70, 100], in panels of {width} along dimension 0, {total} bytes\nb: f32[70], read as it lies"
    assert bound.free() == total and bound.packed == {} and bound.free() == 0
    same(bound(x), linear(x, w, torch.zeros(70)))
    assert bound.packed == {"w": total}


def test_few_rows_need_no_panels() -> None:
    bound = linear.bind(w=torch.randn(64, 32), b=torch.zeros(64))
    bound(torch.randn(1, 32))
    assert bound.packed == {}
    bound(torch.randn(8, 32))
    assert bound.packed


def test_gradients_are_those_of_the_kernel() -> None:
    x, w, b = torch.randn(8, 20, requires_grad=True), torch.randn(30, 20, requires_grad=True), torch.randn(30)
    linear.bind(w=w, b=b)(x).sum().backward()
    got = x.grad.clone(), w.grad.clone()
    x.grad = w.grad = None
    linear(x, w, b).sum().backward()
    assert torch.equal(got[0], x.grad) and torch.equal(got[1], w.grad)


def test_memory_for_the_result_and_arrays() -> None:
    x, w, b = torch.randn(8, 20), torch.randn(30, 20), torch.randn(30)
    bound, out = linear.bind(w=w, b=b), torch.empty(8, 30)
    assert bound(x, out=out) is out
    same(out, linear(x, w, b))
    same(bound(x.numpy()), linear(x, w, b))


def test_a_schedule_by_hand_is_kept() -> None:
    x, w = torch.randn(8, 32), torch.randn(32, 48)
    by_hand = product.with_schedule(product.schedule("cpu", x, w))
    bound = by_hand.bind(w=w)
    assert torch.equal(bound(x), by_hand(x, w)) and bound.packed == {}


def test_lookups_and_empty_constants_are_left_alone() -> None:
    @dlc.kernel
    def looked(i: i64[M], table: f32[V, N]):
        return dlc.embedding(i, table)

    table, at = torch.randn(9, 20), torch.tensor([3, 1])
    assert torch.equal(looked.bind(table=table)(at), table[at])
    with pytest.raises(DlcError, match="out of"):
        looked.bind(table=table)(torch.tensor([9]))
    assert linear.bind(w=torch.empty(0, 8), b=torch.empty(0))(torch.randn(4, 8)).shape == (4, 0)


def test_what_cannot_be_bound_is_said() -> None:
    w, b = torch.randn(30, 20), torch.randn(30)
    with pytest.raises(ArgumentError, match="`v` is not a parameter of linear"):
        linear.bind(v=w)
    with pytest.raises(ArgumentError, match="only torch's tensors say when they change"):
        linear.bind(w=np.ones((30, 20), np.float32))  # type: ignore[arg-type]
    with torch.inference_mode():
        frozen = torch.randn(30, 20)
    with pytest.raises(ArgumentError, match="does not count its changes"):
        linear.bind(w=frozen)
    with pytest.raises(ShapeError, match="`w` has 1 dimensions"):
        linear.bind(w=b)
    with pytest.raises(ShapeError, match="the constants of linear disagree about N"):
        linear.bind(w=w, b=torch.randn(31))
    with pytest.raises(DlcError, match="`w` is f64"):
        linear.bind(w=w.double())
    bound = linear.bind(w=w, b=b)
    for call, what in ((lambda: bound(), "without `x`"), (lambda: bound(w, w), "with 2 arguments"), (lambda: bound(w=w), "`w` is constant"),
                       (lambda: bound(w, x=w), "`x` is given twice"), (lambda: bound(w, y=w), "`y` is not a parameter")):
        with pytest.raises(ArgumentError, match=what):
            call()
    with pytest.raises(ShapeError):
        bound(torch.randn(8, 21))
