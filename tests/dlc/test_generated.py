"""Kernels of graphs: shared by equal mathematics, renewed for every plan at once, and compiled without records where that is asked for."""

from __future__ import annotations

from pathlib import Path

import torch

import dlc
from dlc import records
from dlc.compiler import Plan, record_key
from dlc.realize import Collected, Step, untuned
from dlc.realize.generated import Generated


def kernel(t: dlc.Tensor) -> Generated:
    (step,) = (s for s in Collected([t._value]).plan().steps if isinstance(s, Step))
    return step.kernel


def graph(length: int) -> dlc.Tensor:
    return dlc.exp(dlc.from_torch(torch.ones(length)) * 0.5)


def test_equal_mathematics_shares_a_kernel(cache_dir: Path) -> None:
    first, again = kernel(graph(301)), kernel(dlc.exp(dlc.from_torch(torch.zeros(301)) * 0.5))
    assert first is again and first is not kernel(graph(302))


def test_a_record_is_used_when_a_kernel_is_renewed_and_not_where_tuning_is_off(cache_dir: Path) -> None:
    tuned = kernel(graph(4096))
    with untuned():
        default = kernel(graph(4096))
    assert default is not tuned and default.request.decisions == {} and kernel(graph(4096)) is tuned
    plan = Plan(tuned.request)
    assert plan.nest is not None  # the choices are met while it is scheduled
    name, value = next((c.name, next(o for o in c.options if o != c.value)) for c in plan.decisions.made.values() if len(c.options) > 1)
    records.save(records.Record(record_key(tuned.request), "tuned", {name: value}, {}, 1.0))
    tuned.renew()
    default.renew()
    assert Plan(tuned.request).preset == {name: value} and not Plan(default.request).preset
    torch.testing.assert_close(graph(4096).torch(), torch.exp(torch.full((4096,), 0.5)))
