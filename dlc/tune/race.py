"""What every search has in common: candidates beside a default, a time to stop at, and a user who may stop it before."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

from dlc.tune.progress import Progress
from dlc.tune.session import Session, Trial

_FRUITLESS = 40  # candidates in a row that are no better, after which a search without a budget ends

class Race(ABC):
    """The state of one search.

    Args:
        budget: seconds from now; infinite where the search ends when it finds nothing better.
        progress: where to show it.
        unfinished: what is noted where the user stops it.

    Attributes:
        started, end: on the clock of :func:`time.perf_counter`.
        trials: the default schedule first.
        notes: what the report should say.
        spent: seconds by what they were spent on.
        seen: digest of generated code -> the first candidate that had it.
    """

    def __init__(self, budget: float, progress: Progress, unfinished: str) -> None:
        self.started = time.perf_counter()
        self.end = self.started + budget
        self.progress, self.unfinished = progress, unfinished
        self.trials = [Trial(0, {})]
        self.notes: list[str] = []
        self.seen: dict[str, int] = {}
        self.spent: dict[str, float] = {}
        self._best, self._found = 0.0, 0

    @property
    def default(self) -> Trial:
        """The default schedule."""
        return self.trials[0]

    @contextmanager
    def doing(self, what: str) -> Iterator[None]:
        """Show what is being done, and note what it takes."""
        self.progress.show(what, self.trials)
        started = time.perf_counter()
        try:
            yield
        finally:
            self.spent[what] = self.spent.get(what, 0.0) + time.perf_counter() - started

    def goes_on(self, best: float) -> bool:
        """Whether a search without a budget should, the score of the best candidate so far being given."""
        if best > 1.01 * self._best:
            self._best, self._found = best, len(self.trials)
        return self.end < math.inf or len(self.trials) - self._found < _FRUITLESS

    def go(self, session: Session) -> bool:
        """From the default to the confirmation; whether the user stopped it on the way."""
        self.begin(session)
        try:
            self.search(session)
            self.confirm(session)
        except KeyboardInterrupt:
            self.notes.append(f"stopped by the user: {self.unfinished}")
            return True
        return False

    @abstractmethod
    def begin(self, session: Session) -> None:
        """Build the default."""

    @abstractmethod
    def search(self, session: Session) -> None:
        """Batches of candidates until the time for the search is over."""

    @abstractmethod
    def confirm(self, session: Session) -> None:
        """Try the best once more, by a stricter measure."""
