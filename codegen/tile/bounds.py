"""Proof that every access of a tile program lies inside its buffer, with a concrete counterexample where it does not."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from typing import NoReturn

from codegen.tile.ir import Broadcast, Const, Iota, Load, Map, Predicate, Rename, Store, Value
from dsl.decide import counterexample
from dsl.dim import Div, MinMax, Mod, Term, Var, nonneg, undivided
from dsl.errors import BoundsError, InternalError

_TRIES = 4000
_SIZES = (1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 31, 33, 64, 100, 129)


def check_access(op: Load | Store, facts: Sequence[Term]) -> None:
    """Prove each index of ``op`` in ``[0, size)``, given ``facts`` and its own mask.

    Raises:
        BoundsError: a choice of sizes and positions leaves the buffer; the message gives it.
        InternalError: no such choice was found, and no proof either.
    """
    known = [*facts, *op.mask, *(t for c in op.conds for t in condition_facts(c))]
    for dim, (index, size) in enumerate(zip(op.indices, op.buffer.shape)):
        if isinstance(index, Value):
            if not (_at_least_zero(index, op.conds) and _below(index, size, op.conds)):
                raise InternalError(f"{op.buffer.name}: the data-dependent index {index!r} of dimension {dim} is not guarded", loc=op.loc)
        elif not (holds(index, known) and holds(size - 1 - index, known)):
            _settle(op, dim, index, size, known)


def holds(t: Term, facts: Sequence[Term]) -> bool:
    """Whether ``t >= 0`` follows from ``facts``; minima, quotients and remainders are replaced by what bounds them."""
    if t.bounds[0] >= 0 or t in facts:
        return True
    for mono, c in t.parts.items():
        if len(mono) == 1 and isinstance(mono[0], MinMax) and (c < 0) == (mono[0].which == "max"):  # both sides, and no more than that
            return _without(t - Term({mono: c}, 0), c, mono[0], facts)
    if nonneg(t, facts):
        return True
    for mono, c in t.parts.items():
        if len(mono) == 1 and not isinstance(mono[0], Var):
            return _without(t - Term({mono: c}, 0), c, mono[0], facts)
    return False


def _without(rest: Term, c: int, atom: Div | MinMax, facts: Sequence[Term]) -> bool:
    """Whether ``rest + c*atom >= 0``; exact for quotients with ``c`` of 1 or -1."""
    if isinstance(atom, MinMax):
        sides = (holds(rest + side * c, facts) for side in (atom.a, atom.b))
        return any(sides) if (c < 0) == (atom.which == "min") else all(sides)
    if isinstance(atom, Mod):  # 0 <= n % d <= d - 1
        return holds(rest if c > 0 else rest + (atom.den - 1) * c, facts)
    if c in (1, -1):
        return holds(undivided(rest, c, atom), facts)
    return holds(atom.den * rest + (atom.num if c < 0 else atom.num - atom.den + 1) * c, facts)


def consequences(fact: Term) -> list[Term]:
    """``fact >= 0`` and simpler terms that follow from it: the sides of a minimum, the linear form of a division.

    ``v < max(a, 0)`` gives ``v < a`` for ``v >= 0``, since nothing is below an empty range, and ``v >= min(a, n)`` gives ``v >= a`` for
    ``v < n``.
    """
    out = [fact]
    for mono, c in fact.parts.items():
        atom = mono[0]
        rest = fact - Term({mono: c}, 0)
        if len(mono) > 1:
            continue
        if isinstance(atom, MinMax) and (atom.which == "min") == (c > 0):
            out += [f for side in (atom.a, atom.b) for f in consequences(rest + side * c)]
        elif isinstance(atom, MinMax) and (c < 0 or not nonneg(rest)):
            live = [side for side in (atom.a, atom.b) if not (side.is_const and (rest + side * c).bounds[1] < 0)]
            out += consequences(rest + live[0] * c) if len(live) == 1 else []
        elif type(atom) is Div and atom.den.is_const and c > 0:  # c*(n // d) + rest >= 0 gives c*n + d*rest >= 0
            out += consequences(atom.num * c + rest * atom.den.const)
        elif type(atom) is Div and atom.den.is_const and c == -1:
            out += consequences(undivided(rest, c, atom))
    return out


def end_inside(lo: Term, hi: Term) -> Term:
    """The end of the range ``[lo, hi)`` for whoever is in it: ``a`` of ``max(a, b)`` where ``b <= lo``, since nothing lies below ``b``."""
    for mono, c in hi.parts.items():
        atom = mono[0]
        if len(mono) == 1 and isinstance(atom, MinMax) and atom.which == "max" and c > 0:
            rest = hi - Term({mono: c}, 0)
            for side, other in ((atom.a, atom.b), (atom.b, atom.a)):
                if nonneg(lo - rest - other * c):
                    return end_inside(lo, rest + side * c)
    return hi


def condition_facts(cond: Value) -> list[Term]:
    """The index terms that are ``>= 0`` wherever a bool tile holds."""
    op = cond.op
    if isinstance(op, Predicate):
        return list(op.terms)
    if isinstance(op, Map) and op.name == "and":
        return [t for a in op.args for t in condition_facts(a)]
    return []


# -- data-dependent indices ----------------------------------------------------------------------------------------
def _conjuncts(conds: Iterable[Value]) -> list[Map]:
    out: list[Map] = []
    for c in conds:
        if isinstance(c.op, Map):
            out += _conjuncts(c.op.args) if c.op.name == "and" else [c.op]
    return out


def _term_of(v: Value) -> Term | None:
    if isinstance(v.op, Const):
        return Term({}, int(v.op.value))
    return v.op.term if isinstance(v.op, Iota) else None


def _at_least_zero(v: Value, conds: Sequence[Value]) -> bool:
    for c in _conjuncts(conds):
        sides = {"ge": c.args, "le": c.args[::-1]}.get(c.name, ())
        if sides and sides[0] is v and (low := _term_of(sides[1])) is not None and holds(low, ()):
            return True
    term = _term_of(v)
    if term is not None:
        return holds(term, ())
    match v.op:
        case Map(name="max", args=args):
            return any(_at_least_zero(a, conds) for a in args)
        case Map(name="min" | "add" | "mul", args=args):
            return all(_at_least_zero(a, conds) for a in args)
        case Map(name="where", args=args):
            return all(_at_least_zero(a, conds) for a in args[1:])
        case Map(name="mod", args=(_, den)):
            return (d := _term_of(den)) is not None and holds(d - 1, ())
        case Map(name="cast", args=(a,)) | Rename(value=a) | Broadcast(value=a):
            return not a.dtype.is_float and a.dtype.bits <= v.dtype.bits and _at_least_zero(a, conds)
    return v.dtype.is_int and not v.dtype.signed


def _below(v: Value, size: Term, conds: Sequence[Value]) -> bool:
    for c in _conjuncts(conds):
        sides = {"lt": c.args, "gt": c.args[::-1], "le": c.args, "ge": c.args[::-1]}.get(c.name, ())
        if sides and sides[0] is v and (high := _term_of(sides[1])) is not None and holds(size - high - (c.name in ("le", "ge")), ()):
            return True
    term = _term_of(v)
    if term is not None:
        return holds(size - 1 - term, ())
    match v.op:
        case Map(name="min", args=args):
            return any(_below(a, size, conds) for a in args)
        case Map(name="max", args=args):
            return all(_below(a, size, conds) for a in args)
        case Map(name="where", args=args):
            return all(_below(a, size, conds) for a in args[1:])
        case Map(name="mod", args=(_, den)):
            return (d := _term_of(den)) is not None and holds(size - d, ()) and holds(d - 1, ())
        case Map(name="cast", args=(a,)) | Rename(value=a) | Broadcast(value=a):
            return not a.dtype.is_float and a.dtype.bits <= v.dtype.bits and _below(a, size, conds)
    return v.dtype.is_int and holds(size - (1 << v.dtype.bits - v.dtype.signed), ())


# -- counterexamples -----------------------------------------------------------------------------------------------
def _settle(op: Load | Store, dim: int, index: Term, size: Term, facts: Sequence[Term]) -> None:
    """Look at every point, or at many, and raise unless all are inside."""
    decided = True
    for need in (index, size - 1 - index):
        found = counterexample(need, facts)
        if isinstance(found, Mapping):
            _refuse(op, dim, index, size, found)
        decided = decided and found is True
    if decided:
        return
    tried = witness(index, size, facts)
    if tried is not None:
        _refuse(op, dim, index, size, tried)
    known = ", ".join(map(str, facts)) or "nothing"
    raise InternalError(f"cannot prove the {_what(op, dim, index, size)} in bounds", f"known to be >= 0: {known}", loc=op.loc)


def _what(op: Load | Store, dim: int, index: Term, size: Term) -> str:
    return f"{'write' if isinstance(op, Store) else 'read'} of {op.buffer.name} at `{index}` in dimension {dim} of size {size}"


def _refuse(op: Load | Store, dim: int, index: Term, size: Term, found: Mapping[Var, int]) -> NoReturn:
    values = ", ".join(f"{v} = {n}" for v, n in found.items())
    reason = f"for {values} the index is {index.eval(found)}, outside [0, {size.eval(found)})"
    raise BoundsError(f"{_what(op, dim, index, size)} is out of bounds", reason, loc=op.loc)


def witness(index: Term, size: Term, facts: Sequence[Term]) -> dict[Var, int] | None:
    """Values for which every fact holds and ``index`` is outside ``[0, size)``; None when a random search finds none."""
    rng = random.Random(1)
    needed = sorted({v for t in (index, size, *facts) for v in t.vars}, key=lambda v: v.uid)
    for _ in range(_TRIES):
        env: dict[Var, int] = {}
        for v in needed:
            _choose(v, env, rng)
        if all(f.eval(env) >= 0 for f in facts) and not 0 <= index.eval(env) < size.eval(env):
            return {v: env[v] for v in needed}
    return None


def _choose(v: Var, env: dict[Var, int], rng: random.Random) -> None:
    """A value for ``v``, near either end of its range as often as not; the sizes in its extent first."""
    if v in env:
        return
    if v.extent is None:
        env[v] = rng.choice(_SIZES)
        return
    for inner in sorted(v.extent.vars, key=lambda x: x.uid):
        _choose(inner, env, rng)
    last = max(int(v.extent.eval(env)) - 1, 0)
    env[v] = rng.choice((0, last, rng.randint(0, last), rng.randint(0, last)))
