"""Proofs that a term is never negative: by ranges, by the worst ends of axes, and by given facts. Sound and incomplete."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator

from dsl.term import Atom, Div, MinMax, Mod, Mono, Term, Var, as_term, of_atom, product, scale


def nonneg(t: Term, facts: Iterable[Term] = ()) -> bool:
    """Whether ``t >= 0`` is proved for all values of its variables, given that every term in ``facts`` is ``>= 0``.

    Sound and incomplete. Ranges first; then axes are replaced by the end of their range that makes ``t`` least
    (symbolic extents included), until only sizes remain; then up to three facts may be subtracted.
    """
    if t.bounds[0] >= 0 or _least(t):
        return True
    given = _relevant(t, facts)
    return bool(given) and _follows(t, tuple(given))


@functools.lru_cache(4096)  # the same is asked of every register, and by the verifier again
def _follows(t: Term, given: tuple[Term, ...]) -> bool:
    """Whether ``t >= 0`` where all that is given is ``>= 0``."""
    if any(_least(t - f) for f in given):
        return True
    if _refuted(t, given):
        return False
    t = _without_quotient(t)
    once = [rest for f in given for rest in _cancelled(t, f)]
    if any(_least(rest) for rest in (*(t - f for f in given), *once)):
        return True
    pairs = [(n, t - f - g) for n, f in enumerate(given) for g in given[n:]]
    if any(_least(rest) for _, rest in pairs):
        return True
    if len(given) > 8:
        return False
    return any((rest - g).bounds[0] >= 0 for n, rest in pairs for g in given[n:]) or any(
        last.bounds[0] >= 0 for rest in once for f in given for last in _cancelled(rest, f))


def _refuted(t: Term, facts: tuple[Term, ...]) -> bool:
    """Whether ``t < 0`` at one of a few points where every fact holds: looking for a proof takes much longer to fail."""
    known = sorted({v for x in (t, *facts) for v in x.vars}, key=lambda v: v.uid)
    choice = 1
    for corner in range(_POINTS):
        env: dict[Var, int] = {}
        for v in known:
            choice = choice * 1103515245 + 12345 & 0x7FFFFFFF
            _assign(v, env, corner if corner < 2 else choice >> 8)
        real = all(env[v] < v.extent.eval(env) for v in env if v.extent is not None)
        if real and t.eval(env) < 0 and all(f.eval(env) >= 0 for f in facts):
            return True
    return False


_POINTS = 16
_SAMPLES = (1, 2, 64, 5, 17, 8, 3, 100)  # of sizes


def _assign(v: Var, env: dict[Var, int], choice: int) -> None:
    """A value in the range of a variable: its least, its greatest, or for other choices as often as not one between."""
    if v in env:
        return
    if v.extent is None:
        env[v] = _SAMPLES[choice % 8]
        return
    for inner in v.extent.vars:
        _assign(inner, env, choice)
    last = max(v.extent.eval(env) - 1, 0)
    env[v] = (0, last, choice % (last + 1), (choice >> 4) % (last + 1))[choice % 4]


def _relevant(t: Term, facts: Iterable[Term]) -> list[Term]:
    """The facts that share a variable with ``t``, or with a fact that does."""
    left, out, known = list(facts), list[Term](), set(t.vars)
    while True:
        new = [f for f in left if f.is_const or not known.isdisjoint(f.vars)]
        if not new:
            return out
        out += new
        left = [f for f in left if not any(f is n for n in new)]
        known.update(v for f in new for v in f.vars)


def _without_quotient(t: Term) -> Term:
    """A term that is at least zero exactly where ``t`` is: ``r - x // c >= 0`` where ``c*r + c - 1 - x >= 0``."""
    for mono, k in t.parts.items():
        atom = mono[0]
        if k == -1 and len(mono) == 1 and type(atom) is Div and atom.den.is_const:
            rest = Term({m: c for m, c in t.parts.items() if m != mono}, t.const)
            return scale(rest, atom.den.const) + (atom.den.const - 1) - atom.num
    return t


