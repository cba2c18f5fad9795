"""Training on the command line."""

from __future__ import annotations

from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import Progress

from dlc.data.digits import load_digits
from dlc.digits import History, train
from dlc.report import training_chart


def run(epochs: int, seed: int, shown: bool) -> History:
    """Train the digits network, with a progress bar where the terminal has one."""
    console = Console(stderr=True)
    with Progress(console=console, disable=not (shown and console.is_terminal), transient=True) as bar:
        task = bar.add_task("training", total=epochs)
        return train(load_digits(), epochs, seed=seed, report=lambda n: bar.update(task, completed=n))


def figure(history: History) -> Figure:
    """Loss and accuracy by epoch."""
    return training_chart({"dlc": {"loss": history.loss, "accuracy": history.accuracy}})
