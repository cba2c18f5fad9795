"""Training on the command line."""

from __future__ import annotations

from matplotlib.figure import Figure

from dlc.data import load_digits
from dlc.digits import Run, train
from dlc.report import training_chart


def run(epochs: int, seed: int, shown: bool, tune: float) -> Run:
    """Train the digits network, with a progress bar where the terminal has one; its step tuned for some seconds."""
    return train(load_digits(), epochs, seed=seed, progress=None if shown else False, hold_out=True, tune=tune)


def figure(found: Run) -> Figure:
    """Loss and accuracy by epoch."""
    return training_chart({"dlc": curves(found)})


def curves(found: Run) -> dict[str, list[float]]:
    """The curves of a run, by what they show."""
    h = found.history
    return {"loss": h.loss, "validation loss": h.validation_loss, "accuracy (validation)": h.accuracy}


def facts(found: Run) -> dict[str, object]:
    """Plain data for JSON."""
    return {"epochs": len(found.history.loss), "seed": found.seed, "test_accuracy": found.test_accuracy, **found.history.as_dict()}
