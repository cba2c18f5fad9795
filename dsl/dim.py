"""Integer index arithmetic: quasi-affine terms over axes and symbolic sizes, with ranges and proofs.

A :class:`Term` is a constant plus a sum of integer coefficients times products of atoms; an atom is a
:class:`Var`, a floor division, a remainder, or a minimum/maximum. Terms are canonical, so equal terms
compare equal, and building one applies the identities that schedules rely on
(``(32*a + b)//32 == a`` for ``0 <= b < 32``, ``c*(x//c) + x%c == x``). No computer algebra system is involved:
every operation is linear in the size of the term.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

_counter = itertools.count()

Mono = tuple["Atom", ...]
INF = math.inf


class Var:
    """A symbolic integer: a size (``kind="dim"``, at least 1) or an axis with range ``[0, extent)``.

    ``likely`` is a value that a size is expected to have: what heuristics reckon with, and nothing is proved by.
    """

    __slots__ = ("extent", "kind", "likely", "name", "uid")

    def __init__(self, name: str, extent: Term | int | None = None, kind: str = "axis", likely: int | None = None) -> None:
        self.name, self.kind, self.uid, self.likely = name, kind, next(_counter), likely
        self.extent: Term | None = None if extent is None else as_term(extent)

    def __repr__(self) -> str:
        return self.name

    @property
    def size(self) -> int:
        """The extent as an int; only for axes of static extent."""
        assert self.extent is not None and self.extent.is_const, self
        return self.extent.const


class Div:
    """``num // den`` rounded towards minus infinity; ``den`` is positive."""

    __slots__ = ("_hash", "den", "num")

    def __init__(self, num: Term, den: Term) -> None:
        self.num, self.den = num, den
        self._hash = hash(("div", num, den))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self.num == other.num and self.den == other.den

    symbol = "//"

    def __repr__(self) -> str:
        return f"({self.num}) {self.symbol} {_wrap(self.den)}"


class Mod(Div):
    """``num % den`` with the sign of ``den``, which is positive."""

    __slots__ = ()
    symbol = "%"

    def __init__(self, num: Term, den: Term) -> None:
        super().__init__(num, den)
        self._hash = hash(("mod", num, den))


class MinMax:
    """The least (``"min"``) or greatest (``"max"``) of two terms."""

    __slots__ = ("_hash", "a", "b", "which")

    def __init__(self, which: str, a: Term, b: Term) -> None:
        self.which, self.a, self.b = which, a, b
        self._hash = hash((which, a, b))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MinMax) and (self.which, self.a, self.b) == (other.which, other.a, other.b)

    def __repr__(self) -> str:
        return f"{self.which}({self.a}, {self.b})"


Atom = Var | Div | MinMax


def _order(atom: Atom) -> tuple[int, str, int]:
    return (0, atom.name, atom.uid) if isinstance(atom, Var) else (1, repr(atom), 0)


