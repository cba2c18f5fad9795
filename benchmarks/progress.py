"""How far a run is, and when it will be done: a bar in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_EVERY = 15.0  # seconds between lines


class Watched:
    """A ``with`` block that tells how many of ``total`` results are there.

    Args:
        console: where to.
        total: results to come.
    """

    def __init__(self, console: Console, total: int) -> None:
        self.console, self.total, self.done = console, total, 0
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"), TimeElapsedColumn(),
                   TextColumn("left"), TimeRemainingColumn())
        self._bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._bar.add_task("", total=total)
        self._started = self._told = time.monotonic()

    def __enter__(self) -> Watched:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def begin(self, name: str) -> None:
        """What is measured next."""
        self._bar.update(self._task, description=name)
        now = time.monotonic()
        if not self.console.is_terminal and now - self._told > _EVERY:
            self._told = now
            self.console.print(f"{self.done} of {self.total}, {_left(now - self._started, self.done, self.total)}: {name}", style="dim",
                               highlight=False)

    def advance(self) -> None:
        """One more result is there."""
        self.done += 1
        self._bar.advance(self._task)


def _left(spent: float, done: int, total: int) -> str:
    """What is left at the pace so far."""
    if not done:
        return "time left unknown"
    seconds = spent / done * (total - done)
    return f"about {seconds / 60:.0f} min left" if seconds >= 90 else f"about {seconds:.0f} s left"
