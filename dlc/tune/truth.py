"""What is exact: results in float64 on each kind of data, evaluated when somebody asks for them, and what orders of summation allow there.

Only the results of the kind at hand are kept; they take twice the memory of the kernel's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from dlc.compiler import Plan, Request
from dlc.runtime.arguments import as_numpy
from dlc.tune.adversary import changed
from dlc.tune.bounds import Bound, bound
from dsl.cost import flops
from dsl.dim import product

_OPERATION, _ELEMENT = 5e-11, 3e-8  # seconds that the interpreter takes for one of a product, and for each that it stores in float64


class Truth:
    """The exact results of one kernel.

    Args:
        request: the kernel.
        arguments: as given.
        evaluate: from arguments to the exact results.

    Attributes:
        seconds: what evaluating them took at most, for one kind of data; None before the first.
    """

    def __init__(self, request: Request, arguments: Sequence[torch.Tensor],
                 evaluate: Callable[[Sequence[torch.Tensor]], Sequence[np.ndarray]]) -> None:
        self.request, self.arguments, self.evaluate = request, arguments, evaluate
        self.bounds: dict[tuple[str, str], Bound] = {}
        self.seconds: float | None = None
        self._kind, self._data, self._exact = "", list[torch.Tensor](), list[np.ndarray]()

    def exact(self, kind: str) -> Sequence[np.ndarray]:
        """The results on a kind of data."""
        if kind != self._kind:
            started = time.perf_counter()
            self._data = list(changed(self.arguments, kind))
            self._exact, self._kind = list(self.evaluate(self._data)), kind
            self.seconds = max(self.seconds or 0.0, time.perf_counter() - started)
        return self._exact

    def bound(self, kind: str, order: str, decisions: Mapping[str, Any]) -> Bound:
        """What the orders of some choices allow on a kind of data; evaluated once for each set of orders."""
        if (kind, order) not in self.bounds:
            exact = self.exact(kind)
            plan = Plan(replace(self.request, decisions=dict(decisions)))
            self.bounds[kind, order] = bound(plan, [as_numpy(a) for a in self._data], exact)
        return self.bounds[kind, order]

    @property
    def likely(self) -> float:
        """Seconds that the results on one kind of data will take: what they took, or a guess."""
        if self.seconds is not None:
            return self.seconds
        program = Plan(self.request).program
        elements = sum(int(product(t.shape)) for t in (*program.inputs, *program.computes))
        return _OPERATION * flops(program) + _ELEMENT * elements
