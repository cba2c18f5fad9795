"""Intermediate values that cancel: the row maximum of a softmax shifts its exponents and leaves no trace in the result.

``exp(x - m) / sum(exp(x - m))`` does not change when ``m`` does, so its derivative with respect to ``m`` is zero, and neither the
adjoint of ``m`` nor the ties of the maximum need computing. The proof is by degrees. Let every ``m[i]`` move by its own ``d[i]``. A
value may *shift* by a sum ``w . d``, or *scale* by ``exp(w . d)``; sums, products, quotients, exponentials and logarithms carry these
degrees along, anything else that is touched has none. A value of degree zero does not move.

A value that is infinite cannot shift and one that is zero cannot scale, so ``where(s == 0, 1, s)`` has the degree of ``s``: where the
other branch is taken nothing moves at all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from dsl.algebra import reads, walk
from dsl.carrier import LOGSUMEXP, MAX, MIN, SUM
from dsl.derivative.split import stripped
from dsl.dim import Term, Var, as_term
from dsl.expr import Cast, Compute, Const, Expr, Op, Read, Reduce, Tensor, Where

Weights = Mapping[tuple[Term, ...], float]


@dataclass(frozen=True)
class Degree:
    """How a value moves: by adding (``shift``) or by a factor ``exp`` of (``scale``) the weighted sum of the moves.

    A ``fixed`` one is a condition that holds where a value of this degree cannot move.
    """

    kind: str
    weights: Weights

    @property
    def still(self) -> bool:
        """Whether the value does not move."""
        return not self.weights


STILL = Degree("shift", {})


def irrelevant_extrema(forward: Sequence[Compute], outputs: Sequence[Tensor], wrt: set[Tensor]) -> set[Tensor]:
    """The maxima and minima among ``forward`` (in split form, in dependence order) that no output depends on."""
    extrema = [c for c in forward if _is_extremum(c) and c not in outputs and c not in wrt]
    return {m for m in extrema if _cancels(m, forward, outputs)}


def _is_extremum(c: Compute) -> bool:
    core = stripped(c.body)[1]
    return isinstance(core, Reduce) and core.carrier in (MAX, MIN)


def _cancels(m: Compute, forward: Sequence[Compute], outputs: Sequence[Tensor]) -> bool:
    known: dict[Tensor, tuple[Compute, Degree]] = {m: (m, Degree("shift", own_move(m)))}
    for c in forward[list(forward).index(m) + 1:]:
        if any(r.tensor in known for r in reads(c.body)):
            degree = degree_of(c.body, known)
            if degree is None:
                return False
            if not degree.still:
                known[c] = c, degree
    return not any(t in known for t in outputs)


def own_move(c: Compute) -> Weights:
    """Each element of a definition by its own move."""
    return {tuple(as_term(a) for a in c.axes): 1}


def degree_of(root: Expr, known: Mapping[Tensor, tuple[Compute, Degree]]) -> Degree | None:
    """How an expression moves, or None when it moves otherwise."""
    memo: dict[Expr, Degree | None] = {}
    for e in walk(root):
        args = [memo[a] for a in e.args]
        if isinstance(e, Read) and e.tensor in known:
            memo[e] = _element(e, *known[e.tensor]) if all(a is not None and a.still for a in args) else None
        else:
            memo[e] = STILL if all(a is not None and a.still for a in args) else _combined(e, args)
    return memo[root]


def _element(e: Read, c: Compute, d: Degree) -> Degree | None:
    if e.args:
        return None
    env = dict(zip(c.axes, e.data[1]))
    return Degree(d.kind, {tuple(t.subs(env) for t in key): w for key, w in d.weights.items()})


def _combined(e: Expr, args: Sequence[Degree | None]) -> Degree | None:
    known = [a for a in args if a is not None]
    if len(known) != len(args):
        return None
    if isinstance(e, Cast):
        return known[0] if e.dtype.is_float else None
    if isinstance(e, Where):
        return _selected(*known)
    if isinstance(e, Reduce):
        return _reduced(e, known[0])
    return _OPERATIONS[e.name](e, *known) if isinstance(e, Op) and e.name in _OPERATIONS else None


def _selected(cond: Degree, then: Degree, other: Degree) -> Degree | None:
    """Of a selection by what does not move; or of ``where(x is fixed, a constant, x)``."""
    if cond.kind == "fixed":
        return other if then.still and other.kind != "fixed" and cond.weights == other.weights else None
    return then if cond.still and _same(then, other) else None


def _compared(e: Op, a: Degree, b: Degree) -> Degree | None:
    """Whether a value is what it cannot leave: an infinity that is shifted, a zero that is scaled."""
    x = e.args[1]
    at_rest = isinstance(x, Const) and (abs(x.value) == math.inf if a.kind == "shift" else x.value == 0)
    return Degree("fixed", a.weights) if at_rest and a.kind != "fixed" else None


def _reduced(e: Reduce, d: Degree) -> Degree | None:
    bound: set[Var] = set(e.axes)
    kinds = {SUM.name: "scale", LOGSUMEXP.name: "shift", MAX.name: "shift", MIN.name: "shift"}
    free = not any(t.vars & bound for key in d.weights for t in key)
    return d if free and kinds.get(e.carrier.name) == d.kind else None


def _same(a: Degree, b: Degree) -> bool:
    return a.weights == b.weights and (a.kind == b.kind or a.still)


def _plus(a: Degree, b: Degree, sign: int, kind: str) -> Degree | None:
    if any(d.kind != kind and not d.still for d in (a, b)):
        return None
    out = dict(a.weights)
    for key, w in b.weights.items():
        out[key] = out.get(key, 0) + sign * w
    return Degree(kind, {key: w for key, w in out.items() if w})


def _sum(sign: int) -> Callable[[Op, Degree, Degree], Degree | None]:
    """Shifts add; equal scales stay."""
    def rule(e: Op, a: Degree, b: Degree) -> Degree | None:
        if "scale" in (a.kind, b.kind) and not (a.still or b.still):
            return a if _same(a, b) else None
        return _plus(a, b, sign, "shift")
    return rule


def _product(sign: int) -> Callable[[Op, Degree, Degree], Degree | None]:
    """Scales multiply; a literal multiplies a shift."""
    def rule(e: Op, a: Degree, b: Degree) -> Degree | None:
        factor = e.args[1]
        if a.kind == "shift" and not a.still and isinstance(factor, Const) and factor.value:
            times = float(factor.value) if sign > 0 else 1 / float(factor.value)
            return Degree("shift", {key: w * times for key, w in a.weights.items()})
        return _plus(a, b, sign, "scale")
    return rule


def _turned(source: str, result: str) -> Callable[[Op, Degree], Degree | None]:
    return lambda e, a: Degree(result, a.weights) if a.kind == source else None


def _negated(e: Op, a: Degree) -> Degree:
    return Degree("shift", {key: -w for key, w in a.weights.items()}) if a.kind == "shift" else a


_OPERATIONS: dict[str, Callable[..., Degree | None]] = {
    "add": _sum(1), "sub": _sum(-1), "mul": _product(1), "div": _product(-1), "neg": _negated,
    "max": lambda e, a, b: a if _same(a, b) else None, "min": lambda e, a, b: a if _same(a, b) else None,
    "exp": _turned("shift", "scale"), "log": _turned("scale", "shift"), "eq": _compared,
}
