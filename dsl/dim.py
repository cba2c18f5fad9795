"""Integer index arithmetic: quasi-affine terms over axes and symbolic sizes, with ranges and proofs.

The structure of terms is in :mod:`dsl.term`, the proofs in :mod:`dsl.proof`; this module divides, takes minima and substitutes, which
needs both, and gives the names of all three on. Building a term applies the identities that schedules rely on
(``(32*a + b)//32 == a`` for ``0 <= b < 32``, ``c*(x//c) + x%c == x``). No computer algebra system is involved:
every operation is linear in the size of the term.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from dsl.proof import nonneg
from dsl.term import INF, ONE, ZERO, Atom, Div, MinMax, Mod, Mono, Term, Var, as_term, of_atom, product, recombine, scale, show, single

__all__ = ["INF", "ONE", "ZERO", "Atom", "Div", "MinMax", "Mod", "Mono", "Term", "Var", "as_term", "cdiv", "floordiv", "mod", "nonneg",
           "product", "show", "tile_bound", "tmax", "tmin", "undivided", "without_quotient"]


def floordiv(a: Term, b: Term) -> Term:
    """``a // b`` for positive ``b``, simplified."""
    if not b.is_const:
        return _floordiv_symbolic(a, b)
    c = b.const
    if c <= 0:
        raise ZeroDivisionError(f"({a}) // {c}: the divisor of an index must be positive")
    if c == 1:
        return a
    whole, rest = _split_multiple(a, c)
    if not rest.parts:
        return whole + rest.const // c
    lo, hi = rest.bounds
    if lo > -INF and hi < INF and lo // c == hi // c:
        return whole + int(lo // c)
    shift, rest = rest.const // c, Term(rest.parts, rest.const % c)
    g = math.gcd(c, *rest.parts.values())
    if g > 1:
        return whole + shift + floordiv(Term({m: k // g for m, k in rest.parts.items()}, rest.const // g), as_term(c // g))
    inner = _quotient_in(rest)
    if inner is not None:  # (x + y // d) // c is (d*x + y) // (d*c)
        left = rest - of_atom(inner)
        return whole + shift + floordiv(left * inner.den + inner.num, inner.den * c)
    big = _drop_small(rest, c)
    if big is not None:
        return whole + shift + floordiv(big[0], b)
    return whole + shift + of_atom(Div(rest, b))


def mod(a: Term, b: Term) -> Term:
    """``a % b`` for positive ``b``, simplified."""
    if not b.is_const:
        q = floordiv(a, b)
        return of_atom(Mod(a, b)) if any(type(x) is Div and x.den == b for m in q.parts for x in m) else a - b * q
    c = b.const
    if c <= 0:
        raise ZeroDivisionError(f"({a}) % {c}: the divisor of an index must be positive")
    rest = _split_multiple(a, c)[1]
    rest = Term(rest.parts, rest.const % c) if rest.const // c else rest
    lo, hi = rest.bounds
    if lo > -INF and hi < INF and lo // c == hi // c:
        return rest - int(lo // c) * c
    inner = single(rest)
    if type(inner) is Mod and inner.den.is_const and inner.den.const % c == 0:
        return mod(inner.num, b)
    big = _drop_small(rest, c)
    if big is not None:
        return mod(big[0], b) + big[1]
    g = math.gcd(c, rest.const, *rest.parts.values())
    if g > 1:
        return scale(mod(Term({m: k // g for m, k in rest.parts.items()}, rest.const // g), as_term(c // g)), g)
    return of_atom(Mod(rest, b))


def _quotient_in(t: Term) -> Div | None:
    """The one quotient by a number among the parts of a term; None where there is none, or several."""
    found = [mono[0] for mono, k in t.parts.items() if k == 1 and len(mono) == 1 and type(mono[0]) is Div and mono[0].den.is_const]
    return found[0] if len(found) == 1 else None


def _drop_small(t: Term, c: int) -> tuple[Term, Term] | None:
    """``t == big + small`` with every coefficient of ``big`` a multiple of some divisor ``g > 1`` of ``c`` and ``0 <= small < g``.

    Then ``t // c == big // c`` and ``t % c == big % c + small``.
    """
    for g in sorted({math.gcd(c, k) for k in t.parts.values()} - {1}, reverse=True):
        small = Term({m: k for m, k in t.parts.items() if k % g}, t.const % g)
        lo, hi = small.bounds
        if small.parts and lo >= 0 and hi < g:
            return t - small, small
    return None


def _split_multiple(a: Term, c: int) -> tuple[Term, Term]:
    """``a == c*whole + rest`` with every coefficient that ``c`` divides in ``whole``."""
    whole = {m: k // c for m, k in a.parts.items() if k % c == 0}
    if not whole:
        return ZERO, a
    return Term(whole, 0), Term({m: k for m, k in a.parts.items() if k % c}, a.const)


def _floordiv_symbolic(a: Term, b: Term) -> Term:
    """Divide by a symbolic size: pull out the products that contain it, keep the rest when it is provably smaller."""
    if a == b:
        return ONE
    if len(b.parts) == 1 and b.const == 0:
        (mono, c), = b.parts.items()
        whole: dict[Mono, int] = {}
        rest: dict[Mono, int] = {}
        for m, k in a.parts.items():
            left = _remove(m, mono)
            if left is not None and k % c == 0:
                whole[left] = k // c
            else:
                rest[m] = k
        if whole:
            const = whole.pop((), 0)
            return Term(whole, const) + floordiv(Term(rest, a.const), b)
    if nonneg(a) and nonneg(b - 1 - a):
        return ZERO
    if nonneg(-1 - a) and nonneg(a + b):
        return -ONE
    return of_atom(Div(a, b))


def _remove(mono: Mono, factor: Mono) -> Mono | None:
    left = list(mono)
    for atom in factor:
        if atom not in left:
            return None
        left.remove(atom)
    return tuple(left)


def tmin(a: Term | int, b: Term | int) -> Term:
    """The lesser of two terms."""
    return _minmax("min", as_term(a), as_term(b))


def tmax(a: Term | int, b: Term | int) -> Term:
    """The greater of two terms."""
    return _minmax("max", as_term(a), as_term(b))


def _minmax(which: str, a: Term, b: Term) -> Term:
    if nonneg(b - a):
        return a if which == "min" else b
    if nonneg(a - b):
        return b if which == "min" else a
    return of_atom(MinMax(which, a, b))


def cdiv(a: Term | int, b: Term | int) -> Term:
    """``a / b`` rounded up."""
    return (as_term(a) + (as_term(b) - 1)) // b


# -- substitution ---------------------------------------------------------------------------------------------------
def _subs(self: Term, env: Mapping[Var, Term | int]) -> Term:
    """Replace variables; the result is rebuilt, so it is simplified again."""
    if env.keys().isdisjoint(self.vars):
        return self
    parts: dict[Mono, int] = {}
    const = self.const
    for mono, c in self.parts.items():
        if len(mono) == 1 and type(mono[0]) is Var and mono[0] not in env:
            parts[mono] = parts.get(mono, 0) + c
            continue
        made = _atom_subs(mono[0], env)
        for atom in mono[1:]:
            made = made * _atom_subs(atom, env)
        const += c * made.const
        for m, k in made.parts.items():
            parts[m] = parts.get(m, 0) + c * k
    return recombine(Term({m: k for m, k in parts.items() if k}, const))


def _atom_subs(atom: Atom, env: Mapping[Var, Term | int]) -> Term:
    if isinstance(atom, Var):
        found = env.get(atom)
        return Term({(atom,): 1}, 0) if found is None else found if type(found) is Term else as_term(found)
    if isinstance(atom, MinMax):
        return _minmax(atom.which, atom.a.subs(env), atom.b.subs(env))
    den = atom.den.subs(env)
    if den == 0:  # a dimension of size 0: none of its points is ever visited, so any divisor will do
        den = ONE
    return (mod if type(atom) is Mod else floordiv)(atom.num.subs(env), den)


def tile_bound(t: Term, free: set[Var], best: bool) -> Term:
    """The greatest (``best``) or least value of ``t`` as the variables in ``free`` run over their ranges, as a term in the others.

    A part that mixes free and other variables is bounded by its own range, or where that is infinite, by the extents of the free ones.
    """
    out: Term = Term({}, t.const)
    for mono, c in t.parts.items():
        part = Term({mono: c}, 0)
        if not part.vars & free:
            out = out + part
            continue
        end = part.bounds[best]
        out = out + (int(end) if math.isfinite(end) else _mono_bound(mono, c, free, best))
    return out


def _mono_bound(mono: Mono, c: int, free: set[Var], best: bool) -> Term:
    """The same of a product whose range is infinite, by extents: variables are not negative, and quotients grow with what is divided."""
    up, out = best == (c > 0), as_term(c)
    for atom in mono:
        if isinstance(atom, Var):
            out = out * (as_term(atom) if atom not in free else atom.extent - 1 if up and atom.extent is not None else 0)
        elif isinstance(atom, MinMax):
            out = out * _minmax(atom.which, tile_bound(atom.a, free, up), tile_bound(atom.b, free, up))
        elif type(atom) is Mod:
            out = out * (atom.den - 1 if up else 0)
        else:
            out = out * floordiv(tile_bound(atom.num, free, up), atom.den)
    return out


def without_quotient(t: Term) -> Term:
    """A term that is ``>= 0`` for the same points, and has no quotient if ``t`` had but one: ``3 - q//9`` becomes ``35 - q``."""
    quotients = [(mono, c) for mono, c in t.parts.items() if not all(isinstance(a, Var) for a in mono)]
    if len(quotients) != 1:
        return t
    (mono, c), = quotients
    atom = mono[0]
    if len(mono) > 1 or c not in (1, -1) or type(atom) is not Div:
        return t
    return without_quotient(undivided(t - Term({mono: c}, 0), c, atom))


def undivided(rest: Term, c: int, quotient: Div) -> Term:
    """``rest + c*(n // d) >= 0``, for ``c`` of 1 or -1, without the division."""
    if c == 1:  # n // d >= -rest  is  n >= -d*rest
        return quotient.num + quotient.den * rest
    return quotient.den * (rest + 1) - 1 - quotient.num  # n // d <= rest  is  n < d*(rest + 1)


def _divide(name: str, swap: bool) -> Callable[[Term, Any], Any]:
    divide = {"floordiv": floordiv, "mod": mod}[name]

    def operator(self: Term, other: Any) -> Any:
        try:
            term = as_term(other)
        except TypeError:
            return self.beside(name, other, swap)
        return divide(term, self) if swap else divide(self, term)

    return operator


for _name in ("floordiv", "mod"):
    setattr(Term, f"__{_name}__", _divide(_name, swap=False))
    setattr(Term, f"__r{_name}__", _divide(_name, swap=True))
setattr(Term, "subs", _subs)  # noqa: B010  (declared below, for the types)
