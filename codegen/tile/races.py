"""Proof that the grid points of a phase, and the lanes of a store, write disjoint elements.

Two points that touch one element would have equal indices in every dimension. An index ``c*v + rest`` in which ``c`` exceeds all
that the rest can vary by gives ``v`` away (the argument of mixed-radix numbers); a quotient and a remainder of one number give the number.
What is found equal counts as constant in the next round. A race is possible when some variable is never found.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from codegen.tile.bounds import holds
from codegen.tile.ir import Load, Store, Value
from dsl.dim import Atom, Div, Mod, Term, Var, as_term, floordiv
from dsl.errors import RaceError


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
        RaceError: names the grid variables that the indices do not determine.
    """
    for n, a in enumerate(accesses):
        for b in accesses[n:]:
            if a.op.buffer is not b.op.buffer or not (isinstance(a.op, Store) or isinstance(b.op, Store)):
                continue
            loose = undetermined(a, b, grid)
            if loose and not _apart(a, b):
                _refuse(name, a if isinstance(a.op, Store) else b, loose)


def check_lanes(access: Access, lanes: Iterable[Var]) -> None:
    """Refuse a store two elements of which go to one place.

    Raises:
        RaceError: names the tile axes that the indices do not determine.
    """
    lanes = list(lanes)
    others = {v for t in access.terms if t is not None for v in t.vars} - set(lanes)
    loose = undetermined(access, access, lanes, frozenset(others))
    if loose:
        _refuse("one store", access, loose)


def _refuse(where: str, access: Access, loose: Sequence[Var]) -> None:
    op, names = access.op, ", ".join(f"`{v}`" for v in loose)
    at = f"{op.buffer.name}[{', '.join(str(i) for i in op.indices)}]"
    raise RaceError(f"{where}: different {names} may write the same element of {op.buffer.name}", f"the write is to {at}",
                    "reduce over the axis, or run it serially", loc=op.loc)


def undetermined(a: Access, b: Access, unknown: Sequence[Var], fixed: frozenset[Var] = frozenset()) -> list[Var]:
    """The variables among ``unknown`` that may differ although both accesses touch one element; ``fixed`` are equal for both."""
    wanted = [v for v in unknown if not (v.extent is not None and v.extent == 1) and not (_pinned(v, a.facts) and _pinned(v, b.facts))]
    known = set(fixed) | (set(unknown) - set(wanted))
    pairs = _with_whole_numbers([(s, t) for s, t in zip(a.terms, b.terms) if s is not None and t is not None])
    # A variable of the point's own work may be found too, and then helps: in 4*i + g the tile axis i comes first.
    others = sorted({v for s, t in pairs for v in s.vars & t.vars if v.kind == "axis"} - known - set(wanted), key=lambda v: v.uid)
    left = [*wanted, *others]
    progress = True
    while progress and not known.issuperset(wanted):
        found = [v for v in left if any(_gives_away(v, s, t, a, b, known) for s, t in pairs)]
        progress = bool(found)
        left = [v for v in left if v not in found]
        known |= set(found)
    return [v for v in wanted if v not in known]


def _pinned(v: Var, facts: Sequence[Term]) -> bool:
    return any(f == -as_term(v) for f in facts)


# -- one variable from one dimension -------------------------------------------------------------------------------
def _gives_away(v: Var, s: Term, t: Term, a: Access, b: Access, known: set[Var]) -> bool:
    coef = s.coef_term(v)
    if coef is None or coef == 0 or coef != t.coef_term(v):
        return False
    step = coef if holds(coef, ()) else -coef
    for tight in (False, True):
        ends = [_ends(x - coef * as_term(v), access.facts, known, tight) for x, access in ((s, a), (t, b))]
        if any(e is None for e in ends):
            return False
        spans = [high[1] - low[0] for high in ends for low in ends]  # type: ignore[index]
        if all(holds(step - 1 - span, ()) for span in spans):
            return True
    return False


def _ends(t: Term, facts: Sequence[Term], known: set[Var], tight: bool) -> tuple[Term, Term] | None:
    """Least and greatest value over the variables that are neither known nor sizes; None when it is not affine in one."""
    low = high = t
    while True:
        v = next((v for v in (low.vars | high.vars) if v.kind == "axis" and v not in known), None)
        if v is None:
            return low, high
        last = _last(v, facts, tight)
        below, above = _at_end(low, v, last, least=True), _at_end(high, v, last, least=False)
        if below is None or above is None:
            return None
        low, high = below, above


def _at_end(t: Term, v: Var, last: Term | None, least: bool) -> Term | None:
    coef = t.coef_term(v)
    if coef is None or last is None:
        bounds = t.bounds
        end = bounds[0] if least else bounds[1]
        return as_term(int(end)) if abs(end) < 1 << 62 else None
    if holds(coef, ()):
        return t.subs({v: 0 if least else last})
    return t.subs({v: last if least else 0}) if holds(-coef, ()) else None


def _last(v: Var, facts: Sequence[Term], tight: bool) -> Term | None:
    """The greatest value of ``v``: from its extent, or (``tight``) from a fact that bounds it by sizes alone."""
    if tight:
        for f in facts:
            limit = f + as_term(v)
            if f.coef(v) == -1 and all(x.kind == "dim" for x in limit.vars):
                return limit
    return None if v.extent is None else v.extent - 1


# -- numbers that are stored in pieces -----------------------------------------------------------------------------
def _with_whole_numbers(pairs: list[tuple[Term, Term]]) -> list[tuple[Term, Term]]:
    """The index pairs, and every number whose quotient and remainder are both among them."""
    found = list(dict.fromkeys(pairs))
    for s, t in found:  # grows while it is walked
        ms, mt = _lone(s), _lone(t)
        if type(ms) is Mod and type(mt) is Mod and ms.den == mt.den:
            quotients = floordiv(ms.num, ms.den), floordiv(mt.num, mt.den)
            whole = (ms.num, mt.num)
            if whole not in found and any(_same(s2, quotients[0]) and _same(t2, quotients[1]) for s2, t2 in found):
                found.append(whole)
    return found


def _lone(t: Term) -> Atom | None:
    if len(t.parts) != 1:
        return None
    (mono, c), = t.parts.items()
    return mono[0] if c == 1 and len(mono) == 1 and isinstance(mono[0], Div) else None


def _same(a: Term, b: Term) -> bool:
    return (a - b).is_const


# -- two accesses that never meet ----------------------------------------------------------------------------------
def _apart(a: Access, b: Access) -> bool:
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
