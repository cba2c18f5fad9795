"""Tuning records on disk: what was measured, where and with what, and the choices that won.

A record belongs to a :class:`Key`: the mathematics of a program (its canonical digest, so no name or place in a file), the shapes and
strides of its arguments, the target with the fingerprint of the machine, and the number of threads. Each is a file of its own, written
whole under a temporary name and renamed, so processes that tune the same kernel at the same time leave one complete record: the last.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from dlc.config import cache_dir
from dsl.errors import RecordError
from dsl.loc import UNKNOWN

FORMAT = 1
_reported: set[str] = set()
_unsaved: dict[Key, Record] = {}  # what a disk refused, for the rest of this process


@dataclass(frozen=True)
class Key:
    """What a record is about.

    Attributes:
        program: canonical digest of the program, sizes symbolic.
        shapes, strides: of each argument; strides in elements.
        target: name of the target.
        machine: fingerprint of the machine it was measured on; empty where nothing was measured (a GPU that is not here).
        threads: threads it was measured with.
    """

    program: str
    shapes: tuple[tuple[int, ...], ...]
    strides: tuple[tuple[int, ...], ...]
    target: str
    machine: str
    threads: int

    @property
    def file(self) -> str:
        """The name of the record's file; those of one program begin alike."""
        rest = json.dumps([self.shapes, self.strides, self.target, self.machine, self.threads])
        return f"{self.program[:32]}-{hashlib.sha256(rest.encode()).hexdigest()[:16]}.json"


@dataclass(frozen=True)
class Record:
    """One finished search.

    Attributes:
        key: what it is about.
        name: the kernel's name, for reading.
        decisions: the choices that won, by name; empty when the heuristics' own were not beaten.
        seconds: raw samples of the confirmation, in seconds: ``default``, ``tuned``, and those of the peers by name.
        ratio: time of the default over time of the tuned schedule, as confirmed.
        data: errors of each against float64 and the bound of the chosen order, by kind of data: see :mod:`dlc.tune.exactness`.
        schedule: the schedule's trace where there is one, else the loop nest as text.
        code: digest of the generated code.
        confirmed: whether ``seconds`` come from a fresh process; not so when the user stopped the search.
        reproducible: whether only schedules with the bits of the default one were admitted.
        order: the order of every reduction of the chosen schedule, see :mod:`dsl.order`.
        versions: of everything that decides the code and its speed.
        when: seconds since 1970.
        budget, candidates: what the search was allowed, and how many it tried.
        reasons: of every candidate by number: why it lost, or what bounds it; for a GPU that was not there.
        operands: where they were when calls were timed: ``cold``, ``warm``, or ``both`` (the geometric mean).
    """

    key: Key
    name: str
    decisions: Mapping[str, Any]
    seconds: Mapping[str, Sequence[float]]
    ratio: float
    data: Mapping[str, Any] = field(default_factory=dict)
    schedule: Any = ""
    code: str = ""
    confirmed: bool = True
    reproducible: bool = True
    order: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    when: float = 0.0
    budget: float = 0.0
    candidates: int = 0
    reasons: Mapping[str, str] = field(default_factory=dict)
    operands: str = "cold"

    def __post_init__(self) -> None:
        object.__setattr__(self, "schedule", plain(self.schedule))  # as it will be when it is read back

    def to_json(self) -> dict[str, Any]:
        """Plain data; :meth:`from_json` reads it back."""
        return asdict(self)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Record:
        """The record that :meth:`to_json` wrote.

        Raises:
            ValueError: something is missing or not of its kind.
        """
        try:
            key = data["key"]
            shapes, strides = (tuple(tuple(int(n) for n in s) for s in key[what]) for what in ("shapes", "strides"))
            own = Key(str(key["program"]), shapes, strides, str(key["target"]), str(key["machine"]), int(key["threads"]))
            rest = {f.name: plain(data[f.name]) for f in fields(Record) if f.name in data and f.name != "key"}
            return Record(own, **rest)
        except (KeyError, TypeError, AttributeError) as e:
            raise ValueError(f"not a tuning record: {e!r}") from e


def directory() -> Path:
    """Where records lie."""
    return cache_dir() / "records"


def save(record: Record) -> bool:
    """Write a record, replacing an older one of the same key; False, with a warning, when the disk refuses."""
    path = directory() / record.key.file
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, json.dumps(_sealed(record), indent=1))
    except OSError as e:
        _unsaved[record.key] = record
        _warn(str(path.parent), f"cannot write tuning records in {path.parent} ({e.strerror}); what was tuned is kept in this process only")
        return False
    _unsaved.pop(record.key, None)
    return True


