"""The order in which intermediate results lie in memory: that in which the reduction that reads them does."""

from __future__ import annotations

import math
from collections.abc import Set as AbstractSet
from dataclasses import replace

from codegen.analysis.access import Strides, read_access, size
from codegen.heuristics.contraction import most_dots, written
from codegen.heuristics.decisions import Setting
from codegen.heuristics.fusion import identity_axes, is_contraction, iterations
from codegen.heuristics.lanes import NEAR
from codegen.heuristics.product import LONG, Product, analyse
from codegen.heuristics.windows import WINDOW
from codegen.tile.layout import contiguous
from dsl.algebra import index_condition, reads
from dsl.dim import Term, Var, as_term
from dsl.expr import Const, Read, Tensor, Where
from dsl.nest import Nest, Stage
from dsl.primitives.storage import cache_read, compute_inline, gather_read, lay_out

_LANES = 8  # a shorter axis is not worth lanes
_LINE = 64  # bytes of a cache line
_REUSED = 16  # times that an element is read, which repay a copy of it
_TWICE = 2  # times that elements far apart are gathered into lanes, which cost more than a copy in which they are neighbours


def order_intermediates(nest: Nest, setting: Setting, done: AbstractSet[str] = frozenset()) -> tuple[Nest, Setting]:
    """Put the terms of a sum side by side in what a map stage stores for it.

    before: ``padded[c, y, x]``, of which each row of a register tile reads one element in a cache line per step of ``c``
    after: ``padded`` stored as ``y, x, c``, read along ``c``

    It applies to the factor without the lane axis; the other one is read along its lanes. Inputs lie as they are given, and are gathered
    where little of every line is read; stages that are scheduled already (``done``) stay as they are.
    """
    strides = dict(setting.strides)
    for s in nest.stages:
        if s.name in done or s.kind != "reduce":
            continue
        if not is_contraction(s):
            nest = _along_lanes(nest, s, strides)
            continue
        p = analyse(s, strides, written(nest, _finisher(nest, s).name, s.name, strides))
        producer = None if p.rows is None else nest.producer(p.rows.tensor)
        if p.rows is not None and producer is None and (_sparse(p, p.rows, setting) or _crosswise(p, p.rows, setting)):
            nest = gather_read(nest, s.name, p.rows, f"{p.rows.tensor.name}.read", _walked(p, p.rows, strides))[0]
        if p.rows is None or producer is None or producer.kind != "map" or nest.is_output(producer) or len(nest.consumers(producer)) != 1:
            continue
        order = None if _along_terms(p, strides) else _order(p, p.rows)
        if order is not None and _free(producer) and setting.choose(f"{producer.name}.terms_last", True, (True, False)):
            nest = _ordered(nest, producer, order, strides)
    return nest, replace(setting, strides=strides)


