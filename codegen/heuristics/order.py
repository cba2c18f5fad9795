"""The order in which intermediate results lie in memory: that in which the contraction that reads them does."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import replace

from codegen.analysis.access import size
from codegen.heuristics.contraction import written
from codegen.heuristics.decisions import Setting
from codegen.heuristics.fusion import identity_axes, is_contraction
from codegen.heuristics.product import Product, analyse
from codegen.tile.layout import contiguous
from dsl.dim import Term, as_term
from dsl.expr import Read
from dsl.nest import Nest, Stage
from dsl.primitives.storage import lay_out


def order_intermediates(nest: Nest, setting: Setting, done: AbstractSet[str] = frozenset()) -> tuple[Nest, Setting]:
    """Put the terms of a sum side by side in what a map stage stores for it.

    before: ``padded[c, y, x]``, of which each row of a register tile reads one element in a cache line per step of ``c``
    after: ``padded`` stored as ``y, x, c``, read along ``c``

    It applies to the factor without the lane axis; the other one is read along its lanes. Inputs lie as they are given, and stages that
    are scheduled already (``done``) stay as they are.
    """
    strides = dict(setting.strides)
    for s in nest.stages:
        if not is_contraction(s) or s.name in done:
            continue
        p = analyse(s, strides, written(nest, _finisher(nest, s).name, s.name, strides))
        producer = None if p.rows is None else nest.producer(p.rows.tensor)
        if p.rows is None or producer is None or producer.kind != "map" or nest.is_output(producer) or len(nest.consumers(producer)) != 1:
            continue
        order = _order(p, p.rows)
        if order is not None and len(producer.tensors) == 1 and producer.layout is None and producer.attach is None:
            nest = lay_out(nest, producer.name, lambda axes, order=order: tuple(as_term(axes[n]) for n in order))  # type: ignore[misc]
            strides[p.rows.tensor] = _strides(p.rows.tensor.shape, order)
    return nest, replace(setting, strides=strides)


def _finisher(nest: Nest, s: Stage) -> Stage:
    """The map stage that takes a contraction's results one by one, else the contraction."""
    consumers = nest.consumers(s)
    if len(consumers) != 1 or consumers[0].kind != "map" or nest.is_output(s):
        return s
    return consumers[0] if len(identity_axes(consumers[0], s) or ()) == len(s.axes) else s


def _order(p: Product, factor: Read) -> tuple[int, ...] | None:
    """The dimensions with those that only the sum runs over last; None where they are last already, or there are none."""
    bound = set(p.stage.bound)
    sums = [n for n, i in enumerate(factor.indices)
            if isinstance(i, Term) and i.vars and set(i.vars) <= bound and size(factor.tensor.shape[n]) > 1]
    order = (*(n for n in range(factor.tensor.ndim) if n not in sums), *sums)
    return order if sums and order != tuple(range(factor.tensor.ndim)) else None


def _strides(shape: tuple[Term, ...], order: tuple[int, ...]) -> tuple[Term, ...]:
    """Strides of a tensor whose dimensions are stored in another order."""
    packed = contiguous(tuple(shape[n] for n in order))
    return tuple(packed[order.index(n)] for n in range(len(shape)))