def _cancelled(t: Term, fact: Term) -> Iterator[Term]:
    """Terms ``t - k*fact`` and ``k*t - fact`` in which the multiple ``k`` cancels one of the variables."""
    shared = [(t.parts[m], c) for m, c in fact.parts.items() if m in t.parts]
    for k in {a // c for a, c in shared if a % c == 0 and a // c > 1}:
        yield t - scale(fact, k)
    for k in {c // a for a, c in shared if c % a == 0 and c // a > 1}:
        yield scale(t, k) - fact


@functools.lru_cache(4096)
def _least(t: Term, depth: int = 12) -> bool:
    """Whether ``t >= 0`` at its least: axes go to their worst end one by one, then what is not affine is bounded."""
    if t.bounds[0] >= 0:
        return True
    if depth == 0 or _is_exact(t):
        return False
    if ends := _worst_ends(t):
        return _least(t.subs(ends), depth - 1)
    inner = [(mono, k, atom) for mono, k in t.parts.items() for atom in mono if not isinstance(atom, Var)]
    if not inner:
        return _sizes_nonneg(t)
    if any(len(mono) > 1 for mono, _, _ in inner) and _sizes_nonneg(_as_sizes(t, [atom for _, _, atom in inner])):
        return True
    # What must hold for both sides of a minimum or maximum comes before what one side decides: that may differ between the two.
    mono, k, atom = next(((m, k, a) for m, k, a in inner if isinstance(a, MinMax) and not _either(m, k, a)), inner[0])
    return _bounded(t, mono, k, atom, depth - 1)


def _either(mono: Mono, k: int, atom: MinMax) -> bool:
    """Whether ``k*mono`` is at least what it is with any one side in place of a minimum or maximum."""
    return len(mono) == 1 and (k > 0) == (atom.which == "max")


def _as_sizes(t: Term, atoms: Iterable[Atom]) -> Term:
    """``t`` with every atom that is at least 1 taken for a size, of which nothing else is known."""
    for atom in dict.fromkeys(atoms):
        if atom.bounds[0] >= 1:
            t = _replace(t, atom, as_term(Var("s", kind="dim")))
    return t


def _is_exact(t: Term) -> bool:
    """Whether the bounds of ``t`` are reached: it is affine in axes whose extents are known numbers."""
    for mono in t.parts:
        (atom, *others) = mono
        if others or type(atom) is not Var or atom.extent is None or atom.extent.parts or atom.extent.const < 1:
            return False
    return True


def _worst_ends(t: Term) -> dict[Var, Term | int]:
    """The end of its range at which each axis makes ``t`` least, for those along which it never falls or never rises.

    An axis that the range of another depends on comes after that.
    """
    signs: dict[Var, int] = {}
    for mono, c in t.parts.items():
        for v in {v for a in mono for v in a.vars}:
            if v.kind == "axis" and v.extent is not None:
                sign = _mono_direction(mono, v) * (1 if c > 0 else -1)
                signs[v] = sign if signs.get(v, sign) == sign else 0
    ends = {v: v.extent for v, sign in signs.items() if sign and v.extent is not None}
    later = {w for n in ends.values() for w in n.vars}
    return {v: 0 if signs[v] > 0 else n - 1 for v, n in ends.items() if v not in later}


def _direction(t: Term, v: Var) -> int:
    """1 when ``t`` never falls as ``v`` grows (other variables fixed), -1 when it never rises, 0 when that is not known."""
    signs = {_mono_direction(mono, v) * (1 if c > 0 else -1) for mono, c in t.parts.items() if any(v in a.vars for a in mono)}
    return signs.pop() if len(signs) == 1 else 0


def _mono_direction(mono: Mono, v: Var) -> int:
    holders = [a for a in mono if v in a.vars]
    if len(holders) > 1 or any(a.bounds[0] < 0 for a in mono if a is not holders[0]):
        return 0
    atom = holders[0]
    if isinstance(atom, Var):
        return 1
    if isinstance(atom, MinMax):
        signs = {_direction(side, v) for side in (atom.a, atom.b) if v in side.vars}
        return signs.pop() if len(signs) == 1 else 0
    return 0 if type(atom) is Mod or v in atom.den.vars else _direction(atom.num, v)


def _bounded(t: Term, mono: Mono, k: int, atom: Div | MinMax, depth: int) -> bool:
    """Prove ``t >= 0`` with one atom of the part ``k*mono`` replaced by what bounds it."""
    if type(atom) is Mod:
        return _least(_replace(t, atom, as_term(Var("rem", atom.den))), depth)
    rest = Term({m: c for m, c in t.parts.items() if m != mono}, t.const)
    if isinstance(atom, MinMax):
        if _either(mono, k, atom):
            return any(_least(rest + scale(side, k), depth) for side in (atom.a, atom.b))
        return all(_least(_replace(t, atom, side), depth) for side in (atom.a, atom.b))
    num, den = atom.num, atom.den
    if len(mono) == 1 and den.is_const:  # num - den + 1 <= den*(num // den) <= num, and t is an integer
        d = den.const
        return _least(scale(rest, d) + (scale(num - (d - 1), k) if k > 0 else scale(num, k)) + (d - 1), depth)
    others = [a for a in mono if a is not atom]
    if product(of_atom(a) for a in others) == den:
        return _least(rest + (scale(num - den + 1, k) if k > 0 else scale(num, k)), depth)
    return len(mono) == 1 and nonneg(num) and _least(rest if k > 0 else rest + scale(num, k), depth)


def _replace(t: Term, old: Atom, new: Term) -> Term:
    """``t`` with one atom replaced wherever it is a factor."""
    out: Term = Term({}, t.const)
    for mono, c in t.parts.items():
        out = out + product([new if a == old else of_atom(a) for a in mono]) * c
    return out


def _sizes_nonneg(t: Term) -> bool:
    """A polynomial in sizes ``>= 1``: shift each by one and look at the signs."""
    shifted = t.subs({v: as_term(v) + 1 for v in t.vars if v.kind == "dim"})
    return shifted.const >= 0 and all(c >= 0 and all(isinstance(a, Var) and a.kind == "dim" for a in m) for m, c in shifted.parts.items())


