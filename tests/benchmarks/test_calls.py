"""The variants of a call: memory given, tuned, compiled, JAX's."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as nn

import dlc
from benchmarks.calls import Adapted, Bound, Compiled, Constant, Jax, NoVariant, Tunable, absent, out_form, untuned
from benchmarks.families import training
from benchmarks.harness import TUNED, Case, Protocol, case, run_case
from dlc import f32
from dlc.jit import Jit
from dlc.kernel import Kernel
from dlc.realize import Step
from dlc.tune.limits import Limits

LIMITS = Limits(1, {"f32": 100.0}, {"L1": 300.0, "L2": 200.0, "L3": 100.0, "DRAM": 10.0}, {})
M, N = dlc.dims("M N")


@dlc.kernel
def doubled(x: f32[M, N]):
    return x * 2.0


@pytest.mark.parametrize("function", [lambda x: x @ x.T, lambda x: nn.gelu(x @ x.T + 1), lambda x: x.sum(1), lambda x: x.softmax(1),
                                      lambda x: x.T.contiguous(), lambda x: torch.cat([x, x], 1)])
def test_torch_writes_to_memory_given(function: Callable[[torch.Tensor], torch.Tensor]) -> None:
    x = torch.randn(5, 7)
    expected = function(x)
    out = torch.full_like(expected, -1)
    assert out_form(function, (x,))(out, x) is out and torch.equal(out, expected)


@pytest.mark.parametrize("function", [lambda x: nn.layer_norm(x, (7,)), lambda x: nn.conv1d(x[None], x[:, None], groups=5),
                                      lambda x: x.aminmax(dim=1)])
def test_where_torch_cannot_there_is_no_such_call(function: Callable[[torch.Tensor], object]) -> None:
    with pytest.raises(NoVariant):
        Bound(function, (torch.randn(5, 7),)).into()()


def test_kernels_write_to_memory_given() -> None:
    x = torch.randn(3, 4)
    call = Bound(doubled, (x,)).into()
    first = call()
    x.add_(1)
    assert call() is first and torch.equal(first, x * 2)
    turned = Bound(Adapted(doubled, lambda x: (x.T,), lambda y: y.T), (x,))
    assert torch.equal(turned(), x * 2) and torch.equal(turned.into()(), x * 2)


def test_constant_operands_are_bound_once() -> None:
    @dlc.kernel
    def product(x: f32[M, N], w: f32[N, M]):
        return x @ w

    x, w = torch.randn(8, 16), torch.randn(16, 8)
    function = untuned(Constant(product))
    call = Bound(function, (x, w))
    torch.testing.assert_close(call(), x @ w, rtol=1e-5, atol=1e-5)
    bound = function.on((x, w))  # type: ignore[attr-defined]
    assert bound.packed and function.on((x, w)) is bound and function.on((x, w.clone())) is not bound  # type: ignore[attr-defined]
    into = call.into()
    assert into() is into()
    torch.testing.assert_close(into(), x @ w, rtol=1e-5, atol=1e-5)


def test_a_step_is_tuned_beside_its_default(cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    budgets: list[float] = []
    ours = training._ours(lambda lib: [lib.Linear(6, 5), lib.ReLU(), lib.Linear(5, 10)], training._sgd,
                          torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.ReLU(), torch.nn.Linear(5, 10)).state_dict(),
                          torch.randn(7, 6), torch.randint(0, 10, (7,)), True)
    tune = Jit.tune
    monkeypatch.setattr(Jit, "tune", lambda self, *args, **how: (budgets.append(how["budget"]), tune(self, *args, **how))[1])
    assert isinstance(ours, Tunable)
    one = Case("step", lambda: {"dlc": ours})
    (found,) = run_case("f", one, Protocol(budget=0.01, tune=0.5), lambda threads, again: LIMITS)
    assert budgets == [0.5] and found.times["dlc"].ok and found.times[TUNED].ok
    kernels = [s.kernel for known in ours.run._known.values() for r in known for s in r._plan.steps if isinstance(s, Step)]
    assert kernels and all(k.request.decisions == {} for k in kernels)  # the default is measured whatever records there are
    with pytest.raises(NoVariant, match="not jitted"):
        training.Ours(ours.make, ours.batch, False).tuned(1.0)


def test_what_the_first_call_made_is_timed_without_the_way_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda f, **given: f)
    x = torch.randn(3)
    compiled = Compiled(torch.neg)
    assert Bound(compiled, (x,)).made().function is compiled.on() and torch.equal(Bound(compiled, (x,)).made()(), -x)  # type: ignore[arg-type]
    turned = Bound(Adapted(compiled, lambda t: (t.flip(0),), lambda y: y.flip(0)), (x,)).made()
    assert turned.function.kernel is compiled.on() and torch.equal(turned(), -x)  # type: ignore[attr-defined, arg-type]
    plain = Bound(torch.neg, (x,))
    assert plain.made() is plain


def test_a_kernel_is_tuned_beside_its_default() -> None:
    one = case("x", lambda: [torch.randn(64, 64)], {"dlc": doubled, "torch": lambda x: x * 2})
    (found,) = run_case("f", one, Protocol(budget=0.01, tune=0.5, into=True), lambda threads, again: LIMITS)
    assert {"dlc", TUNED} <= set(found.times) and found.times[TUNED].ok and found.into[TUNED].ok and TUNED not in found.first
    assert found.peers == ["torch"] and found.ratio(ours=TUNED) and found.ratio_into(TUNED)
    with pytest.raises(NoVariant):
        Bound(torch.abs, ()).tuned(1.0)


def test_a_tuned_kernel_has_the_choices_that_won(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, object]] = []

    def tune(self, *args, **options):  # type: ignore[no-untyped-def]
        asked.append(options)
        return SimpleNamespace(record=SimpleNamespace(decisions={"mul.vectors": 1}))

    monkeypatch.setattr(Kernel, "tune", tune)
    x = torch.randn(64, 64)
    call = Bound(untuned(doubled), (x,)).tuned(2.0, Protocol(cold=(True, False)).operands)
    assert torch.equal(call(), x * 2) and call() is not None and len(asked) == 1  # type: ignore[call-overload]
    assert asked[0]["operands"] == "both" and asked[0]["budget"] == 2.0
    made = call.function.on((x,)).plan(x)  # type: ignore[attr-defined]
    assert made.nest is not None and made.decisions.made["mul.vectors"].value == 1


def test_records_do_not_change_the_default() -> None:
    assert untuned(doubled).decisions == {} and doubled.decisions is None
    assert untuned(torch.abs) is torch.abs and untuned(Adapted(doubled, None, None)).kernel.decisions == {}  # type: ignore[arg-type, attr-defined]


def test_compiled_functions_write_to_memory_given(monkeypatch: pytest.MonkeyPatch) -> None:
    options: list[dict[str, object]] = []
    monkeypatch.setattr(torch, "compile", lambda f, **given: options.append(given) or f)
    x = torch.randn(3)
    one, two = Bound(Compiled(torch.neg, mode="m"), (x,)).into(), Bound(Compiled(lambda x: (x + 1, x + 2)), (x,)).into()
    assert one() is one() and torch.equal(one(), -x)
    assert two() is two() and torch.equal(two()[1], x + 2)
    assert options[0] == {"dynamic": False, "mode": "m"}


def test_what_is_not_here_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor import cpp_builder, exc  # noqa: PLC0415

    def none() -> str:
        raise exc.InvalidCxxCompiler

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", none)
    monkeypatch.setitem(sys.modules, "jax", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("CXX", "c-plus")
    assert absent(["torch"]) == {}
    assert absent(["torch", "compile", "jax"]) == {"jax": "JAX is not installed",
                                                   "compile": "torch.compile finds no C++ compiler (CXX is c-plus)"}


def test_jax_takes_operands_once_and_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []

    class Array:
        def __init__(self, t: torch.Tensor) -> None:
            self.t, self.waited = t, False

        def block_until_ready(self) -> Array:
            self.waited = True
            return self

    stub = types.ModuleType("jax")
    stub.jit = lambda f: f  # type: ignore[attr-defined]
    stub.block_until_ready = lambda array: array.block_until_ready()  # type: ignore[attr-defined]
    stub.dlpack = types.SimpleNamespace(from_dlpack=lambda t: taken.append(1) or Array(t))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "jax", stub)
    x = torch.randn(3)
    call = Bound(Jax(lambda a: Array(a.t + 1)), (x,))
    assert call().waited and torch.equal(call().t, x + 1) and len(taken) == 1  # type: ignore[attr-defined]
    monkeypatch.setattr("benchmarks.calls.cpus", lambda: 1000)
    with pytest.raises(NoVariant, match="all cores"):
        call()
