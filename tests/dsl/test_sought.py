"""Loops that data sends somewhere."""

from __future__ import annotations

import pytest

import dlc
from dlc import f32, i32, i64
from dsl.errors import ScheduleError
from dsl.machine import Machine
from dsl.placing import place
from dsl.program import trace
from dsl.schedule import Schedule
from dsl.sought import goal, goals
from dsl.stages import build_nest

K, R, C = 12, 7, 5


def scatter(x: f32[K, C], j: i64[K, C]):
    """Rows that depend on the column."""
    k = dlc.reduce_axis(K, name="k")
    return dlc.compute((R, C), lambda r, c: dlc.sum(dlc.where(j[k, c] == r, x[k, c], 0.0), k), name="t")


def turned(x: f32[K, C], i: i32[K]):
    """Rows counted from the end."""
    k = dlc.reduce_axis(K, name="k")
    return dlc.compute((R, C), lambda r, c: dlc.sum(dlc.where(6 - r == i[k], x[k, c], 0.0), k), name="t")


def schedule(fn) -> Schedule:
    return Schedule(build_nest(trace(fn)), Machine("cpu", widest=4096))


def test_a_loop_that_seeks_is_inside_of_what_its_data_depends_on() -> None:
    s = schedule(scatter)
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
        schedule(scatter).reorder("k", "c", "r").vectorize("c").seek("r")


def test_part_of_an_axis_seeks() -> None:
    s = schedule(turned)
    s.split("r", 4).reorder("r.o", "k", "r.i", "c").parallel("r.o").seek("r.i")
    found = goal(s.nest["t"], place(s.nest)["t"], "r.i")
    assert not isinstance(found, str) and found.sign == -1 and str(found.rest) in ("6 - 4*r.o", "-4*r.o + 6")
    s.split("r.i", 2)
    assert s.nest["t"].role("r.i.i") == "seek" and s.nest["t"].role("r.i.o") == "serial"
    assert list(goals(s.nest["t"], place(s.nest)["t"])) == ["r.i.i"]
