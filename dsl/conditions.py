"""What a condition says about indices: integer expressions as terms, and conditions as alternatives of facts.

An integer that depends on data is an *opaque* variable whose range is that of its dtype; clamps, remainders and guards
then bound it by the same rules as any index. Arithmetic on opaque values that might wrap around is opaque again.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

from dsl.algebra import substitute, substitute_values, walk
from dsl.carrier import highest, lowest
from dsl.dim import Term, Var, as_term, nonneg, tmax, tmin
from dsl.dtype import Dtype, bool_
from dsl.expr import Cast, Compute, Const, Expr, Index, Op, Read, Reduce, Where

Facts = tuple[Term, ...]  # each is >= 0
MOST_CASES = 16

_ARITHMETIC: dict[str, Callable[..., Term]] = {
    "add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b, "neg": lambda a: -a,
    "floordiv": lambda a, b: a // b, "mod": lambda a, b: a % b, "min": tmin, "max": tmax, "abs": lambda a: tmax(a, -a),
}
# a `op` b holds exactly when every fact of one alternative does
_COMPARISON: dict[str, Callable[[Term, Term], list[Facts]]] = {
    "ge": lambda a, b: [(a - b,)], "gt": lambda a, b: [(a - b - 1,)], "le": lambda a, b: [(b - a,)], "lt": lambda a, b: [(b - a - 1,)],
    "eq": lambda a, b: [(a - b, b - a)], "ne": lambda a, b: [(a - b - 1,), (b - a - 1,)],
}
_NEGATION = {"ge": "lt", "gt": "le", "le": "gt", "lt": "ge", "eq": "ne", "ne": "eq"}


class Conditions:
    """Integer expressions and conditions of one program, as terms; the same expression is always the same term."""

    def __init__(self) -> None:
        self.opaque: set[Var] = set()
        self._terms: dict[Expr, Term] = {}

    # -- integers ----------------------------------------------------------------------------------------------
    def term(self, e: Expr) -> Term:
        """The value of an integer expression as a term, over index variables and opaque ones."""
        for node in walk(e):
            if node not in self._terms and (node.dtype.is_int or node.dtype is bool_):
                self._terms[node] = self._term(node)
        return self._terms[e]

    def _term(self, e: Expr) -> Term:
        if isinstance(e, Index):
            return e.term
        if isinstance(e, Const):
            return as_term(int(e.value))
        exact = self._exact(e)
        if exact is not None and _fits(exact, e.dtype):
            return exact
        return self._unknown(str(e), lowest(e.dtype), highest(e.dtype))

    def _exact(self, e: Expr) -> Term | None:
        """The value without wrapping around, if ``e`` is of a kind that has one."""
        if isinstance(e, Op) and e.name in _ARITHMETIC and e.dtype.is_int:
            args = [self._terms[a] for a in e.args]
            return None if e.name in ("floordiv", "mod") and args[1].bounds[0] < 1 else _ARITHMETIC[e.name](*args)
        if isinstance(e, Cast):
            return self._terms.get(e.args[0])
        if isinstance(e, Where):
            return self._between(str(e), self._terms[e.args[1]], self._terms[e.args[2]])
        if isinstance(e, Reduce) and e.carrier.name in ("argmax", "argmin") and e.out == 1:
            return self._position(e)
        if isinstance(e, Read) and isinstance(e.tensor, Compute) and None not in e.data[1]:
            return self.term(substitute(e.tensor.body, dict(zip(e.tensor.axes, e.data[1]))))
        return None

    def _between(self, name: str, a: Term, b: Term) -> Term | None:
        lo, hi = tmin(a, b), tmax(a, b)
        return lo + self._variable(name, hi - lo + 1)

    def _position(self, e: Reduce) -> Term | None:
        """The result of an argmax: an element of the range of its index."""
        at = self._terms[e.args[1]]
        if len(e.axes) != 1 or at != as_term(e.axes[0]):
            return None
        return as_term(self._variable(str(e), e.axes[0].extent))

    def _unknown(self, name: str, lo: float, hi: float) -> Term:
        return self._variable(name, as_term(int(hi) - int(lo) + 1)) + int(lo)

    def _variable(self, name: str, extent: Term | None) -> Term:
        v = Var(name, extent)
        self.opaque.add(v)
        return as_term(v)

    # -- conditions --------------------------------------------------------------------------------------------
    def facts(self, e: Expr, holds: bool) -> list[Facts]:
        """Alternatives, one of which is true when the condition holds (or fails, when ``holds`` is False).

        ``[()]`` says nothing, ``[]`` that it cannot happen.
        """
        if isinstance(e, Const):
            return [()] if bool(e.value) == holds else []
        if not isinstance(e, Op):
            return [()]
        if e.name == "not":
            return self.facts(e.args[0], not holds)
        if e.name in ("and", "or") and e.dtype is bool_:
            parts = [self.facts(a, holds) for a in e.args]
            return conjunction(parts) if (e.name == "and") == holds else _disjunction(parts)
        if e.name not in _COMPARISON or not e.args[0].dtype.is_int:
            return [()]
        a, b = (self.term(x) for x in e.args)
        return [f for f in _COMPARISON[e.name if holds else _NEGATION[e.name]](a, b) if possible(f)]

    def cases(self, e: Expr) -> list[tuple[Expr, list[Facts]]]:
        """The values of an integer expression without selections, each with what is known when it is that."""
        out: list[tuple[Expr, list[Facts]]] = [(e, [()])]
        while len(out) < MOST_CASES:
            split = next(((n, w) for n, (x, _) in enumerate(out) for w in walk(x) if isinstance(w, Where)), None)
            if split is None:
                return out
            n, w = split
            x, known = out.pop(n)
            for branch, holds in ((w.args[1], True), (w.args[2], False)):
                facts = conjunction([known, self.facts(w.args[0], holds)])
                if facts:
                    out.append((substitute_values(x, {w: branch}), facts))
        return [(e, [()])]


def _fits(t: Term, dtype: Dtype) -> bool:
    """Whether no value of ``t`` wraps around in ``dtype``. Sizes are far below 2**63, so infinite means a size here."""
    lo, hi = t.bounds
    wide = dtype.is_int and dtype.bits == 64
    return (lo >= lowest(dtype) or wide and lo == -float("inf")) and (hi <= highest(dtype) or wide and hi == float("inf"))


def conjunction(parts: list[list[Facts]]) -> list[Facts]:
    """Alternatives of all parts at once; parts that would make too many are left out, which only weakens them."""
    out: list[Facts] = [()]
    for part in sorted(parts, key=len):
        if not part:
            return []
        if len(out) * len(part) <= MOST_CASES:
            out = [merged for a, b in itertools.product(out, part) if possible(merged := a + b)]
    return out


def _disjunction(parts: list[list[Facts]]) -> list[Facts]:
    out = [f for part in parts for f in part]
    return [()] if () in out or len(out) > MOST_CASES else out


def possible(facts: Facts) -> bool:
    """Whether the facts are not seen to contradict each other."""
    return not any(f.bounds[1] < 0 for f in facts) and not any(
        nonneg(-1 - f, (g,)) for n, f in enumerate(facts) for g in facts[:n] if not f.vars.isdisjoint(g.vars))
