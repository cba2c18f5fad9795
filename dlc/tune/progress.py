"""The progress bar of a search: time spent, candidates tried, the best so far."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from types import TracebackType

from dlc.lazy import lazy
from dlc.tune.session import Trial

console, progress = lazy("rich.console"), lazy("rich.progress")


class Progress:
    """Shows a search on the terminal; nothing when the output is not one.

    Args:
        name: what is tuned.
        budget: seconds of the whole search; infinite where nobody knows.
        shown: None to show where standard error is a terminal.
    """

    def __init__(self, name: str, budget: float, shown: bool | None = None) -> None:
        terminal = console.Console(stderr=True)
        self.shown = terminal.is_terminal if shown is None else shown
        self.started = time.perf_counter()
        columns = (progress.TextColumn("[bold]{task.fields[name]}"), progress.BarColumn(), progress.TimeElapsedColumn(),
                   progress.TextColumn("{task.fields[state]}"))
        self.bar = progress.Progress(*columns, console=terminal, disable=not self.shown, transient=True)
        self.task = self.bar.add_task(name, total=budget if budget < math.inf else None, name=name, state="starting")
        self.last = ""

    def __enter__(self) -> Progress:
        self.bar.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.bar.stop()

    def show(self, doing: str, trials: Sequence[Trial]) -> None:
        """Say what is being done, and how far the search is."""
        best = max((t.speedup or 0.0 for t in trials), default=0.0)
        found = f"{len(trials)} tried" + (f", best {best:.2f}x the default" if best else "") + "; " if trials else ""
        text = found + doing
        self.last = text
        self.bar.update(self.task, completed=time.perf_counter() - self.started, state=text)
