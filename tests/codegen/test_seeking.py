"""Scatters by seeking: the loops chosen, proofs, the same bits for any number of threads and as the dense sum in order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import dlc
from codegen.heuristics import default_schedule
from codegen.pipelines import make_tile
from codegen.target import by_name
from codegen.tile.interp import run
from codegen.tile.memory import NUMPY
from codegen.tile.text import show
from codegen.tile.text_parse import parse
from codegen.tile.verify import verify
from dlc import bf16, f32, i32, i64
from dsl.order import order_class
from dsl.program import trace
from dsl.stages import build_nest

CPU = by_name("x86-64-avx2")


def rows(x: f32[40, 33], i: i64[40]):
    """Rows of a table; some indices stand outside of it."""
    k = dlc.reduce_axis(40, name="k")
    return dlc.compute((50, 33), lambda r, c: dlc.sum(dlc.where(i[k] == r, x[k, c], 0.0), k))


def rounded(x: bf16[40, 33], i: i32[40]):
    """States that are wider than the results."""
    k = dlc.reduce_axis(40, name="k")
    return dlc.compute((50, 33), lambda r, c: dlc.sum(dlc.where(i[k] == r, x[k, c], 0.0), k))


def along(x: f32[6, 45], i: i64[6, 45]):
    """Rows of their own."""
    k = dlc.reduce_axis(45, name="k")
    return dlc.compute((6, 67), lambda b, r: dlc.sum(dlc.where(i[b, k] == r, x[b, k], 0.0), k))


def across(x: f32[15, 40], i: i64[15, 40]):
    """Columns that data depends on."""
    k = dlc.reduce_axis(15, name="k")
    return dlc.compute((67, 40), lambda r, c: dlc.sum(dlc.where(i[k, c] == r, x[k, c], 0.0), k))


def pairs(x: f32[60], i: i64[60], j: i64[60]):
    """Two indices at once."""
    k = dlc.reduce_axis(60, name="k")
    return dlc.compute((9, 12), lambda r, c: dlc.sum(dlc.where((i[k] == r) & (j[k] == c), x[k], 0.0), k))


def counts(i: i64[20_003]):
    """Many terms for few elements: partial results."""
    k = dlc.reduce_axis(20_003, name="k")
    return dlc.compute((64,), lambda r: dlc.sum(dlc.cast(i[k] == r, i64), k))


def greatest(x: f32[60], i: i64[60]):
    """Another carrier."""
    k = dlc.reduce_axis(60, name="k")
    return dlc.compute((70,), lambda r: dlc.max(dlc.where(i[k] == r, x[k], -float("inf")), k))


def some(i: i64[60]):
    """Truth values."""
    k = dlc.reduce_axis(60, name="k")
    return dlc.compute((70,), lambda r: dlc.any(i[k] == r, k))


CASES = (rows, rounded, along, across, pairs, greatest, some)


def inputs(program, rng):
    out = {}
    for t in program.inputs:
        shape = tuple(n.const for n in t.shape)
        whole = rng.integers(-3, 72, shape)
        out[t.name] = whole.astype(NUMPY[t.dtype]) if t.dtype.is_int else rng.normal(size=shape).astype(np.float32)
        if t.dtype is bf16:
            out[t.name] = out[t.name].astype(NUMPY[bf16])
    return out


def tile_of(program, threads: int):
    nest = default_schedule(build_nest(program), replace(CPU, threads=threads), {})
    return nest, make_tile(nest, {}, "scatter", CPU, every=True).program


@pytest.mark.parametrize("fn", CASES, ids=lambda f: f.__name__)
def test_proved_and_the_same_for_any_number_of_threads(fn, rng) -> None:
    program = trace(fn)
    given = inputs(program, rng)
    want = np.asarray(dlc.kernel(fn).reference(*given.values()))
    results, orders = [], set()
    for threads in (1, 2, 64):
        nest, made = tile_of(program, threads)
        assert any("seek" in s.roles.values() for s in nest.stages) and " in seek(" in show(made)
        text = show(made, places=False)
        again = parse(text)
        verify(again)
        assert show(again) == text
        (got,) = run(made, given, {}).values()
        results.append(got)
        orders.add(order_class(nest))
    assert len(orders) == 1 and all(r.tobytes() == results[0].tobytes() for r in results)
    np.testing.assert_allclose(results[0].astype(np.float64), want.astype(np.float64), rtol=1e-2 if fn is rounded else 1e-5, atol=1e-5)


@pytest.mark.parametrize("fn", [rows, rounded, along, across, pairs], ids=lambda f: f.__name__)
def test_the_bits_of_the_dense_sum_in_order(fn, rng) -> None:
    kernel = dlc.kernel(fn)
    given = [torch.from_numpy(x.astype(np.float32) if x.dtype == NUMPY[bf16] else x) for x in inputs(kernel.program, rng).values()]
    given = [x.to(torch.bfloat16) if t.dtype is bf16 else x for x, t in zip(given, kernel.program.inputs)]
    dense, seeking = kernel.schedule("cpu", *given, default=False), kernel.schedule("cpu", *given)
    assert "seek" not in str(dense) and "# seek" in str(seeking)
    assert order_class(dense.nest) == order_class(seeking.nest)
    assert torch.equal(kernel.with_schedule(dense)(*given), kernel(*given))


def test_who_owns_what() -> None:
    def owners(fn, threads: int = 2) -> set[str]:
        nest, _ = tile_of(trace(fn), threads)
        return {f"{s.name}:{x}" for s in nest.stages for x, role in s.roles.items() if role == "parallel"}

    assert owners(rows) == {"t:r.o"} and owners(along) == {"t:b"} and owners(pairs) == set()
    assert owners(counts) >= {"t.part:k.o"}

    def narrow(x: f32[400, 256], i: i64[400]):
        k = dlc.reduce_axis(400, name="k")
        return dlc.compute((50, 256), lambda r, c: dlc.sum(dlc.where(i[k] == r, x[k, c], 0.0), k))
    assert owners(narrow) == {"t:c.o"}


def test_few_rows_are_compared() -> None:
    def few(x: f32[400, 4], i: i64[400]):
        k = dlc.reduce_axis(400, name="k")
        return dlc.compute((3, 4), lambda r, c: dlc.sum(dlc.where(i[k] == r, x[k, c], 0.0), k))
    nest, _ = tile_of(trace(few), 2)
    assert not any("seek" in s.roles.values() for s in nest.stages)


def test_unknown_sizes() -> None:
    n, m, c = dlc.dims("N M C")

    def fn(x: bf16[n, c], i: i64[n], w: bf16[m, c]):
        k = dlc.reduce_axis(n, name="k")
        return dlc.compute((m, c), lambda r, c: dlc.sum(dlc.where(i[k] == r, x[k, c], 0.0), k))
    nest, made = tile_of(trace(fn), 2)
    assert "seek(" in show(made) and [st.kind for st in nest.stages] == ["reduce", "map"]
