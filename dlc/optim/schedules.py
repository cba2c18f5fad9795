"""Learning rates that change from step to step: functions of the step, applied to the groups of an optimiser."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from dlc.optim.optimizers import Optimizer
from dlc.tape import each_call
from dsl.errors import ArgumentError


class LRScheduler:
    """Sets the rate of every group to its first rate times :meth:`factor` of the step; call :meth:`step` after each update, or each epoch.

    Attributes:
        last: the step the rates stand for, 0 at first.
        base: the first rates of the groups.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer, self.last = optimizer, 0
        self.base = [float(g["lr"]) for g in optimizer.param_groups]
        self._apply()

    def factor(self, step: int) -> float:
        """What the first rate is multiplied by at a step."""
        raise NotImplementedError

    def step(self) -> None:
        """Go on by one."""
        each_call(self._advance)

    def _advance(self) -> None:
        self.last += 1
        self._apply()

    def get_last_lr(self) -> list[float]:
        """The rates as they stand."""
        return [float(g["lr"]) for g in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Plain data to go on from."""
        return {"last": self.last, "base": self.base}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Go on from saved data."""
        self.last, self.base = int(saved["last"]), list(saved["base"])
        self._apply()

    def _apply(self) -> None:
        for base, group in zip(self.base, self.optimizer.param_groups):
            group["lr"] = base * self.factor(self.last)


class ConstantLR(LRScheduler):
    """The first rate throughout."""

    def factor(self, step: int) -> float:
        """1."""
        return 1.0


class StepLR(LRScheduler):
    """The rate times ``gamma`` every ``step_size`` steps."""

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1) -> None:
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer)

    def factor(self, step: int) -> float:
        """``gamma ** (step // step_size)``."""
        return float(self.gamma ** (step // self.step_size))


class CosineLR(LRScheduler):
    """Half a cosine from the first rate down to ``end`` times it, over ``steps`` steps, and there it stays."""

    def __init__(self, optimizer: Optimizer, steps: int, end: float = 0.0) -> None:
        if steps < 1:
            raise ArgumentError(f"a schedule over {steps} steps")
        self.steps, self.end = steps, end
        super().__init__(optimizer)

    def factor(self, step: int) -> float:
        """``end + (1 - end) * (1 + cos(pi * step / steps)) / 2``."""
        return self.end + (1 - self.end) * (1 + math.cos(math.pi * min(step, self.steps) / self.steps)) / 2


class WarmupLR(LRScheduler):
    """A straight line from ``start`` times the first rate up to it, over ``steps`` steps.

    Then the cosine down to ``end`` at ``total`` steps, if given.
    """

    def __init__(self, optimizer: Optimizer, steps: int, total: int | None = None, start: float = 0.0, end: float = 0.0) -> None:
        if steps < 1 or (total is not None and total <= steps):
            raise ArgumentError(f"a warm-up over {steps} of {total} steps")
        self.steps, self.total, self.start, self.end = steps, total, start, end
        super().__init__(optimizer)

    def factor(self, step: int) -> float:
        """The line, then the cosine."""
        if step < self.steps:
            return self.start + (1 - self.start) * step / self.steps
        if self.total is None:
            return 1.0
        done = min((step - self.steps) / (self.total - self.steps), 1.0)
        return self.end + (1 - self.end) * (1 + math.cos(math.pi * done)) / 2


class SequentialLR(LRScheduler):
    """One schedule after another; each counts from its own beginning."""

    def __init__(self, optimizer: Optimizer, schedules: Sequence[LRScheduler], milestones: Sequence[int]) -> None:
        if len(milestones) != len(schedules) - 1 or not schedules:
            raise ArgumentError(f"{len(schedules)} schedules need {len(schedules) - 1} milestones, {len(milestones)} were given")
        self.schedules, self.milestones = list(schedules), list(milestones)
        self.optimizer, self.last, self.base = optimizer, 0, schedules[0].base
        self._apply()

    def factor(self, step: int) -> float:
        """That of the schedule whose turn it is."""
        turn = sum(step >= m for m in self.milestones)
        return self.schedules[turn].factor(step - (self.milestones[turn - 1] if turn else 0))
