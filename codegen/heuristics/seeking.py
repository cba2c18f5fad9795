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

from collections.abc import Mapping

from codegen.analysis.access import accesses, cost, size
from codegen.analysis.arrangement import Arrangement, arrange, points, visits
from codegen.heuristics.decisions import Setting
from codegen.heuristics.fusion import identity_axes
from codegen.heuristics.maps import SERIAL_WORK, tile_lane
from dsl.dim import Var
from dsl.nest import Nest, Stage
from dsl.primitives.loops import annotate, reorder, set_role, split
from dsl.primitives.reduction import rfactor
from dsl.primitives.storage import compute_at

_VISIT = 5  # elements that a dense sum compares in the time of one visit, in vectors
_RUN = 256  # bytes of a row that a thread takes: shorter ones cost as much to fetch
_NARROW = 16  # columns that are not worth going over the indices again for
_CHUNK, _CHUNKS, _TABLES = 4096, 64, 4  # terms of a chunk at least, chunks at most, terms for each element of a partial result
_OWN = 64  # points outside of which nobody needs partial results
_AGAIN, _PRIVATE = 1 << 16, 1 << 18  # terms that are gone over for every block of rows; bytes of one
_FILL = 32  # results that are set to zero at a time where no columns are


def schedule_sought(nest: Nest, setting: Setting) -> tuple[Nest, set[str]]:
    """Schedule every reduction for which seeking pays, and what finishes it; the nest, and the names of what is scheduled."""
    found: list[str] = []
    for name in [s.name for s in nest.stages]:
        axes = arrange(nest[name])
        if axes is not None and pays(nest[name], axes, setting):
            nest, made = part(nest, nest[name], axes)
            found.append(made)
    done: set[str] = set(found)
    for c in nest.stages:
        members = [m for m in found if _finished_by(nest, nest[m], c)]
        if members and len({_row(nest[m], c) for m in members}) == 1:
            nest = _finish(nest, c, members, setting)
            done.add(c.name)
            found = [m for m in found if m not in members]
    for name in found:
        nest = _schedule(nest, nest[name], setting)
    return nest, done


def pays(s: Stage, found: Arrangement, setting: Setting) -> bool:
    """Whether a visit is cheaper than a comparison with every row, a vector at a time, and its state lies where the result does."""
    lanes = setting.target.vector_bits // 32 or setting.target.warp
    columns = points(found.columns)
    return points(found.sought) * columns > _VISIT * lanes + 2 * columns and in_place(s)


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


def in_place(s: Stage) -> bool:
    """Whether the state of a reduction is of the same kind as its result, so that one memory serves both."""
    body = s.body
    return len(s.tensors) == 1 and body.data[0].state(tuple(a.dtype for a in body.args)) == (s.tensors[0].dtype,)


# -- on its own ----------------------------------------------------------------------------------------------------
def _schedule(nest: Nest, s: Stage, setting: Setting) -> Nest:
    """Loops of the owner, terms, followed axes, rows, columns."""
    found = arrange(s)
    assert found is not None
    names, shares = s.axis_names(), _shares(s, found, setting)
    nest = _inside(nest, s, found, shares, setting)
    for x in (*(names[v] for v in found.outer), *(f"{names[v]}.o" for v in shares)):
        nest = set_role(nest, s.name, x, "parallel")
    return annotate(nest, s.name, "serial", True) if _work(s) <= SERIAL_WORK else nest


def _inside(nest: Nest, s: Stage, found: Arrangement, shares: Mapping[Var, int], setting: Setting) -> Nest:
    """The loops of a stage in order, its rows seeking; ``shares`` are the blocks of the axes that are cut."""
    name, names = s.name, s.axis_names()
    for v, block in shares.items():
        nest = split(nest, name, names[v], block)
    inner, rows, columns = ([f"{names[v]}.i" if v in shares else names[v] for v in axes]
                            for axes in (found.followed, found.sought, found.columns))
    lane = found.columns[-1] if found.columns else None
    if lane is not None and any(x.write and x.stride(lane) == 1 for x in accesses(s, setting.strides)):
        nest, made = tile_lane(nest, name, columns[-1], shares.get(lane, size(lane.extent)), setting, cost(s.body))
        columns = [*columns[:-1], *made]
    own = [*(names[v] for v in found.outer), *(f"{names[v]}.o" for v in shares)]
    nest = reorder(nest, name, [*own, *(names[v] for v in s.bound), *inner, *rows, *columns])
    for x in rows:
        nest = set_role(nest, name, x, "seek")
    return nest if lane is not None else annotate(nest, name, "fill", _FILL, _last(nest[name], [*inner, *rows]))


