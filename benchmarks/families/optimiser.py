"""One step of an optimiser over eight million parameters: SGD with momentum, AdamW; into new memory, and in place as training does it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

import dlc
from benchmarks.calls import jnp, untuned
from benchmarks.harness import REFERENCE, Case, case, compiled, peers
from dlc import f32

N = dlc.dims("N")
_RATE, _MOMENTUM, _DECAY, _BETAS, _EPS, _STEP = 1e-3, 0.9, 0.01, (0.9, 0.999), 1e-8, 10
_FIRST, _SECOND = 1 - _BETAS[0] ** _STEP, 1 - _BETAS[1] ** _STEP

Update = Callable[..., tuple[torch.Tensor, ...]]


@dlc.kernel
def _sgd(p: f32[N], g: f32[N], m: f32[N]):
    momentum = _MOMENTUM * m + g
    return p - _RATE * momentum, momentum


@dlc.kernel
def _adamw(p: f32[N], g: f32[N], m: f32[N], v: f32[N]):
    first = _BETAS[0] * m + (1 - _BETAS[0]) * g
    second = _BETAS[1] * v + (1 - _BETAS[1]) * g * g
    step = (first / _FIRST) / (dlc.sqrt(second / _SECOND) + _EPS)
    return p * (1 - _RATE * _DECAY) - _RATE * step, first, second


def _torch_sgd(p: torch.Tensor, g: torch.Tensor, m: torch.Tensor) -> tuple[torch.Tensor, ...]:
    momentum = _MOMENTUM * m + g
    return p - _RATE * momentum, momentum


def _torch_adamw(p: torch.Tensor, g: torch.Tensor, m: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return _adamw_of(p, g, m, v, torch.sqrt)


def _jax_adamw(p: Any, g: Any, m: Any, v: Any) -> Any:
    return _adamw_of(p, g, m, v, jnp.sqrt)


def _adamw_of(p: Any, g: Any, m: Any, v: Any, sqrt: Callable[[Any], Any]) -> Any:
    first = _BETAS[0] * m + (1 - _BETAS[0]) * g
    second = _BETAS[1] * v + (1 - _BETAS[1]) * g * g
    step = (first / _FIRST) / (sqrt(second / _SECOND) + _EPS)
    return p * (1 - _RATE * _DECAY) - _RATE * step, first, second


def _torchs_sgd(p: torch.Tensor, m: torch.Tensor) -> tuple[torch.optim.Optimizer, dict[str, Any]]:
    return torch.optim.SGD([p], lr=_RATE, momentum=_MOMENTUM, fused=True), {"momentum_buffer": m}


def _torchs_adamw(p: torch.Tensor, m: torch.Tensor, v: torch.Tensor) -> tuple[torch.optim.Optimizer, dict[str, Any]]:
    made = torch.optim.AdamW([p], lr=_RATE, betas=_BETAS, eps=_EPS, weight_decay=_DECAY, fused=True)
    return made, {"step": torch.tensor(_STEP - 1.0), "exp_avg": m, "exp_avg_sq": v}


def _in_place(name: str, n: int, traffic: float, states: Sequence[Callable[[int], torch.Tensor]], kernel: Any, update: Update,
              optimiser: Callable[..., tuple[torch.optim.Optimizer, dict[str, Any]]]) -> Case:
    """A step that updates parameters and states where they lie: ours by ``out=``, torch's fused optimiser, torch.compile with copies."""

    def setup() -> dict[str, Callable[[], object]]:
        torch.manual_seed(0)
        p, g, kept = torch.randn(n), torch.randn(n), [make(n) for make in states]

        def own() -> list[torch.Tensor]:
            return [t.clone() for t in (p, *kept)]

        mine = own()
        q, *state = own()
        theirs = torch.nn.Parameter(q)
        theirs.grad = g
        optim, begun = optimiser(theirs, *state)
        optim.state[theirs] = begun

        def step() -> object:
            optim.step()
            return theirs.detach(), *state

        ours = untuned(kernel)
        calls: dict[str, Callable[[], object]] = {"dlc": lambda: ours(mine[0], g, *mine[1:], out=tuple(mine)), "torch": step}
        for peer, options in (("compile", {}), ("autotune", {"mode": "max-autotune-no-cudagraphs"})):
            calls[peer] = _filling(compiled(_filled(update), **options), own(), g)
        calls[REFERENCE] = lambda: update(*(t.double() for t in (p, g, *kept)))
        return calls

    return Case(f"{name} in place", setup, 0.0, traffic)


def _filled(update: Update) -> Callable[..., tuple[torch.Tensor, ...]]:
    def fill(p: torch.Tensor, g: torch.Tensor, *states: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(t.copy_(new) for t, new in zip((p, *states), update(p, g, *states)))

    return fill


def _filling(function: Callable[..., object], own: Sequence[torch.Tensor], g: torch.Tensor) -> Callable[[], object]:
    return lambda: function(own[0], g, *own[1:])


def cases() -> Iterable[Case]:
    """Every case of the family."""
    n = 8_000_000
    yield case("sgd momentum 8M", lambda: [torch.randn(n) for _ in range(3)], {"dlc": _sgd, **peers(_torch_sgd, _torch_sgd)}, bytes=20 * n)
    yield case("adamw 8M", lambda: [torch.randn(n) for _ in range(3)] + [torch.rand(n)], {"dlc": _adamw, **peers(_torch_adamw, _jax_adamw)},
               bytes=28 * n)
    yield _in_place("sgd momentum 8M", n, 20 * n, [torch.randn], _sgd, _torch_sgd, _torchs_sgd)
    yield _in_place("adamw 8M", n, 28 * n, [torch.randn, torch.rand], _adamw, _torch_adamw, _torchs_adamw)