class Term:
    """``const + sum(coef * product of atoms)``; immutable, canonical and hashable."""

    __slots__ = ("_bounds", "_hash", "_vars", "const", "parts")

    def __init__(self, parts: dict[Mono, int], const: int) -> None:
        self.parts, self.const = parts, const
        self._hash: int | None = None
        self._bounds: tuple[float, float] | None = None
        self._vars: frozenset[Var] | None = None

    # -- structure ---------------------------------------------------------------------------------------------
    def __hash__(self) -> int:
        if self._hash is None:
            self._hash = hash((self.const, frozenset(self.parts.items())))
        return self._hash

    def __eq__(self, other: object) -> bool:
        if isinstance(other, int):
            return not self.parts and self.const == other
        return isinstance(other, Term) and self.const == other.const and self.parts == other.parts

    def __repr__(self) -> str:
        return show(self)

    def __index__(self) -> int:
        if self.parts:
            raise TypeError(f"{self} is not a constant")
        return self.const

    __int__ = __index__

    @property
    def is_const(self) -> bool:
        """True when no variable occurs."""
        return not self.parts

    @property
    def vars(self) -> frozenset[Var]:
        """Every variable that occurs, inside divisions too."""
        if self._vars is None:
            found: set[Var] = set()
            for mono in self.parts:
                for atom in mono:
                    if type(atom) is Var:
                        found.add(atom)
                    else:
                        found |= _atom_vars(atom)
            self._vars = frozenset(found)
        return self._vars

    def coef(self, var: Var) -> int | None:
        """The coefficient of ``var`` when the term is affine in it with an integer coefficient, else None."""
        if var not in self.vars:
            return 0
        rest = [mono for mono in self.parts if any(var in _atom_vars(a) for a in mono)]
        return self.parts[(var,)] if rest == [(var,)] else None

    def coef_term(self, var: Var) -> Term | None:
        """The coefficient of ``var`` as a term free of it, or None when the term is not affine in ``var``."""
        out: dict[Mono, int] = {}
        for mono, c in self.parts.items():
            n = sum(a is var for a in mono)
            if any(a is not var and var in _atom_vars(a) for a in mono) or n > 1:
                return None
            if n:
                out[tuple(a for a in mono if a is not var)] = c
        const = out.pop((), 0)
        return Term(out, const)

    # -- arithmetic --------------------------------------------------------------------------------------------
    def __add__(self, other: Term | int) -> Term:
        other = as_term(other)
        if not other.parts:
            return Term(self.parts, self.const + other.const) if other.const else self
        if not self.parts:
            return Term(other.parts, self.const + other.const) if self.const else other
        parts = dict(self.parts)
        for mono, c in other.parts.items():
            n = parts.get(mono, 0) + c
            if n:
                parts[mono] = n
            else:
                del parts[mono]
        return _recombine(Term(parts, self.const + other.const))

    __radd__ = __add__

    def __neg__(self) -> Term:
        return Term({m: -c for m, c in self.parts.items()}, -self.const)

    def __sub__(self, other: Term | int) -> Term:
        other = as_term(other)
        return self + (-other if other.parts else Term(other.parts, -other.const)) if other.parts or other.const else self

    def __rsub__(self, other: Term | int) -> Term:
        return as_term(other) + (-self)

    def __mul__(self, other: Term | int) -> Term:
        other = as_term(other)
        if not other.parts:
            return _scale(self, other.const)
        if not self.parts:
            return _scale(other, self.const)
        parts: dict[Mono, int] = {}
        for (m1, c1), (m2, c2) in itertools.product([*self.parts.items(), ((), self.const)], [*other.parts.items(), ((), other.const)]):
            mono = tuple(sorted(m1 + m2, key=_order))
            parts[mono] = parts.get(mono, 0) + c1 * c2
        const = parts.pop((), 0)
        return Term({m: c for m, c in parts.items() if c}, const)

    __rmul__ = __mul__

    def __floordiv__(self, other: Term | int) -> Term:
        return floordiv(self, as_term(other))

    def __rfloordiv__(self, other: int) -> Term:
        return floordiv(as_term(other), self)

    def __mod__(self, other: Term | int) -> Term:
        return mod(self, as_term(other))

    def __rmod__(self, other: int) -> Term:
        return mod(as_term(other), self)

    # -- meaning -----------------------------------------------------------------------------------------------
    def subs(self, env: Mapping[Var, Term | int]) -> Term:
        """Replace variables; the result is rebuilt, so it is simplified again."""
        for v in self.vars:
            if v in env:
                break
        else:
            return self
        parts: dict[Mono, int] = {}
        const = self.const
        for mono, c in self.parts.items():
            made = _atom_subs(mono[0], env)
            for atom in mono[1:]:
                made = made * _atom_subs(atom, env)
            const += c * made.const
            for m, k in made.parts.items():
                parts[m] = parts.get(m, 0) + c * k
        return _recombine(Term({m: k for m, k in parts.items() if k}, const))

    def eval(self, env: Mapping[Var, Any]) -> Any:
        """The value for ints or numpy integer arrays in place of the variables."""
        out: Any = self.const
        for mono, c in self.parts.items():
            value: Any = c
            for atom in mono:
                value = value * _atom_eval(atom, env)
            out = out + value
        return out

    @property
    def bounds(self) -> tuple[float, float]:
        """Least and greatest value over the ranges of the variables; infinite where a size is symbolic."""
        if self._bounds is None:
            lo: float = self.const
            hi: float = self.const
            for mono, c in self.parts.items():
                a, b = _mono_bounds(mono)
                lo, hi = lo + min(c * a, c * b), hi + max(c * a, c * b)
            self._bounds = lo, hi
        return self._bounds


