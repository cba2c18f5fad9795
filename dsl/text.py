"""Expressions as readable mathematics. Parsing them back is not written yet."""

from __future__ import annotations

from dsl.expr import Cast, Compute, Const, Expr, Index, Op, Param, Read, Reduce, Scan, Where
from dsl.opset import OPS


def show_expr(e: Expr) -> str:
    """One expression as text: ``sum[k](x[i, k] * w[j, k]) + b[j]``."""
    if isinstance(e, Const):
        return str(e.value)
    if isinstance(e, Index):
        return str(e.term)
    if isinstance(e, Param):
        return f"${e.data[0]}"
    if isinstance(e, Read):
        return f"{e.tensor.name}[{', '.join(str(i) for i in e.indices)}]"
    if isinstance(e, Cast):
        return f"{e.dtype}({show_expr(e.args[0])})"
    if isinstance(e, Where):
        return f"where({', '.join(map(show_expr, e.args))})"
    if isinstance(e, Reduce):
        return f"{e.carrier}[{', '.join(a.name for a in e.axes)}]({', '.join(map(show_expr, e.args))})" + (f".{e.out}" if e.out else "")
    if isinstance(e, Scan):
        return f"scan_{e.data[0]}[{e.data[1]} to {e.data[2]}]({', '.join(map(show_expr, e.args))})"
    assert isinstance(e, Op)
    parts = [show_expr(a) for a in e.args]
    infix = OPS[e.name].infix
    if infix and len(parts) == 2:
        return f"({parts[0]} {infix} {parts[1]})"
    return f"{infix or e.name}({', '.join(parts)})"


def show_compute(c: Compute) -> str:
    """A definition: ``y[i, j] = ...``."""
    return f"{c.name}[{', '.join(a.name for a in c.axes)}] = {show_expr(c.body)}"
