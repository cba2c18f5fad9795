"""What every search has in common: candidates beside a default, a time to stop at, and a user who may stop it before."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod

from dlc.tune.session import Session, Trial


class Race(ABC):
    """The state of one search.

    Args:
        budget: seconds from now.
        unfinished: what is noted where the user stops it.

    Attributes:
        started, end: on the clock of :func:`time.perf_counter`.
        trials: the default schedule first.
        notes: what the report should say.
        seen: digest of generated code -> the first candidate that had it.
    """

    def __init__(self, budget: float, unfinished: str) -> None:
        self.started = time.perf_counter()
        self.end = self.started + budget
        self.unfinished = unfinished
        self.trials = [Trial(0, {})]
        self.notes: list[str] = []
        self.seen: dict[str, int] = {}

    @property
    def default(self) -> Trial:
        """The default schedule."""
        return self.trials[0]

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
