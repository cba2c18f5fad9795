"""A bound of a schedule's rounding error on given arguments, to stand beside the error that was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from codegen.micro.maths import MAX_ULP
from dlc.compiler import Plan
from dsl.cost import flops
from dsl.error_bound import Roundings, Unbounded, error_bound
from dsl.interp import evaluate
from dsl.order import chain_lengths

MOST_FLOPS = 3e10  # the bound is evaluated in float64 by numpy: more than this takes minutes


@dataclass(frozen=True)
class Bound:
    """The largest error the schedule's order of summation allows, as a share of the largest exact value.

    None and the reason where it is not known.
    """

    relative: float | None
    reason: str = ""


def bound(plan: Plan, arrays: Sequence[np.ndarray], exact: Sequence[np.ndarray]) -> Bound:
    """The bound for a plan's schedule.

    Args:
        plan: the kernel for the arguments' shapes.
        arrays: the arguments, as numpy arrays.
        exact: the exact results.
    """
    if flops(plan.program) > MOST_FLOPS:
        return Bound(None, "too large to evaluate")
    reductions = [s.name for s in plan.unscheduled.stages if s.kind in ("reduce", "scan")]
    ulps = {name: max(by.values()) for name, by in MAX_ULP.items()}
    try:
        program = error_bound(plan.unscheduled, Roundings(chain_lengths(plan.nest, reductions), ulps))
    except Unbounded as e:
        return Bound(None, e.title)
    bounds = evaluate(program, *arrays, float64=True)
    return Bound(max((_relative(b, x) for b, x in zip(bounds, exact) if x.dtype.kind == "f"), default=0.0))


def _relative(bounds: np.ndarray, exact: np.ndarray) -> float:
    """The largest bound over the largest exact value, where the exact value is a number; infinity where a bound is none."""
    finite = np.isfinite(exact)
    if not finite.any():
        return 0.0
    with np.errstate(all="ignore"):
        scale = float(np.max(np.abs(exact), where=finite, initial=0.0)) or 1.0
        most = float(np.max(np.where(np.isnan(bounds), np.inf, bounds), where=finite, initial=0.0))
    return most / scale
