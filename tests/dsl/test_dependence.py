"""Dependences between iterations and between stages, with their witnesses."""

import dlc
from dlc import f32
from dsl.dependence import carried, disorder, elsewhere, needed_elsewhere, significance, within
from dsl.primitives.loops import reorder, split
from dsl.primitives.placement import compute_at
from dsl.program import trace
from dsl.stages import build_nest

M, N = dlc.dims("M N")


def rows(x: f32[6, 8]):
    """A softmax without its shift: a sum per row, then a division."""
    e = dlc.exp(x)
    return e / dlc.sum(e, 1, keepdim=True)


def nest():
    return build_nest(trace(rows))


def by_kind(n, kind):
    return next(s for s in n.stages if s.kind == kind)


def test_a_reduction_loop_is_carried_and_a_spatial_one_is_not():
    n = nest()
    s = by_kind(n, "reduce")
    k = s.order[-1]
    assert carried(n, s, k) == f"the iterations {k} = 0 and {k} = 1 both update {s.tensors[0].name}[0]"
    assert carried(n, s, s.order[0]) is None


def test_one_iteration_carries_nothing():
    n = nest()
    s = by_kind(n, "reduce")
    n = split(n, s.name, s.order[-1], 8)
    assert carried(n, n[s.name], f"{s.order[-1]}.o") is None
    assert carried(n, n[s.name], f"{s.order[-1]}.i") is not None


def test_significance_follows_the_parts():
    n = nest()
    s = by_kind(n, "reduce")
    k = s.order[-1]
    n = split(split(n, s.name, k, 4), s.name, f"{k}.o", 2, "a", "b")
    assert significance(n[s.name], k) == ["a", "b", f"{k}.i"]
    assert disorder(n[s.name], [f"{k}.i", "a", "b"]) is None  # a sum may be taken in any order


def test_readers_outside_a_loop():
    n = nest()
    s = by_kind(n, "reduce")
    last = n.stages[-1]
    assert needed_elsewhere(n, s, last.name, last.order[0]) is None
    e = n.stages[0]
    why = needed_elsewhere(n, e, last.name, last.order[0])
    assert why is not None and f"{s.name}, which runs in a nest of its own, reads {e.tensors[0].name}[0, 0] too" == why
    n = compute_at(n, s.name, last.name, last.order[0])
    assert within(n, n[s.name], last.name, last.order[0]) and not within(n, n[s.name], last.name, last.order[1])
    assert needed_elsewhere(n, n[e.name], last.name, last.order[0]) is None


def test_a_reader_at_another_point():
    def turned(x: f32[4, 4]):
        y = dlc.exp(x)
        return dlc.compute((4, 4), lambda i, j: y[j, i])

    n = build_nest(trace(turned))
    y = n.stages[0].tensors[0].name
    assert elsewhere(n.stages[-1], n.stages[0]) == f"the iteration i = 0, j = 1 of t reads {y}[1, 0]"
    assert reorder(n, n.stages[-1].name, list(n.stages[-1].order[::-1]))[n.stages[-1].name].order == n.stages[-1].order[::-1]
