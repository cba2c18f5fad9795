"""A small network on handwritten digits, its layers and losses dlc kernels with derived backwards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

import dlc
from dlc import f32, i64
from dlc.data.digits import Digits

M, N, K = dlc.dims("M N K")


@dlc.kernel
def linear_relu(x: f32[M, K], w: f32[N, K], b: f32[N]) -> Any:
    """A hidden layer."""
    return dlc.relu(dlc.linear(x, w, b))


@dlc.kernel
def linear(x: f32[M, K], w: f32[N, K], b: f32[N]) -> Any:
    """The output layer."""
    return dlc.linear(x, w, b)


@dlc.kernel
def cross_entropy(logits: f32[M, N], labels: i64[M]) -> Any:
    """The mean negative log-likelihood of the labels."""
    logp = dlc.log_softmax(logits, 1)
    i, j = dlc.reduce_axis(M), dlc.reduce_axis(N)
    picked = dlc.compute((M,), lambda m: dlc.sum(dlc.where(labels[m] == j, logp[m, j], 0.0), j))
    return dlc.compute((), lambda: -dlc.sum(picked[i], i) / dlc.cast(M, f32))


@dlc.kernel
def adamw(p: f32[N], g: f32[N], m: f32[N], v: f32[N], lr: f32, c1: f32, c2: f32) -> Any:
    """One step of AdamW (Loshchilov and Hutter) with betas 0.9 and 0.999 and weight decay 0.01; ``c1``, ``c2`` correct the bias."""
    m2 = m * 0.9 + g * 0.1
    v2 = v * 0.999 + g * g * 0.001
    step = (m2 / c1) / (dlc.sqrt(v2 / c2) + 1e-8)
    return p - lr * (step + 0.01 * p), m2, v2


@dataclass
class History:
    """Loss and test accuracy per epoch."""

    loss: list[float]
    accuracy: list[float]


def train(digits: Digits, epochs: int = 40, batch: int = 128, seed: int = 0, report: Callable[[int], None] | None = None) -> History:
    """Train 64-128-64-10 on the digits; forward, backward and update run in generated kernels.

    Args:
        digits: images (n, 8, 8) in 0..1 and labels.
        epochs: passes over the data.
        batch: images per step.
        seed: of the initial weights and the order of the data.
        report: called with the number of finished epochs.
    """
    generator = torch.Generator().manual_seed(seed)
    sizes = (64, 128, 64, 10)
    weights: list[torch.Tensor] = []
    for n, k in zip(sizes[1:], sizes):
        weights += [torch.randn(n, k, generator=generator) * (2 / k) ** 0.5, torch.zeros(n)]
    moments = [(torch.zeros(w.numel()), torch.zeros(w.numel())) for w in weights]
    x, y = torch.from_numpy(digits.train_images).reshape(-1, 64), torch.from_numpy(digits.train_labels)
    history, step = History([], []), 0
    for epoch in range(epochs):
        losses = []
        for part in torch.randperm(len(x), generator=generator).split(batch):
            step += 1
            losses.append(_step(weights, moments, x[part], y[part], step, 3e-3 * (1 - epoch / epochs)))
        history.loss.append(sum(losses) / len(losses))
        history.accuracy.append(accuracy(weights, digits))
        if report is not None:
            report(epoch + 1)
    return history


def _step(weights: list[torch.Tensor], moments: list[tuple[torch.Tensor, torch.Tensor]], x: torch.Tensor, y: torch.Tensor, step: int, rate: float) -> float:
    leaves = [w.detach().requires_grad_() for w in weights]
    loss = cross_entropy(forward(leaves, x), y)
    grads = torch.autograd.grad(loss, leaves)
    for n, (w, g) in enumerate(zip(weights, grads)):
        new, m, v = adamw(w.reshape(-1), g.reshape(-1), *moments[n], rate, 1 - 0.9**step, 1 - 0.999**step)
        weights[n], moments[n] = new.reshape(w.shape), (m, v)
    return float(loss.detach())


def forward(weights: list[torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """Logits of a batch of flat images."""
    h = linear_relu(linear_relu(x, *weights[0:2]), *weights[2:4])
    return linear(h, *weights[4:6])  # type: ignore[no-any-return]


def accuracy(weights: list[torch.Tensor], digits: Digits) -> float:
    """Share of the test images that are recognised."""
    with torch.no_grad():
        guess = forward(weights, torch.from_numpy(digits.test_images).reshape(-1, 64)).argmax(1)
    return float((guess == torch.from_numpy(digits.test_labels)).float().mean())
