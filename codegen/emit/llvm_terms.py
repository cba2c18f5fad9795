"""Index terms as code: a number, or one for each lane."""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from codegen.emit.llvm_builder import Builder
from codegen.emit.llvm_masks import at_coord
from codegen.emit.llvm_regs import Coord, Shape, Tile, make
from codegen.emit.llvm_types import I64, int_const, splat, vector
from dsl.dim import MinMax, Mod, Term, Var
from dsl.dtype import i64
from dsl.errors import InternalError


class Terms:
    """Emits index terms. A term over scalars gives an i64; over the lane axis, a vector of i64."""

    def __init__(self, b: Builder, scalars: dict[Var, ir.Value]) -> None:
        self.b, self.scalars = b, scalars
        self.memo: dict[Any, tuple[ir.Value, ir.Block]] = {}

    def scalar(self, t: Term) -> ir.Value:
        """A term without tile axes."""
        if t.is_const:
            return I64(t.const)
        hit = self.memo.get(t)
        if hit is not None and hit[1] is self.b.block:
            return hit[0]
        value = self._sum(t, {}, 0)
        self.memo[t] = (value, self.b.block)
        return value

    def lanes(self, t: Term, lane: Var, first: int, width: int) -> ir.Value:
        """A term over the lane axis, for lanes ``first .. first + width - 1``."""
        if lane not in t.vars:
            return splat(self.b, self.scalar(t), width)
        iota = ir.Constant(vector(I64, width), [I64(first + n) for n in range(width)])
        return self._sum(t, {lane: iota}, width)

    def _sum(self, t: Term, env: dict[Var, ir.Value], width: int) -> ir.Value:
        b = self.b
        out: ir.Value | None = None
        for mono, c in t.parts.items():
            part: ir.Value | None = None
            for atom in mono:
                v = self._atom(atom, env, width)
                part = v if part is None else b.mul(*self._same(part, v))
            assert part is not None
            if c != 1:
                part = b.mul(part, int_const(part.type, c))
            out = part if out is None else b.add(*self._same(out, part))
        if out is None:
            return splat(b, I64(t.const), width)
        out = b.add(out, int_const(out.type, t.const)) if t.const else out
        return splat(b, out, width)

    def _same(self, a: ir.Value, c: ir.Value) -> tuple[ir.Value, ir.Value]:
        n = max(a.type.count if isinstance(a.type, ir.VectorType) else 0, c.type.count if isinstance(c.type, ir.VectorType) else 0)
        return splat(self.b, a, n), splat(self.b, c, n)

    def _atom(self, atom: Any, env: dict[Var, ir.Value], width: int) -> ir.Value:
        b = self.b
        if isinstance(atom, Var):
            if atom in env:
                return env[atom]
            if atom not in self.scalars:
                raise InternalError(f"index variable `{atom.name}` has no value here")
            return self.scalars[atom]
        if isinstance(atom, MinMax):
            x, y = self._same(self._sub(atom.a, env, width), self._sub(atom.b, env, width))
            return b.select(b.icmp_signed("<" if atom.which == "min" else ">", x, y), x, y)
        num, den = self._same(self._sub(atom.num, env, width), self._sub(atom.den, env, width))
        if atom.num.bounds[0] >= 0:
            return b.urem(num, den) if type(atom) is Mod else b.udiv(num, den)
        return self._floor(num, den, type(atom) is Mod)

    def _sub(self, t: Term, env: dict[Var, ir.Value], width: int) -> ir.Value:
        return self._sum(t, env, width if any(v in env for v in t.vars) else 0)

    def _floor(self, num: ir.Value, den: ir.Value, mod: bool) -> ir.Value:
        b = self.b
        r = b.srem(num, den)
        negative = b.icmp_signed("<", r, int_const(r.type, 0))
        if mod:
            return b.select(negative, b.add(r, den), r)
        return b.sub(b.sdiv(num, den), b.zext(negative, r.type))


def iota_tile(terms: Terms, t: Term, shape: Shape) -> Tile:
    """The values of an index term."""
    def one(coord: Coord) -> ir.Value:
        c = at_coord(t, shape, coord)
        return terms.scalar(c) if shape.lane is None else terms.lanes(c, shape.lane, coord[-1] * shape.width, shape.width)

    return make(shape, i64, one)
