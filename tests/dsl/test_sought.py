"""Equations between data and indices, and the loops that they send somewhere."""

from __future__ import annotations

import pytest

import dlc
from dlc import f32, i32, i64
from dsl.algebra import walk
from dsl.errors import ScheduleError
from dsl.machine import Machine
from dsl.placing import place
from dsl.program import trace
from dsl.schedule import Schedule
from dsl.sought import assuming, equations, goal
from dsl.stages import build_nest

K, R, C = 12, 7, 5


def reducing(fn):
    (stage,) = (s for s in build_nest(trace(fn)).stages if s.kind == "reduce")
    return stage


def scattered(term):
    """``sum[k](term(k, r, c))``."""
    def fn(x: f32[K, C], i: i32[K], j: i64[K, C], y: f32[R, C]):
        k = dlc.reduce_axis(K, name="k")
        return dlc.compute((R, C), lambda r, c: term(x, i, j, y, k, r, c))
    return reducing(fn)


FOUND = {
    "scatter": lambda x, i, j, y, k, r, c: dlc.sum(dlc.where(i[k] == r, x[k, c], 0.0), k),
    "shifted": lambda x, i, j, y, k, r, c: dlc.sum(dlc.where(i[k] == r + 2, x[k, c], 0.0), k),
    "turned": lambda x, i, j, y, k, r, c: dlc.sum(dlc.where(6 - r == i[k], x[k, c], 0.0), k),
    "clamped": lambda x, i, j, y, k, r, c: dlc.sum(dlc.where(dlc.clamp(i[k], 0, 3) == r, x[k, c], 0.0), k),
    "among others": lambda x, i, j, y, k, r, c: dlc.sum(dlc.where((x[k, c] > 0.0) & (i[k] == r), x[k, c] * y[r, c], 0.0), k),
    "below another": lambda x, i, j, y, k, r, c: dlc.sum(dlc.where(x[k, c] > 0.0, dlc.where(i[k] == r, x[k, c], 0.0), 0.0), k),
    "counted": lambda x, i, j, y, k, r, c: dlc.sum(dlc.cast(i[k] == r, i64), k),
    "some": lambda x, i, j, y, k, r, c: dlc.any((j[k, c] == r) & (x[k, c] > 0.0), k),
    "greatest": lambda x, i, j, y, k, r, c: dlc.max(dlc.where(i[k] == r, x[k, c], -float("inf")), k),
    "product": lambda x, i, j, y, k, r, c: dlc.prod(dlc.where(i[k] == r, x[k, c], 1.0), k),
}
NOT = {
    "another default": lambda x, i, j, y, k, r, c: dlc.sum(dlc.where(i[k] == r, x[k, c], 1.0), k),
    "minus zero": lambda x, i, j, y, k, r, c: dlc.sum(dlc.where(i[k] == r, x[k, c], -0.0), k),
    "greatest of zeros": lambda x, i, j, y, k, r, c: dlc.max(dlc.where(i[k] == r, x[k, c], 0.0), k),
    "not equal": lambda x, i, j, y, k, r, c: dlc.sum(dlc.where(i[k] != r, x[k, c], 0.0), k),
    "either": lambda x, i, j, y, k, r, c: dlc.sum(dlc.where((i[k] == r) | (x[k, c] > 0.0), x[k, c], 0.0), k),
    "times": lambda x, i, j, y, k, r, c: dlc.sum(dlc.cast(i[k] == r, f32) * x[k, c], k),  # 0 * inf
    "indices": lambda x, i, j, y, k, r, c: dlc.sum(dlc.where(k == r, x[k, c], 0.0), k),
    "moments": lambda x, i, j, y, k, r, c: dlc.mean(dlc.where(i[k] == r, x[k, c], 1.0), k),
}


@pytest.mark.parametrize("name", FOUND)
def test_what_data_decides(name: str) -> None:
    s = scattered(FOUND[name])
    (e,) = equations(s)
    assert e.condition.name == "eq" and s.axes[0] in e.term.vars and e.data.dtype.is_int
    assert len(e.guards) == (name == "below another")
    assert not any(n is e.condition for n in walk(assuming(s.body, e.condition)))


@pytest.mark.parametrize("name", NOT)
def test_what_it_does_not(name: str) -> None:
    assert equations(scattered(NOT[name])) == ()


def schedule(name: str) -> Schedule:
    term = FOUND[name]

    def fn(x: f32[K, C], i: i32[K], j: i64[K, C], y: f32[R, C]):
        k = dlc.reduce_axis(K, name="k")
        return dlc.compute((R, C), lambda r, c: term(x, i, j, y, k, r, c), name="t")
    return Schedule(build_nest(trace(fn)), Machine("cpu", widest=4096))


def test_a_loop_that_seeks_is_inside_of_what_its_data_depends_on() -> None:
    s = schedule("some")
    with pytest.raises(ScheduleError, match=r"seek\('r'\): nothing says at which .*\n.*\n.*\n.*`j\[k, c\]` is known inside of c only"):
        s.seek("r")
    s.reorder("k", "c", "r").seek("r")
    with pytest.raises(ScheduleError, match=r"`j\[k, c\]` is known inside of c only"):
        s.reorder("r", "k")
    with pytest.raises(ScheduleError, match="nothing in .* says that its terms are neutral unless data equals an index"):
        s.seek("k")
    with pytest.raises(ScheduleError, match="no data is compared with c"):
        s.seek("c")
    with pytest.raises(ScheduleError, match="known inside of c only"):
        schedule("some").reorder("k", "c", "r").vectorize("c").seek("r")


def test_part_of_an_axis_seeks() -> None:
    s = schedule("turned")
    s.split("r", 4).reorder("r.o", "k", "r.i", "c").parallel("r.o").seek("r.i")
    found = goal(s.nest["t"], place(s.nest)["t"], "r.i")
    assert not isinstance(found, str) and found.sign == -1 and str(found.rest) in ("6 - 4*r.o", "-4*r.o + 6")
    s.split("r.i", 2)
    assert s.nest["t"].role("r.i.i") == "seek" and s.nest["t"].role("r.i.o") == "serial"
