"""Integer terms over axes and symbolic sizes: their structure, sums and products, ranges, and text.

A :class:`Term` is a constant plus a sum of integer coefficients times products of atoms; an atom is a
:class:`Var`, a floor division, a remainder, or a minimum/maximum. Terms are canonical: equal terms compare equal.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from dsl.arithmetic import SizeArithmetic

_counter = itertools.count()

Mono = tuple["Atom", ...]
INF = math.inf


class Var:
    """A symbolic integer: a size (``kind="dim"``, at least 1) or an axis with range ``[0, extent)``.

    ``likely`` is a value that a size is expected to have: what heuristics reckon with, and nothing is proved by.
    """

    __slots__ = ("bounds", "extent", "kind", "likely", "name", "uid")

    def __init__(self, name: str, extent: Term | int | None = None, kind: str = "axis", likely: int | None = None) -> None:
        self.name, self.kind, self.uid, self.likely = name, kind, next(_counter), likely
        self.extent: Term | None = None if extent is None else as_term(extent)
        self.bounds: tuple[float, float] = (1 if kind == "dim" else -INF, INF)
        if kind != "dim" and self.extent is not None:
            self.bounds = 0, max(self.extent.bounds[1] - 1, 0)

    def __repr__(self) -> str:
        return self.name

    @property
    def vars(self) -> frozenset[Var]:
        """Itself, as atoms that are made of terms have several."""
        return frozenset((self,))

    @property
    def size(self) -> int:
        """The extent as an int; only for axes of static extent."""
        assert self.extent is not None and self.extent.is_const, self
        return self.extent.const


class Div:
    """``num // den`` rounded towards minus infinity; ``den`` is positive."""

    __slots__ = ("_hash", "bounds", "den", "num", "vars")

    def __init__(self, num: Term, den: Term) -> None:
        self.num, self.den = num, den
        self._hash = hash((self.symbol, num, den))
        self.vars, self.bounds = num.vars | den.vars, self._range()

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self.num == other.num and self.den == other.den

    symbol = "//"

    def __repr__(self) -> str:
        return f"({self.num}) {self.symbol} {_wrap(self.den)}"

    def _range(self) -> tuple[float, float]:
        d0, d1 = self.den.bounds
        corners = [_fdiv(n, d) for n in self.num.bounds for d in (max(d0, 1), max(d1, 1))]
        return min(corners), max(corners)


class Mod(Div):
    """``num % den`` with the sign of ``den``, which is positive."""

    __slots__ = ()
    symbol = "%"

    def _range(self) -> tuple[float, float]:
        lo, hi = self.num.bounds
        last = self.den.bounds[1] - 1
        return 0, min(last, hi) if lo >= 0 else last


class MinMax:
    """The least (``"min"``) or greatest (``"max"``) of two terms."""

    __slots__ = ("_hash", "a", "b", "bounds", "vars", "which")

    def __init__(self, which: str, a: Term, b: Term) -> None:
        self.which, self.a, self.b = which, a, b
        self._hash = hash((which, a, b))
        pick = min if which == "min" else max
        self.vars, self.bounds = a.vars | b.vars, (pick(a.bounds[0], b.bounds[0]), pick(a.bounds[1], b.bounds[1]))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MinMax) and (self.which, self.a, self.b) == (other.which, other.a, other.b)

    def __repr__(self) -> str:
        return f"{self.which}({self.a}, {self.b})"


Atom = Var | Div | MinMax


def _order(atom: Atom) -> tuple[int, str, int]:
    return (0, atom.name, atom.uid) if isinstance(atom, Var) else (1, repr(atom), 0)


