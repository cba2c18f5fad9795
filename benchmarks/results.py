"""Runs on disk: one file for each machine, one entry for each case and thread count, the newest kept."""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import subprocess
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from benchmarks.harness import Result
from dlc.host import description, fingerprint
from dlc.tune.accuracy import Error
from dlc.tune.limits import Limits
from dlc.tune.measure import Measurement

RESULTS = Path(__file__).parent / "results"
_LIBRARIES = ("dlc", "torch", "triton", "llvmlite", "numpy")
_VERSION = 1
_FACTS = ("fingerprint", "machine", "versions", "commit", "date", "absent")


@dataclass
class Run:
    """Results of one machine, with what is needed to read them later; ``absent`` says why a library that was asked for could not run."""

    fingerprint: str
    machine: str
    results: list[Result] = field(default_factory=list)
    limits: dict[int, Limits] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    commit: str = ""
    date: str = ""
    absent: dict[str, str] = field(default_factory=dict)

    def merged(self, newer: Run) -> Run:
        """This run with the entries of a newer one in the place of its own."""
        entries = {result.key: result for result in [*self.results, *newer.results]}
        ordered = [entries[key] for key in sorted(entries)]
        absent = {name: why for name, why in {**self.absent, **newer.absent}.items() if not any(name in r.times for r in ordered)}
        return Run(newer.fingerprint, newer.machine, ordered, {**self.limits, **newer.limits}, newer.versions, newer.commit, newer.date,
                   absent)


def new_run(results: list[Result], limits: dict[int, Limits], absent: dict[str, str] | None = None) -> Run:
    """A run of this machine, now."""
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return Run(fingerprint(), description(), results, limits, _versions(), _commit(), now, dict(absent or {}))


def default_path() -> Path:
    """This machine's file among the tracked results."""
    return RESULTS / f"{fingerprint()}.json"


def load(path: Path) -> Run:
    """Reads a run.

    Raises:
        ValueError: the file is not a run of this version.
    """
    data = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(data, dict) or data.get("version") != _VERSION:
        raise ValueError(f"{path} is not a benchmark run of version {_VERSION}")
    return Run(
        data["fingerprint"],
        data["machine"],
        [_result(entry) for entry in data["results"]],
        {int(threads): Limits.from_json(entry) for threads, entry in data["limits"].items()},
        data["versions"],
        data["commit"],
        data["date"],
        data.get("absent", {}),
    )


def save(path: Path, run: Run) -> None:
    """Writes a run, whole or not at all."""
    data = {"version": _VERSION, **{name: getattr(run, name) for name in _FACTS}}
    data["limits"] = {str(threads): limits.to_json() for threads, limits in run.limits.items()}
    data["results"] = [_plain(result) for result in run.results]
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".new")
    draft.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    os.replace(draft, path)


def _plain(result: Result) -> dict[str, Any]:
    data = asdict(result)
    data["errors"] = {name: {what: v for what, v in e.items() if not math.isnan(v)} for name, e in data["errors"].items()}
    for kind in ("times", "into"):
        data[kind] = {name: _rounded(m.to_json()) for name, m in getattr(result, kind).items()}
    return data


def _rounded(measurement: dict[str, Any]) -> dict[str, Any]:
    """Samples to four digits: no clock is better, and the file stays readable."""
    return {**measurement, "samples": [float(f"{sample:.4g}") for sample in measurement["samples"]]}


def _result(data: dict[str, Any]) -> Result:
    times, into = ({name: Measurement.from_json(entry) for name, entry in data.get(kind, {}).items()} for kind in ("times", "into"))
    errors = {name: Error(**{"relative": math.nan, "ulp": math.nan, **entry}) for name, entry in data["errors"].items()}
    return Result(**{**data, "times": times, "into": into, "errors": errors})


def _versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _commit() -> str:
    """The commit measured, with a + when the tree had changes; empty outside a repository."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
