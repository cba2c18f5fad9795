"""Which planned candidates to compile first: those of which counted cycles, corrected by the times taken so far, promise most."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from dlc.tune.session import Trial

Change = tuple[str, Any]


def ranked(waiting: Sequence[Trial], tried: Sequence[Trial], first: Sequence[Mapping[str, Any]] = ()) -> list[Trial]:
    """Planned candidates, the most promising first; of equals the earlier.

    Where a candidate took longer than its cycles said, beside the default, each of its choices is held to cost its share of that, also in
    others.

    Args:
        waiting: planned, not yet built.
        tried: the default, which was planned too, and what was built so far.
        first: choices of candidates that come before all others.
    """
    default, seen = tried[0], defaultdict[Change, list[float]](list)
    for t in tried[1:]:
        if t.speedup is not None and t.cycles and (changes := _changes(t, default)):
            off = -math.log(t.speedup) - math.log(t.cycles / default.cycles)
            for change in changes:
                seen[change].append(off / len(changes))
    effects = {change: sum(found) / len(found) for change, found in seen.items()}

    def promise(t: Trial) -> tuple[bool, float, int]:
        known = not any(wanted.items() <= dict(t.decisions).items() for wanted in first)
        return known, math.log(t.cycles / default.cycles) + sum(effects.get(c, 0.0) for c in _changes(t, default)), t.number

    return sorted(waiting, key=promise)


def _changes(t: Trial, default: Trial) -> list[Change]:
    """The choices made otherwise than by default."""
    own = {c.name: c.value for c in default.choices}
    return [(c.name, c.value) for c in t.choices if own.get(c.name) != c.value]
