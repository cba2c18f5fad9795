"""The verifier of programs, and the proof that every access lies inside its tensor."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

from dsl.algebra import walk
from dsl.carrier import ARGMAX, ARGMIN
from dsl.decide import counterexample
from dsl.dim import Term, Var, as_term, nonneg
from dsl.dtype import bool_, i64
from dsl.errors import BoundsError, InternalError, ShapeError
from dsl.expr import Cast, Compute, Const, Expr, Index, Op, Read, Reduce, Scan, Where
from dsl.opset import OPS, result_dtype
from dsl.program import Program

_AS_NONNEG = {"ge": (1, 0), "gt": (1, -1), "le": (-1, 0), "lt": (-1, -1)}


def verify(program: Program) -> None:
    """Check that every variable is bound, and the rule of shape and dtype of every node (:data:`RULES`).

    Raises:
        InternalError: the program is malformed; the message names the definition and the node.
    """
    for c in program.computes:
        loose = [v for v in c.body.free if v.kind == "axis" and v not in c.axes]
        if loose:
            raise InternalError(f"{c.name} uses the unbound axis {loose[0]}", loc=c.loc)
        if c.body.dtype != c.dtype:
            raise InternalError(f"{c.name} is {c.dtype}, its body {c.body.dtype}", loc=c.loc)
        for e in walk(c.body):
            wrong = RULES[type(e)](e) if type(e) in RULES else f"a {type(e).__name__} has no place in a program"
            if wrong is not None:
                raise InternalError(f"{c.name}: {wrong}", f"in `{e}`", loc=e.loc or c.loc)


# -- the rule of each node: what is wrong with it, or None ---------------------------------------------------------
def _index(e: Index) -> str | None:
    return None if e.dtype is i64 else f"an index of dtype {e.dtype}"


def _read(e: Read) -> str | None:
    if len(e.indices) != e.tensor.ndim:
        return f"{e.tensor.name} has {e.tensor.ndim} dimensions and is read with {len(e.indices)} indices"
    if e.dtype != e.tensor.dtype:
        return f"a read of dtype {e.dtype} from {e.tensor.name}, which is {e.tensor.dtype}"
    loose = [a.dtype for a in e.args if not a.dtype.is_int]
    return f"an index of dtype {loose[0]}" if loose else None


def _op(e: Op) -> str | None:
    if e.name not in OPS or len(e.args) != OPS[e.name].arity:
        return f"no operation `{e.name}` of {len(e.args)} operands"
    rule = result_dtype(e.name, [a.dtype for a in e.args])
    if isinstance(rule, str):
        return rule
    if any(a.dtype != rule[0] for a in e.args):
        return f"operands of dtypes {', '.join(str(a.dtype) for a in e.args)}, not all {rule[0]}"
    return None if e.dtype == rule[1] else f"`{e.name}` of {rule[0]} is {rule[1]}, not {e.dtype}"


def _where(e: Where) -> str | None:
    cond, then, other = e.args
    if cond.dtype is not bool_:
        return f"a condition of dtype {cond.dtype}"
    return None if then.dtype == other.dtype == e.dtype else f"branches of dtypes {then.dtype} and {other.dtype} for {e.dtype}"


def _reduced(e: Reduce | Scan) -> str | None:
    carrier, out = e.data[0], e.data[2] if isinstance(e, Reduce) else e.data[3]
    given = tuple(a.dtype for a in e.args)
    if carrier.arity and len(given) != carrier.arity:
        return f"`{carrier}` takes {carrier.arity} inputs, not {len(given)}"
    if any(v.extent is None for v in (e.data[1] if isinstance(e, Reduce) else (e.data[1],))):
        return "an axis without an extent"
    results = carrier.result(given)
    return None if results[out] == e.dtype else f"result {out} of `{carrier}` is {results[out]}, not {e.dtype}"


RULES: dict[type[Expr], Callable[[Any], str | None]] = {
    Const: lambda e: None, Index: _index, Read: _read, Op: _op, Cast: lambda e: None, Where: _where, Reduce: _reduced, Scan: _reduced,
}


def prove_bounds(program: Program) -> None:
    """Prove every affine read inside its tensor, under the conditions of the ``where`` branches around it.

    Data-dependent indices are checked while the kernel runs.

    Raises:
        BoundsError: a read is outside for some point (the message has a witness), or could not be proved inside.
        ShapeError: the position of an extremum is wanted among no elements.
    """
    for c in program.computes:
        if all(not (a.extent is not None and a.extent == 0) for a in c.axes):
            _prove(c, c.body, ())
            _refuse_empty_position(c)


def _refuse_empty_position(c: Compute) -> None:
    """The position of an extremum among no elements is none; every other reduction of nothing is its identity."""
    for e in walk(c.body):
        if not isinstance(e, Reduce) or e.carrier not in (ARGMAX, ARGMIN):
            continue
        empty = next((v for v in e.axes if v.extent is not None and v.extent == 0), None)
        if empty is not None:
            raise ShapeError(f"{e.carrier} over no elements, in {c.name}", f"the axis {empty} has size 0",
                             "call it with at least one element along that axis", c.loc)


def _prove(c: Compute, e: Expr, facts: tuple[Term, ...]) -> None:
    seen: set[tuple[Expr, tuple[Term, ...]]] = set()
    stack: list[tuple[Expr, tuple[Term, ...]]] = [(e, facts)]
    while stack:
        node, known = stack.pop()
        if (node, known) in seen:
            continue
        seen.add((node, known))
        if isinstance(node, Read):
            _prove_read(c, node, known)
        if isinstance(node, Where):
            cond, then, other = node.args
            stack += [(cond, known), (then, known + conditions(cond, True)), (other, known + conditions(cond, False))]
        else:
            stack += [(a, known) for a in node.args]


def conditions(e: Expr, holds: bool) -> tuple[Term, ...]:
    """Terms that are ``>= 0`` when the condition holds (or fails): comparisons of indices joined by ``and`` (``or``)."""
    if not isinstance(e, Op):
        return ()
    if e.name == ("and" if holds else "or"):
        return conditions(e.args[0], holds) + conditions(e.args[1], holds)
    if e.name == "not":
        return conditions(e.args[0], not holds)
    sides = [t for t in map(_term, e.args) if t is not None]
    if len(e.args) != 2 or len(sides) != 2:
        return ()
    a, b = sides
    if e.name == "eq" and holds or e.name == "ne" and not holds:
        return (a - b, b - a)
    if e.name not in _AS_NONNEG:
        return ()
    sign, slack = _AS_NONNEG[e.name]
    t = (a - b) * sign + slack
    return (t,) if holds else (-t - 1,)


def _term(e: Expr) -> Term | None:
    if isinstance(e, Index):
        return e.term
    return as_term(int(e.value)) if isinstance(e, Const) and e.dtype.is_int else None


def _prove_read(c: Compute, r: Read, facts: tuple[Term, ...]) -> None:
    for n, (i, size) in enumerate(zip(r.indices, r.tensor.shape)):
        if isinstance(i, Term):
            for need in (i, size - 1 - i):
                if not nonneg(need, facts) and not _impossible(facts):
                    _settle(c, r, n, i, size, need, facts)


def _impossible(facts: tuple[Term, ...]) -> bool:
    """Whether the branch is never taken."""
    return any(f.bounds[1] < 0 for f in facts)


def _settle(c: Compute, r: Read, n: int, i: Term, size: Term, need: Term, facts: tuple[Term, ...]) -> None:
    """What the prover leaves open: looked at point by point where the sizes are numbers, else refused.

    The refusal comes with a witness if one is near a corner.
    """
    ragged = [v.extent - 1 - as_term(v) for f in (need, *facts) for v in f.vars if v.extent is not None and not v.extent.is_const]
    found = counterexample(need, [*facts, *ragged])
    if found is True:
        return
    if isinstance(found, dict):
        _refuse_at(c, r, n, i, size, found)
    _refuse(c, r, n, i, size, need, facts)


def _refuse_at(c: Compute, r: Read, n: int, i: Term, size: Term, env: Mapping[Var, int]) -> NoReturn:
    at = ", ".join(f"{v.name} = {x}" for v, x in sorted(env.items(), key=lambda p: p[0].uid) if v in i.vars) or "every point"
    raise BoundsError(f"{r.tensor.name}[{', '.join(str(x) for x in r.indices)}] is out of bounds",
                      f"at {at} index {n} is {i.eval(env)}, but {r.tensor.name} has {size.eval(env)} elements there (in {c.name})",
                      _REMEDY, r.loc)


_REMEDY = "guard it: dlc.where(condition on the index, element, 0), or shrink the shape"


def _refuse(c: Compute, r: Read, n: int, i: Term, size: Term, need: Term, facts: tuple[Term, ...]) -> None:
    for env in _points({*need.vars, *i.vars, *size.vars, *(v for f in facts for v in f.vars)}):
        if need.eval(env) < 0 and all(f.eval(env) >= 0 for f in facts):
            _refuse_at(c, r, n, i, size, env)
    raise BoundsError(f"{r.tensor.name}[{', '.join(str(x) for x in r.indices)}] cannot be proved in bounds",
                      f"index {n} is `{i}`, the size {size} (in {c.name})", _REMEDY, r.loc)


def _points(variables: set[Var]) -> Iterator[dict[Var, int]]:
    """Corners and near-corners of the box of the variables, sizes first."""
    sizes = sorted((v for v in variables if v.kind == "dim"), key=lambda v: v.uid)
    axes = sorted((v for v in variables if v.kind != "dim"), key=lambda v: v.uid)
    needed = {w for a in axes if a.extent is not None for w in a.extent.vars} - set(sizes)
    sizes += sorted(needed, key=lambda v: v.uid)
    for values in itertools.islice(itertools.product((1, 2, 3, 7), repeat=len(sizes)), 64):
        env = dict(zip(sizes, values))
        ranges = []
        for a in axes:
            n = int(a.extent.eval(env)) if a.extent is not None else 1
            ranges.append(sorted({0, n - 1, min(1, n - 1), max(n - 2, 0), n // 2}) if n > 0 else [])
        for point in itertools.islice(itertools.product(*ranges), 4096):
            yield {**env, **dict(zip(axes, point))}
