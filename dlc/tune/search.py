"""Which candidates to try next: a pure function of what is known of those tried, and of a random number generator.

The space is not written down anywhere. The heuristics are run with some choices preset and report every choice they met
(:class:`codegen.heuristics.Choice`); a candidate is the default with some of those made otherwise. First every choice is varied alone,
then the better candidates are mutated and crossed, while the choices of the best are varied alone again. What is proposed is never
proposed twice.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from codegen.heuristics import Choice

Decisions = Mapping[str, Any]
_TRIES = 400  # proposals in a row that were all known: the space is exhausted
_PARENTS = 8
_MUTATE, _CROSS = 0.6, 0.9  # else a random member of the space


@dataclass(frozen=True)
class Known:
    """A candidate that was built.

    Attributes:
        choices: every choice that was met while it was scheduled.
        score: how good it is, larger is better; None when it failed.
    """

    choices: tuple[Choice, ...]
    score: float | None

    @property
    def decisions(self) -> dict[str, Any]:
        """Every choice with the value taken."""
        return {c.name: c.value for c in self.choices}


class Search:
    """Proposes candidates.

    Args:
        seed: the same seed and the same scores give the same proposals.
        first: candidates to try before any other, such as those that won at other shapes.
    """

    def __init__(self, seed: int = 0, first: Iterable[Decisions] = ()) -> None:
        self.random = random.Random(seed)
        self.proposed: set[tuple[tuple[str, Any], ...]] = set()
        self.queue: list[Decisions] = list(first)
        self.swept: dict[str, Any] | None = None

    def propose(self, known: Sequence[Known], count: int) -> list[dict[str, Any]]:
        """Up to ``count`` new candidates; none when the space seems exhausted.

        Args:
            known: every candidate built so far that has choices, the default first; none where there is nothing to choose.
            count: how many are wanted.
        """
        if not known:
            return []
        best = max(known, key=lambda k: float("-inf") if k.score is None else k.score)
        if self.swept is None:
            self._new(known[0].decisions)
            self._sweep(known[0])
        elif not self.queue and best.decisions != self.swept:
            self._sweep(best)
        share = count if self.swept == known[0].decisions else -(-count // 2)
        out: list[dict[str, Any]] = []
        while self.queue and len(out) < share:
            out += self._new({**known[0].decisions, **self.queue.pop(0)})
        tries = 0
        while len(out) < count and tries < _TRIES:
            found = self._new(self._descendant(known))
            out += found
            tries = 0 if found else tries + 1
        return out

    def _sweep(self, around: Known) -> None:
        """Queue every option of every choice of a candidate, alone, taken from the choices in turn."""
        columns = [[(c.name, o) for o in self.random.sample(c.options, len(c.options)) if o != c.value] for c in around.choices]
        longest = max(map(len, columns), default=0)
        self.queue += [{**around.decisions, **dict([column[n]])} for n in range(longest) for column in columns if n < len(column)]
        self.swept = around.decisions

    def _new(self, decisions: Decisions) -> list[dict[str, Any]]:
        key = tuple(sorted(decisions.items()))
        if key in self.proposed:
            return []
        self.proposed.add(key)
        return [dict(decisions)]

    def _descendant(self, known: Sequence[Known]) -> Decisions:
        ranked = sorted((k for k in known if k.score is not None), key=lambda k: -(k.score or 0.0))[:_PARENTS] or [known[0]]
        draw = self.random.random()
        parent = ranked[min(int(self.random.expovariate(1.0)), len(ranked) - 1)]
        if draw < _MUTATE:
            return self._mutated(parent)
        if draw < _CROSS:
            other = self.random.choice(ranked)
            return {**parent.decisions, **{n: v for n, v in other.decisions.items() if self.random.random() < 0.5}}
        return {c.name: self.random.choice(c.options) for c in parent.choices}

    def _mutated(self, parent: Known) -> Decisions:
        """One, sometimes more, of the parent's choices made otherwise."""
        open_ = [c for c in parent.choices if len(c.options) > 1]
        if not open_:
            return parent.decisions
        count = min(len(open_), 1 + int(self.random.expovariate(1.2)))
        return {**parent.decisions,
                **{c.name: self.random.choice([o for o in c.options if o != c.value]) for c in self.random.sample(open_, count)}}
