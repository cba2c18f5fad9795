"""Long and few reductions are made from partial results: short chains of additions, the same for every number of threads that has work."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import dlc
from codegen.analysis.access import read_access
from codegen.heuristics import default_schedule
from codegen.target import by_name
from codegen.tile.ir import Load, walk_ops
from dlc import f32, i32
from dlc.compiler import Plan
from dsl.algebra import reads
from dsl.dim import ZERO, Var
from dsl.order import summation_orders
from dsl.stages import build_nest

M, N, C = dlc.dims("M N C")


@dlc.kernel
def rows(x: f32[M, N]):
    return dlc.sum(x, axis=1)


@dlc.kernel
def columns(x: f32[M, N]):
    return dlc.sum(x, axis=0)


@dlc.kernel
def channels(x: f32[M, C, N]):
    return dlc.mean(x, axis=(0, 2))


@dlc.kernel
def logarithm(x: f32[M, N]):
    return dlc.logsumexp(x, axis=0)


@dlc.kernel
def whole(x: i32[M, N]):
    return dlc.sum(x, axis=1)


def empty(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.empty(shape, device="meta", dtype=dtype)


def depth(kernel, *args) -> int:
    return sum(o.depth for o in summation_orders(kernel.plan(*args).nest))


@pytest.mark.parametrize(("kernel", "shape", "most"), [
    (rows, (1, 1 << 20), 160), (rows, (64, 1 << 20), 400), (columns, (1 << 20, 64), 300), (columns, (1 << 14, 1024), 200),
    (channels, (64, 32, 3136), 400), (rows, (64, 1 << 24), 400)])
def test_no_chain_of_additions_is_long(kernel, shape: tuple[int, ...], most: int) -> None:
    assert depth(kernel, empty(*shape)) <= most


def test_short_rows_and_whole_numbers_stay_whole() -> None:
    assert [s.name for s in rows.plan(empty(64, 4096)).nest.stages] == ["sum"]
    assert [s.name for s in whole.plan(empty(64, 1 << 20, dtype=torch.int32)).nest.stages] == ["sum"]


def test_the_order_has_a_name_that_no_number_of_cores_changes() -> None:
    named = dlc.kernel(rows.fn, reproducible=True)
    x = empty(64, 1 << 18)
    assert named.plan(x).order.startswith("sum.part: sum.partial[k1.i<4096]: serial(k1.i//")
    assert len({Plan(replace(r, target=replace(r.target, threads=n))).order for r in [rows.plan(x).request] for n in (1, 2, 7, 16)}) == 1


@pytest.mark.parametrize(("kernel", "shape"), [
    (rows, (3, 100_003)), (columns, (5003, 37)), (channels, (9, 5, 4001)), (logarithm, (3001, 19))])
def test_a_million_terms_are_as_accurate_as_few(kernel, shape: tuple[int, ...]) -> None:
    """Positive terms, where the errors of one long chain add up; ragged last chunks. Units in the last place of the result."""
    x = torch.rand(shape, generator=torch.Generator().manual_seed(1))
    got, exact = np.asarray(kernel(x)).astype(np.float64), kernel.reference(x)
    step = 2.0 ** np.floor(np.log2(np.abs(exact))) * 2.0**-23
    assert (np.abs(got - exact) / step).max() <= 5


@dlc.kernel
def everything(x: f32[M, N]):
    return dlc.sum(x)


@dlc.kernel
def places(x: f32[M, N]):
    return dlc.argmax(x)


@pytest.mark.parametrize("shape", [(64, 1 << 18), (1 << 21, 8), (1000, 777)])
def test_a_chunk_of_everything_is_a_run_of_memory(shape: tuple[int, ...]) -> None:
    for kernel in (everything, places):
        part, whole = kernel.plan(empty(*shape)).nest.stages
        assert len(part.bound) == len(part.axes) == len(whole.bound) == 1
        (read,) = reads(part.body)
        assert read_access(read, {}).stride(part.bound[0]) == 1


@pytest.mark.parametrize("shape", [(6, 6, 644, 29), (20, 64, 7, 12, 4), (45, 57, 649)])
def test_joined_axes_are_walked_without_a_division(shape: tuple[int, ...]) -> None:
    @dlc.kernel
    def total(x: f32[shape]):
        return dlc.sum(x)

    loads = [op for op in walk_ops(total.plan(empty(*shape)).tile.phases[0].body) if isinstance(op, Load)]
    places = [sum((i * s for i, s in zip(op.indices, op.buffer.strides)), ZERO) for op in loads]
    assert loads and all(isinstance(a, Var) for t in places for mono in t.parts for a in mono)


def test_rows_with_gaps_are_parted_one_by_one() -> None:
    x = torch.rand(64, 1 << 19)[:, :1 << 18]
    part, row, _ = everything.plan(x).nest.stages
    assert [len(s.axes) for s in (part, row)] == [2, 1] and depth(everything, x) <= 400
    torch.testing.assert_close(everything(x), x.sum())


def test_what_is_not_a_number_stays_so() -> None:
    x = torch.rand(2, 100_003)
    x[1, 70_000] = float("nan")
    got = rows(x)
    assert torch.isfinite(got[0]) and torch.isnan(got[1])
    assert torch.isnan(logarithm(x.T)).tolist() == [False, True]


def test_sums_of_unknown_length_are_parted_once():
    n = dlc.dims("LENGTH")

    @dlc.kernel
    def total(x: dlc.f32[n, n]):
        return dlc.sum(x, 0)

    nest = default_schedule(build_nest(total.program), by_name("x86-64-avx2"), {})
    assert 2 <= sum(s.kind == "reduce" for s in nest.stages) <= 3
