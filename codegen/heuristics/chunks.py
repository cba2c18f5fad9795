"""Reductions made from partial results over chunks: where there are too few rows to occupy the threads, and where rows are long.

One accumulator that takes ten thousand terms one after another has forgotten the last bits of most of them. Sums of chunks, added up
in the end, keep every chain of additions short: a million terms go through some two hundred additions each and not through thousands. It
costs nothing, since the chunks' sums are few.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Set as AbstractSet

from codegen.analysis.access import Strides, accesses, product_reads, read_access, size
from codegen.heuristics.decisions import Setting
from codegen.heuristics.fusion import is_contraction, iterations
from codegen.heuristics.lanes import lane_axis
from codegen.heuristics.maps import SERIAL_WORK, keeps, looked_at, runs_on
from dsl.algebra import reads
from dsl.dim import Var
from dsl.nest import Nest, Stage
from dsl.primitives.axes import join_axes
from dsl.primitives.loops import split
from dsl.primitives.storage import rfactor

_CHUNK = 4096  # terms of a row with lanes inside of it: 128 steps of four vectors of eight
_ACROSS = 64  # terms of rows that lie along the lanes, whose chains have a single accumulator
_RUN = 512  # bytes of a row that a thread takes: shorter ones cost as much to fetch
_SHARES = 16  # points for a thread that an axis must have to be the one that is cut
_LONG, _LONG_ACROSS = 8, 4  # chunks from which a row is parted
_ROUNDED = ("sum", "logsumexp")  # and their partial results


def part_reductions(nest: Nest, setting: Setting, done: AbstractSet[str]) -> Nest:
    """Make partial results of chunks where rows are few or long; the partial results of very many chunks are parted in their turn.

    The stages that are scheduled already (``done``) stay as they are.
    """
    left = [s.name for s in nest.stages if s.kind == "reduce" and s.attach is None and s.name not in done]
    while left:
        name, terms = left.pop(), math.inf
        nest = _join(nest, name, setting.strides)
        while (found := _chunk(nest[name], setting)) is not None and _terms_of(nest[name]) < terms:  # unknown sizes do not shrink
            terms = _terms_of(nest[name])
            axis, step = found
            loop = nest[name].axis_names()[axis]
            nest, part = rfactor(split(nest, name, loop, step), name, f"{loop}.o")
            left += [part] if step == 1 else []  # rows that may be long themselves
    return nest


def _join(nest: Nest, name: str, strides: Strides) -> Nest:
    """One axis of those that lie in memory as one, so that a chunk is a run of memory and rows are as long as they can be."""
    s = nest[name]
    names, touched = s.axis_names(), accesses(s, strides)
    seen = [t for x in s.tensors for t in looked_at(x.body)]
    if is_contraction(s) or s.relations or s.roles or s.states or any(v.extent == 0 for v in s.bound):
        return nest
    for outer, inner in itertools.permutations(s.bound, 2):
        ordered = s.body.data[0].commutative or s.bound.index(inner) == s.bound.index(outer) + 1
        if ordered and all(runs_on(x, outer, inner) for x in touched if not x.write) and all(keeps(t, outer, inner) for t in seen):
            return _join(join_axes(nest, name, names[outer], names[inner]), name, strides)
    return nest


def _terms_of(s: Stage) -> int:
    return math.prod(size(v.extent) for v in s.bound)


def _chunk(s: Stage, setting: Setting) -> tuple[Var, int] | None:
    """The axis that is cut into chunks, and its points in one; None where the reduction stays whole."""
    if s.body.data[0].name.startswith("moments") or not s.bound:
        return None
    across = lane_axis(s, setting.strides, (*s.axes, *s.bound)) in s.axes
    rows = math.prod(size(v.extent) for v in s.axes)
    lanes = setting.target.vector_bits // 32
    least = setting.target.threads * (max(2 * lanes, _RUN // s.tensors[0].dtype.itemsize) if across else 2)
    steps = _steps(s, setting)
    longest = max(s.bound, key=lambda v: (size(v.extent) >= _SHARES * setting.target.threads, steps[v], size(v.extent)))
    merges = s.body.data[0].name.endswith(".merge")
    if rows < least and iterations(s) > 8 * SERIAL_WORK and size(longest.extent) >= 64 and not merges:
        return longest, _shared(s, longest, across, setting)
    if is_contraction(s) or (across and product_reads(s.body.args[0]) is not None):
        return None  # the rows of a product pass once, into results that stay in the nearest cache
    return _long(s, across, setting)


def _shared(s: Stage, axis: Var, across: bool, setting: Setting) -> int:
    """Points of a chunk that gives every thread several, no more of them than keep a sum accurate."""
    total, threads = size(axis.extent), setting.target.threads
    chunks = setting.choose(f"{s.name}.chunks", 4 * threads, [n * threads for n in (1, 2, 4, 8)])
    step = -(-total // chunks)
    step = -(-step // 256) * 256 if total >= 256 * chunks else step
    return min(step, max(1, _terms(across) // _each(s, axis))) if _rounds(s) else step


def _long(s: Stage, across: bool, setting: Setting) -> tuple[Var, int] | None:
    """The axis with the largest steps in memory, in chunks of so many terms that a sum of them is accurate."""
    terms = _terms_of(s)
    if not _rounds(s) or terms < (_LONG_ACROSS if across else _LONG) * _terms(across):
        return None
    steps = _steps(s, setting)
    long = [v for v in s.bound if size(v.extent) > 1]
    axis = max(long, key=lambda v: steps[v])
    step = max(1, _terms(across) // _each(s, axis))
    return (axis, step) if size(axis.extent) > step else None


def _steps(s: Stage, setting: Setting) -> dict[Var, int]:
    """Elements from one point of an axis to the next in memory."""
    found = [read_access(r, setting.strides) for r in reads(s.body)]
    return {v: max((n for x in found if (n := x.stride(v))), default=0) for v in s.bound}


def _terms(across: bool) -> int:
    return _ACROSS if across else _CHUNK


def _each(s: Stage, axis: Var) -> int:
    """Terms for each point of an axis."""
    return math.prod(size(v.extent) for v in s.bound if v is not axis)


def _rounds(s: Stage) -> bool:
    """Whether the order of combination shows, and chains of it lose bits."""
    dtypes = tuple(a.dtype for a in s.body.args)
    return s.body.data[0].name.split(".")[0] in _ROUNDED and not s.body.data[0].reorders_exactly(dtypes)
