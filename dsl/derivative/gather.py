"""The adjoint of one read: from a sum over the reader's points to a dense sum for each element that is read.

``Y[i] = f(.., X[A z + b], ..)`` with ``z = (i, k)`` contributes to ``dX[j]`` the sum of ``dY[i] * df/dX`` over the ``z`` with
``A z + b = j`` (design section 6). :func:`gather` solves that for ``z``: an identity read needs no loop, a broadcast sums over what
it repeats, a permutation renames, a strided read runs over a residue class. Nothing scatters. Where an index is no
quasi-affine term (embeddings, clamped indices), :func:`one_hot` compares it with ``j`` instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from dsl.algebra import substitute, transform
from dsl.derivative.simplify import as_facts, conjuncts, decide, fold, guarded, total
from dsl.derivative.system import Box, Solution, System, Unsolvable
from dsl.dim import ZERO, Div, MinMax, Mod, Term, Var, as_term, cdiv, nonneg, without_quotient
from dsl.expr import Expr, Index, Read, index, op


@dataclass(frozen=True, eq=False)
class Contribution:
    """The adjoint of one read: ``value`` at every point of the box of ``axes`` where the ``guards`` hold."""

    read: Read
    axes: tuple[Var, ...]
    guards: tuple[Expr, ...]
    value: Expr
    reduced: tuple[Var, ...] = ()


@dataclass(frozen=True, eq=False)
class Piece:
    """One summand of an adjoint tensor: the sum over ``loops`` of ``value`` where the ``conditions`` hold."""

    loops: tuple[Var, ...]
    conditions: tuple[Expr, ...]
    value: Expr

    def body(self) -> Expr:
        """The summand under its conditions, before summation."""
        return guarded(self.conditions, self.value)

    def expr(self) -> Expr:
        """The summand."""
        return total(self.body(), self.loops)


def gather(c: Contribution, at: Sequence[Var]) -> Piece:
    """What ``c`` adds to the adjoint of the tensor it reads, at the position ``at``.

    Every index that is a quasi-affine term is solved for exactly; the others become comparisons (:func:`one_hot`).
    """
    targets: list[Term | Expr] = list(c.read.indices)
    numbers = list(range(len(targets)))
    terms = [n for n in numbers if isinstance(targets[n], Term)]
    attempts: tuple[list[int], ...] = (terms, [n for n in terms if _is_plain(targets[n])], [])
    for chosen in attempts:
        try:
            solution = _solve(c, [(targets[n], at[n]) for n in chosen], {j.name for j in at})  # type: ignore[misc]
        except Unsolvable:
            continue
        order = {loop: n for n, v in reversed(list(enumerate(c.axes))) for loop in solution.values[v].vars}
        solution.loops.sort(key=lambda v: order.get(v, len(order)))
        return _shortened(one_hot(c, solution, [(targets[n], at[n]) for n in numbers if n not in chosen]))
    raise AssertionError("a system without equations always has a solution")


def _shortened(piece: Piece) -> Piece:
    """The piece with every loop run over no more than the points that conditions on it alone leave.

    Before: the sum over ``r < 2`` of ``where(r < 1, f(r), 0)``, and over ``k < 112`` of ``where((k + 1)//2 >= 56, f(k), 0)``;
    after: ``f(0)``, and ``f(111)``.
    """
    loops, value = list(piece.loops), piece.value
    conditions = [part for cond in piece.conditions for part in conjuncts(cond)]
    for n, v in enumerate(piece.loops):
        low, count = _range(v, conditions)
        if count == v.extent or not nonneg(count - 1):
            continue
        shorter = Var(v.name, count)
        env = {v: low if count == 1 else low + as_term(shorter)}
        loops[n] = shorter
        conditions = [fold(substitute(cond, env)) for cond in conditions]
        value = substitute(value, env)
    return Piece(tuple(v for v in loops if v.extent != 1), tuple(cond for cond in conditions if decide(cond) is not True), value)


def _range(v: Var, conditions: Sequence[Expr]) -> tuple[Term, Term]:
    """The first of the points of a loop at which conditions on it alone may hold, and how many follow, itself among them."""
    low, end = ZERO, as_term(v.extent or 0)
    for t in (without_quotient(t) for cond in conditions for t in as_facts(cond)):
        step, rest = t.coef(v) or 0, t.subs({v: ZERO})
        if step == 0 or any(w.kind == "axis" for w in rest.vars) or v in rest.vars:
            continue
        first, last = (cdiv(-rest, step), end) if step > 0 else (low, rest // -step + 1)
        low, end = first if nonneg(first - low) else low, last if nonneg(end - last) else end
    return low, end - low


def one_hot(c: Contribution, solution: Solution, compared: Sequence[tuple[Term | Expr, Var]]) -> Piece:
    """The piece for a solution, with the indices that were not solved for compared with their positions.

    A scatter as a sum: ``sum[i](where(idx[i] == j, dY[i], 0))``. It looks at every reader for each element as it stands; a schedule
    seeks the one element that ``idx[i]`` names (:mod:`dsl.sought`), as it does in sums that a user writes so.
    """
    values = solution.values
    c = _with_parts(c, solution.parts)
    matches = [op("eq", substitute(index(e) if isinstance(e, Term) else e, values), index(j)) for e, j in compared]
    bounds = [fold(op(name, index(a), index(b))) for name, a, b in solution.conditions]
    guards = [substitute(g, values) for g in c.guards]
    conditions = (*matches, *bounds, *guards)
    return Piece(tuple(solution.loops), conditions, substitute(c.value, values))


def _with_parts(c: Contribution, parts: Mapping[tuple[Term, Term], tuple[Var, Var]]) -> Contribution:
    """``n // d`` and ``n % d`` written as the quotient and remainder that were solved for, which are simpler than ``n``."""
    def term(t: Term) -> Term:
        out: Term = as_term(t.const)
        for mono, k in t.parts.items():
            factor: Term = as_term(k)
            for atom in mono:
                known = parts.get((atom.num, atom.den)) if isinstance(atom, Div) else None
                factor = factor * (Term({(atom,): 1}, 0) if known is None else as_term(known[isinstance(atom, Mod)]))
            out = out + factor
        return out

    def one(e: Expr) -> Expr | None:
        if isinstance(e, Index):
            return index(term(e.term))
        if isinstance(e, Read):
            return Read(e.args, (e.tensor, tuple(None if s is None else term(s) for s in e.data[1])), e.dtype, e.loc)
        return None

    if not parts:
        return c
    return replace(c, guards=tuple(transform(g, one) for g in c.guards), value=transform(c.value, one))


def _is_plain(e: Term | Expr) -> bool:
    """Affine with integer coefficients."""
    return isinstance(e, Term) and all(
        len([a for a in mono if isinstance(a, Var) and a.kind == "axis"]) <= 1 and all(isinstance(a, Var) for a in mono)
        and (len(mono) == 1 or not any(isinstance(a, Var) and a.kind == "axis" for a in mono)) for mono in e.parts)


def _solve(c: Contribution, equations: Sequence[tuple[Term, Var]], taken: set[str]) -> Solution:
    boxes: dict[Var, Box | None] = {v: Box(ZERO, _greatest(v)) for v in c.axes}
    unknowns = set(c.axes)
    splitter = _Splitter(unknowns, boxes)
    rows = [splitter.term(t) - as_term(j) for t, j in equations]
    system = System([*rows, *splitter.rows], boxes, c.reduced, taken)
    out = system.solve()
    out.parts = {key: pair for key, pair in splitter.seen.items() if all(v in out.values for v in pair)}
    out.conditions += [("lt", out.values[v], v.extent.subs(out.values)) for v in c.axes if v.extent is not None and _moving(v.extent)]
    return out


def _moving(t: Term) -> bool:
    return any(v.kind == "axis" for v in t.vars)


def _greatest(v: Var) -> Term:
    """The extent of an axis; its greatest value when it depends on another axis (a triangle)."""
    assert v.extent is not None
    found = extreme(v.extent, greatest=True) if _moving(v.extent) else v.extent
    if found is None:
        raise Unsolvable(f"the extent {v.extent} has no greatest value")
    return found


def extreme(t: Term, greatest: bool) -> Term | None:
    """The least or greatest value of a term over its axes, as a term over sizes; None when it is not affine in them."""
    for _ in range(16):
        axis = next((v for v in sorted(t.vars, key=lambda v: v.uid) if v.kind == "axis"), None)
        if axis is None or axis.extent is None:
            return t if axis is None else None
        coef = t.coef_term(axis)
        if coef is None:
            return None
        if coef.bounds[0] >= 0:
            t = t.subs({axis: axis.extent - 1 if greatest else ZERO})
        elif coef.bounds[1] <= 0:
            t = t.subs({axis: ZERO if greatest else axis.extent - 1})
        else:
            return None
    return None


class _Splitter:
    """Replaces ``n // d`` and ``n % d`` by unknowns ``q`` and ``r`` with the equation ``n = d*q + r``."""

    def __init__(self, unknowns: set[Var], boxes: dict[Var, Box | None]) -> None:
        self.unknowns, self.boxes = unknowns, boxes
        self.rows: list[Term] = []
        self.seen: dict[tuple[Term, Term], tuple[Var, Var]] = {}

    def term(self, t: Term) -> Term:
        """``t`` without divisions of unknowns."""
        out: Term = as_term(t.const)
        for mono, c in t.parts.items():
            factor: Term = as_term(c)
            for atom in mono:
                factor = factor * self._atom(atom)
            out = out + factor
        return out

    def _atom(self, atom: Var | Div | MinMax) -> Term:
        whole = Term({(atom,): 1}, 0)
        if isinstance(atom, Var) or not whole.vars & self.unknowns:
            return whole
        if isinstance(atom, MinMax) or atom.den.vars & self.unknowns:
            raise Unsolvable(f"{atom} is not affine")
        q, r = self._parts(atom.num, atom.den)
        return as_term(r if isinstance(atom, Mod) else q)

    def _parts(self, num: Term, den: Term) -> tuple[Var, Var]:
        key = num, den
        if key not in self.seen:
            q, r = Var("q", None), Var("r", den)
            low, high = extreme(num, False), extreme(num, True)
            first = low // den if low is not None else ZERO
            self.boxes[q] = Box(first, _span(low, high, den), checked=False) if low is not None and high is not None else None
            self.boxes[r] = Box(ZERO, den)
            self.unknowns |= {q, r}
            self.seen[key] = q, r
            inner = self.term(num)
            self.rows.append(inner - den * as_term(q) - as_term(r))
        return self.seen[key]


def _span(low: Term, high: Term, den: Term) -> Term:
    """How many values ``n // den`` takes for ``n`` in ``[low, high]``."""
    exact = high + 1 - low
    if low % den == 0 and exact % den == 0:
        return exact // den
    return high // den - low // den + 1


