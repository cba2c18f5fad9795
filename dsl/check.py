"""The executable spec of the expression IR: the rule of every node. The proofs of bounds are in ``dsl/bounds.py``."""

from __future__ import annotations

from collections.abc import Callable

from dsl.algebra import walk
from dsl.bounds import RuntimeCheck, prove_bounds, runtime_checks
from dsl.dim import Term, Var
from dsl.dtype import Dtype, bool_, i64
from dsl.errors import InternalError
from dsl.expr import Cast, Compute, Const, Expr, Index, Input, Op, Read, Reduce, Scan, Tensor, Where
from dsl.opset import OPS
from dsl.program import Program


def verify(program: Program) -> None:
    """Check every definition of a program and every node of its body.

    Raises:
        InternalError: a node breaks its rule; the message names the definition, the node and the rule.
    """
    _require(len({id(t) for t in program.inputs}) == len(program.inputs), program.name, "has an input twice")
    _require(len({id(t) for t in program.outputs}) == len(program.outputs), program.name, "has an output twice")
    for t in program.inputs:
        _require(all(v.kind == "dim" for s in t.shape for v in s.vars), t.name, "has an axis in its shape")
    for c in program.computes:
        _verify_compute(c, set(program.inputs))


def _verify_compute(c: Compute, inputs: set[Input]) -> None:
    _require(len(set(c.axes)) == len(c.axes), c.name, "has an axis twice")
    _require(all(a.kind == "axis" and a.extent is not None for a in c.axes), c.name, "has an axis without extent")
    _require(c.shape == tuple(a.extent for a in c.axes), c.name, "has a shape that is not its extents")
    _require(all(v.kind == "dim" for s in c.shape for v in s.vars), c.name, "has an axis in its shape")
    _require(c.dtype == c.body.dtype, c.name, f"is {c.dtype} with a body of {c.body.dtype}")
    loose = [v for v in c.body.free if v.kind == "axis" and v not in c.axes]
    _require(not loose, c.name, f"uses the unbound axis {loose[0] if loose else ''}")
    for e in walk(c.body):
        rule = _RULES.get(type(e))
        problem = f"{type(e).__name__} is not a node of a program" if rule is None else rule(e)
        if problem is None and isinstance(e, Read) and isinstance(e.tensor, Input) and e.tensor not in inputs:
            problem = f"{e.tensor.name} is not an input of the program"
        if problem is not None:
            _require(False, c.name, f"has `{e}`: {problem}")


def _require(condition: bool, where: str, problem: str) -> None:
    if not condition:
        raise InternalError(f"{where} {problem}", "the program breaks a rule of the expression IR")


# -- one rule per node: what is wrong with it, or None -------------------------------------------------------------------
def _const(e: Expr) -> str | None:
    value = e.data[0]
    kind = bool if e.dtype is bool_ else float if e.dtype.is_float else int
    fits = type(value) is kind or (kind is float and value in ("nan", "-0.0"))
    return None if fits and not e.args else f"a literal of {e.dtype} holds {value!r}"


def _index(e: Expr) -> str | None:
    return None if e.dtype is i64 and isinstance(e.data[0], Term) and not e.args else "an index is an i64 term"


def _read(e: Expr) -> str | None:
    tensor, slots = e.data
    if not isinstance(tensor, Tensor) or len(slots) != tensor.ndim:
        return f"{tensor} is read with {len(slots)} indices"
    if sum(s is None for s in slots) != len(e.args) or not all(s is None or isinstance(s, Term) for s in slots):
        return "an index is a term, or the next operand"
    if not all(a.dtype.is_int for a in e.args):
        return "an index is not an integer"
    return None if e.dtype == tensor.dtype else f"the element is {tensor.dtype}"


def _op(e: Expr) -> str | None:
    info = OPS.get(e.data[0])
    if info is None or info.arity != len(e.args):
        return "no such operation, or not of this arity"
    operand = e.args[0].dtype
    if any(a.dtype != operand for a in e.args):
        return "its operands differ in dtype"
    if not _accepts(info.rule, operand):
        return f"it is not defined for {operand}"
    want = bool_ if info.rule == "bool" else operand
    return None if e.dtype == want else f"its result is {want}"


def _accepts(rule: str, d: Dtype) -> bool:
    return {"float": d.is_float, "num": d is not bool_, "int": not d.is_float}.get(rule, True)


def _cast(e: Expr) -> str | None:
    return None if len(e.args) == 1 and e.args[0].dtype != e.dtype else "a cast changes the dtype of one operand"


def _where(e: Expr) -> str | None:
    if len(e.args) != 3 or e.args[0].dtype is not bool_:
        return "a selection has a bool and two branches"
    return None if e.args[1].dtype == e.args[2].dtype == e.dtype else "its branches differ in dtype"


def _reduce(e: Expr) -> str | None:
    carrier, axes, out = e.data
    problem = _carried(e, out)
    if problem is None and not (axes and len(set(axes)) == len(axes) and all(_is_axis(a) for a in axes)):
        problem = "it needs distinct axes with extents"
    if problem is None and any(set(axes) & a.extent.vars for a in axes):
        problem = "the extent of an axis depends on one bound beside it"
    return problem


def _scan(e: Expr) -> str | None:
    _, axis, at, out, exclusive, reverse = e.data
    if not _is_axis(axis) or not isinstance(at, Term) or not isinstance(exclusive, bool) or not isinstance(reverse, bool):
        return "a scan has an axis, a position and two flags"
    return _carried(e, out)


def _carried(e: Expr, out: int) -> str | None:
    carrier = e.data[0]
    if carrier.arity != len(e.args):
        return f"{carrier} takes {carrier.arity} inputs"
    results = carrier.result(tuple(a.dtype for a in e.args))
    if not 0 <= out < len(results):
        return f"{carrier} has {len(results)} results"
    return None if e.dtype == results[out] else f"its result is {results[out]}"


def _is_axis(v: object) -> bool:
    return isinstance(v, Var) and v.kind == "axis" and v.extent is not None


_RULES: dict[type[Expr], Callable[[Expr], str | None]] = {
    Const: _const, Index: _index, Read: _read, Op: _op, Cast: _cast, Where: _where, Reduce: _reduce, Scan: _scan,
}

__all__ = ["RuntimeCheck", "prove_bounds", "runtime_checks", "verify"]
