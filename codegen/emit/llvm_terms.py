"""Index terms as code: a number, or one for each lane."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from llvmlite import ir

from codegen.emit.llvm_builder import Builder, Landing
from codegen.emit.llvm_loop import Counter
from codegen.emit.llvm_masks import at_coord
from codegen.emit.llvm_regs import Coord, Shape, Tile, make
from codegen.emit.llvm_types import I64, int_const, splat, vector
from dsl.dim import Div, MinMax, Mod, Mono, Term, Var
from dsl.dtype import i64
from dsl.errors import InternalError


class Terms:
    """Emits index terms. A term over scalars gives an i64; over the lane axis, a vector of i64.

    Variables get their values scope by scope: the sizes, a point of the grid, each loop around. What depends on no variable of the
    innermost scopes is computed where the last of its variables got a value, and once: addresses in a loop are a base made before it, and
    what the loop adds.
    """

    def __init__(self, b: Builder) -> None:
        self.b = b
        self.scalars: dict[Var, ir.Value] = {}
        self._scopes: list[tuple[Landing, list[Any]]] = []  # with the keys of what was computed there
        self._known: dict[Any, ir.Value] = {}
        self._depths: dict[Var, int] = {}
        self._counters: dict[Var, Counter | None] = {}

    def enter(self, values: Mapping[Var, ir.Value | Counter]) -> None:
        """Open a scope: from here to :meth:`leave` the variables have these values, or count."""
        self.scalars |= {v: at.value if isinstance(at, Counter) else at for v, at in values.items()}
        self._counters |= {v: at if isinstance(at, Counter) else None for v, at in values.items()}
        self._depths |= dict.fromkeys(values, len(self._scopes))
        self._scopes.append((self.b.landing(), []))

    def leave(self) -> None:
        """Close the innermost scope."""
        for key in self._scopes.pop()[1]:
            del self._known[key]

    def once(self, key: Any, t: Term, emit: Callable[[], ir.Value]) -> ir.Value:
        """What ``emit`` makes of a term, computed in the term's scope; the same value for the same key."""
        value = self._known.get(key)
        if value is not None:
            return value
        if any(map(_may_fail, t.parts)):
            return emit()
        landing, keys = self._scopes[self._depth(t.vars)]
        value = self._known[key] = self.b.at(landing, emit)
        keys.append(key)
        return value

    def split(self, t: Term) -> tuple[Term, Term]:
        """The parts of a term that scopes around its own know, and the rest."""
        own = self._depth(t.vars)
        outer = {mono: c for mono, c in t.parts.items() if self._depth(_variables(mono)) < own}
        return Term(outer, 0), Term({mono: c for mono, c in t.parts.items() if mono not in outer}, t.const) if outer else t

    def _depth(self, variables: Iterable[Var]) -> int:
        try:
            return max([self._depths[v] for v in variables], default=0)
        except KeyError as e:
            raise InternalError(f"index variable `{e.args[0].name}` has no value here") from e

    def scalar(self, t: Term) -> ir.Value:
        """A term without tile axes."""
        return I64(t.const) if t.is_const else self.once(t, t, lambda: self._scalar(t))

    def _scalar(self, t: Term) -> ir.Value:
        outer, own = self.split(t)
        value = self._sum(own, {}, 0)
        return self.b.add(self.scalar(outer), value) if outer.parts else value

    def lanes(self, t: Term, lane: Var, first: int, width: int) -> ir.Value:
        """A term over the lane axis, for lanes ``first .. first + width - 1``."""
        same = Term({mono: c for mono, c in t.parts.items() if lane not in _variables(mono)}, 0)
        if len(same.parts) == len(t.parts):
            return splat(self.b, self.scalar(t), width)
        iota = ir.Constant(vector(I64, width), [I64(first + n) for n in range(width)])
        own = self._sum(Term({mono: c for mono, c in t.parts.items() if mono not in same.parts}, t.const), {lane: iota}, width)
        return self.b.add(splat(self.b, self.scalar(same), width), own) if same.parts else own

    def _sum(self, t: Term, env: dict[Var, ir.Value], width: int) -> ir.Value:
        b = self.b
        out: ir.Value | None = None
        for mono, c in t.parts.items():
            known = Term({mono: c}, 0)
            part = self._product(mono, c, env, width) if env else self.once((mono, c), known, partial(self._multiple, mono, c))
            out = part if out is None else b.add(*self._same(out, part))
        if out is None:
            return splat(b, I64(t.const), width)
        out = b.add(out, int_const(out.type, t.const)) if t.const else out
        return splat(b, out, width)

    def _multiple(self, mono: Mono, c: int) -> ir.Value:
        """A product of scalars: a loop counts it where it is the loop's variable times something known before."""
        own = self._depth(_variables(mono))
        counted = [a for a in mono if isinstance(a, Var) and self._depths[a] == own and self._counters[a] is not None]
        known = tuple(a for a in mono if a not in counted)
        if len(counted) != 1 or self._depth(_variables(known)) == own or mono == tuple(counted) and c == 1 or _may_fail(mono):
            return self._product(mono, c, {}, 0)
        counter = self._counters[counted[0]]
        assert counter is not None
        return counter.times(self.scalar(Term({known: c}, 0)) if known else I64(c))

    def _product(self, mono: Mono, c: int, env: dict[Var, ir.Value], width: int) -> ir.Value:
        part: ir.Value | None = None
        for atom in mono:
            v = self._atom(atom, env, width)
            part = v if part is None else self.b.mul(*self._same(part, v))
        assert part is not None
        return part if c == 1 else self.b.mul(part, int_const(part.type, c))

    def _same(self, a: ir.Value, c: ir.Value) -> tuple[ir.Value, ir.Value]:
        n = max(a.type.count if isinstance(a.type, ir.VectorType) else 0, c.type.count if isinstance(c.type, ir.VectorType) else 0)
        return splat(self.b, a, n), splat(self.b, c, n)

    def _atom(self, atom: Any, env: dict[Var, ir.Value], width: int) -> ir.Value:
        b = self.b
        if isinstance(atom, Var):
            if atom in env:
                return env[atom]
            return self.scalars[atom]
        if isinstance(atom, MinMax):
            x, y = self._same(self._sub(atom.a, env, width), self._sub(atom.b, env, width))
            return b.select(b.icmp_signed("<" if atom.which == "min" else ">", x, y), x, y)
        num, den = self._same(self._sub(atom.num, env, width), self._sub(atom.den, env, width))
        if atom.num.bounds[0] >= 0:
            return b.urem(num, den) if type(atom) is Mod else b.udiv(num, den)
        return self._floor(num, den, type(atom) is Mod)

    def _sub(self, t: Term, env: dict[Var, ir.Value], width: int) -> ir.Value:
        return self._sum(t, env, width) if any(v in env for v in t.vars) else self.scalar(t)

    def _floor(self, num: ir.Value, den: ir.Value, mod: bool) -> ir.Value:
        b = self.b
        r = b.srem(num, den)
        negative = b.icmp_signed("<", r, int_const(r.type, 0))
        if mod:
            return b.select(negative, b.add(r, den), r)
        return b.sub(b.sdiv(num, den), b.zext(negative, r.type))


def _variables(mono: Mono) -> frozenset[Var]:
    return mono[0].vars if len(mono) == 1 else frozenset().union(*[atom.vars for atom in mono])


def _may_fail(mono: Mono) -> bool:
    """Whether a product divides by what only the conditions around it keep above zero."""
    for atom in mono:
        if isinstance(atom, MinMax) and any(_may_fail(m) for t in (atom.a, atom.b) for m in t.parts):
            return True
        if isinstance(atom, Div) and (atom.den.bounds[0] < 1 or any(_may_fail(m) for t in (atom.num, atom.den) for m in t.parts)):
            return True
    return False


def iota_tile(terms: Terms, t: Term, shape: Shape) -> Tile:
    """The values of an index term."""
    def one(coord: Coord) -> ir.Value:
        c = at_coord(t, shape, coord)
        return terms.scalar(c) if shape.lane is None else terms.lanes(c, shape.lane, coord[-1] * shape.width, shape.width)

    return make(shape, i64, one)
