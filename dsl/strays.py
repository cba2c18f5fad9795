"""Which data-dependent index left its tensor, told after the fact: what a run-time check reports.

Kernels only notice that some index was out of range, which costs them nothing. This module finds out which one, by evaluating the index
expressions of a program, and nothing else of it, in numpy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from dsl.algebra import walk
from dsl.bind import bind_sizes
from dsl.dim import Var
from dsl.errors import BoundsError
from dsl.evaluator import Evaluator, Named
from dsl.expr import Cast, Compute, Expr, Read, Tensor, Where
from dsl.interp import evaluate
from dsl.program import Program

Condition = tuple[Expr, bool]


def find_stray(program: Program, arrays: Sequence[Any]) -> BoundsError | None:
    """The error that names the first data-dependent index out of its range, its value and its position; None when there is none.

    Args:
        program: sizes symbolic or known.
        arrays: one per parameter, as for :func:`dsl.interp.evaluate`.
    """
    given = [np.asarray(a) for a in arrays]
    sizes = bind_sizes(program, [a.shape for a in given])
    values: dict[Tensor, Any] = dict(zip(program.inputs, given))
    for c in program.computes:
        for r, conditions in _gathers(c.body):
            found = _check(program, given, c, r, conditions, sizes, values)
            if found is not None:
                return found
    return None


def _gathers(body: Expr) -> Iterator[tuple[Read, tuple[Condition, ...]]]:
    """Every read with a data-dependent index, and the conditions of the selections on each way to it."""
    seen: set[tuple[Expr, tuple[Condition, ...]]] = set()
    stack: list[tuple[Expr, tuple[Condition, ...]]] = [(body, ())]
    while stack:
        e, known = stack.pop()
        if (e, known) in seen:
            continue
        seen.add((e, known))
        if isinstance(e, Read) and e.args:
            yield e, known
        if isinstance(e, Where):
            stack += [(e.args[2], (*known, (e.args[0], False))), (e.args[1], (*known, (e.args[0], True))), (e.args[0], known)]
        else:
            stack += [(a, known) for a in reversed(e.args)]


def _check(program: Program, given: Sequence[Any], c: Compute, r: Read, conditions: Sequence[Condition], sizes: Mapping[Var, int],
           values: dict[Tensor, Any]) -> BoundsError | None:
    _supply(program, given, [*r.args, *(cond for cond, _ in conditions)], values)
    box = {a: (0, int(a.extent.eval(sizes))) for a in c.axes if a.extent is not None}
    if any(hi <= lo for lo, hi in box.values()):
        return None
    with np.errstate(all="ignore"):
        at = Evaluator(values, sizes, box, {a: n for n, a in enumerate(c.axes)}, False)
        taken = [Named(v.axes, v.data if holds else ~v.data) for v, holds in ((at.value(cond), holds) for cond, holds in conditions)]
        slots = iter(r.args)
        for n, (s, size) in enumerate(zip(r.data[1], r.tensor.shape)):
            if s is not None:
                continue
            index = next(slots)
            v, limit = at.value(index), int(size.eval(sizes))
            bad = at.map(lambda *m: np.logical_and.reduce(np.broadcast_arrays(*m)),
                         [Named(v.axes, (v.data < 0) | (v.data >= limit)), *taken])
            if bad.data.any():
                place = np.argwhere(np.atleast_1d(bad.data))[0].tolist()
                point = {a: at.range(a)[0] + p for a, p in zip(bad.axes, place)}
                value = int(v.data[tuple(point[a] - at.range(a)[0] for a in v.axes)])
                return _error(program, r, n, index, value, limit, point)
    return None


def _supply(program: Program, given: Sequence[Any], exprs: Sequence[Expr], values: dict[Tensor, Any]) -> None:
    """The arrays of the definitions that some expressions read."""
    needed = {e.tensor for root in exprs for e in walk(root) if isinstance(e, Read) and e.tensor not in values}
    for t in sorted((t for t in needed if isinstance(t, Compute)), key=lambda t: t.name):
        (values[t],) = evaluate(Program(program.name, program.inputs, (t,), True, program.loc), *given)


def _error(program: Program, r: Read, n: int, index: Expr, value: int, limit: int, point: Mapping[Var, int]) -> BoundsError:
    inner = index
    while isinstance(inner, Cast):
        inner = inner.args[0]
    where_ = ", ".join(f"{a} = {p}" for a, p in point.items())
    if isinstance(inner, Read) and not inner.args:
        what = f"{inner.tensor.name}[{', '.join(str(int(s.eval(point))) for s in inner.data[1] if not _sizes(s))}]"
    else:
        what = f"`{index}`"
    dimension = f" in dimension {n}" if r.tensor.ndim > 1 else ""
    return BoundsError(f"a data-dependent index of {program.name} is out of range",
                       f"{what} is {value}, outside [0, {limit}): {r.tensor.name} has {limit} elements{dimension}"
                       + (f"\nit is read at {where_}" if where_ else ""),
                       "check the index data, or clamp it in the definition", r.loc)


def _sizes(s: Any) -> bool:
    return any(v.kind == "dim" for v in s.vars)
