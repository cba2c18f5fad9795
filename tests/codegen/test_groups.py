"""What shares a loop nest: roots, and what is attached to them."""

from __future__ import annotations

import torch

import dlc
from codegen.heuristics.groups import Group, fills, group_stages, row_map
from dlc import f32
from dsl.nest import Nest, Stage
from dsl.program import trace
from dsl.stages import build_nest

M, N = dlc.dims("M N")


def program(x: f32[M, N]):
    top = dlc.max(x, axis=-1, keepdims=True)
    return dlc.exp(x - top)


def joins_all(nest: Nest, s: Stage, groups: dict[str, Group], home: dict[str, str]) -> str | None:
    consumers = nest.consumers(s)
    if not consumers:
        return None
    group = groups[home[consumers[0].name]]
    group.members[s.name] = row_map(s, consumers, group)
    return group.anchor


def test_a_root_takes_what_may_join_it() -> None:
    nest = build_nest(trace(program))
    last = nest.stages[-1]
    groups = group_stages(nest, joins_all)
    assert list(groups) == [last.name]
    assert set(groups[last.name].members) == {s.name for s in nest.stages[:-1]}


def test_nothing_joins_what_has_its_schedule() -> None:
    nest = build_nest(trace(program))
    last = nest.stages[-1]
    groups = group_stages(nest, joins_all, done={last.name})
    assert last.name not in groups
    readers = {p.name for t in last.sources() if (p := nest.producer(t)) is not None}
    assert readers <= set(groups)


def test_rows_are_axes_that_every_reader_reads_at_its_own_point() -> None:
    nest = build_nest(trace(program))
    (top,) = [s for s in nest.stages if s.kind == "reduce"]
    (reader,) = nest.consumers(top)
    assert row_map(top, [reader], Group(reader.name)) == {top.axes[0]: reader.axes[0]}


def padded(x: f32[12, 64], w: f32[64, 32]):
    y = x @ w
    return dlc.compute((48, 32), lambda i, j: dlc.where(i < 12, y[i, j], 0.0))


def finished(x: f32[12, 64], w: f32[64, 32]):
    return dlc.relu(x @ w)


def test_a_product_does_not_join_what_has_more_rows() -> None:
    """Its sums would be made for rows that are only padding."""
    for fn, target, own in ((padded, "cpu", True), (finished, "cpu", False), (padded, "sm_90", True), (finished, "sm_90", False)):
        nest = dlc.kernel(fn).schedule(target, torch.empty(12, 64), torch.empty(64, 32)).nest
        product = next(s for s in nest.stages if s.kind == "reduce")
        assert (product.attach is None) is own


def test_a_stage_fills_the_rows_that_are_all_its_own() -> None:
    (product, reader), (whole, last) = build_nest(trace(padded)).stages, build_nest(trace(finished)).stages
    assert not fills(row_map(product, [reader], Group(reader.name))) and fills(row_map(whole, [last], Group(last.name)))
