"""Compiled kernels on disk, by content: safe against concurrent processes, damage, full and read-only disks; bounded.

An artifact is a file of its own, written whole under a temporary name and renamed, with a checksum. What does not read back as it was
written is removed and compiled again. When all of them take more than ``DLC_CACHE_SIZE``, those used longest ago go.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache as once
from pathlib import Path

from dlc.config import cache_dir, settings

_MAGIC = b"dlc cache 2\n"
_SOURCES = ("dsl", "codegen", "dlc/runtime", "dlc/compiler.py")
_EVERY = 64  # artifacts written between two looks at how much there is
_ROOM = 0.8  # of the bound that is kept when it is passed
_FRESH = 60.0  # seconds within which a use need not be noted again
_warned: set[str] = set()
_written = 0


@dataclass(frozen=True)
class Stats:
    """What lies on disk.

    Attributes:
        directory: where.
        artifacts: how many compiled kernels.
        bytes: what they take.
        limit: what they may take.
    """

    directory: Path
    artifacts: int
    bytes: int
    limit: int


def key(*parts: str) -> str:
    """A digest of everything that decides the artifact."""
    h = hashlib.sha256()
    for p in parts:
        data = p.encode()
        h.update(len(data).to_bytes(8, "little") + data)
    return h.hexdigest()


@once
def version() -> str:
    """A digest of the compiler itself: other sources make other artifacts, released or not."""
    root = Path(__file__).resolve().parents[1]
    facts = sorted(fact for name in _SOURCES for fact in _facts(root / name))
    return hashlib.sha256(repr(facts).encode()).hexdigest()


def get(name: str) -> bytes | None:
    """The artifact called ``name``; None when there is none, or it is damaged (then it is removed)."""
    path = _path(name)
    try:
        raw = path.read_bytes()
    except OSError:
        return None
    head, digest, body = raw[:len(_MAGIC)], raw[len(_MAGIC):len(_MAGIC) + 32], raw[len(_MAGIC) + 32:]
    if head == _MAGIC and hashlib.sha256(body).digest() == digest:
        _note_use(path)
        return body
    try:
        path.unlink()
    except OSError:
        pass
    return None


def put(name: str, body: bytes) -> None:
    """Store an artifact; a disk that refuses costs one warning, never an error."""
    global _written
    path = _path(name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, _MAGIC + hashlib.sha256(body).digest() + body)
    except OSError as e:
        _warn(f"cannot write the kernel cache in {cache_dir()} ({e.strerror}); kernels are compiled anew in every process")
        return
    if _written % _EVERY == 0:
        shrink()
    _written += 1


def shrink(limit: int | None = None) -> int:
    """Remove what was used longest ago while all artifacts take more than ``limit`` bytes (the setting when None); returns how many."""
    bound = settings().cache_size if limit is None else limit
    found = sorted(_artifacts(), key=lambda a: a[1])
    total, removed = sum(size for _, _, size in found), 0
    if total <= bound:
        return 0
    for path, _, size in found:
        if total <= bound * _ROOM:
            break
        try:
            path.unlink(missing_ok=True)
        except OSError:
            continue
        total -= size
        removed += 1
    return removed


def stats() -> Stats:
    """What lies on disk."""
    found = list(_artifacts())
    return Stats(_directory(), len(found), sum(size for _, _, size in found), settings().cache_size)


def clear() -> int:
    """Remove every artifact; returns how many."""
    return shrink(-1)


# -- files ---------------------------------------------------------------------------------------------------------
def _directory() -> Path:
    return cache_dir() / "objects"


def _path(name: str) -> Path:
    return _directory() / name[:2] / name


def _artifacts() -> Iterator[tuple[Path, float, int]]:
    """(path, time of last use, bytes) of each, and of what a process that died while writing left behind."""
    try:
        paths = list(_directory().glob("*/*"))
    except OSError:
        return
    for path in paths:
        try:
            facts = path.stat()
        except OSError:
            continue
        yield path, facts.st_mtime, facts.st_size


def _facts(path: Path) -> Iterator[tuple[str, int, int]]:
    if path.is_file():
        facts = path.stat()
        yield str(path), facts.st_mtime_ns, facts.st_size
        return
    for entry in os.scandir(path):
        if entry.is_dir():
            yield from _facts(Path(entry.path))
        elif entry.name.endswith(".py"):
            facts = entry.stat()
            yield entry.path, facts.st_mtime_ns, facts.st_size


def _note_use(path: Path) -> None:
    try:
        if time.time() - path.stat().st_mtime > _FRESH:
            os.utime(path)
    except OSError:
        pass  # a disk that cannot be written: nothing is removed from it either


def _write(path: Path, data: bytes) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as f:
            f.write(data)
        os.replace(temporary, path)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
        raise


def _warn(text: str) -> None:
    """One warning for each thing and process."""
    if text not in _warned:
        _warned.add(text)
        warnings.warn(f"dlc: {text}", stacklevel=3)
