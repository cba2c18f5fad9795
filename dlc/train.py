"""A training loop: passes over the data, a validation after each, the best state kept."""

from __future__ import annotations

import functools
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from dlc.data import Loader
from dlc.jit import Jit, jit
from dlc.nn import Module, cross_entropy
from dlc.optim import LRScheduler, Optimizer, clip_grad_norm_
from dlc.tape import no_grad
from dlc.tensor import Tensor, compute_now
from dsl.dtype import f32
from dsl.errors import ArgumentError
from dsl.ops.pointwise import cast, equal
from dsl.ops.reduction import argmax
from dsl.ops.reduction import sum as total

if TYPE_CHECKING:
    from dlc.tune.steps import StepReport

_RECORDED = 3  # calls of a jitted function, the last of which launches what was recorded
Loss = Callable[[Any, Any], Tensor]
Metric = Callable[[Any, Any], Tensor]


@dataclass
class History:
    """What happened, epoch by epoch.

    Attributes:
        loss: mean training loss.
        validation_loss: mean loss of the validation data; empty without any.
        accuracy: the metric on the validation data (the share of right guesses, unless another was given).
        rate: the learning rate at the end of each epoch.
        best: the epoch, from 0, whose state the model has at the end: the one with the best metric, the last without validation.
        seconds: for everything.
        steps: updates made.
        tuning: what tuning the step came to, where that was asked for.
    """

    loss: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    rate: list[float] = field(default_factory=list)
    best: int = -1
    seconds: float = 0.0
    steps: int = 0
    tuning: StepReport | None = field(default=None, repr=False)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**asdict(replace(self, tuning=None)), "tuning": None if self.tuning is None else self.tuning.as_dict()}


def right_guesses(output: Any, target: Any) -> Tensor:
    """How many rows have their greatest element at the target."""
    return total(cast(equal(argmax(output, axis=1), target), f32))


def train_step(model: Module, loss: Loss, optimizer: Optimizer, inputs: Any, target: Any, clip: float | None = None) -> Tensor:
    """One update: forward, backward, the optimiser. Everything is recorded first and runs when the optimiser computes the new weights.

    Returns:
        The loss before the update, without its graph.
    """
    optimizer.zero_grad()
    value = loss(model(inputs), target)
    value.backward()
    if clip is not None:
        clip_grad_norm_(optimizer.params, clip)
    optimizer.step()
    return value.detach()


def evaluate(model: Module, loader: Loader, loss: Loss = cross_entropy, metric: Metric = right_guesses) -> tuple[float, float]:
    """The mean loss and the metric per example over a loader, the model in its use mode."""
    before = model.training
    model.eval()
    losses: list[tuple[Tensor, int]] = []
    scores: list[Tensor] = []
    with no_grad():
        for inputs, target in loader:
            output = model(inputs)
            losses.append((loss(output, target), len(target)))
            scores.append(metric(output, target))
            compute_now(losses[-1][0], scores[-1])
    model.train(before)
    return sum(v.item() * n for v, n in losses) / loader.examples, sum(float(s.item()) for s in scores) / loader.examples


def fit(model: Module, optimizer: Optimizer, data: Loader, validation: Loader | None = None, epochs: int = 10, loss: Loss = cross_entropy,
        metric: Metric = right_guesses, schedule: LRScheduler | None = None, clip: float | None = None, patience: int | None = None,
        progress: bool | None = None, report: Callable[[int, History], None] | None = None, jitted: bool = False,
        tune: float = 0.0) -> History:
    """Train a model; it ends with the state that did best on the validation data.

    Args:
        model: called with the first array of each batch; the second is the target.
        optimizer: of its parameters.
        data: what to learn from.
        validation: what to judge by; None keeps the last state.
        epochs: passes over the data.
        loss: of output and target.
        metric: of output and target, summed over the examples; greater is better.
        schedule: stepped after each update.
        clip: the greatest norm of all gradients together.
        patience: epochs without a better metric after which to stop.
        progress: whether to show a progress bar; None where standard error is a terminal.
        report: called after each epoch with its number and the history so far.
        jitted: record a step once for each shape of a batch, and launch it from then on: see :func:`dlc.jit`.
        tune: seconds to search for faster schedules of the kernels of a step, with the third batch of one shape; the step is recorded then.
            Training is the same to the bit. Its report is ``tuning`` of the history.

    Raises:
        ArgumentError: patience without validation data.
    """
    if patience is not None and validation is None:
        raise ArgumentError("patience needs validation data")
    history, start = History(), time.perf_counter()
    step = functools.partial(train_step, model, loss, optimizer, clip=clip)
    run = _tuned(jit(step), tune, history) if tune else jit(step) if jitted else step
    best: dict[str, Tensor] = {}
    with _bar(progress, epochs) as bar:
        for epoch in range(epochs):
            _epoch(model, optimizer, data, run, schedule, history)
            if validation is not None:
                _validate(model, validation, loss, metric, history)
            if validation is None or history.accuracy[-1] > max(history.accuracy[:-1], default=-1.0):
                history.best, best = epoch, model.state_dict()
            bar(epoch, history)
            if report is not None:
                report(epoch, history)
            if patience is not None and epoch - history.best >= patience:
                break
    if best:
        model.load_state_dict(best)
    history.seconds = time.perf_counter() - start
    return history


def _epoch(model: Module, optimizer: Optimizer, data: Loader, step: Callable[[Any, Any], Tensor], schedule: LRScheduler | None,
           history: History) -> None:
    model.train()
    losses = []
    for inputs, target in data:
        losses.append(step(inputs, target))
        history.steps += 1
        if schedule is not None:
            schedule.step()
    history.loss.append(sum(v.item() for v in losses) / max(len(losses), 1))
    history.rate.append(float(optimizer.param_groups[0]["lr"]))


def _tuned(step: Jit, seconds: float, history: History) -> Callable[[Any, Any], Tensor]:
    """A jitted step that is tuned in the course of a call, once it is recorded for batches of one shape."""
    seen: Counter[Any] = Counter()

    def run(inputs: Any, target: Any) -> Tensor:
        seen[kind := (tuple(inputs.shape), tuple(target.shape))] += 1
        if history.tuning is not None or seen[kind] < _RECORDED:
            return step(inputs, target)
        history.tuning = step.tune(inputs, target, budget=seconds, progress=False)
        return history.tuning.result

    return run


def _validate(model: Module, validation: Loader, loss: Loss, metric: Metric, history: History) -> None:
    value, score = evaluate(model, validation, loss, metric)
    history.validation_loss.append(value)
    history.accuracy.append(score)


class _bar:  # noqa: N801  (used like a function)
    """A progress bar with the figures of the last epoch."""

    def __init__(self, shown: bool | None, epochs: int) -> None:
        console = Console(stderr=True)
        on = console.is_terminal if shown is None else shown
        columns = (TextColumn("training"), BarColumn(), TextColumn("{task.completed}/{task.total}"), TextColumn("{task.description}"),
                   TimeRemainingColumn())
        self.progress = Progress(*columns, console=console, disable=not on, transient=True)
        self.task = self.progress.add_task("", total=epochs)

    def __enter__(self) -> _bar:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def __call__(self, epoch: int, history: History) -> None:
        """Move on by an epoch."""
        score = f", validation {history.accuracy[-1]:.2%}" if history.accuracy else ""
        self.progress.update(self.task, completed=epoch + 1, description=f"loss {history.loss[-1]:.4f}{score}")
