"""Compiled kernels on disk, by content: safe against concurrent processes, damage, full and read-only disks."""

from __future__ import annotations

import hashlib
import os
import tempfile
import warnings

from dlc.config import cache_dir

_MAGIC = b"dlc cache 1\n"
_warned = False


def key(*parts: str) -> str:
    """A digest of everything that decides the artifact."""
    h = hashlib.sha256()
    for p in parts:
        data = p.encode()
        h.update(len(data).to_bytes(8, "little") + data)
    return h.hexdigest()


def get(name: str) -> bytes | None:
    """The artifact called ``name``; None when there is none, or it is damaged (then it is removed)."""
    path = cache_dir() / "objects" / name[:2] / name
    try:
        raw = path.read_bytes()
    except OSError:
        return None
    head, digest, body = raw[:len(_MAGIC)], raw[len(_MAGIC):len(_MAGIC) + 32], raw[len(_MAGIC) + 32:]
    if head == _MAGIC and hashlib.sha256(body).digest() == digest:
        return body
    try:
        path.unlink()
    except OSError:
        pass
    return None


def put(name: str, body: bytes) -> None:
    """Store an artifact by writing a temporary file and renaming it; a disk that refuses costs one warning, never an error."""
    global _warned
    path = cache_dir() / "objects" / name[:2] / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent)
        with os.fdopen(handle, "wb") as f:
            f.write(_MAGIC + hashlib.sha256(body).digest() + body)
        os.replace(temporary, path)
    except OSError as e:
        if not _warned:
            _warned = True
            warnings.warn(f"dlc: cannot write the kernel cache in {cache_dir()} ({e.strerror}); kernels are compiled anew in every process", stacklevel=2)
