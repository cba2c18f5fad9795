"""What shares a loop nest: roots, and what is attached to them."""

from __future__ import annotations

import dlc
from codegen.heuristics.groups import Group, group_stages, row_map
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
