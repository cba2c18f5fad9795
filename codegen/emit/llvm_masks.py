"""The conditions under which lanes are loaded and stored: those of the whole register apart from those that vary by lane."""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from codegen.emit.llvm_builder import Builder
from codegen.emit.llvm_regs import Coord, Shape, Tile
from codegen.emit.llvm_types import I1, I32, I64, int_const, intrinsic, lane_numbers, splat
from dsl.dim import Term, as_term


def at_coord(t: Term, shape: Shape, coord: Coord) -> Term:
    """A term with the unrolled tile axes at one coordinate."""
    env = {v: as_term(c) for v, c in zip(shape.unrolled, coord) if v in t.vars}
    return t.subs(env) if env else t


def _range(t: Term, shape: Shape, coord: Coord) -> tuple[float, float]:
    """The least and the greatest value of a term in the lanes of one register."""
    lane = shape.lane
    if lane is None or lane not in t.vars or t.coef(lane) is None:
        return t.bounds
    first = coord[-1] * shape.width
    ends = [t.subs({lane: as_term(n)}).bounds for n in (first, first + shape.width - 1)]
    return min(low for low, _ in ends), max(high for _, high in ends)


NEVER = I1(0)  # the mask of a register of which no lane is ever there


class Masks:
    """Makes the masks of one function; ``terms`` emits index terms.

    A mask remembers its two halves (:meth:`parts`). They must reach a masked access apart: LLVM (22) takes one whose mask is a scalar
    condition in every lane, joined with lanes that it finds to be all off, for an access without a mask.
    """

    def __init__(self, b: Builder, terms: Any) -> None:
        self.b, self.terms = b, terms
        self._parts: dict[int, tuple[ir.Value, ir.Value, ir.Value]] = {}

    def mask(self, terms: tuple[Term, ...], conds: list[Tile], shape: Shape, coord: Coord) -> ir.Value | None:
        """The condition of one register: i1, or a vector of i1 when it varies by lane; None when always true, :data:`NEVER` when never."""
        whole: ir.Value | None = None
        lanes: ir.Value | None = None
        here = [(c := at_coord(t, shape, coord), _range(c, shape, coord)) for t in terms]
        if any(high < 0 for _, (_, high) in here):
            return NEVER
        found = [self._nonneg(c, shape, coord) for c, (low, _) in here if low < 0]
        scalars = Shape(shape.unrolled, None, 0, 1), (*coord[:-1], 0)
        found += [tile.at(self.b, *((shape, coord) if tile.shape.lane is not None else scalars)) for tile in conds]
        for c in found:
            if isinstance(c.type, ir.VectorType):
                lanes = self._and(lanes, c)
            else:
                whole = self._and(whole, c)
        if whole is None or lanes is None:
            return whole if lanes is None else lanes
        out = self._and(whole, lanes)
        self._parts[id(out)] = out, whole, lanes
        return out

    def parts(self, mask: ir.Value) -> tuple[ir.Value | None, ir.Value | None]:
        """(the condition of the whole register, that of each lane) that make up a mask."""
        if id(mask) in self._parts:
            return self._parts[id(mask)][1:]
        return (None, mask) if isinstance(mask.type, ir.VectorType) else (mask, None)

    def reversed(self, mask: ir.Value, width: int) -> ir.Value:
        """The mask for the lanes in reverse order."""
        whole, lanes = self.parts(mask)
        if lanes is None:
            return mask
        turned = self.reverse(lanes)
        if whole is None:
            return turned
        out = self._and(whole, turned)
        self._parts[id(out)] = out, whole, turned
        return out

    def lanes(self, terms: tuple[Term, ...], shape: Shape) -> dict[Coord, ir.Value] | None:
        """The mask of every register lane by lane, none where there is none; None where conditions are about whole registers too."""
        found = {c: self.mask(terms, [], shape, c) for c in shape.coords()}
        if any(m is not None and self.parts(m)[0] is not None for m in found.values()):
            return None
        each = {c: splat(self.b, I1(1), shape.width) if m is None else m for c, m in found.items()}
        return each if any(m is not None for m in found.values()) else {}

    def spread(self, mask: ir.Value | None, step: int, start: int, width: int) -> ir.Value | None:
        """The mask of the vector from ``start`` on where lane ``n`` of a mask lies at ``step * n`` and what lies between is off."""
        whole, lanes = (None, None) if mask is None else self.parts(mask)
        if lanes is None:
            return mask
        picks = [(start + n) // step if (start + n) % step == 0 else width for n in range(width)]
        off = int_const(lanes.type, 0)
        apart = self.b.shuffle_vector(lanes, off, lane_numbers(*picks))
        if whole is None:
            return apart
        out = self._and(whole, apart)
        self._parts[id(out)] = out, whole, apart
        return out

    def reverse(self, v: ir.Value) -> ir.Value:
        """The lanes of a register in reverse order."""
        w = v.type.count
        return self.b.shuffle_vector(v, v, lane_numbers(*range(w - 1, -1, -1)))

    def _nonneg(self, t: Term, shape: Shape, coord: Coord) -> ir.Value:
        b = self.b
        if shape.lane is None or shape.lane not in t.vars:
            return b.icmp_signed(">=", self.terms.scalar(t), I64(0))
        coef, w = t.coef(shape.lane), shape.width
        first = coord[-1] * w
        if coef in (1, -1):
            rest = self.terms.scalar(t.subs({shape.lane: as_term(first)}))
            iota = lane_numbers(*range(w))
            low = intrinsic(b, "llvm.smax.i64", I64, [rest, I64(-w - 1)])
            edge = b.trunc(intrinsic(b, "llvm.smin.i64", I64, [low, I64(w + 1)]), I32)
            sign = splat(b, edge if coef == -1 else b.neg(edge), w)
            return b.icmp_signed("<=" if coef == -1 else ">=", iota, sign)
        v = self.terms.lanes(t, shape.lane, first, w)
        return b.icmp_signed(">=", v, int_const(v.type, 0))

    def _and(self, a: ir.Value | None, c: ir.Value) -> ir.Value:
        if a is None:
            return c
        n = max(x.type.count if isinstance(x.type, ir.VectorType) else 0 for x in (a, c))
        return self.b.and_(splat(self.b, a, n), splat(self.b, c, n))
