"""What a search found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dlc.records import Record
from dlc.tune.exactness import Row, as_dict, remarks, shown, table
from dlc.tune.measure import Measurement, Ratio, ratio
from dlc.tune.session import Trial

_SAME, _REASONS, _TOLD = "the same code", 5, 0.05  # seconds that are worth telling


@dataclass(frozen=True)
class TuneReport:
    """The result of ``kernel.tune``.

    Attributes:
        name: the kernel's name.
        record: what was written to disk.
        history: every candidate tried, the default first.
        best: the candidate that is used from now on; the default when none was better beyond noise.
        times: ``default``, ``tuned`` and the peers by name (``peer`` where it is one) in the last interleaved run, in seconds.
        reason: in words, why this one.
        seconds: what the search took.
        interrupted: whether the user stopped it.
        notes: what else is to be said.
        rows: errors of ``default``, ``tuned`` and the peers against float64, and what the chosen order allows, for each kind of data.
        spent: seconds by what they were spent on.
        backward: that of the backward, where both were tuned.
    """

    name: str
    record: Record
    history: Sequence[Trial]
    best: Trial
    times: dict[str, Measurement]
    reason: str
    seconds: float
    interrupted: bool = False
    notes: Sequence[str] = ()
    rows: Sequence[Row] = ()
    spent: Mapping[str, float] = field(default_factory=dict)
    backward: TuneReport | None = None

    @property
    def improved(self) -> bool:
        """Whether something better than the default was found."""
        return self.best.number != 0

    @property
    def ratio(self) -> Ratio:
        """Time of the default over time of the tuned schedule, round by round; exactly 1 where the default was kept."""
        return (ratio(self.times["default"], self.times["tuned"]) if self.improved
                else Ratio(1.0, 1.0, 1.0, len(self.times["default"].samples)))

    @property
    def peer_ratios(self) -> dict[str, Ratio]:
        """Time of each peer that ran over that of what is used from now on: above 1 dlc is faster."""
        own = self.times["tuned" if self.improved else "default"]
        return {name: ratio(m, own) for name, m in self.times.items() if name not in ("default", "tuned") and m.samples}

    @property
    def peer_ratio(self) -> Ratio | None:
        """That of the fastest peer. None without one."""
        return min(self.peer_ratios.values(), key=lambda r: r.median, default=None)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON; times in seconds."""
        peer = self.peer_ratio
        return {
            "name": self.name, "improved": self.improved, "reason": self.reason, "seconds": self.seconds, "interrupted": self.interrupted,
            "ratio": _figures(self.ratio),
            "peer_ratio": None if peer is None else _figures(peer), "peer_ratios": {n: _figures(r) for n, r in self.peer_ratios.items()},
            "operands": self.record.operands, "spent": dict(self.spent),
            "backward": None if self.backward is None else self.backward.as_dict(),
            "decisions": dict(self.record.decisions), "threads": self.record.key.threads, "target": self.record.key.target,
            "times": {n: {"median": m.median, "p25": m.p25, "p75": m.p75, "samples": list(m.samples)} for n, m in self.times.items()},
            "data": as_dict(self.rows), "history": [_plain(t) for t in self.history], "notes": list(self.notes)}

    def __str__(self) -> str:
        tried, failed = len(self.history), sum(t.failure is not None for t in self.history)
        lines = [f"{self.name}: {self.reason}", f"{tried} candidates in {self.seconds:.1f} s, {failed} refused or failed"
                 + (", stopped by the user" if self.interrupted else "")
                 + "".join(f"; {what} {s:.1f} s" for what, s in self.spent.items() if s >= _TOLD)]
        for name, m in self.times.items():
            if m.samples:
                lines.append(f"  {name:8} {m.median * 1e6:10.1f} us  {m.p25 * 1e6:.1f} - {m.p75 * 1e6:.1f}  "
                             f"({len(m.samples)} samples, operands {self.record.operands})")
        lines += [f"  {name} / dlc: {r}" for name, r in self.peer_ratios.items()]
        if self.improved:
            default = {c.name: c.value for c in self.history[0].choices}
            lines += [f"  {c.name} = {c.value}  (default {default.get(c.name, 'not met')})"
                      for c in self.best.choices if c.value != default.get(c.name)]
        lines += self._refused()
        if self.rows:
            lines += shown(table(self.rows, "errors against float64")).splitlines()
        lines += [f"  note: {n}" for n in (*remarks(self.rows), *self.notes)]
        return "\n".join([*lines, *([] if self.backward is None else ["backward", str(self.backward)])])

    def _refused(self) -> list[str]:
        """Why candidates are out of the race, the most common reasons first, each with the first one it befell."""
        whom: dict[str, list[Trial]] = {}
        for t in self.history:
            if t.failure is not None and not t.failure.startswith(_SAME):
                whom.setdefault(t.failure, []).append(t)
        ranked = sorted(whom.items(), key=lambda item: -len(item[1]))
        return [f"  refused: {self.history[0].changes(first)}" + (f" and {len(others)} more" if others else "") + f": {why}"
                for why, (first, *others) in ranked[:_REASONS]]


