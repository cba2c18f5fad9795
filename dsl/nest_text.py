"""The loop tree of a nest as text: every stage where it is computed, its loops with extents and roles, its memory and its definition."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from dsl.dim import show
from dsl.nest import GRID_ROLES, Nest, Stage
from dsl.placing import Placed, PlacedLoop, place
from dsl.text import show_compute


def show_nest(nest: Nest) -> str:
    """The loop nest as it stands.

    One tree for each stage in a nest of its own, in the order they run. A line ``for i.o in 4`` is a loop; behind ``#`` stands its role
    where it is not serial, and what else is known of it. A line without ``for`` begins a stage that is computed at that place, with the
    memory its region takes.
    """
    placed = place(nest)
    return "\n".join(line for s in nest.stages if s.attach is None for line in _stage(nest, placed, s, 0))


def _stage(nest: Nest, placed: Mapping[str, Placed], s: Stage, depth: int) -> Iterator[str]:
    p = placed[s.name]
    yield f"{'  ' * depth}{_head(nest, s, p)}"
    grid = [x for x in p.loops if x.role in GRID_ROLES]
    rest = [x for x in p.loops if x.role not in GRID_ROLES]
    depth += 1
    for x in grid:
        yield _loop(s, x, depth)
        depth += 1
    yield from _attached(nest, placed, s, ("", *(x.name for x in grid)), depth)
    for x in rest:
        yield _loop(s, x, depth)
        depth += 1
        yield from _attached(nest, placed, s, (x.name,), depth)
    for t in s.tensors:
        yield f"{'  ' * depth}{show_compute(t)}"


def _attached(nest: Nest, placed: Mapping[str, Placed], s: Stage, loops: tuple[str, ...], depth: int) -> Iterator[str]:
    for inner in nest.stages:
        if inner.attach is not None and inner.attach[0] == s.name and inner.attach[1] in loops:
            yield from _stage(nest, placed, inner, depth)


def _head(nest: Nest, s: Stage, p: Placed) -> str:
    """What a stage is, and where its elements are kept."""
    t = s.tensors[0]
    if nest.is_output(s):
        kept = f"result {t.dtype}[{_extents(s, p)}]"
    else:
        kept = f"{'workspace' if s.attach is None or s.beside else 'private'} {t.dtype}[{_extents(s, p)}]"
    facts = [kept]
    if s.layout is not None:
        names = s.axis_names()
        facts.append(f"stored as [{', '.join(show(d, lambda v: names.get(v, v.name)) for d in s.layout)}]")
    facts += [f"{key} {value}" if value is not True else key
              for key, value in s.notes.items() if not isinstance(value, dict) and value and key != "copy"]
    return f"{s.name}: {', '.join(facts)}"


def _extents(s: Stage, p: Placed) -> str:
    return ", ".join(str(p.extent[a]) for a in s.axes)


def _loop(s: Stage, x: PlacedLoop, depth: int) -> str:
    facts = [] if x.role == "serial" else [x.role]
    facts += ["reduction" if s.kind == "reduce" else "scan"] if x.reduce else []
    facts += [f"tail {x.tail}"] if x.tail != "mask" else []
    for key, loops in s.notes.items():
        if isinstance(loops, dict) and x.name in loops:
            facts.append(f"{key} {loops[x.name]}")
    return f"{'  ' * depth}for {x.name} in {x.extent}{'  # ' + ', '.join(facts) if facts else ''}"