def _sparse(p: Product, factor: Read, setting: Setting) -> bool:
    """Whether a row factor is better gathered first: of the lines that the tiles of a row read, each has few elements, far from the next.

    A convolution of every second pixel, say, with the channels far apart. The lines of one row of tiles do not stay in the nearest cache,
    and each of them is wanted for every panel.
    """
    x, line = read_access(factor, setting.strides), _LINE // factor.dtype.itemsize
    apart = x.stride(p.row) if p.row is not None else None
    steps = [n for v in p.stage.bound if size(v.extent) > 1 and (n := x.stride(v))]
    if not apart or apart == 1 or not steps or min(steps) < line or p.columns < _LANES * _REUSED:
        return False
    elements = math.prod(size(v.extent) for v in factor.free if isinstance(v, Var))
    lines = p.depth * -(-p.lines * min(apart, line) // line)
    return elements <= math.prod(size(n) for n in factor.tensor.shape) and lines * _LINE > setting.target.caches[0] // 2


def _crosswise(p: Product, factor: Read, setting: Setting) -> bool:
    """Whether few rows lie across the sum, along which the lane factor lies: a copy of them makes dots of the product."""
    if p.lanes is None or p.panel is not None or p.lines > most_dots(setting.target) or p.contiguous_lanes(setting.strides):
        return False
    across, along = read_access(factor, setting.strides), read_access(p.lanes, setting.strides)
    elements = math.prod(size(v.extent) for v in factor.free if isinstance(v, Var))
    return (any(along.stride(v) == 1 != across.stride(v) and size(v.extent) >= LONG for v in p.stage.bound)
            and elements * _REUSED <= iterations(p.stage))


def _walked(p: Product, factor: Read, strides: Strides) -> list[Var]:
    """The axes of a factor, those of the sum last."""
    return [v for v in (*p.stage.axes, *p.walk(strides)) if v in factor.free]


def _free(s: Stage) -> bool:
    """Whether nothing else has a say in how a stage is stored."""
    return len(s.tensors) == 1 and s.layout is None and s.attach is None


def _ordered(nest: Nest, s: Stage, order: tuple[int, ...], strides: dict[Tensor, tuple[Term, ...]]) -> Nest:
    """Store a stage with its dimensions in another order."""
    strides[s.tensors[0]] = _strides(s.tensors[0].shape, order)
    return lay_out(nest, s.name, lambda axes: tuple(as_term(axes[n]) for n in order))


def _along_lanes(nest: Nest, s: Stage, strides: dict[Tensor, tuple[Term, ...]]) -> Nest:
    """Put neighbours along the axis in which a window's results are stored side by side in what it reads.

    before: ``out[y, x, c] = sum of padded[c, y + r, x + q] * w[c, r, q]``, stored along ``c``
    after: ``padded`` stored as ``y, x, c``, and ``w`` read through a copy that is stored as ``r, q, c``

    Intermediates are stored so. Of inputs, those much smaller than what is computed from them are copied, and images along which the window
    of a convolution slides in the direction of the lanes: ``image[y + r, x + q, c]`` for lanes along ``x``.
    """
    apart = written(nest, _finisher(nest, s).name, s.name, strides)
    lane = next((v for v in s.axes if apart.get(v) == 1 and size(v.extent) >= _LANES), None)
    if lane is None or len(s.tensors) != 1 or math.prod(size(v.extent) for v in s.bound) > WINDOW:
        return nest
    for r in dict.fromkeys(reads(s.tensors[0].body)):
        at = _dimension(r, lane)
        if at is None or read_access(r, strides).stride(lane) in range(1, NEAR + 1):
            continue
        order = (*(n for n in range(r.tensor.ndim) if n != at), at)
        made = nest.producer(r.tensor)
        if made is not None and made.kind == "map" and not nest.is_output(made) and _free(made) and nest.consumers(made) == [nest[s.name]]:
            nest = compute_inline(nest, made.name) if _guarded(made, made.axes[at]) else _ordered(nest, made, order, strides)
        elif math.prod(size(n) for n in r.tensor.shape) * (_TWICE if _across(s, r, at, lane, strides) else _REUSED) <= iterations(s):
            nest, copy = cache_read(nest, s.name, r.tensor, f"{r.tensor.name}.packed", order, only=r)
            strides[nest[copy].tensors[0]] = _strides(r.tensor.shape, order)
    return nest


def _guarded(s: Stage, axis: Var) -> bool:
    """Whether a stage is but a read inside bounds that are the same all along an axis: a vector is loaded whole or not at all."""
    body = s.tensors[0].body
    if not isinstance(body, Where) or not isinstance(body.args[1], Read) or not isinstance(body.args[2], Const):
        return False
    terms = index_condition(body.args[0])
    return terms is not None and all(axis not in t.vars for t in terms)


def _dimension(r: Read, lane: Var) -> int | None:
    """The dimension that a step along the lane axis moves in, by little; None when there is none, or several mention the axis."""
    own = [n for n, i in enumerate(r.indices) if lane in (i.vars if isinstance(i, Term) else i.free)]
    index = r.indices[own[0]] if len(own) == 1 else None
    return own[0] if isinstance(index, Term) and index.coef(lane) in range(1, NEAR + 1) else None


def _across(s: Stage, r: Read, at: int, lane: Var, strides: Strides) -> bool:
    """Whether a window slides along the lanes over elements far apart, and lanes along the axis of neighbours are no way out.

    They are one for a pool, but not for a convolution: its weights are far apart on that axis.
    """
    index, image = r.indices[at], read_access(r, strides)
    slides = isinstance(index, Term) and any(v is not lane and size(v.extent) > 1 for v in index.vars)
    near = [v for v in s.axes if image.stride(v) == 1 and size(v.extent) > 1]
    others = [read_access(x, strides) for x in reads(s.tensors[0].body) if x.tensor is not r.tensor]
    return slides and any(x.stride(v) not in (0, 1) for x in others for v in near)


def _finisher(nest: Nest, s: Stage) -> Stage:
    """The map stage that takes a contraction's results one by one, else the contraction."""
    consumers = nest.consumers(s)
    if len(consumers) != 1 or consumers[0].kind != "map" or nest.is_output(s):
        return s
    return consumers[0] if len(identity_axes(consumers[0], s) or ()) == len(s.axes) else s


def _along_terms(p: Product, strides: dict[Tensor, tuple[Term, ...]]) -> bool:
    """Whether the row factor lies along an axis of the sum already: the weights' gradient walks along lines of an image."""
    assert p.rows is not None
    access = read_access(p.rows, strides)
    return any(size(v.extent) >= _LANES and access.stride(v) == 1 for v in p.stage.bound)


def _order(p: Product, factor: Read) -> tuple[int, ...] | None:
    """The dimensions with those last that only the sum runs over in each product; None where they are last already, or there are none."""
    bound, batch = set(p.stage.bound), set(p.batch)
    sums = [n for n, i in enumerate(factor.indices)
            if isinstance(i, Term) and i.vars & bound and i.vars <= bound | batch and size(factor.tensor.shape[n]) > 1]
    order = (*(n for n in range(factor.tensor.ndim) if n not in sums), *sums)
    return order if sums and order != tuple(range(factor.tensor.ndim)) else None


def _strides(shape: tuple[Term, ...], order: tuple[int, ...]) -> tuple[Term, ...]:
    """Strides of a tensor whose dimensions are stored in another order."""
    packed = contiguous(tuple(shape[n] for n in order))
    return tuple(packed[order.index(n)] for n in range(len(shape)))
