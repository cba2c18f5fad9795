"""One step of an optimiser over eight million parameters: SGD with momentum, AdamW."""

from collections.abc import Iterable

import torch

import dlc
from benchmarks.families.matmul import peers
from benchmarks.harness import Case, case
from dlc import f32

N = dlc.dims("N")
_RATE, _MOMENTUM, _DECAY, _BETAS, _EPS, _STEP = 1e-3, 0.9, 0.01, (0.9, 0.999), 1e-8, 10
_FIRST, _SECOND = 1 - _BETAS[0] ** _STEP, 1 - _BETAS[1] ** _STEP


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
    first = _BETAS[0] * m + (1 - _BETAS[0]) * g
    second = _BETAS[1] * v + (1 - _BETAS[1]) * g * g
    step = (first / _FIRST) / ((second / _SECOND).sqrt() + _EPS)
    return p * (1 - _RATE * _DECAY) - _RATE * step, first, second


def cases() -> Iterable[Case]:
    """Every case of the family."""
    n = 8_000_000
    yield case("sgd momentum 8M", lambda: [torch.randn(n) for _ in range(3)], {"dlc": _sgd, **peers(_torch_sgd)}, bytes=20 * n)
    yield case("adamw 8M", lambda: [torch.randn(n) for _ in range(3)] + [torch.rand(n)], {"dlc": _adamw, **peers(_torch_adamw)},
               bytes=28 * n)