class Term(SizeArithmetic["Term"]):
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
        if isinstance(other, Term):
            return self is other or (self.const == other.const and self.parts == other.parts)
        return isinstance(other, int) and not self.parts and self.const == other

    def __repr__(self) -> str:
        return show(self)

    def __index__(self) -> int:
        if self.parts:
            raise TypeError(f"the size {self} is symbolic, and a Python number is needed here; dlc.sqrt, dlc.where and the like take sizes")
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
                    found |= {atom} if type(atom) is Var else atom.vars
            self._vars = frozenset(found)
        return self._vars

    def coef(self, var: Var) -> int | None:
        """The coefficient of ``var`` when the term is affine in it with an integer coefficient, else None."""
        if var not in self.vars:
            return 0
        rest = [mono for mono in self.parts if any(var in a.vars for a in mono)]
        return self.parts[(var,)] if rest == [(var,)] else None

    def coef_term(self, var: Var) -> Term | None:
        """The coefficient of ``var`` as a term free of it, or None when the term is not affine in ``var``."""
        out: dict[Mono, int] = {}
        for mono, c in self.parts.items():
            n = sum(a is var for a in mono)
            if any(a is not var and var in a.vars for a in mono) or n > 1:
                return None
            if n:
                out[tuple(a for a in mono if a is not var)] = c
        const = out.pop((), 0)
        return Term(out, const)

    # -- arithmetic --------------------------------------------------------------------------------------------
    def __add__(self, other: Term | int) -> Term:
        try:
            other = as_term(other)
        except TypeError:
            return self.beside("add", other)
        return self._plus(other, 1)

    __radd__ = __add__

    def __neg__(self) -> Term:
        return Term({m: -c for m, c in self.parts.items()}, -self.const)

    def __sub__(self, other: Term | int) -> Term:
        try:
            other = as_term(other)
        except TypeError:
            return self.beside("sub", other)
        return self._plus(other, -1)

    def __rsub__(self, other: Term | int) -> Term:
        return -self + other

    def _plus(self, other: Term, k: int) -> Term:
        """``self + k*other`` for ``k`` of 1 or -1."""
        if not other.parts:
            return Term(self.parts, self.const + k * other.const) if other.const else self
        if not self.parts and not self.const and k == 1:
            return other
        parts = dict(self.parts)
        for mono, c in other.parts.items():
            n = parts.get(mono, 0) + k * c
            if n:
                parts[mono] = n
            else:
                del parts[mono]
        made = Term(parts, self.const + k * other.const)
        return recombine(made) if self.parts else made

    def __mul__(self, other: Term | int) -> Term:
        try:
            other = as_term(other)
        except TypeError:
            return self.beside("mul", other)
        if not other.parts:
            return scale(self, other.const)
        if not self.parts:
            return scale(other, self.const)
        parts: dict[Mono, int] = {}
        for (m1, c1), (m2, c2) in itertools.product([*self.parts.items(), ((), self.const)], [*other.parts.items(), ((), other.const)]):
            mono = tuple(sorted(m1 + m2, key=_order))
            parts[mono] = parts.get(mono, 0) + c1 * c2
        const = parts.pop((), 0)
        return Term({m: c for m, c in parts.items() if c}, const)

    __rmul__ = __mul__

    __array_ufunc__ = None  # numbers of numpy leave the arithmetic to terms

    # -- meaning -----------------------------------------------------------------------------------------------
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
    """An int, a variable, a term, or what carries one as ``.term`` (an index expression), as a term; TypeError for other numbers."""
    kind = type(value)
    if kind is Term:
        return value  # type: ignore[return-value]
    if kind is int:
        return Term({}, value)  # type: ignore[arg-type]
    if isinstance(value, Var):
        return Term({(value,): 1}, 0)
    carried = getattr(value, "term", None)
    return carried if isinstance(carried, Term) else Term({}, operator.index(value))


def of_atom(atom: Atom) -> Term:
    """A term of one atom."""
    return Term({(atom,): 1}, 0)


def scale(t: Term, c: int) -> Term:
    """``c * t``."""
    if c == 1:
        return t
    return Term({m: k * c for m, k in t.parts.items()}, t.const * c) if c else ZERO


def recombine(t: Term) -> Term:
    """``k*(x % c) + k*c*(x // c)`` is ``k*x``, also where ``x`` is a quotient itself, so that ``x // c`` is written as one of its terms."""
    for mono, k in t.parts.items():
        if len(mono) == 1 and type(mono[0]) is Mod and mono[0].den.is_const:
            m = mono[0]
            quotient = single(m.num // m.den)
            other: Mono = () if quotient is None else (quotient,)
            if t.parts.get(other) == k * m.den.const:
                rest = {p: c for p, c in t.parts.items() if p not in (mono, other)}
                return Term(rest, t.const) + scale(m.num, k)
    return t


def single(t: Term) -> Atom | None:
    """The atom that a term is; None where it is more."""
    if t.const == 0 and len(t.parts) == 1:
        (mono, c), = t.parts.items()
        if c == 1 and len(mono) == 1:
            return mono[0]
    return None


def product(terms: Iterable[Term | int]) -> Term:
    """The product of terms; one when there are none."""
    out: Term = ONE
    for t in terms:
        out = out * t
    return out


# -- atoms ---------------------------------------------------------------------------------------------------------
def _atom_eval(atom: Atom, env: Mapping[Var, Any]) -> Any:
    if isinstance(atom, Var):
        return env[atom]
    if isinstance(atom, MinMax):
        return (_np_min if atom.which == "min" else _np_max)(atom.a.eval(env), atom.b.eval(env))
    num, den = atom.num.eval(env), atom.den.eval(env)
    return num % den if type(atom) is Mod else num // den


def _np_min(a: Any, b: Any) -> Any:
    return min(a, b) if isinstance(a, int) and isinstance(b, int) else a + (b - a) * (b < a)


def _np_max(a: Any, b: Any) -> Any:
    return -_np_min(-a, -b)


def _fdiv(n: float, d: float) -> float:
    if abs(n) == INF:
        return n
    return (0 if n >= 0 else -1) if d == INF else n // d


def _mono_bounds(mono: Mono) -> tuple[float, float]:
    lo, hi = mono[0].bounds
    for atom in mono[1:]:
        a, b = atom.bounds
        corners = [_mul(x, y) for x in (lo, hi) for y in (a, b)]
        lo, hi = min(corners), max(corners)
    return lo, hi


def _mul(a: float, b: float) -> float:
    return 0 if a == 0 or b == 0 else a * b


# -- text -----------------------------------------------------------------------------------------------------------
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
