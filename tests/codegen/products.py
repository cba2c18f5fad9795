"""Matrix products in every orientation, planned for any target and compared with float64."""

from dataclasses import replace

import numpy as np
import torch

import dlc
from codegen.micro.instructions import DOTS
from codegen.target import by_name
from dlc import f32
from dlc.compiler import Plan
from dlc.runtime.device import host_target

M, N, K, B = dlc.dims("M N K B")


def product(left: str, right: str):
    """A kernel of the product with either factor stored transposed (``t``) or not (``n``)."""
    x_shape, w_shape = ((M, K) if left == "n" else (K, M)), ((K, N) if right == "n" else (N, K))

    def definition(x: f32[x_shape], w: f32[w_shape]):
        k = dlc.reduce_axis(K)
        return dlc.compute((M, N), lambda i, j: dlc.sum((x[i, k] if left == "n" else x[k, i]) * (w[k, j] if right == "n" else w[j, k]), k))

    definition.__name__ = left + right
    return dlc.kernel(definition)


PRODUCTS = {a + b: product(a, b) for a in "nt" for b in "nt"}


def operands(kind: str, m: int, n: int, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Factors of an ``m`` x ``n`` product of depth ``k``."""
    return torch.randn(*((m, k) if kind[0] == "n" else (k, m))), torch.randn(*((k, n) if kind[1] == "n" else (n, k)))


def exact(kind: str, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """The product in float64."""
    x, w = x.double(), w.double()
    return (x if kind[0] == "n" else x.T) @ (w if kind[1] == "n" else w.T)


def planned(kernel, *arguments: torch.Tensor, target: str = "", decisions=None, stage: str = "t") -> Plan:
    """The plan of a kernel on a named target, which need not be this machine.

    Decisions are named without their stage, which these products call ``t``.
    """
    request = kernel.plan(*arguments).request.on(by_name(target) if target else host_target())
    return Plan(replace(request, decisions={f"{stage}.{name}": value for name, value in (decisions or {}).items()}))


def run(kernel, *arguments: torch.Tensor, target: str = "", decisions=None, stage: str = "t"):
    """(the plan, the result) of a kernel on a named target that this machine can run, with preset decisions."""
    host_target(target)
    plan = planned(kernel, *arguments, target=target, decisions=decisions, stage=stage)
    return plan, plan.launcher()(list(arguments))[0]


def choice(plan: Plan, what: str):
    """A choice that was met, by the last part of its name."""
    assert plan.nest
    return next(c for name, c in plan.decisions.made.items() if name.endswith(f".{what}"))


def agrees(got: torch.Tensor, expected: torch.Tensor, depth: int) -> None:
    """Within the rounding of ``depth`` accumulations in f32."""
    scale = float(expected.abs().max()) or 1.0
    error = float((got.double() - expected).abs().max()) / scale
    assert error < 2e-7 * (2 + np.sqrt(depth)), error


def modelled(*sets: str):
    """This machine as a target whose dot instructions of some sets are spelled out in software: to run schedules made for others."""
    return replace(host_target(), name=f"modelled-{'-'.join(sets)}", modelled=sets)


def run_on(target, kernel, *arguments: torch.Tensor, decisions=None):
    """(the plan, the results) of a kernel on a target record that this machine can run; decisions by their last name."""
    request = kernel.plan(*arguments).request.on(target)
    plan = Plan(replace(request, decisions={}))
    if decisions:
        assert plan.nest
        named = {name: decisions[last] for name in plan.decisions.made if (last := name.rsplit(".", 1)[-1]) in decisions}
        plan = Plan(replace(request, decisions=named))
    return plan, plan.launcher()(list(arguments))


def instructions(plan: Plan) -> set[str]:
    """The dot instructions chosen; those on tiles are in the code."""
    assert plan.nest
    chosen = {c.value for name, c in plan.decisions.made.items() if name.endswith(".instruction")}
    assert all(d.intrinsic in plan.module.text or f"{d.name}." in plan.module.text for d in DOTS if d.tiled and d.name in chosen)
    return chosen