def _figures(r: Ratio) -> dict[str, float]:
    return {"median": r.median, "p25": r.p25, "p75": r.p75, "pairs": r.pairs}


def _plain(t: Trial) -> dict[str, Any]:
    return {"number": t.number, "at": t.at, "decisions": {c.name: c.value for c in t.choices} or dict(t.decisions), "failure": t.failure,
            "error": None if t.error is None else t.error.as_dict(), "bound": None if t.bound is None else t.bound.relative,
            "samples": list(t.samples), "speedup": t.speedup,
            "spread": float(np.ptp(t.samples)) if t.samples else None}


@dataclass(frozen=True)
class OfflineReport:
    """The result of ``kernel.tune`` for a GPU that is not here.

    Attributes:
        name: the kernel's name.
        record: what was written to disk.
        history: every candidate tried, the default first; ``facts`` of each is what its machine code shows.
        best: the candidate that is used from now on.
        reason: in words, why this one.
        seconds: what the search took.
        interrupted: whether the user stopped it.
        notes: what else there is to say.
        emulated: numbers of the candidates that were run under emulation.
        measured: seconds on the GPU, by number, where it was here after all.
    """

    name: str
    record: Record
    history: Sequence[Trial]
    best: Trial
    reason: str
    seconds: float
    interrupted: bool = False
    notes: Sequence[str] = ()
    emulated: frozenset[int] = frozenset()
    measured: Mapping[int, float] = field(default_factory=dict)

    @property
    def improved(self) -> bool:
        """Whether another schedule than the default is used from now on."""
        return self.best.number != 0

    def why(self, t: Trial) -> str:
        """Why a candidate lost, or what bounds it."""
        if t.failure is not None or t.least is None:
            return t.failure or "not compiled"
        binds = ", ".join(f"{e['binds']} {e['seconds'] * 1e6:.1f} us" for e in t.facts["estimates"])
        return f"bound {t.least * 1e6:.1f} us: {binds}" + (", right under emulation" if t.number in self.emulated else "")

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {"name": self.name, "target": self.record.key.target, "improved": self.improved, "reason": self.reason,
                "seconds": self.seconds, "interrupted": self.interrupted, "decisions": dict(self.record.decisions),
                "notes": list(self.notes), "measured": dict(self.measured),
                "history": [{"number": t.number, "decisions": {c.name: c.value for c in t.choices} or dict(t.decisions), "why": self.why(t),
                             "least": t.least, "emulated": t.number in self.emulated, **t.facts} for t in self.history]}

    def __str__(self) -> str:
        refused = [t for t in self.history if t.least is None]
        ranked = sorted((t for t in self.history if t.least is not None), key=lambda t: (t.least or 0.0, t.number))
        lines = [f"{self.name} for {self.record.key.target}: {self.reason}",
                 f"{len(self.history)} candidates in {self.seconds:.1f} s, {len(refused)} refused"
                 + (", stopped by the user" if self.interrupted else ""),
                 "bounds from the machine code and published figures; no GPU was asked"
                 if not self.measured else "finalists timed on the GPU"]
        default = {c.name: c.value for c in self.history[0].choices}
        for t in {t.number: t for t in (self.best, *ranked[:4], self.history[0])}.values():
            changed = ", ".join(f"{c.name}={c.value}" for c in t.choices if c.value != default.get(c.name)) or "the default"
            lines.append(f"  {'->' if t is self.best else '  '} {t.number:3} {self.why(t)}  ({changed})")
        reasons = Counter((t.failure or "not compiled").split(":")[0] for t in refused)
        lines += [f"  {n:5} refused: {why}" for why, n in reasons.most_common(5)]
        return "\n".join([*lines, *(f"  note: {n}" for n in self.notes)])
