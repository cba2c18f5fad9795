"""Reductions whose terms data sends to one element each: scatters, histograms, sums over segments, gradients of gathers.

``y[r, c] = sum[k](where(ids[k] == r, x[k, c], 0))`` looks at every index for every row. With the loop over ``r`` inside of the one over
``k``, seeking, it costs a visit for every term and one for every element::

    for r.o, c.o in parallel:
      for r.i, c.i: y[r, c] = 0
      for k:
        r.i = ids[k] - r.o * ..         # seek: or nothing
        for c.i: y[r, c] += x[k, c]

Every element takes its terms in the order of ``k``, whoever owns it: no atomics, and the same bits for any number of threads. A thread
owns rows, columns or what lies outside of both. Where there are few elements and many terms, partial results of chunks of ``k`` are made
in parallel, as many as the sizes ask for, not the threads.
"""

from __future__ import annotations

from codegen.analysis.access import accesses, cost, size
from codegen.analysis.arrangement import Arrangement, arrange, points, visits
from codegen.heuristics.decisions import Setting
from codegen.heuristics.maps import SERIAL_WORK, tile_lane
from dsl.dim import Var
from dsl.nest import Nest, Stage
from dsl.primitives.loops import annotate, reorder, set_role, split
from dsl.primitives.reduction import rfactor

_VISIT = 5  # elements that a dense sum compares in the time of one visit, in vectors
_RUN = 256  # bytes of a row that a thread takes: shorter ones cost as much to fetch
_NARROW = 16  # columns that are not worth going over the indices again for
_CHUNK, _CHUNKS, _TABLES = 4096, 64, 4  # terms of a chunk at least, chunks at most, terms for each element of a partial result
_OWN = 64  # points outside of which nobody needs partial results
_FILL = 32  # results that are set to zero at a time where no columns are


def schedule_sought(nest: Nest, setting: Setting) -> tuple[Nest, set[str]]:
    """Schedule every reduction for which seeking pays; the nest, and the names of the stages that have their schedule."""
    done: set[str] = set()
    for name in [s.name for s in nest.stages]:
        s = nest[name]
        found = arrange(s)
        if found is not None and pays(s, found, setting):
            nest, made = part(nest, s, found)
            nest = _schedule(nest, nest[made], setting)
            done.add(made)
    return nest, done


def pays(s: Stage, found: Arrangement, setting: Setting) -> bool:
    """Whether a visit is cheaper than a comparison with every row, a vector at a time, and its state lies where the result does."""
    lanes = setting.target.vector_bits // 32 or setting.target.warp
    columns = points(found.columns)
    return points(found.sought) * columns > _VISIT * lanes + 2 * columns and _in_place(s)


def part(nest: Nest, s: Stage, found: Arrangement) -> tuple[Nest, str]:
    """Partial results of chunks of the terms, where there are many for each element and little else to share out."""
    axis = max(s.bound, key=lambda v: size(v.extent))
    terms, table = points(s.bound), points((*found.followed, *found.sought, *found.columns))
    chunk = max(_CHUNK, _TABLES * points(found.sought), -(-terms // _CHUNKS))
    if points(found.outer) >= _OWN or terms < 4 * chunk or table > terms:
        return nest, s.name
    loop = s.axis_names()[axis]
    step = max(1, chunk // (terms // size(axis.extent)))
    if step >= size(axis.extent):
        return nest, s.name
    return rfactor(split(nest, s.name, loop, step), s.name, f"{loop}.o")


def _in_place(s: Stage) -> bool:
    body = s.body
    return len(s.tensors) == 1 and body.data[0].state(tuple(a.dtype for a in body.args)) == (s.tensors[0].dtype,)


def _schedule(nest: Nest, s: Stage, setting: Setting) -> Nest:
    """Loops of the owner, terms, followed axes, rows, columns."""
    found = arrange(s)
    assert found is not None
    name, names = s.name, s.axis_names()
    outer, inner = [names[v] for v in found.outer], [names[v] for v in found.followed]
    rows, columns = [names[v] for v in found.sought], [names[v] for v in found.columns]
    own: list[str] = []
    for v, block in _shares(s, found, setting):
        loop = names[v]
        nest = split(nest, name, loop, block)
        own.append(f"{loop}.o")
        inner, rows, columns = ([f"{x}.i" if x == loop else x for x in loops] for loops in (inner, rows, columns))
    lane = found.columns[-1] if found.columns else None
    if lane is not None and any(x.write and x.stride(lane) == 1 for x in accesses(s, setting.strides)):
        extent = min([size(lane.extent), *(b for v, b in _shares(s, found, setting) if v is lane)])
        nest, made = tile_lane(nest, name, columns[-1], extent, setting, cost(s.body))
        columns = [*columns[:-1], *made]
    nest = reorder(nest, name, [*outer, *own, *(names[v] for v in s.bound), *inner, *rows, *columns])
    for x in rows:
        nest = set_role(nest, name, x, "seek")
    if lane is None:
        nest = annotate(nest, name, "fill", _FILL, _last(nest[name], [*inner, *rows]))
    for x in (*outer, *own):
        nest = set_role(nest, name, x, "parallel")
    small = visits(s) * max(1, cost(s.body)) + points(s.axes) <= SERIAL_WORK
    return annotate(nest, name, "serial", True) if small else nest


def _last(s: Stage, loops: list[str]) -> str:
    """The loop whose elements are stored side by side."""
    names = [x.split(".")[0] for x in loops]
    order = [n for a, n in s.axis_names().items() if a in s.axes]
    return max(zip(names, loops), key=lambda x: order.index(x[0]))[1]


def _shares(s: Stage, found: Arrangement, setting: Setting) -> list[tuple[Var, int]]:
    """Axes that are cut so that every thread has its share; their blocks."""
    threads, outside = setting.target.threads, points(found.outer)
    ways = threads if outside == 1 else -(-2 * threads // outside) if outside < 2 * threads else 1
    terms, table = points(s.bound), points((*found.sought, *found.columns))
    row, lane = found.sought[0], next(reversed((*found.followed, *found.columns)), None)
    width, height, grain = 0 if lane is None else size(lane.extent), size(row.extent), max(1, _RUN // s.tensors[0].dtype.itemsize)
    out: dict[Var, int] = {}
    if ways > 1 and lane is not None and width >= 2 * grain and (lane in found.followed or points(found.sought) < terms):
        share = -(-width // ways)
        out[lane] = -(-share // grain) * grain
    elif ways > 1 and (points(found.columns) >= _NARROW or table >= _NARROW * terms):
        out[row] = max(-(-height // ways), 2)  # a loop of one iteration has nothing to seek
    return [(v, block) for v, block in out.items() if block < size(v.extent)]
