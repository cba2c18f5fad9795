"""Proof that the grid points of a phase, and the lanes of a store, write disjoint elements.

Two points that touch one element would have equal indices in every dimension. An index ``c*v + rest`` in which ``c`` exceeds all
that the rest can vary by gives ``v`` away (the argument of mixed-radix numbers); a quotient and a remainder of one number give the number.
What is found equal counts as constant in the next round. Where some variable is never found, every point is looked at if the sizes are
numbers (:mod:`dsl.decide`): either no two meet after all, or two that do are named. What is left is :class:`UndecidedRace`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from codegen.tile.bounds import holds
from codegen.tile.ir import Load, Store, Value
from dsl.decide import Env, box, inside
from dsl.dim import INF, Atom, Div, Mod, Term, Var, as_term, floordiv
from dsl.errors import RaceError


class UndecidedRace(RaceError):
    """Neither a proof that the points of a phase write disjoint elements, nor two points that meet; ``phase`` can be run serially."""

    phase: str = ""


@dataclass(frozen=True)
class Access:
    """A load or store and what is known to hold where it runs, its own mask included."""

    op: Load | Store
    facts: tuple[Term, ...]

    @property
    def terms(self) -> tuple[Term | None, ...]:
        """The indices; None for a data-dependent one, of which nothing is known."""
        return tuple(None if isinstance(i, Value) else i for i in self.op.indices)


def check_phase(name: str, grid: Sequence[Var], accesses: Sequence[Access]) -> None:
    """Refuse a phase two points of which touch the same element, one of them writing.

    Raises:
        RaceError: names two points that meet.
        UndecidedRace: no two such points were found, and no proof that there are none.
    """
    for n, a in enumerate(accesses):
        for b in accesses[n:]:
            if a.op.buffer is not b.op.buffer or not (isinstance(a.op, Store) or isinstance(b.op, Store)):
                continue
            store, other = (a, b) if isinstance(a.op, Store) else (b, a)
            loose = undetermined(a, b, grid)
            if loose and not apart(a, b):
                _settle(name, store, other, loose, grid, frozenset())


def check_lanes(access: Access, lanes: Iterable[Var]) -> None:
    """Refuse a store two elements of which go to one place.

    Raises:
        RaceError: names two elements, by tile axes, that do.
        UndecidedRace: no two such elements were found, and no proof that there are none.
    """
    lanes = list(lanes)
    others = frozenset({v for t in (*access.terms, *access.facts) if t is not None for v in t.vars} - set(lanes))
    loose = undetermined(access, access, lanes, others)
    if loose:
        _settle("one store", access, access, loose, lanes, others)


def _settle(where: str, store: Access, other: Access, loose: Sequence[Var], apart: Sequence[Var], same: frozenset[Var]) -> None:
    """Look at every point, and raise unless no two meet that differ in ``apart`` and agree in ``same``."""
    names = ", ".join(f"`{v}`" for v in loose)
    op = store.op
    title = f"{where}: different {names} may write the same element of {op.buffer.name}"
    at = f"{op.buffer.name}[{', '.join(str(i) for i in op.indices)}]"
    met = meeting(store, other, apart, same)
    if met is None:
        return
    if met:
        verb = "write" if isinstance(other.op, Store) else "write and read"
        raise RaceError(title, f"{met} both {verb} {at}" if verb == "write" else f"{met} {verb} {at}",
                        "reduce over the axis, or run it serially", loc=op.loc)
    undecided = UndecidedRace(title, f"the write is to {at}", "reduce over the axis, or run it serially", loc=op.loc)
    undecided.phase = where
    raise undecided


def meeting(store: Access, other: Access, apart: Sequence[Var], same: frozenset[Var]) -> str | None:
    """Two points that touch one element, as text; None when there are none, empty when that is not decided.

    The points differ in one of the variables ``apart`` and agree in all of ``same``.
    """
    given = [_bounded(x) for x in (store, other)]
    same = frozenset(v for v in same if any(v in t.vars for x in given for t in (*x.terms, *x.facts) if t is not None))
    first, second = (_touched(x, {*apart, *same}) for x in given)
    if first is None or second is None:
        return ""
    (grid, element, held), (grid2, element2, held2) = first, second
    if not held.any() or not held2.any():
        return None
    common = sorted(same, key=lambda v: v.uid)
    places, places2 = (np.broadcast_to(e * _points(common, g) + _number(common, g), h.shape)[h] for e, g, h in
                       ((element, grid, held), (element2, grid2, held2)))
    owner, owner2 = (np.broadcast_to(_number([*apart, *common], g), h.shape)[h] for g, h in ((grid, held), (grid2, held2)))
    every = np.unique(np.concatenate([places, places2])) if max(places.max(), places2.max()) >= _SLOTS else None
    if every is not None:
        places, places2 = np.searchsorted(every, places), np.searchsorted(every, places2)
    writer = np.full(int(max(places.max(), places2.max())) + 1, -1)
    writer[places] = owner
    last = writer[places2]
    clash = (last >= 0) & (last != owner2)
    if not clash.any():
        return None
    if any(len(x.facts) < len(y.facts) for x, y in zip(given, (store, other))):
        return ""
    at = int(np.argmax(clash))
    return " and ".join(_say(apart, _unnumber(int(n), [*apart, *common])) for n in (last[at], owner2[at]))


_SLOTS = 1 << 22


def _bounded(x: Access) -> Access:
    """The access without the facts about variables of unknown range, sizes mostly: it runs at these points and perhaps at more."""
    mine = {v for t in x.terms if t is not None for v in t.vars}
    return Access(x.op, tuple(f for f in x.facts if all(v in mine or box([v]) is not None for v in f.vars)))


def _touched(x: Access, needed: Iterable[Var]) -> tuple[Env, np.ndarray, np.ndarray] | None:
    """(the box of an access, the element at each point, where it runs); None when that is not known."""
    terms = [t for t in x.terms if t is not None]
    if len(terms) != len(x.terms) or not all(s.is_const for s in x.op.buffer.shape):
        return None
    grid = box({*needed, *(v for t in (*terms, *x.facts) for v in t.vars)})
    if grid is None:
        return None
    held = inside(x.facts, grid)
    element = np.zeros([1] * held.ndim, np.int64)
    for t, n in zip(terms, x.op.buffer.shape):
        element = element * n.const + t.eval(grid)
    return grid, np.asarray(np.where(held, element, 0)), held


def _number(order: Sequence[Var], grid: Env) -> np.ndarray:
    """The point of some variables as one number."""
    out = np.zeros([1] * len(grid), np.int64)
    for v in order:
        out = out * grid[v].size + grid[v]
    return out


def _points(order: Sequence[Var], grid: Env) -> int:
    return math.prod(grid[v].size for v in order)


def _unnumber(n: int, order: Sequence[Var]) -> dict[Var, int]:
    values: dict[Var, int] = {}
    for v in reversed(order):
        assert v.extent is not None
        n, values[v] = divmod(n, int(v.extent.bounds[1]))
    return values


def _say(order: Sequence[Var], values: Mapping[Var, int]) -> str:
    return f"({', '.join(f'{v} = {values[v]}' for v in order)})"


def undetermined(a: Access, b: Access, unknown: Sequence[Var], fixed: frozenset[Var] = frozenset()) -> list[Var]:
    """The variables among ``unknown`` that may differ although both accesses touch one element; ``fixed`` are equal for both."""
    wanted = [v for v in unknown if not (v.extent is not None and v.extent == 1) and not (_pinned(v, a.facts) and _pinned(v, b.facts))]
    known = set(fixed) | (set(unknown) - set(wanted))
    pairs = [(s, t) for s, t in zip(a.terms, b.terms) if s is not None and t is not None]
    while found := [v for v in wanted if v not in known and any(_by_ranges(v, s, t, known) for s, t in pairs)]:
        known.update(found)
    if known.issuperset(wanted):
        return []  # mostly the indices as they stand tell
    pairs = _with_whole_numbers(pairs, fixed)
    # A variable of the point's own work may be found too, and then helps: in 4*i + g the tile axis i comes first.
    others = sorted({v for s, t in pairs for v in s.vars & t.vars if v.kind == "axis"} - known - set(wanted), key=lambda v: v.uid)
    left = [v for v in (*wanted, *others) if v not in known]
    while not known.issuperset(wanted):
        found = [v for v in left if any(_by_ranges(v, s, t, known) for s, t in pairs)]
        found = found or list(islice((v for v in left if any(_by_facts(v, s, t, a, b, known) for s, t in pairs)), 1))
        if not found:
            break
        left = [v for v in left if v not in found]
        known.update(found)
    return [v for v in wanted if v not in known]


def _pinned(v: Var, facts: Sequence[Term]) -> bool:
    return any(f == -as_term(v) for f in facts)


# -- one variable from one dimension -------------------------------------------------------------------------------
def _by_ranges(v: Var, s: Term, t: Term, known: set[Var]) -> bool:
    """Whether ``s == t`` makes ``v`` equal: its coefficient exceeds all that the rest of either index can differ by."""
    coef = _coefficient(v, s, t)
    if coef is None or not coef.is_const:
        return False
    left, right = _rests(s - coef * as_term(v), t - coef * as_term(v), known)
    (lo, hi), (lo2, hi2) = left.bounds, right.bounds
    return max(hi - lo2, hi2 - lo) < abs(coef.const)


def _by_facts(v: Var, s: Term, t: Term, a: Access, b: Access, known: set[Var]) -> bool:
    """The same by proof: symbolic coefficients, and ranges that other variables limit."""
    coef = _coefficient(v, s, t)
    if coef is None:
        return False
    step = coef if holds(coef, ()) else -coef
    left, right = _rests(s - coef * as_term(v), t - coef * as_term(v), known)
    lo, lo2 = left.bounds[0], right.bounds[0]
    if lo > -INF and lo2 > -INF and (coef.is_const or not lo and not lo2):
        if not holds(step - 1 - left + int(lo2), a.facts):
            return False
        return (a is b and left == right) or holds(step - 1 - right + int(lo), b.facts)
    fresh = {x: as_term(Var(x.name, x.extent)) for x in _loose(b, right, known)}
    right = right.subs(fresh)
    facts = [*a.facts, *(f.subs(fresh) for f in b.facts)]
    return holds(step - 1 - left + right, facts) and holds(step - 1 - right + left, facts)


def _coefficient(v: Var, s: Term, t: Term) -> Term | None:
    """The factor of ``v`` in both terms, when they are affine in it and agree."""
    coef = s.coef_term(v)
    return None if coef is None or coef == 0 or coef != t.coef_term(v) else coef


def _rests(s: Term, t: Term, known: set[Var]) -> tuple[Term, Term]:
    """Both terms without the parts that they share and that are equal for both points."""
    alike = {m for m, c in s.parts.items() if t.parts.get(m) == c and all(v in known or v.kind == "dim" for v in Term({m: c}, 0).vars)}
    if not alike:
        return s, t
    return (Term({m: c for m, c in s.parts.items() if m not in alike}, s.const),
            Term({m: c for m, c in t.parts.items() if m not in alike}, t.const))


def _loose(x: Access, rest: Term, known: set[Var]) -> set[Var]:
    """The variables of an access whose values need not be those of the other point."""
    return {v for t in (rest, *x.facts) for v in t.vars if v.kind == "axis" and v not in known}


# -- numbers that are stored in pieces -----------------------------------------------------------------------------
def _with_whole_numbers(pairs: list[tuple[Term, Term]], fixed: frozenset[Var]) -> list[tuple[Term, Term]]:
    """The index pairs, the pieces ``q`` and ``r`` of ``c * q + r``, and numbers whose quotient and remainder are both among them.

    A part of a number that is ``fixed`` is left aside.
    """
    found = list(dict.fromkeys(pairs))
    for s, t in found:  # grows while it is walked
        found += [pair for pair in _pieces(s, t) if pair not in found]
        ms, mt = _lone(s), _lone(t)
        if type(ms) is Mod and type(mt) is Mod and ms.den == mt.den:
            quotients = floordiv(ms.num, ms.den), floordiv(mt.num, mt.den)
            whole = (ms.num, mt.num)
            if whole not in found and any(_same(s2 - quotients[0], t2 - quotients[1], fixed) for s2, t2 in found):
                found.append(whole)
    return found


def _pieces(s: Term, t: Term) -> list[tuple[Term, Term]]:
    """Pairs ``(q, q')`` and ``(r, r')`` of ``c * q + r`` and ``c * q' + r'`` with ``0 <= r, r' < c``."""
    for c in sorted({abs(k) for k in s.parts.values()} - {0, 1}):
        (q, r), (q2, r2) = _split(s, c), _split(t, c)
        if r.parts and all(0 <= x.bounds[0] and x.bounds[1] < c for x in (r, r2)):
            return [(q, q2), (r, r2)]
    return []