ZERO, ONE = Term({}, 0), Term({}, 1)


def as_term(value: Term | Var | int) -> Term:
    """An int, a variable, a term, or what carries one as ``.term`` (an index expression), as a term."""
    if isinstance(value, Term):
        return value
    if type(value) is int:
        return Term({}, value)
    if isinstance(value, Var):
        return Term({(value,): 1}, 0)
    carried = getattr(value, "term", None)
    return carried if isinstance(carried, Term) else Term({}, int(value))


def _of_atom(atom: Atom) -> Term:
    return Term({(atom,): 1}, 0)


def _scale(t: Term, c: int) -> Term:
    if c == 1:
        return t
    return Term({m: k * c for m, k in t.parts.items()}, t.const * c) if c else ZERO


def _recombine(t: Term) -> Term:
    """``k*(x % c) + k*c*(x // c)`` is ``k*x``, also where ``x`` is a quotient itself, so that ``x // c`` is written as one of its terms."""
    for mono, k in t.parts.items():
        if len(mono) == 1 and type(mono[0]) is Mod and mono[0].den.is_const:
            m = mono[0]
            other: Mono = (Div(m.num, m.den),)
            inner = _single(m.num)
            if type(inner) is Div and inner.den.is_const:
                (other,) = _of_atom(Div(inner.num, inner.den * m.den)).parts
            if t.parts.get(other) == k * m.den.const:
                rest = {p: c for p, c in t.parts.items() if p not in (mono, other)}
                return Term(rest, t.const) + _scale(m.num, k)
    return t


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
    inner = _single(rest)
    if type(inner) is Div and inner.den.is_const:
        return whole + shift + floordiv(inner.num, inner.den * c)
    big = _drop_small(rest, c)
    if big is not None:
        return whole + shift + floordiv(big[0], b)
    return whole + shift + _of_atom(Div(rest, b))