def find(key: Key) -> Record | None:
    """The record of a key; None when there is none, or it is damaged (then a warning says so once)."""
    path = directory() / key.file
    record = _unsaved.get(key) or _read(path)
    return record if record is not None and record.key == key else None


def all_records() -> list[Record]:
    """Every readable record, in the order of their files' names."""
    return [r for r in map(_read, _files()) if r is not None]


def similar(key: Key) -> list[Record]:
    """Records of the same program on the same target at other shapes, strides or threads."""
    paths = [p for p in _files() if p.name.startswith(key.program[:32])]
    return [r for r in map(_read, paths) if r is not None and r.key != key and r.key.program == key.program and r.key.target == key.target]


def remove(key: Key) -> bool:
    """Remove the record of a key; False when there was none.

    Raises:
        RecordError: the disk refuses.
    """
    unsaved = _unsaved.pop(key, None)
    try:
        (directory() / key.file).unlink()
    except FileNotFoundError:
        return unsaved is not None
    except OSError as e:
        raise RecordError("cannot remove a tuning record", f"{directory()}: {e.strerror}", loc=UNKNOWN) from e
    return True


def clear() -> int:
    """Remove every record, damaged ones too; returns how many.

    Raises:
        RecordError: the disk refuses.
    """
    paths = list(_files())
    _unsaved.clear()
    try:
        for path in paths:
            path.unlink(missing_ok=True)
    except OSError as e:
        raise RecordError("cannot remove tuning records", f"{directory()}: {e.strerror}", loc=UNKNOWN) from e
    return len(paths)


def export(path: str | Path, records: Iterable[Record] | None = None) -> int:
    """Write records (all of them when None) to one file, one a line; returns how many.

    Raises:
        RecordError: the file cannot be written.
    """
    chosen = all_records() if records is None else list(records)
    try:
        Path(path).resolve().parent.mkdir(parents=True, exist_ok=True)
        _write(Path(path).resolve(), "".join(json.dumps(_sealed(r)) + "\n" for r in chosen))
    except OSError as e:
        raise RecordError(f"cannot write {path}", e.strerror or str(e), loc=UNKNOWN) from e
    return len(chosen)


def import_(path: str | Path) -> int:
    """Take over the records of an exported file, replacing those of the same keys; returns how many.

    Raises:
        RecordError: the file cannot be read, a line of it is damaged (then nothing is taken over), or the disk refuses.
    """
    try:
        lines = Path(path).read_text().splitlines()
    except (OSError, UnicodeDecodeError) as e:
        raise RecordError(f"cannot read {path}", str(e), loc=UNKNOWN) from e
    records = []
    for n, line in enumerate(lines, 1):
        try:
            records.append(_opened(line))
        except ValueError as e:
            raise RecordError(f"line {n} of {path} is not a tuning record", str(e), "export the records again", UNKNOWN) from e
    if not all([save(r) for r in records]):
        raise RecordError("not every record could be kept", f"{directory()} cannot be written",
                          "set DLC_CACHE_DIR to a directory that can", UNKNOWN)
    return len(records)


# -- files ---------------------------------------------------------------------------------------------------------
def _files() -> Iterator[Path]:
    yield from sorted(directory().glob("*.json"))


def _sealed(record: Record) -> dict[str, Any]:
    body = record.to_json()
    return {"dlc record": FORMAT, "sha256": _checksum(body), "record": body}


def _checksum(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _opened(text: str) -> Record:
    """The record in a text.

    Raises:
        ValueError: damaged, or of another format.
    """
    data = json.loads(text)
    if not isinstance(data, dict) or data.get("dlc record") != FORMAT:
        raise ValueError("not of this format")
    if _checksum(data.get("record") or {}) != data.get("sha256"):
        raise ValueError("its checksum does not match")
    return Record.from_json(data["record"])


def _read(path: Path) -> Record | None:
    try:
        text = path.read_text()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as e:
        _warn(str(path), f"cannot read the tuning record {path} ({e}); the kernel is compiled untuned")
        return None
    try:
        return _opened(text)
    except ValueError as e:
        _warn(str(path), f"the tuning record {path} is damaged ({e}); the kernel is compiled untuned. Tune it again, or remove the file")
        return None


def _write(path: Path, text: str) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".writing-")
    try:
        with os.fdopen(handle, "w") as f:
            f.write(text)
        os.replace(temporary, path)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
        raise


def _warn(about: str, text: str) -> None:
    """One warning for each thing and process."""
    if about not in _reported:
        _reported.add(about)
        warnings.warn(f"dlc: {text}", stacklevel=3)


def plain(value: Any) -> Any:
    """JSON's lists as the tuples they were."""
    if isinstance(value, dict):
        return {str(name): plain(v) for name, v in value.items()}
    return tuple(plain(v) for v in value) if isinstance(value, (list, tuple)) else value
