"""Products of more than two things, parted into the two factors of a contraction.

``sum_k x[i, k] * s[k] * relu(w[j, k])`` reuses ``x[i, k] * s[k]`` for every ``j`` and ``relu(w[j, k])`` for every ``i``. Each becomes a
definition of its own, which the schedule of the contraction computes while it packs the factor. Products are associated anew.

``sum_k g[i, k] * (x[i, j] - c[k, j]) / d[i, k]`` (the gradient of a distance) reuses ``g[i, k] / d[i, k]`` for every ``j``: with that
as a definition, the rest is a pair that register tiles reuse.
"""

from __future__ import annotations

import functools

from codegen.analysis.access import Strides, product_reads, read_access, size
from codegen.heuristics.fusion import is_contraction
from dsl.algebra import reads
from dsl.dim import Var
from dsl.expr import Expr, Reduce, op
from dsl.nest import Nest, Stage
from dsl.primitives.storage import multiplied, part_product

_REUSE = 8  # uses of an element that repay a pass of its own over the factor


def part_factors(nest: Nest, strides: Strides) -> Nest:
    """Give each factor of a sum of products a definition of its own, where the other factor's axes reuse it."""
    for s in nest.stages:
        if (isinstance(s.body, Reduce) and len(s.tensors) == 1 and s.body.carrier.name.startswith("sum") and s.attach is None
                and product_reads(s.body.args[0]) is None):
            sides = _sides(s, s.body.args[0])
            nest = _paired(nest, s, strides) if sides is None else _parted(nest, s, sides, strides)
    return nest


def _paired(nest: Nest, s: Stage, strides: Strides) -> Nest:
    """Part what lacks an axis of the rest, where that makes a contraction of a sum that is none."""
    parts, names = multiplied(s.body.args[0]), s.axis_names()
    most = max((_spatial(s, p) for p in parts), key=len)
    still = [n for n, p in enumerate(parts) if _spatial(s, p) < most]
    if not 0 < len(still) < len(parts) or any(p.dtype != parts[0].dtype for p in parts) or is_contraction(s):
        return nest
    factor = _product([parts[n] for n in still])
    if not any(size(v.extent) >= _REUSE for v in most - factor.free) or not reads(factor):
        return nest
    made = part_product(nest, s.name, still, [], [[names[v] for v in _axes(s, factor, strides)]])
    return made if is_contraction(made[s.name]) else nest


def _parted(nest: Nest, s: Stage, sides: tuple[list[int], list[int]], strides: Strides) -> Nest:
    parts, names = multiplied(s.body.args[0]), s.axis_names()
    axes = [[names[v] for v in _axes(s, _product([parts[n] for n in side]), strides)] for side in sides]
    return part_product(nest, s.name, *sides, axes)


def _sides(s: Stage, body: Expr) -> tuple[list[int], list[int]] | None:
    """What makes up the two factors, by position; None where nothing would be reused."""
    parts = multiplied(body)
    placed = [p for p in parts if _spatial(s, p)]
    if len(parts) < 2 or not placed:
        return None
    first = max(placed, key=lambda p: len(_spatial(s, p)))
    here = [p for p in placed if _spatial(s, p) <= _spatial(s, first)]
    there = [p for p in placed if not _spatial(s, p) <= _spatial(s, first)]
    if not there or any(p.dtype != first.dtype for p in parts):
        return None
    a, b = (functools.reduce(frozenset.union, (_spatial(s, p) for p in side)) for side in (here, there))
    if not all(any(size(v.extent) >= _REUSE for v in x - y) for x, y in ((a, b), (b, a))):
        return None
    loose = [p for p in parts if not _spatial(s, p)]
    smaller = here if _points(a) <= _points(b) else there
    smaller += loose
    first_side, second_side = ([n for n, p in enumerate(parts) if any(p is q for q in side)] for side in (here, there))
    return first_side, second_side


def _product(parts: list[Expr]) -> Expr:
    return functools.reduce(lambda a, b: op("mul", a, b), parts)


def _points(axes: frozenset[Var]) -> int:
    return functools.reduce(lambda n, v: n * size(v.extent), axes, 1)


def _spatial(s: Stage, e: Expr) -> frozenset[Var]:
    return frozenset(v for v in s.axes if v in e.free and size(v.extent) > 1)


def _axes(s: Stage, e: Expr, strides: Strides) -> tuple[Var, ...]:
    """The axes of a factor, in the order of the tensor that has most of them in memory; as they are where it is made of indices alone."""
    free = [v for v in (*s.axes, *s.bound) if v in e.free]
    most = max(reads(e), key=lambda r: sum(v in r.free for v in free), default=None)
    if most is None:
        return tuple(free)
    main = read_access(most, strides)
    return tuple(sorted(free, key=lambda v: -(main.stride(v) or 1 << 60)))
