"""Exact arithmetic and least traffic of a program: the two numbers of a roofline."""

from __future__ import annotations

from functools import lru_cache

from dsl.algebra import combine_formula, walk
from dsl.carrier import Carrier
from dsl.dim import ONE, ZERO, Term, Var, as_term, product, tmin
from dsl.dtype import Dtype
from dsl.errors import ShapeError
from dsl.expr import Expr, Input, Op, Read, Reduce, Scan
from dsl.opset import OPS
from dsl.program import Program


def flops(program: Program) -> int:
    """Arithmetic operations of all definitions, for a program whose sizes are known.

    Each operation on data counts its cost in the opset once per point of the axes that it depends on; a reduction one
    combination per element. Arithmetic on indices alone, casts and selections are free.

    Raises:
        ShapeError: a size is not known; specialize the program first.
    """
    return _known(flops_term(program))


def bytes_moved(program: Program) -> int:
    """Least traffic in bytes, for a program whose sizes are known: what is read of each input, and the outputs, once.

    Raises:
        ShapeError: a size is not known.
    """
    return _known(bytes_term(program))


def _known(t: Term) -> int:
    if not t.is_const:
        raise ShapeError(f"the size {min(t.vars, key=lambda v: v.uid)} is not known", remedy="specialize the program to the shapes of a call")
    return t.const


def flops_term(program: Program) -> Term:
    """:func:`flops` as a term over the symbolic sizes."""
    total = ZERO
    for c in program.computes:
        for e, data in _on_data(c.body).items():
            each = _cost(e) if data else 0
            if each:
                bound = e.axes if isinstance(e, Reduce) else (e.axis,) if isinstance(e, Scan) else ()
                inner = frozenset(v for a in e.args for v in a.free if v.kind == "axis")
                total = total + points(inner | frozenset(bound)) * each
    return total


def _on_data(body: Expr) -> dict[Expr, bool]:
    """Every node, and whether an element of a tensor has a part in its value."""
    out: dict[Expr, bool] = {}
    for e in walk(body):
        out[e] = isinstance(e, Read) or any(out[a] for a in e.args)
    return out


def _cost(e: Expr) -> int:
    if isinstance(e, Op):
        return OPS[e.name].flops
    if isinstance(e, (Reduce, Scan)):
        carrier: Carrier = e.data[0]
        return combine_flops(carrier, carrier.state(tuple(a.dtype for a in e.args)))
    return 0


@lru_cache(maxsize=256)
def combine_flops(carrier: Carrier, state: tuple[Dtype, ...]) -> int:
    """The cost of merging two states, each operation of the carrier's formula counted once."""
    nodes = {n for e in combine_formula(carrier, state) for n in walk(e)}
    return sum(OPS[n.name].flops for n in nodes if isinstance(n, Op))


def points(axes: frozenset[Var]) -> Term:
    """The number of points of a box of axes. An extent that is affine in another axis counts with its mean."""
    whole = frozenset(v for a in axes if a.extent is not None for v in a.extent.vars if v.kind == "axis") | axes
    total = ONE
    for a in sorted(whole, key=lambda v: v.uid):
        assert a.extent is not None
        outer = [v for v in a.extent.vars if v.kind == "axis"]
        if not outer:
            total = total * a.extent
            continue
        first, last = a.extent, a.extent
        for v in outer:
            assert v.extent is not None
            first, last = first.subs({v: 0}), last.subs({v: v.extent - 1})
        total = (total * (first + last)) // 2
    return total


def bytes_term(program: Program) -> Term:
    """:func:`bytes_moved` as a term over the symbolic sizes.

    Of an input no more is counted than its reads can touch: an embedding moves the rows it looks up, not the table.
    """
    touched: dict[Input, Term] = {}
    for c in program.computes:
        for e in walk(c.body):
            if isinstance(e, Read) and isinstance(e.tensor, Input):
                reached = points(frozenset(v for v in e.free if v.kind == "axis"))
                touched[e.tensor] = touched.get(e.tensor, ZERO) + reached
    total = ZERO
    for t, n in touched.items():
        total = total + tmin(product(t.shape), n) * t.dtype.itemsize
    for o in program.outputs:
        total = total + product(o.shape) * as_term(o.dtype.itemsize)
    return total
