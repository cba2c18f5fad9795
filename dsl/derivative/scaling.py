"""Adjoints by homogeneity: of a sum that only scales what is made of it.

Let the elements of ``s`` be multiplied by ``exp(d)``, and let some ``Y`` downstream then be multiplied by ``exp(w d)``, whatever lies in
between. Euler's theorem gives the adjoint of ``s`` without a look at that: ``ds = w / s * sum(dY * Y)`` over the elements of ``Y`` that
``s`` scales. In ``softmax(q @ k.T) @ v`` the sum of the weights divides a row of the result, so its adjoint is minus the sum of ``dY * Y``
over a row of the result, divided by it, where the plain rule sums over all keys what would have to be kept or made again for it.

The degrees are those of :mod:`dsl.derivative.invariance`. Only divisors are asked for (``w < 0``): where one is zero nothing finite comes
of it, or a guard has taken its place and nothing moves, while a factor of zero has a derivative that ``Y``, being zero too, knows nothing
of. ``Y`` is looked for behind a reduction that takes the axes of the larger values away: where there is none the plain rule is as good.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dsl.algebra import reads
from dsl.carrier import SUM
from dsl.derivative.adjoint import Adjoint
from dsl.derivative.gather import Contribution
from dsl.derivative.invariance import Degree, degree_of, own_move
from dsl.derivative.simplify import mul, select, zero
from dsl.derivative.split import stripped
from dsl.dim import Term, Var, as_term
from dsl.expr import Compute, Read, Reduce, Tensor, const, index, op

_GUESS = 1024  # of a size that is not known


@dataclass(frozen=True)
class Scaling:
    """A sum, and all that its elements scale: every way from it to an output leads through one of ``results``, and through no other."""

    sum: Compute
    results: tuple[tuple[Compute, Degree], ...]

    def adjoint(self, name: str, of: Callable[[Tensor], Tensor | None]) -> Tensor | None:
        """The adjoint of the sum from those of the results (None for zero); None where all are zero."""
        total = Adjoint(self.sum)
        for y, degree in self.results:
            bar = of(y)
            if bar is None:
                continue
            at = [index(a) for a in y.axes]
            for key, weight in degree.weights.items():
                r = self.sum.read(*(index(t) for t in key))
                assert isinstance(r, Read)
                value = mul(mul(bar.read(*at), y.read(*at)), const(weight, self.sum.dtype))
                total.add(Contribution(r, y.axes, (), value))
        if not total.pieces:
            return None
        made = total.build(f"{name}_scaled")
        axes = tuple(Var(a.name, a.extent) for a in self.sum.axes)
        own, there = (t.read(*(index(a) for a in axes)) for t in (self.sum, made))
        body = select(op("eq", own, zero(own.dtype)), zero(own.dtype), op("div", there, own))
        return Compute(name, axes, body, self.sum.loc, self.sum.dtype)


def find_scalings(forward: Sequence[Compute], outputs: Sequence[Tensor], active: set[Tensor], wrt: set[Tensor]) -> dict[Tensor, Scaling]:
    """The sums among ``forward`` (in split form, in dependence order) whose adjoints are cheaper by homogeneity."""
    found: dict[Tensor, Scaling] = {}
    for c in forward:
        if c in active and c not in outputs and c not in wrt and _is_sum(c):
            s = _scaling(c, forward, outputs, active)
            if s is not None and _pays(s, forward):
                found[c] = s
    return found


def _is_sum(c: Compute) -> bool:
    core = stripped(c.body)[1]
    return isinstance(core, Reduce) and core.carrier == SUM


def _scaling(s: Compute, forward: Sequence[Compute], outputs: Sequence[Tensor], active: set[Tensor]) -> Scaling | None:
    """The last definitions on every way from ``s`` that it scales."""
    known: dict[Tensor, tuple[Compute, Degree]] = {s: (s, Degree("scale", own_move(s)))}
    touched: set[Tensor] = {s}
    ends: set[Tensor] = set()
    readers: dict[Tensor, list[Compute]] = {}
    for c in forward[list(forward).index(s) + 1:]:
        mine = {r.tensor for r in reads(c.body) if r.tensor in touched}
        if not mine or not c.dtype.is_float or c not in active:
            continue
        degree = degree_of(c.body, known) if mine <= set(known) else None
        if degree is not None and degree.still:
            continue
        touched.add(c)
        for t in mine:
            readers.setdefault(t, []).append(c)
        if degree is None or degree.kind != "scale":
            ends |= mine
        else:
            known[c] = c, degree
    ends |= {t for t in outputs if t in known}
    if s in ends or not ends <= set(known) or _meet(ends, readers):
        return None
    results = [known[c] for c in forward if c in ends]
    return Scaling(s, tuple(results)) if results and all(_plain(d) for _, d in results) else None


def _meet(ends: set[Tensor], readers: dict[Tensor, list[Compute]]) -> bool:
    """Whether a way leads from one end to another, which would be counted twice."""
    for t in ends:
        todo: list[Tensor] = list(readers.get(t, ()))
        while todo:
            x = todo.pop()
            if x in ends:
                return True
            todo += readers.get(x, ())
    return False


def _plain(d: Degree) -> bool:
    """Whether an element is divided by one element of the sum, at a position that is a part of its own."""
    return all(w < 0 for w in d.weights.values()) and all(_own(t) for key in d.weights for t in key)


def _own(t: Term) -> bool:
    return t.is_const or (t.const == 0 and len(t.vars) == 1 and t == as_term(next(iter(t.vars))))


def _pays(s: Scaling, forward: Sequence[Compute]) -> bool:
    """Whether every result lies behind a reduction, and there are no more of its elements than of what reads the sum."""
    direct = [c for c in forward if any(r.tensor is s.sum for r in reads(c.body))]
    touched, behind = {s.sum}, set[Tensor]()
    for c in forward[list(forward).index(s.sum) + 1:]:
        mine = {r.tensor for r in reads(c.body)} & touched
        if mine:
            touched.add(c)
        if mine & behind or (mine and isinstance(stripped(c.body)[1], Reduce)):
            behind.add(c)
    return all(y in behind for y, _ in s.results) and sum(_points(y) for y, _ in s.results) <= sum(_points(c) for c in direct)


def _points(c: Compute) -> int:
    n = 1
    for size in c.shape:
        n *= int(size.eval({v: _GUESS for v in size.vars}))
    return n


__all__ = ["Scaling", "find_scalings"]
