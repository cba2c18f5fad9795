"""Sums along the rows of a pass in its own loops: products with a matrix and with its transpose, all gradients of attention in one pass."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import dlc
from dlc import bf16, f32
from dlc.kernel import Kernel
from tests.dlc.test_one_pass_backward import CASES, backward_of, causal, grouped, one_pass, plain, r, window

M, N, D, E = dlc.dims("M N D E")


def hosts(k: Kernel, args: list) -> list:
    return [s for s in k.plan(*args).nest.stages if s.kind == "roll"]


def choices_along(k: Kernel, args: list) -> list[str]:
    plan = k.plan(*args)
    assert plan.nest
    return [name for name in plan.decisions.made if name.endswith(".along")]


def together(k: Kernel, args: list, block: int = 32, rows: int = 0) -> None:
    """One loop over tiles for all the gradients, with so many rows at a time."""
    apart = one_pass(k, args, block)
    assert one_pass(k, args, block, along=True) == apart - 1
    (host,) = [h for h in hosts(k, args) if any(s.slots for s in h.states)]
    k.decisions |= {f"{host.name}.rows": rows} if rows else {}


def check(k: Kernel, args: list) -> None:
    for got, want in zip(k(*args), k.reference(*args)):
        assert np.isfinite(want).all()
        np.testing.assert_allclose(got, want, rtol=0, atol=3e-6 * abs(want).max() + 1e-7)


@pytest.mark.parametrize("name", [n for n in CASES if "cross" not in n])
def test_all_gradients_of_attention_in_one_pass(name: str) -> None:
    torch.manual_seed(0)
    fn, make = CASES[name]
    k, args = backward_of(fn, make())
    together(k, args)
    check(k, args)


@pytest.mark.parametrize("fn", [plain, causal, window, grouped])
@pytest.mark.parametrize("m, n", [(1, 3), (40, 131), (131, 40)])
def test_ragged_lengths(fn, m: int, n: int) -> None:
    """Tiles that end past either side, and blocks of keys past every query."""
    torch.manual_seed(0)
    n = 110 if fn is window and m > n else n  # every row sees something, or the plain definition has no numbers
    shapes = {plain: ((m, 8), (n, 8), (n, 20)), causal: ((1, 2, m, 8), *[(1, 2, n, 8)] * 2), window: ((2, m, 8), *[(2, n, 8)] * 2),
              grouped: ((1, 6, m, 8), *[(1, 2, n, 8)] * 2)}[fn]
    k, args = backward_of(fn, tuple(r(*s) for s in shapes))
    names = choices_along(k, args)
    k.decisions = dict.fromkeys(names, True) | {"d_k.roll.rows": 48, "d_k.part.roll.rows": 48}
    assert (m, n) == (1, 3) or sum(bool(s.slots) for h in hosts(k, args) for s in h.states) == 1
    check(k, args)


def low(q: bf16[M, D], k: bf16[N, D], v: bf16[N, D]):
    return dlc.scaled_dot_product_attention(q, k, v, is_causal=True)


def test_low_dtypes_are_summed_in_f32() -> None:
    torch.manual_seed(0)
    k, args = backward_of(low, tuple(r(n, 16).bfloat16() for n in (70, 90, 90)))
    together(k, args)
    exact = k.reference(*args)
    for got, want in zip(k(*args), exact):
        assert got.dtype == torch.bfloat16
        assert abs(got.float().numpy() - want).max() < 0.02 * abs(want).max()


def test_a_row_that_sees_nothing_has_no_gradient() -> None:
    torch.manual_seed(0)
    k, args = backward_of(window, (r(2, 150, 8), r(2, 100, 8), r(2, 100, 8)))
    together(k, args)
    d_q, d_k, d_v = k(*args)
    want = k.reference(*(a[:, :129] if a.shape[1] == 150 else a for a in args))
    assert not d_q[:, 129:].any()
    for got, w in zip((d_q[:, :129], d_k, d_v), want):
        np.testing.assert_allclose(got, w, rtol=0, atol=3e-6 * abs(w).max())


def both_ways(x: f32[M, D], y: f32[N, D], d: f32[N, E], e: f32[M, E]):
    c = dlc.tanh(x @ y.T)
    return c @ d, c.T @ e


def bare(x: f32[M, D], y: f32[N, D], d: f32[N, E], e: f32[M, E]):
    c = x @ y.T
    return c @ d, c.T @ e


@pytest.mark.parametrize("fn", [both_ways, bare])
@pytest.mark.parametrize("m, n", [(70, 90), (96, 64), (33, 7)])
def test_a_matrix_and_its_transpose(fn, m: int, n: int) -> None:
    torch.manual_seed(0)
    k = dlc.kernel(fn)
    args = [r(m, 8), r(n, 8), r(n, 20), r(m, 20)]
    (name,) = choices_along(k, args)
    k.decisions = {name: True}
    (host,) = hosts(k, args)
    assert sum(bool(s.slots) for s in host.states) == 1
    check(k, args)


def test_the_number_of_threads_changes_no_bit() -> None:
    torch.manual_seed(0)
    k, args = backward_of(causal, tuple(r(2, 2, 100, 16) for _ in range(3)))
    together(k, args)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(k(*args))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*results))


@pytest.mark.filterwarnings("ignore:.*compiled for each value")
def test_sizes_that_differ_from_call_to_call() -> None:
    torch.manual_seed(0)
    k, args = backward_of(causal, tuple(r(1, 2, 100, 16) for _ in range(3)))
    together(k, args)
    for n in (100, 101, 64, 7, 129):
        _, given = backward_of(causal, tuple(r(1, 2, n, 16) for _ in range(3)))
        check(k, given)
