"""Derivatives of random programs: forward against reverse mode, both against central differences, and once more on the backward."""

import numpy as np
import pytest

from dsl.derivative import jvp, vjp
from dsl.errors import DerivativeError
from dsl.expr import Input
from tests.dsl.gradcheck import call
from tests.strategies import Case, random_case

QUICK, ALL = 60, 300


def seeds(count: int) -> list:
    return [pytest.param(n, marks=[pytest.mark.slow] if n >= count else []) for n in range(ALL)]


def case(seed: int) -> Case:
    return random_case(seed, depth=2, computes=2)


def directional(c: Case, rng: np.random.Generator):
    """(reverse, forward, a function of the step giving the loss, scale) along one random direction."""
    program = c.program
    values = {t.name: a.astype(np.float64) if t.dtype.is_float else a for t, a in zip(program.inputs, c.arrays)}
    moving = [t for t in program.inputs if t.dtype.is_float]
    ways = {t.name: rng.standard_normal(values[t.name].shape) for t in moving}
    outs = [o for t, o in zip(program.outputs, call(program, values)) if t.dtype.is_float]
    weights = [rng.standard_normal(o.shape) for o in outs]
    backward, forward = vjp(program), jvp(program)
    given = dict(zip([t.name for t in backward.inputs if t.name not in values], weights))
    tangents = {f"t_{t.name}": ways[t.name] for t in moving}
    grads = call(backward, values | given)
    reverse = sum(float((g * ways[t.name]).sum()) for t, g in zip(moving, grads))
    onward = sum(float((o * w).sum()) for o, w in zip(call(forward, values | tangents), weights))
    scale = 1 + sum(float(np.abs(g * ways[t.name]).sum()) for t, g in zip(moving, grads))

    def loss(step: float) -> float:
        moved = values | {n: values[n] + step * w for n, w in ways.items()}
        return sum(float((o * w).sum())
                   for o, w in zip((o for t, o in zip(program.outputs, call(program, moved)) if t.dtype.is_float), weights))

    return reverse, onward, loss, scale


@pytest.mark.parametrize("seed", seeds(QUICK))
def test_both_modes_agree_with_differences(seed: int) -> None:
    c = case(seed)
    reverse, onward, loss, scale = directional(c, np.random.default_rng(seed))
    assert np.isfinite(reverse) and abs(onward - reverse) <= 1e-9 * scale, (onward, reverse)
    slopes = [(loss(h) - loss(-h)) / (2 * h) for h in (1e-5, 3e-6)]
    smooth = abs(slopes[0] - slopes[1]) <= 1e-4 * scale  # else a kink or a step lies within the difference
    assert not smooth or abs(slopes[1] - reverse) <= 1e-4 * scale, (slopes, reverse)


@pytest.mark.parametrize("seed", seeds(20))
def test_the_backward_is_differentiable_again(seed: int) -> None:
    c = case(seed)
    rng = np.random.default_rng(seed)
    try:
        backward = vjp(c.program)
        values = {t.name: a for t, a in zip(c.program.inputs, c.arrays)}
        sized = {t.name: tuple(int(s.eval(c.sizes)) for s in t.shape) for t in backward.inputs}
        arrays = tuple(values[t.name] if t.name in values else rng.standard_normal(sized[t.name]) for t in backward.inputs)
        again = Case(backward, arrays, c.sizes)
        reverse, onward, _, scale = directional(again, rng)
    except DerivativeError as e:
        assert "no float" in str(e)
        return
    assert all(isinstance(t, Input) for t in backward.inputs)
    assert np.isfinite(reverse) and abs(onward - reverse) <= 1e-8 * scale, (onward, reverse)
