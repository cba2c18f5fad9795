"""How a stage walks through memory: the address of every access as a function of its axes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from codegen.tile.layout import contiguous
from dsl.algebra import reads, walk
from dsl.dim import Term, Var, as_term
from dsl.dtype import Dtype
from dsl.expr import Cast, Expr, Index, Op, Read, Tensor, Where
from dsl.nest import Stage
from dsl.opset import OPS, PRECISIONS

Strides = Mapping[Tensor, tuple[Term, ...]]


@dataclass(frozen=True)
class Access:
    """One access: the flat element offset as a term, or None when an index is data."""

    tensor: Tensor
    offset: Term | None
    dtype: Dtype
    write: bool = False

    def stride(self, axis: Var) -> int | None:
        """Elements between neighbours along ``axis``; None when it is not a constant."""
        return None if self.offset is None else self.offset.coef(axis)

    def uses(self, axis: Var) -> bool:
        """Whether the address depends on ``axis``."""
        return self.offset is None or axis in self.offset.vars


def accesses(stage: Stage, strides: Strides) -> list[Access]:
    """Every distinct read of a stage, and its writes."""
    out: list[Access] = []
    for t in stage.tensors:
        point = tuple(as_term(a) for a in t.axes)
        out.append(Access(t, _offset(t, point, strides), t.dtype, True))
        out += [read_access(r, strides) for r in reads(t.body)]
    return list(dict.fromkeys(out))


def read_access(r: Read, strides: Strides) -> Access:
    """The access of a read."""
    return Access(r.tensor, _offset(r.tensor, r.indices, strides), r.dtype)


def _offset(t: Tensor, point: tuple[Term | Expr, ...], strides: Strides) -> Term | None:
    out: Term = as_term(0)
    for i, s in zip(point, strides.get(t) or contiguous(t.shape)):
        if not isinstance(i, Term):
            return None
        out = out + i * s
    return out


def cost(body: Expr) -> int:
    """Arithmetic cost of one evaluation, in units of a simple operation."""
    return sum(OPS[e.name].flops for e in walk(body) if isinstance(e, Op)) + sum(1 for e in walk(body) if isinstance(e, Cast))


def product_factors(body: Expr) -> tuple[Expr, ...]:
    """The two factors of a product, conversions of the whole aside; none where it is none."""
    body = _plain(body)
    return body.args if isinstance(body, Op) and body.name == "mul" else ()


def product_reads(body: Expr) -> tuple[Read, Read] | None:
    """The two reads of a plain product, conversions and permissions to multiply less exactly aside."""
    sides = [s for s in map(_plain, product_factors(body)) if isinstance(s, Read)]
    return (sides[0], sides[1]) if len(sides) == 2 else None


def paired_reads(body: Expr, bound: Collection[Var] = ()) -> tuple[Read, Read] | None:
    """The two reads that a body combines, in order: those of a product, or of a distance ``abs(x[i, k] - y[j, k])``.

    Of a body that is summed along ``bound``, what does not change along it does not count: ``w[i, k] * (x[i, j] - y[k, j])``.
    """
    if (sides := product_reads(body)) is not None:
        return sides
    everything = reads(body)
    found = [r for r in everything if not bound or not r.free.isdisjoint(bound)]
    plain = all(not r.args for r in everything) and not any(isinstance(e, (Index, Where)) for e in walk(body))
    return (found[0], found[1]) if len(found) == 2 and plain else None


def _plain(e: Expr) -> Expr:
    while isinstance(e, Cast) or (isinstance(e, Op) and e.name in PRECISIONS):
        e = e.args[0]
    return e


def size(t: Term | None, default: int = 1 << 20) -> int:
    """A term's value; with the likely values of the sizes in it where they are symbolic, else a stand-in."""
    if t is None:
        return default
    if t.is_const:
        return t.const
    likely = {v: v.likely for v in t.vars if v.likely is not None}
    return int(t.eval(likely)) if len(likely) == len(t.vars) else default