def _split(t: Term, c: int) -> tuple[Term, Term]:
    q = Term({m: k // c for m, k in t.parts.items() if k % c == 0}, t.const // c)
    return q, Term({m: k for m, k in t.parts.items() if k % c}, t.const % c)


def _lone(t: Term) -> Atom | None:
    if len(t.parts) != 1:
        return None
    (mono, c), = t.parts.items()
    return mono[0] if c == 1 and len(mono) == 1 and isinstance(mono[0], Div) else None


def _same(a: Term, b: Term, fixed: frozenset[Var]) -> bool:
    return a == b and a.vars <= fixed


# -- two accesses that never meet ----------------------------------------------------------------------------------
def apart(a: Access, b: Access) -> bool:
    """Whether in some dimension one access lies wholly below the other, whatever the points."""
    inner = {v for x in (*b.facts, *(t for t in b.terms if t is not None)) for v in x.vars if v.kind == "axis"}
    fresh = {v: as_term(Var(v.name, v.extent)) for v in inner}
    facts = [*a.facts, *(f.subs(fresh) for f in b.facts)]
    for s, t in zip(a.terms, b.terms):
        if s is not None and t is not None:
            u = t.subs(fresh)
            if holds(u - s - 1, facts) or holds(s - u - 1, facts):
                return True
    return False
