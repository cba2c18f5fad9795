"""The axis that lies along the lanes."""

from __future__ import annotations

import dlc
from codegen.analysis.access import accesses
from codegen.heuristics.lanes import lane_axis, span
from dlc import f32
from dsl.program import trace
from dsl.stages import build_nest


def rows(x: f32[6, 8]):
    return dlc.sum(x, axis=1)


def test_most_contiguous_bytes_win() -> None:
    (s,) = [s for s in build_nest(trace(rows)).stages if s.kind == "reduce"]
    assert lane_axis(s, {}, (*s.axes, *s.bound)) is s.bound[0]
    assert lane_axis(s, {}, s.axes) is s.axes[0]  # the results alone lie along the rows
    assert lane_axis(s, {}, ()) is None


def test_elements_an_access_touches() -> None:
    (s,) = [s for s in build_nest(trace(rows)).stages if s.kind == "reduce"]
    assert sorted(span(x, s) for x in accesses(s, {})) == [6, 48]