def _work(s: Stage) -> int:
    return visits(s) * max(1, cost(s.body)) + points(s.axes)


def _last(s: Stage, loops: list[str]) -> str:
    """The loop whose elements are stored side by side."""
    names = [x.split(".")[0] for x in loops]
    order = [n for a, n in s.axis_names().items() if a in s.axes]
    return max(zip(names, loops), key=lambda x: order.index(x[0]))[1]


def _shares(s: Stage, found: Arrangement, setting: Setting) -> dict[Var, int]:
    """Axes that are cut so that every thread has its share; their blocks."""
    ways = _ways(found, setting)
    terms, table = points(s.bound), points((*found.sought, *found.columns))
    row, lane = found.sought[0], next(reversed((*found.followed, *found.columns)), None)
    width, height, grain = 0 if lane is None else size(lane.extent), size(row.extent), max(1, _RUN // s.tensors[0].dtype.itemsize)
    out: dict[Var, int] = {}
    if ways > 1 and lane is not None and width >= 2 * grain and (lane in found.followed or points(found.sought) < terms):
        share = -(-width // ways)
        out[lane] = -(-share // grain) * grain
    elif ways > 1 and (points(found.columns) >= _NARROW or table >= _NARROW * terms):
        out[row] = max(-(-height // ways), 2)  # a loop of one iteration has nothing to seek
    return {v: block for v, block in out.items() if block < size(v.extent)}


def _ways(found: Arrangement, setting: Setting) -> int:
    """Parts that each point of the outer axes is cut into, so that every thread has one."""
    threads, outside = setting.target.threads, points(found.outer)
    return threads if outside == 1 else -(-2 * threads // outside) if outside < 2 * threads else 1


# -- with what finishes it -----------------------------------------------------------------------------------------
def _finished_by(nest: Nest, s: Stage, c: Stage) -> bool:
    """Whether a pointwise stage takes each result once, so that blocks of rows can stay in a cache until it does.

    Every block goes over the indices again, so there should not be many.
    """
    found = arrange(s)
    if found is None or c.kind != "map" or c.attach is not None or c.relations or nest.consumers(s) != [c] or nest.is_output(s):
        return False
    up = identity_axes(c, s)
    alike = up is not None and len(up) == len(c.axes) and [up[a] for a in s.axes] == list(c.axes)
    return alike and points(s.bound) <= _AGAIN and c.axes[-1] is not _row(s, c) and _work(s) > SERIAL_WORK


def _row(s: Stage, c: Stage) -> Var:
    """The axis of a finishing stage that is cut into blocks."""
    found = arrange(s)
    assert found is not None
    return c.axes[s.axes.index(found.sought[0])]


def _finish(nest: Nest, c: Stage, members: list[str], setting: Setting) -> Nest:
    """Blocks of rows in parallel, in each of which the sums are made and then taken."""
    row, names = _row(nest[members[0]], c), c.axis_names()
    axes = {m: arrange(nest[m]) for m in members}
    first = next(a for a in axes.values() if a is not None)
    at = c.axes.index(row)
    each = points(c.axes[at + 1:]) * sum(nest[m].tensors[0].dtype.itemsize for m in members)
    block = max(2, min(-(-size(row.extent) // _ways(first, setting)), _PRIVATE // each))
    nest = split(nest, c.name, names[row], block)
    nest, made = tile_lane(nest, c.name, names[c.axes[-1]], size(c.axes[-1].extent), setting, max(cost(t.body) for t in c.tensors))
    outer = [*(names[v] for v in c.axes[:at]), f"{names[row]}.o"]
    nest = reorder(nest, c.name, [*outer, f"{names[row]}.i", *(names[v] for v in c.axes[at + 1:-1]), *made])
    for m in members:
        found = axes[m]
        assert found is not None
        nest = _inside(compute_at(nest, m, c.name, outer[-1]), nest[m], found, {}, setting)
    for x in outer:
        nest = set_role(nest, c.name, x, "parallel")
    return nest
