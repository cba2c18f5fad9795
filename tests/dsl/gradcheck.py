"""Checks of derived programs in float64: against central differences, and forward mode against reverse mode."""

from __future__ import annotations

from typing import Any

import numpy as np

from dsl.algebra import walk
from dsl.check import prove_bounds, verify
from dsl.derivative import jvp, vjp
from dsl.expr import Reduce, Where
from dsl.interp import evaluate
from dsl.program import Program, trace


def program_of(kernel: Any) -> Program:
    return kernel if isinstance(kernel, Program) else trace(kernel)


def call(program: Program, values: dict[str, Any]) -> list[Any]:
    return list(evaluate(program, *(values[t.name] for t in program.inputs), float64=True))


def gradients(kernel: Any, *arrays: Any, rng: Any = None, wrt: Any = None, cotangents: Any = None) -> dict[str, Any]:
    """The gradients by name, for random cotangents or those given."""
    program = program_of(kernel)
    values = dict(zip((t.name for t in program.inputs), arrays))
    backward = vjp(program, wrt)
    outs = [o for t, o in zip(program.outputs, call(program, values)) if t.dtype.is_float]
    given = [t for t in backward.inputs if t.name not in values]
    cots = cotangents or [rng.standard_normal(o.shape) for o in outs]
    values |= {t.name: c for t, c in zip(given, cots)}
    return dict(zip((t.name for t in backward.outputs), call(backward, values)))


def check(kernel: Any, *arrays: Any, rng: Any, wrt: Any = None, order: int = 1, tol: float = 2e-6, step: float = 1e-5) -> Program:
    """Reverse mode against central differences in random directions, forward mode against reverse; ``order`` 2 repeats on the backward."""
    program = program_of(kernel)
    arrays = tuple(np.asarray(a, np.float64) if np.asarray(a).dtype.kind == "f" else a for a in arrays)
    values = dict(zip((t.name for t in program.inputs), arrays))
    targets = [t for t in program.inputs if (t.name in wrt if wrt is not None else t.dtype.is_float)]
    outs = [o for t, o in zip(program.outputs, call(program, values)) if t.dtype.is_float]
    cots = [rng.standard_normal(o.shape) for o in outs]
    backward = vjp(program, wrt)
    given = {t.name: c for t, c in zip([t for t in backward.inputs if t.name not in values], cots)}
    grads = call(backward, values | given)
    for t, g in zip(targets, grads):
        assert g.shape == np.shape(values[t.name]) and np.isfinite(g).all(), (t, g)
    forward = jvp(program, wrt)
    for derived in (backward, forward):
        verify(derived)
        prove_bounds(derived)
    for _ in range(3):
        ways = [rng.standard_normal(np.shape(values[t.name])) for t in targets]
        slope = 0.0
        for sign in (1, -1):
            moved = values | {t.name: values[t.name] + sign * step * w for t, w in zip(targets, ways)}
            got = [o for t, o in zip(program.outputs, call(program, moved)) if t.dtype.is_float]
            slope += sign * sum(float((o * c).sum()) for o, c in zip(got, cots)) / (2 * step)
        reverse = sum(float((g * w).sum()) for g, w in zip(grads, ways))
        scale = 1 + abs(slope) + sum(float(np.abs(g * w).sum()) for g, w in zip(grads, ways))
        assert abs(reverse - slope) < tol * scale, (reverse, slope)
        pushed = call(forward, values | {f.name: w for f, w in zip(forward.inputs[-len(targets):], ways)})
        onward = sum(float((o * c).sum()) for o, c in zip(pushed, cots))
        assert abs(onward - reverse) < 1e-9 * scale, (onward, reverse)
    if order > 1:
        check(backward, *((values | given)[t.name] for t in backward.inputs), rng=rng, order=order - 1, tol=tol, step=step)
    return backward


def reductions(program: Program) -> list[Reduce]:
    """Every reduction of a program."""
    return [e for c in program.computes for e in walk(c.body) if isinstance(e, Reduce)]


def guards(program: Program) -> list[Where]:
    """Every selection of a program."""
    return [e for c in program.computes for e in walk(c.body) if isinstance(e, Where)]