def mod(a: Term, b: Term) -> Term:
    """``a % b`` for positive ``b``, simplified."""
    if not b.is_const:
        q = floordiv(a, b)
        return _of_atom(Mod(a, b)) if any(type(x) is Div and x.den == b for m in q.parts for x in m) else a - b * q
    c = b.const
    if c <= 0:
        raise ZeroDivisionError(f"({a}) % {c}: the divisor of an index must be positive")
    rest = _split_multiple(a, c)[1]
    rest = Term(rest.parts, rest.const % c) if rest.const // c else rest
    lo, hi = rest.bounds
    if lo > -INF and hi < INF and lo // c == hi // c:
        return rest - int(lo // c) * c
    inner = _single(rest)
    if type(inner) is Mod and inner.den.is_const and inner.den.const % c == 0:
        return mod(inner.num, b)
    big = _drop_small(rest, c)
    if big is not None:
        return mod(big[0], b) + big[1]
    g = math.gcd(c, rest.const, *rest.parts.values())
    if g > 1:
        return _scale(mod(Term({m: k // g for m, k in rest.parts.items()}, rest.const // g), as_term(c // g)), g)
    return _of_atom(Mod(rest, b))


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


def _single(t: Term) -> Atom | None:
    if t.const == 0 and len(t.parts) == 1:
        (mono, c), = t.parts.items()
        if c == 1 and len(mono) == 1:
            return mono[0]
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
    return _of_atom(Div(a, b))


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
    return _of_atom(MinMax(which, a, b))


def cdiv(a: Term | int, b: Term | int) -> Term:
    """``a / b`` rounded up."""
    return (as_term(a) + (as_term(b) - 1)) // b


def product(terms: Iterable[Term | int]) -> Term:
    """The product of terms; one when there are none."""
    out: Term = ONE
    for t in terms:
        out = out * t
    return out


# -- atoms ---------------------------------------------------------------------------------------------------------
def _atom_vars(atom: Atom) -> frozenset[Var]:
    if isinstance(atom, Var):
        return frozenset((atom,))
    if isinstance(atom, MinMax):
        return atom.a.vars | atom.b.vars
    return atom.num.vars | atom.den.vars


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


def _atom_eval(atom: Atom, env: Mapping[Var, Any]) -> Any:
    if isinstance(atom, Var):
        return env[atom]
    if isinstance(atom, MinMax):
        a, b = atom.a.eval(env), atom.b.eval(env)
        lesser: Callable[[Any, Any], Any] = _np_min if atom.which == "min" else _np_max
        return lesser(a, b)
    num, den = atom.num.eval(env), atom.den.eval(env)
    return num % den if type(atom) is Mod else num // den


def _np_min(a: Any, b: Any) -> Any:
    return min(a, b) if isinstance(a, int) and isinstance(b, int) else a + (b - a) * (b < a)


def _np_max(a: Any, b: Any) -> Any:
    return -_np_min(-a, -b)


def _atom_bounds(atom: Atom) -> tuple[float, float]:
    if isinstance(atom, Var):
        if atom.kind == "dim" or atom.extent is None:
            return 1 if atom.kind == "dim" else -INF, INF
        return 0, max(atom.extent.bounds[1] - 1, 0)
    if isinstance(atom, MinMax):
        (a, b), (c, d) = atom.a.bounds, atom.b.bounds
        pick = min if atom.which == "min" else max
        return pick(a, c), pick(b, d)
    lo, hi = atom.num.bounds
    d0, d1 = atom.den.bounds
    if type(atom) is Mod:
        return 0, min(d1 - 1, hi) if lo >= 0 else d1 - 1
    corners = [_fdiv(n, d) for n in (lo, hi) for d in (max(d0, 1), max(d1, 1))]
    return min(corners), max(corners)


def _fdiv(n: float, d: float) -> float:
    if abs(n) == INF:
        return n
    return (0 if n >= 0 else -1) if d == INF else n // d


def _mono_bounds(mono: Mono) -> tuple[float, float]:
    lo, hi = _atom_bounds(mono[0])
    for atom in mono[1:]:
        a, b = _atom_bounds(atom)
        corners = [_mul(x, y) for x in (lo, hi) for y in (a, b)]
        lo, hi = min(corners), max(corners)
    return lo, hi


def _mul(a: float, b: float) -> float:
    return 0 if a == 0 or b == 0 else a * b


# -- proofs --------------------------------------------------------------------------------------------------------
def nonneg(t: Term, facts: Iterable[Term] = ()) -> bool:
    """Whether ``t >= 0`` is proved for all values of its variables, given that every term in ``facts`` is ``>= 0``.

    Sound and incomplete. Ranges first; then axes are replaced by the end of their range that makes ``t`` least
    (symbolic extents included), until only sizes remain; then up to three facts may be subtracted.
    """
    if t.bounds[0] >= 0 or _least(t):
        return True
    t = _without_quotient(t)
    given = _relevant(t, facts)
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
            return _scale(rest, atom.den.const) + (atom.den.const - 1) - atom.num
    return t


def _cancelled(t: Term, fact: Term) -> Iterator[Term]:
    """Terms ``t - k*fact`` and ``k*t - fact`` in which the multiple ``k`` cancels one of the variables."""
    shared = [(t.parts[m], c) for m, c in fact.parts.items() if m in t.parts]
    for k in {a // c for a, c in shared if a % c == 0 and a // c > 1}:
        yield t - _scale(fact, k)
    for k in {c // a for a, c in shared if c % a == 0 and c // a > 1}:
        yield _scale(t, k) - fact


def _least(t: Term, depth: int = 12) -> bool:
    """Whether ``t >= 0`` at its least: axes go to their worst end one by one, then what is not affine is bounded."""
    if t.bounds[0] >= 0:
        return True
    if depth == 0 or _is_exact(t):
        return False
    for axis in t.vars:
        sign = _direction(t, axis) if axis.kind == "axis" and axis.extent is not None else 0
        if sign:
            assert axis.extent is not None
            return _least(t.subs({axis: 0 if sign > 0 else axis.extent - 1}), depth - 1)
    for mono, k in t.parts.items():
        for atom in mono:
            if not isinstance(atom, Var):
                return _bounded(t, mono, k, atom, depth - 1)
    return _sizes_nonneg(t)


def _is_exact(t: Term) -> bool:
    """Whether the bounds of ``t`` are reached: it is affine in axes whose extents are known numbers."""
    for mono in t.parts:
        (atom, *others) = mono
        if others or type(atom) is not Var or atom.extent is None or atom.extent.parts or atom.extent.const < 1:
            return False
    return True


def _direction(t: Term, v: Var) -> int:
    """1 when ``t`` never falls as ``v`` grows (other variables fixed), -1 when it never rises, 0 when that is not known."""
    signs = {_mono_direction(mono, v) * (1 if c > 0 else -1) for mono, c in t.parts.items() if any(v in _atom_vars(a) for a in mono)}
    return signs.pop() if len(signs) == 1 else 0


def _mono_direction(mono: Mono, v: Var) -> int:
    holders = [a for a in mono if v in _atom_vars(a)]
    if len(holders) > 1 or any(_atom_bounds(a)[0] < 0 for a in mono if a is not holders[0]):
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
        if len(mono) == 1 and (k > 0) == (atom.which == "max"):
            return any(_least(rest + _scale(side, k), depth) for side in (atom.a, atom.b))
        return all(_least(_replace(t, atom, side), depth) for side in (atom.a, atom.b))
    num, den = atom.num, atom.den
    if len(mono) == 1 and den.is_const:  # num - den + 1 <= den*(num // den) <= num, and t is an integer
        d = den.const
        return _least(_scale(rest, d) + (_scale(num - (d - 1), k) if k > 0 else _scale(num, k)) + (d - 1), depth)
    others = [a for a in mono if a is not atom]
    if product(_of_atom(a) for a in others) == den:
        return _least(rest + (_scale(num - den + 1, k) if k > 0 else _scale(num, k)), depth)
    return len(mono) == 1 and nonneg(num) and _least(rest if k > 0 else rest + _scale(num, k), depth)


def _replace(t: Term, old: Atom, new: Term) -> Term:
    """``t`` with one atom replaced wherever it is a factor."""
    out: Term = Term({}, t.const)
    for mono, c in t.parts.items():
        out = out + product([new if a == old else _of_atom(a) for a in mono]) * c
    return out


def _sizes_nonneg(t: Term) -> bool:
    """A polynomial in sizes ``>= 1``: shift each by one and look at the signs."""
    shifted = t.subs({v: as_term(v) + 1 for v in t.vars if v.kind == "dim"})
    return shifted.const >= 0 and all(c >= 0 and all(isinstance(a, Var) and a.kind == "dim" for a in m) for m, c in shifted.parts.items())


def tile_bound(t: Term, free: set[Var], best: bool) -> Term:
    """The greatest (``best``) or least value of ``t`` as the variables in ``free`` run over their ranges, as a term in the others.

    A part that mixes free and other variables is bounded by its own range.
    """
    out: Term = Term({}, t.const)
    for mono, c in t.parts.items():
        part = Term({mono: c}, 0)
        if not part.vars & free:
            out = out + part
            continue
        lo, hi = part.bounds
        out = out + int(hi if best else lo)
    return out


def show(t: Term, name: Callable[[Var], str] = lambda v: v.name) -> str:
    """Readable text: positive parts first, ``2*i + j - 1``."""
    def atom_text(a: Atom) -> str:
        if isinstance(a, Var):
            return name(a)
        if isinstance(a, MinMax):
            return f"{a.which}({show(a.a, name)}, {show(a.b, name)})"
        num, den = show(a.num, name), show(a.den, name)
        return f"{_group(num)} {a.symbol} {_group(den)}"

    out = ""
    for mono, c in sorted(t.parts.items(), key=lambda p: (p[1] < 0, [_order(a) for a in p[0]])):
        several = len(mono) > 1 or abs(c) != 1
        factors = [_group(atom_text(a)) if several or out or c < 0 else atom_text(a) for a in mono]
        text = "*".join(([str(abs(c))] if abs(c) != 1 else []) + factors)
        out += (" - " if c < 0 else " + ") + text if out else ("-" if c < 0 else "") + text
    if not out:
        return str(t.const)
    return out + (f" - {-t.const}" if t.const < 0 else f" + {t.const}" if t.const else "")


def _group(text: str) -> str:
    return f"({text})" if " " in text and not (text.startswith(("min(", "max(")) and text.endswith(")")) else text


def _wrap(t: Term) -> str:
    return _group(show(t))
