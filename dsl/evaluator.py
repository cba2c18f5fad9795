"""Scalar expressions over a box of their indices, as numpy arrays whose dimensions are the index variables."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dsl.algebra import walk
from dsl.carrier import Carrier
from dsl.dim import Term, Var
from dsl.errors import BoundsError, InternalError
from dsl.expr import Cast, Const, Expr, Index, Op, Read, Reduce, Scan, Tensor, Where
from dsl.numerics import Array, NumpyAlgebra, apply_op

Ranges = dict[Var, tuple[int, int]]
FAST: dict[str, Any] = {
    "sum": np.add, "prod": np.multiply, "max": np.maximum, "min": np.minimum, "max.first": np.maximum, "any": np.logical_or,
    "all": np.logical_and,
}


@dataclass
class Named:
    """An array with one dimension per variable of ``axes``."""

    axes: tuple[Var, ...]
    data: Array

    def over(self, axes: tuple[Var, ...]) -> Array:
        """The data with dimensions ``axes`` (a supersequence of its own), of size 1 where it does not vary."""
        own = set(self.axes)
        return self.data[tuple(slice(None) if a in own else None for a in axes)]


def use_counts(nodes: Iterable[Expr]) -> dict[Expr, int]:
    """How many operands each node is."""
    uses: dict[Expr, int] = {}
    for n in nodes:
        for a in n.args:
            uses[a] = uses.get(a, 0) + 1
    return uses


def contracted(nodes: Iterable[Expr], uses: Mapping[Expr, int]) -> dict[Expr, Expr]:
    """Sums of float products that nothing else reads -> the product; in float64 their order is of no interest."""
    sums = (n for n in nodes if isinstance(n, Reduce) and n.carrier.name == "sum" and n.dtype.is_float)
    return {n: p for n in sums if isinstance(p := n.args[0], Op) and p.name == "mul" and uses[p] == 1 and p.dtype.is_float
            and not any(v.kind == "axis" for a in n.axes if a.extent is not None for v in a.extent.vars)}


class Evaluator:
    """Evaluates the body of one definition over a box.

    Args:
        values: the arrays of the tensors that are read.
        sizes: the symbolic sizes.
        ranges: the box of the definition's own axes.
        order: their positions; bound axes come after them.
        float64: evaluate floats in float64.
    """

    def __init__(self, values: Mapping[Tensor, Array], sizes: Mapping[Var, int], ranges: Ranges, order: Mapping[Var, int],
                 float64: bool) -> None:
        self.values, self.sizes, self.ranges, self.order = values, sizes, dict(ranges), order
        self.algebra = NumpyAlgebra(float64)
        self.outside: dict[Read, Named] = {}
        self.conditions: dict[Expr, Named] = {}
        self.states: dict[tuple[Any, ...], tuple[tuple[Var, ...], tuple[Array, ...]]] = {}

    def body(self, root: Expr) -> Named:
        """The value of ``root`` over the box.

        Raises:
            BoundsError: a read out of bounds that no ``where`` masks.
        """
        value = self.value(root)
        if self.outside:
            self._check_reads(root)
        return value

    def value(self, root: Expr) -> Named:
        """The value of ``root``; reads that were out of bounds are noted in ``outside``."""
        nodes = list(walk(root))
        uses = use_counts(nodes)
        products = contracted(nodes, uses) if self.algebra.float64 else {}
        never = set(products.values())
        memo: dict[Expr, Named] = {}
        for n in nodes:
            if n in never:
                continue
            args = [memo[a] for a in (products[n] if n in products else n).args]
            memo[n] = self._contract(n.axes, *args) if n in products and isinstance(n, Reduce) else self._node(n, args)
            if isinstance(n, Where):
                self.conditions[n] = memo[n.args[0]]
            for a in products[n].args if n in products else n.args:
                uses[a] -= 1
                if not uses[a] and a is not root:
                    del memo[a]
        return memo[root]

    # -- nodes -------------------------------------------------------------------------------------------------
    def _node(self, e: Expr, args: list[Named]) -> Named:
        if isinstance(e, Const):
            return Named((), self.algebra.const(e.value, e.dtype))
        if isinstance(e, Index):
            return self.term(e.term)
        if isinstance(e, Read):
            return self._read(e, args)
        if isinstance(e, Op):
            return self.map(lambda *a: apply_op(e.name, a), args)
        if isinstance(e, Cast):
            return self.map(lambda a: self.algebra.cast(a, e.dtype), args)
        if isinstance(e, Where):
            return self.map(np.where, args)
        if isinstance(e, Reduce):
            return self._reduce(e, args)
        if isinstance(e, Scan):
            return self._scan(e, args)
        raise InternalError(f"{type(e).__name__} has no numpy meaning")

    def map(self, fn: Callable[..., Array], args: Iterable[Named]) -> Named:
        """``fn`` on arrays aligned by name."""
        named = list(args)
        axes = self._union(named)
        return Named(axes, np.asarray(fn(*(a.over(axes) for a in named))))

    def _union(self, args: Iterable[Named]) -> tuple[Var, ...]:
        return self._sorted({v for a in args for v in a.axes})

    def _sorted(self, axes: Iterable[Var]) -> tuple[Var, ...]:
        last = len(self.order)
        return tuple(sorted(axes, key=lambda v: (self.order.get(v, last), v.uid)))

    def term(self, t: Term) -> Named:
        """An index term over the ranges of its variables, as int64."""
        axes = self._sorted(v for v in t.vars if v.kind == "axis")
        env: dict[Var, Any] = {v: self.sizes[v] for v in t.vars if v.kind == "dim"}
        for n, v in enumerate(axes):
            lo, hi = self.range(v)
            env[v] = np.arange(lo, hi, dtype=np.int64).reshape((-1,) + (1,) * (len(axes) - 1 - n))
        shape = tuple(hi - lo for lo, hi in map(self.range, axes))
        return Named(axes, np.broadcast_to(np.asarray(t.eval(env), np.int64), shape))

    def range(self, v: Var) -> tuple[int, int]:
        """The range over which a variable is evaluated: that of the box, or ``[0, greatest extent)`` for a bound axis."""
        if v not in self.ranges:
            assert v.extent is not None
            size = self.term(v.extent).data
            self.ranges[v] = (0, max(int(size.max()), 0) if size.size else 0)
        return self.ranges[v]

    # -- reads -------------------------------------------------------------------------------------------------
    def indices(self, e: Read, args: list[Named]) -> list[Named]:
        """One index per dimension of the tensor."""
        rest = iter(args)
        return [next(rest) if s is None else self.term(s) for s in e.data[1]]

    def _read(self, e: Read, args: list[Named]) -> Named:
        array = self.values[e.tensor]
        fast = self._slices(e, array)
        if fast is not None:
            return fast
        where = self.indices(e, args)
        inside: list[Named] = []
        for i, n in zip(where, array.shape):
            if i.data.size and (int(i.data.min()) < 0 or int(i.data.max()) >= n):
                inside.append(Named(i.axes, (i.data < 0) | (i.data >= n)))
        if inside:
            self.outside[e] = self.map(lambda *m: np.logical_or.reduce(np.broadcast_arrays(*m)), inside)
        if array.size:
            return self.map(lambda *i: array[tuple(np.clip(x, 0, n - 1) for x, n in zip(i, array.shape))], where)
        axes = self._union(where)
        return Named(axes, np.zeros(tuple(hi - lo for lo, hi in map(self.range, axes)), array.dtype))

    def _slices(self, e: Read, array: Array) -> Named | None:
        """A view for a read whose indices are ``c*v + b`` with different variables, all in bounds; else None."""
        axes: list[Var] = []
        cut: list[slice | int] = []
        for s, n in zip(e.data[1], array.shape):
            if s is None:
                return None
            s = s.subs({v: self.sizes[v] for v in s.vars if v in self.sizes})
            variables = list(s.vars)
            lo, hi = self.range(variables[0]) if variables else (0, 1)
            step = s.coef(variables[0]) if len(variables) == 1 else 0 if not variables else None
            if step is None or (variables and (step < 1 or variables[0] in axes)) or hi <= lo:
                return None
            first, last = s.const + step * lo, s.const + step * (hi - 1)
            if first < 0 or last >= n:
                return None
            axes += variables
            cut.append(slice(first, last + 1, step) if variables else first)
        ordered = self._sorted(axes)
        return Named(ordered, np.asarray(array[tuple(cut)]).transpose([axes.index(a) for a in ordered]))

    def _check_reads(self, root: Expr) -> None:
        """Raise for a read that was out of bounds at a point where its value is wanted."""
        wanted: dict[Expr, Named | None] = {root: None}
        nodes = list(walk(root))
        relevant: set[Expr] = set()
        for n in nodes:
            if n in self.outside or any(a in relevant for a in n.args):
                relevant.add(n)
        for n in reversed(nodes):
            if n not in relevant:
                continue
            mask = wanted[n]
            if isinstance(n, Read) and n in self.outside:
                bad = self.outside[n] if mask is None else self.map(np.logical_and, [self.outside[n], mask])
                if bad.data.any():
                    self._raise(n, bad)
            for position, a in enumerate(n.args):
                if a in relevant:
                    self._want(wanted, a, self._mask_of(n, position, mask))

    def _mask_of(self, n: Expr, position: int, mask: Named | None) -> Named | None:
        """Where operand ``position`` of ``n`` is wanted, given where ``n`` is."""
        own: Named | None = None
        if isinstance(n, Where) and position:
            cond = self.conditions[n]
            own = cond if position == 1 else Named(cond.axes, ~cond.data)
        if isinstance(n, Reduce):
            own = self._ragged(n.axes)
        if own is None or mask is None:
            return own if mask is None else mask
        return self.map(np.logical_and, [own, mask])

    def _want(self, wanted: dict[Expr, Named | None], e: Expr, mask: Named | None) -> None:
        if e not in wanted:
            wanted[e] = mask
            return
        before = wanted[e]
        wanted[e] = None if mask is None or before is None else self.map(np.logical_or, [before, mask])

    def _raise(self, e: Read, bad: Named) -> None:
        point = np.argwhere(np.atleast_1d(bad.data))[0].tolist()
        at: Ranges = dict(self.ranges)
        for v, n in zip(bad.axes, point):
            at[v] = (self.range(v)[0] + n, self.range(v)[0] + n + 1)
        there = Evaluator(self.values, self.sizes, at, self.order, self.algebra.float64)
        where = [int(i.data.flat[0]) for i in there.indices(e, [there.value(a) for a in e.args])]
        shape = self.values[e.tensor].shape
        axis = next(n for n, (i, size) in enumerate(zip(where, shape)) if not 0 <= i < size)
        element = f"{e.tensor.name}[{', '.join(map(str, where))}]"
        size = f"{e.tensor.name} has {shape[axis]} elements" + (f" in dimension {axis}" if len(shape) > 1 else "")
        names = ", ".join(f"{v} = {at[v][0]}" for v in bad.axes)
        raise BoundsError(f"{e} is out of bounds", f"{names + ' ' if names else 'it '}reads {element}, but {size}",
                          "guard the read: dlc.where(condition, read, other)", e.loc)

    # -- reductions --------------------------------------------------------------------------------------------
    def _ragged(self, axes: tuple[Var, ...]) -> Named | None:
        """Where bound axes are inside extents that depend on outer axes; None when none does."""
        masks = []
        for a in axes:
            assert a.extent is not None
            if any(v.kind == "axis" for v in a.extent.vars):
                own = Named((a,), np.arange(self.range(a)[1]))
                masks.append(self.map(np.less, [own, self.term(a.extent)]))
        return self.map(lambda *m: np.logical_and.reduce(np.broadcast_arrays(*m)), masks) if masks else None

    def _lifted(self, carrier: Carrier, e: Expr, args: list[Named], bound: tuple[Var, ...]) -> tuple[tuple[Var, ...], list[Array]]:
        """The states of all elements: outer axes, then one dimension per bound axis."""
        dtypes = tuple(a.dtype for a in e.args)
        state = carrier.state(dtypes)
        mask = self._ragged(bound)
        axes = self._union([*args, *([mask] if mask else [])])
        outer = tuple(a for a in axes if a not in bound)
        full = outer + bound
        sizes = tuple(self.range(a)[1] for a in bound)
        lifted = carrier.lift(self.algebra, tuple(self._transposed(a, full) for a in args), state)
        if mask:
            inside, identity = self._transposed(mask, full), carrier.identity(self.algebra, state)
            lifted = tuple(np.where(inside, x, i) for x, i in zip(lifted, identity))
        shape = np.broadcast_shapes(*(x.shape for x in lifted), (1,) * len(outer) + sizes)
        return outer, [np.broadcast_to(x, shape) for x in lifted]

    def _transposed(self, a: Named, full: tuple[Var, ...]) -> Array:
        order = [v for v in full if v in a.axes]
        return Named(tuple(order), a.data.transpose([a.axes.index(v) for v in order])).over(full)

    def _reduce(self, e: Reduce, args: list[Named]) -> Named:
        key = (e.carrier, e.args, e.axes)
        if key not in self.states:
            outer, lifted = self._lifted(e.carrier, e, args, e.axes)
            flat = [np.ascontiguousarray(x).reshape(*x.shape[:len(outer)], math.prod(x.shape[len(outer):])) for x in lifted]
            self.states[key] = outer, tuple(self._combine_all(e, flat))
        outer, state = self.states[key]
        return Named(outer, self.algebra.cast(np.asarray(e.carrier.finalize(self.algebra, state)[e.out]), e.dtype))

    def _contract(self, bound: tuple[Var, ...], a: Named, b: Named) -> Named:
        """The sum of a product of two factors, by the linear algebra library and without the array of all products."""
        outer = tuple(v for v in self._union([a, b]) if v not in bound)
        numbers = {v: n for n, v in enumerate((*outer, *bound))}
        times = math.prod(self.range(v)[1] for v in bound if v not in a.axes and v not in b.axes)
        args = (x for f in (a, b) for x in (f.data, [numbers[v] for v in f.axes]))
        return Named(outer, np.asarray(np.einsum(*args, [numbers[v] for v in outer], optimize=True)) * times)

    def _combine_all(self, e: Reduce, states: list[Array]) -> list[Array]:
        """Combine along the last dimension, neighbours first, so that the order of the axis is kept."""
        identity = e.carrier.identity(self.algebra, e.carrier.state(tuple(a.dtype for a in e.args)))
        if e.carrier.name in FAST:
            start = identity[0].item()
            return [np.asarray(FAST[e.carrier.name].reduce(states[0], axis=-1, dtype=states[0].dtype, initial=start))]
        if states[0].shape[-1] == 0:
            return [np.broadcast_to(i, s.shape[:-1]) for i, s in zip(identity, states)]
        while (n := states[0].shape[-1]) > 1:
            even, odd, tail = ([s[..., a:b:c] for s in states] for a, b, c in ((0, n - n % 2, 2), (1, n, 2), (n - n % 2, n, 1)))
            merged = e.carrier.combine(self.algebra, tuple(even), tuple(odd))
            states = [np.concatenate([np.asarray(m), t], axis=-1) for m, t in zip(merged, tail)]
        return [s[..., 0] for s in states]

    # -- scans -------------------------------------------------------------------------------------------------
    def _scan(self, e: Scan, args: list[Named]) -> Named:
        """Prefixes of every length, then the one that each output position wants."""
        carrier: Carrier = e.carrier
        outer, states = self._lifted(carrier, e, args, (e.axis,))
        states = [s[..., ::-1] for s in states] if e.reverse else states
        prefixes = self._prefixes(e, states)
        result = self.algebra.cast(np.asarray(carrier.finalize(self.algebra, tuple(prefixes))[e.out]), e.dtype)
        n = result.shape[-1] - 1
        at = self.term(e.at)
        taken = (n - at.data if e.reverse else at.data + 1) - (1 if e.exclusive else 0)
        count = Named(at.axes, np.clip(taken, 0, n))
        rows = [Named((a,), np.arange(result.shape[k])) for k, a in enumerate(outer)]
        return self.map(lambda *i: result[i], [*rows, count])

    def _prefixes(self, e: Scan, states: list[Array]) -> list[Array]:
        """States of the prefixes of length 0, 1, ..., n along the last dimension."""
        carrier: Carrier = e.carrier
        identity = carrier.identity(self.algebra, carrier.state(tuple(a.dtype for a in e.args)))
        if carrier.name in FAST:
            states = [np.asarray(FAST[carrier.name].accumulate(states[0], axis=-1, dtype=states[0].dtype))]
        else:
            shift = 1
            while shift < states[0].shape[-1]:
                states = self._step(e, states, shift)
                shift *= 2
        return [np.concatenate([np.broadcast_to(i, (*s.shape[:-1], 1)), s], axis=-1) for i, s in zip(identity, states)]

    def _step(self, e: Scan, states: list[Array], shift: int) -> list[Array]:
        """One doubling step: the state of ``[k-2*shift, k]`` from those of its halves, in the order of the axis."""
        before, after = tuple(s[..., :-shift] for s in states), tuple(s[..., shift:] for s in states)
        pair = (after, before) if e.reverse else (before, after)
        merged = e.carrier.combine(self.algebra, *pair)
        return [np.concatenate([s[..., :shift], np.asarray(m)], axis=-1) for s, m in zip(states, merged)]

