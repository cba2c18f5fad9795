"""Reproducible kernels: the same bits on any number of cores and threads, tuned or not."""

from dataclasses import replace

import pytest
import torch

import dlc
from dlc import f32, records
from dlc.compiler import NOMINAL_THREADS, Plan, record_key
from dsl.errors import ScheduleError

M, N = dlc.dims("M N")


def definition(x: f32[M, N]):
    return dlc.sum(x * x, 0, 1), dlc.softmax(x, 1)


steady, usual = dlc.kernel(definition, reproducible=True), dlc.kernel(definition)


@pytest.fixture(autouse=True)
def fresh(cache_dir):
    return cache_dir


def on(kernel, x: torch.Tensor, cores: int) -> Plan:
    request = kernel.request([x.shape], [x.stride()])
    return Plan(replace(request, target=replace(request.target, threads=cores)))


def test_any_number_of_cores_gives_one_order_and_the_same_bits() -> None:
    x = torch.randn(30, 40000)
    plans = [on(steady, x, cores) for cores in (1, 2, 7, 64)]
    assert len({p.order for p in plans}) == 1 and {p.request.target.threads for p in plans} == {NOMINAL_THREADS}
    results = [p.launcher()([x]) for p in plans]
    assert all(torch.equal(a, b) for r in results[1:] for a, b in zip(r, results[0]))


def test_any_number_of_threads_gives_the_same_bits() -> None:
    x, before = torch.randn(16, 50000), torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(dlc.kernel(definition, reproducible=True)(x))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for r in results[1:] for a, b in zip(r, results[0]))


def test_a_record_of_another_order_is_not_taken() -> None:
    x = torch.randn(8, 512)
    plan = on(steady, x, 2)
    choice = next(c for c in _made(plan) if c.name.endswith(".vectors") and _order(plan, c.name, 1) != plan.order)
    key = record_key(plan.request)
    records.save(records.Record(key, "definition", {choice.name: 1}, {}, 2.0, order=_order(plan, choice.name, 1)))
    assert on(steady, x, 2).record is None and on(usual, x, 2).record is not None
    records.save(records.Record(key, "definition", {choice.name: choice.value}, {}, 2.0, order=plan.order))
    assert on(steady, x, 2).record is not None


def _made(plan: Plan):
    assert plan.nest
    return plan.decisions.made.values()


def _order(plan: Plan, name: str, value: int) -> str:
    return Plan(replace(plan.request, decisions={name: value})).order


def test_tuning_cannot_be_told_to_change_the_bits() -> None:
    with pytest.raises(ScheduleError, match="definition is reproducible"):
        steady.tune(torch.randn(4, 4), budget=1, reproducible=False)


def test_the_backward_is_reproducible_too() -> None:
    assert steady.vjp.reproducible and not usual.vjp.reproducible


def test_decorator_with_statics() -> None:
    @dlc.kernel(reproducible=True, scale=3.0)
    def scaled(x: f32[N], *, scale: float):
        return x * scale

    assert scaled.reproducible and float(scaled(torch.ones(2))[0]) == 3.0
