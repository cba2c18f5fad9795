"""A kernel against a peer: interleaved times, ratio, rates, and both errors against float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from dlc.kernel import Kernel
from dlc.tune.measure import Measurement, measure, ratio
from dsl.cost import bytes_moved, flops
from dsl.errors import UserError


@dataclass(frozen=True)
class BenchReport:
    """What was measured.

    Attributes:
        times: name to its samples, in seconds.
        ratio: median of the peer's time over dlc's, pair by pair: above 1 dlc is faster. None without a peer.
        flops, bytes: arithmetic of the definition, and its inputs and outputs, per call.
        errors: name to the largest error against float64, relative to the largest value.
        threads: threads used.
    """

    name: str
    times: dict[str, Measurement]
    ratio: float | None
    flops: int
    bytes: int
    errors: dict[str, float]
    threads: int

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON; times in seconds."""
        return {"name": self.name, "threads": self.threads, "ratio": self.ratio, "flops": self.flops, "bytes": self.bytes, "errors": self.errors,
                "seconds": {n: {"median": m.median, "p25": m.p25, "p75": m.p75, "failure": m.failure} for n, m in self.times.items()}}

    def __str__(self) -> str:
        lines = [f"{self.name} ({self.threads} threads)", f"{'':10} {'median':>10} {'p25-p75':>21} {'GFLOP/s':>9} {'GB/s':>7} {'error':>9}"]
        for n, m in self.times.items():
            if not m.ok:
                lines.append(f"{n:10} failed: {m.failure}")
                continue
            spread = f"{m.p25 * 1e6:.1f} - {m.p75 * 1e6:.1f}"
            lines.append(f"{n:10} {m.median * 1e6:8.1f}us {spread:>21} {self.flops / m.median / 1e9:9.1f} {self.bytes / m.median / 1e9:7.1f}"
                         f" {self.errors.get(n, float('nan')):9.1e}")
        return "\n".join(lines + ([f"peer / dlc: {self.ratio:.2f}"] if self.ratio is not None else []))


def bench(kernel: Kernel, *args: Any, against: Callable[..., Any] | None = None, cold: bool = False, budget: float = 1.0) -> BenchReport:
    """Measure a kernel, and a peer beside it in the same interleaved run.

    Args:
        kernel: what to measure.
        args: its arguments (torch tensors).
        against: the peer, called with the same arguments.
        cold: flush the caches before every sample.
        budget: seconds.

    Raises:
        UserError: the peer's result has another shape than the kernel's.
    """
    with torch.no_grad():
        calls: dict[str, Any] = {"dlc": lambda: kernel(*args)}
        if against is not None:
            calls["peer"] = lambda: against(*args)
        errors = _errors(kernel, args, calls)
        times = measure(calls, budget=budget, cold=cold)
    faster = ratio(times["peer"], times["dlc"]).median if against is not None and times["peer"].ok and times["dlc"].ok else None
    special = kernel.specialized(*args)
    return BenchReport(kernel.__name__, times, faster, flops(special), bytes_moved(special), errors, torch.get_num_threads())


def _errors(kernel: Kernel, args: Sequence[Any], calls: dict[str, Any]) -> dict[str, float]:
    exact = kernel.reference(*args)
    expected = exact if isinstance(exact, tuple) else (exact,)
    return {name: max((_error(g, e, name) for g, e in zip(_tuple(call()), expected)), default=0.0) for name, call in calls.items()}


def _tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def _error(got: Any, exact: Any, name: str) -> float:
    values = got.detach().to(torch.float64).numpy() if isinstance(got, torch.Tensor) else np.asarray(got, np.float64)
    if values.shape != exact.shape:
        raise UserError(f"{name} gives shape {values.shape}, the definition {exact.shape}", remedy="compare functions with the same result")
    if not exact.size:
        return 0.0
    scale = float(np.max(np.abs(exact), where=np.isfinite(exact), initial=0.0)) or 1.0
    with np.errstate(invalid="ignore"):
        off = np.abs(values - exact)
    same = (values == exact) | (np.isnan(values) & np.isnan(exact))
    return float(np.max(np.where(same, 0.0, off))) / scale
