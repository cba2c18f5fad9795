"""Where stages stand: extents, regions, padding."""

import dlc
from dlc import f32
from dsl.dim import as_term
from dsl.placing import place, place_anew
from dsl.primitives.loops import pad, split
from dsl.primitives.placement import compute_at
from dsl.program import trace
from dsl.stages import build_nest


def blurred(x: f32[20]):
    """Neighbours added up."""
    y = dlc.compute((20,), lambda i: x[i] * 2.0, name="y")
    return dlc.compute((18,), lambda i: y[i] + y[i + 1] + y[i + 2], name="z")


def summed(x: f32[7, 10]):
    """Prefix sums."""
    y = dlc.cumsum(x, 1)
    return dlc.compute((7, 5), lambda i, j: y[i, 2 * j])


def test_a_region_is_what_the_readers_need():
    n = split(build_nest(trace(blurred)), "z", "i", 4)
    p = place(compute_at(n, "y", "z", "i.o"))["y"]
    (axis,) = p.stage.axes
    outer = place(n)["z"].loop("i.o")
    assert p.extent[axis] == 6 and str(p.start[axis]) == f"4*{outer.var}"
    assert [str(g) for g in p.spatial] == ["-i - 4*i.o + 19"]


def test_what_a_primitive_does_not_move_keeps_its_place():
    n = compute_at(split(build_nest(trace(blurred)), "z", "i", 4), "y", "z", "i.o")
    before = place(n)
    assert place(n) is before
    inner = place(split(n, "y", next(iter(n["y"].order)), 2))
    assert inner["z"] is before["z"] and inner["y"] is not before["y"]
    outer = place(split(n, "z", "i.i", 2))
    assert outer["z"] is not before["z"] and outer["y"].start != before["y"].start, "y moves along with its reader"


def test_only_what_is_asked_for_is_placed():
    n = compute_at(split(build_nest(trace(blurred)), "z", "i", 4), "y", "z", "i.o")
    reader = place(n)["z"]
    assert "_placed" not in n["y"].__dict__ and place(n)["y"].start and place(n)["z"] is reader
    assert list(place(n)) == ["z", "y"] and len(place(n)) == 2


def test_what_is_lowered_does_not_depend_on_what_was_asked_before():
    def order(n):
        found = [x.var for p in place_anew(n).values() for x in p.loops]
        assert sorted(found, key=lambda v: v.uid) == found
        return [v.name for v in found]

    n = compute_at(split(build_nest(trace(blurred)), "z", "i", 4), "y", "z", "i.o")
    first = order(n)
    place(n)
    assert order(n) == first and place_anew(n)["z"].loop("i.o").var is not place(n)["z"].loop("i.o").var


def test_padding_makes_memory_larger():
    n = split(build_nest(trace(blurred)), "y", "i", 8, tail="pad")
    p = place(n)["y"]
    assert p.extent[p.stage.axes[0]] == 24 and n["y"].padded() == {"i"}
    n = pad(build_nest(trace(blurred)), "z", "i", 16)
    assert place(n)["z"].loop("i.pad").extent == 32


def test_prefixes_begin_with_the_first_element():
    n = build_nest(trace(summed))
    scan = next(s for s in n.stages if s.kind == "scan")
    n = compute_at(n, scan.name, n.stages[-1].name, n.stages[-1].order[0])
    p = place(n)[scan.name]
    assert p.extent[scan.position] == 10 and p.start[scan.position] == 0 and p.extent[scan.axes[0]] == as_term(1)
