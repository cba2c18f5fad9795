"""``dlc doctor``: what is installed, what this machine has, and whether kernels run right on it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from codegen.target import TARGETS
from dlc import cache, records
from dlc.config import cache_dir, given, settings
from dlc.host import cache_bytes, description, fingerprint
from dlc.kernel import Kernel
from dlc.runtime.cpu import openmp
from dlc.runtime.device import host_features, host_target
from dlc.runtime.direct import unserved
from dlc.tune.accuracy import error
from dsl.dtype import f32
from dsl.errors import DlcError, UserError
from dsl.ops.norm import softmax

_PACKAGES = ("dlc", "torch", "triton", "llvmlite", "numpy", "ml-dtypes", "scikit-learn")
_TELLING = ("avx2", "fma", "avx512f", "avx512bf16", "avx512fp16", "avx512vnni", "amx-tile", "amx-bf16", "amx-int8", "neon", "sve")
_TOLERANCE = 1e-5


def examine() -> dict[str, Any]:
    """Everything as plain data; ``problems`` says what is wrong, one sentence each."""
    problems: list[str] = []
    facts: dict[str, Any] = {
        "versions": {"python": platform.python_version(), **{p: _version(p) for p in _PACKAGES}},
        "platform": platform.platform(),
        "cpu": {"name": description(), "features": [f for f in _TELLING if f in host_features()], "caches": cache_bytes(),
                "fingerprint": fingerprint()},
        "target": _target(problems),
        "targets": sorted(TARGETS),
        "gpu": [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())] if torch.cuda.is_available() else [],
        "gpu_compiler": importlib.util.find_spec("triton") is not None,
        "calls": _calls(problems),
        "threads": {"torch": torch.get_num_threads(), "openmp": _openmp(problems)},
        "settings": _settings(problems),
        "cache": _cache(problems),
    }
    facts["check"] = _check(problems)
    return {**facts, "problems": problems}


def render(facts: dict[str, Any]) -> str:
    """The facts for reading."""
    caches = ", ".join(f"{level} {size >> 10} KiB" for level, size in facts["cpu"]["caches"].items())
    rows = [
        ("versions", ", ".join(f"{n} {v or 'missing'}" for n, v in facts["versions"].items())),
        ("processor", f"{facts['cpu']['name']}; {caches}; {' '.join(facts['cpu']['features'])}"),
        ("target", facts["target"] or "none"),
        ("compiles for", ", ".join(facts["targets"]) + ("" if facts["gpu_compiler"] else " (no triton: GPU targets as source only)")),
        ("GPU", ", ".join(facts["gpu"]) or "none here"),
        ("threads", f"{facts['threads']['torch']} on {facts['threads']['openmp'] or 'no shared pool: kernels run on one thread'}"),
        ("calls", facts["calls"]),
        ("cache", f"{facts['cache']['directory']}: {facts['cache']['kernels']} kernels in {facts['cache']['bytes'] / 1e6:.1f} MB"
                  f" of {facts['cache']['limit'] / 1e6:.0f}, {facts['cache']['records']} tuning records"),
        ("settings", ", ".join(f"{n}={v}" for n, v in facts["settings"].items()) or "none set"),
        ("self-check", facts["check"]),
    ]
    lines = [f"{name:13} {text}" for name, text in rows]
    return "\n".join([*lines, *(f"problem       {p}" for p in facts["problems"])] if facts["problems"] else [*lines, "no problems found"])


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _target(problems: list[str]) -> str | None:
    try:
        return host_target().name
    except DlcError as e:
        problems.append(f"{e.title}: {e.reason}")
        return None


def _openmp(problems: list[str]) -> str | None:
    library = openmp()
    if library is None:
        problems.append("torch has no GNU OpenMP library loaded, so kernels run on one thread")
        return None
    return os.path.basename(str(library._name))


def _calls(problems: list[str]) -> str:
    why = unserved()
    if why:
        problems.append(f"calls go through Python, which takes some microseconds more: {why}")
        return "in Python"
    return "in machine code"


def _settings(problems: list[str]) -> dict[str, str]:
    try:
        settings()
    except DlcError as e:
        problems.append(e.title)
    return given()


def _cache(problems: list[str]) -> dict[str, Any]:
    directory = cache_dir()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            writable = True
    except OSError as e:
        problems.append(
            f"{directory} cannot be written ({e.strerror}): kernels are compiled anew in every process, and tuning is forgotten")
        writable = False
    try:
        kept = cache.stats()
    except UserError:  # a setting that makes no sense, told among the problems
        kept = cache.Stats(directory, _files(directory / "objects"), 0, 0)
    return {"directory": str(directory), "writable": writable, "kernels": kept.artifacts, "bytes": kept.bytes, "limit": kept.limit,
            "records": _files(records.directory())}


def _files(directory: Path) -> int:
    return sum(p.is_file() and not p.name.startswith(".") for p in directory.rglob("*")) if directory.is_dir() else 0


def _check(problems: list[str]) -> str:
    """A row-normalised product on every thread, compiled and held against float64."""
    rows, columns, inner = 65, 129, 33
    started = time.perf_counter()
    try:
        kernel = Kernel(_definition(rows, columns, inner))
        x, w = torch.randn(rows, inner), torch.randn(inner, columns)
        got = kernel(x, w)
        off = error(got, kernel.reference(x, w)).relative
    except DlcError as e:
        problems.append(f"the self-check failed: {e.title}")
        return "failed"
    except Exception as e:  # a crash here is what the command is for
        problems.append(f"the self-check failed: {type(e).__name__}: {e}")
        return "failed"
    if not off < _TOLERANCE:
        problems.append(f"the self-check is wrong by {off:.1e}")
    return f"softmax of a product, error {off:.1e} against float64, {time.perf_counter() - started:.2f} s with compiling"


def _definition(rows: int, columns: int, inner: int) -> Any:
    def check(x, w):
        return softmax(x @ w, 1)

    check.__annotations__ = {"x": f32[rows, inner], "w": f32[inner, columns]}
    return check
