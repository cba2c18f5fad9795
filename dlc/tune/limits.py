"""The limits of this machine, measured: multiply-adds a second, and bytes a second from each level of memory.

They bound what any kernel can reach, so a time can be told as a share of the possible. Measured once for each thread
count, in about a second, and kept on disk under the machine's fingerprint.
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from dlc.config import cache_dir, cpus
from dlc.host import cache_bytes, description, fingerprint
from dlc.tune.probes import PROBED_DTYPES, FmaProbe, MemoryProbe, fma_probe, memory_probe

LEVELS = ("L1", "L2", "L3", "DRAM")
KINDS = ("read", "write", "copy")
_VERSION = 1
_REPEATS, _SAMPLE_SECONDS = 20, 2e-3  # many short ones: some are undisturbed
_ALIGN = 4096


@dataclass(frozen=True)
class Limits:
    """What ``threads`` threads of this machine can do at most.

    ``fma_gflops[dtype]`` counts a multiply-add as two operations. ``traffic_gbs[level][kind]`` is in 10^9 bytes a second
    with the data spread over the threads; a copy counts what it reads and what it writes. ``bandwidth_gbs[level]`` is the
    faster of reading and copying: what a kernel that has operands can hope for.
    """

    threads: int
    fma_gflops: dict[str, float]
    bandwidth_gbs: dict[str, float]
    traffic_gbs: dict[str, dict[str, float]]
    machine: str = ""
    instructions: dict[str, str] | None = None

    def seconds(self, flops: float, moved: float, dtype: str = "f32", level: str = "DRAM") -> float:
        """The shortest time in which ``flops`` operations and ``moved`` bytes are possible."""
        return max(flops / (self.gflops(dtype) * 1e9), moved / (self.bandwidth_gbs[level] * 1e9))

    def gflops(self, dtype: str) -> float:
        """The peak for a dtype; that of f32 for those computed in f32."""
        return self.fma_gflops.get(dtype, self.fma_gflops["f32"])

    def level_of(self, size: float) -> str:
        """The smallest level that holds ``size`` bytes spread over the threads."""
        caches = cache_bytes()
        for name in ("L1", "L2"):
            if size <= caches[name] * self.threads:
                return name
        return "L3" if size <= caches["L3"] else "DRAM"

    def joined(self, other: Limits) -> Limits:
        """The better figure of two measurements of the same machine."""
        traffic = {level: _better(kinds, other.traffic_gbs.get(level, {})) for level, kinds in self.traffic_gbs.items()}
        bandwidth = _better(self.bandwidth_gbs, other.bandwidth_gbs)
        return replace(other, fma_gflops=_better(self.fma_gflops, other.fma_gflops), bandwidth_gbs=bandwidth, traffic_gbs=traffic)

    def to_json(self) -> dict[str, Any]:
        """Plain data; :meth:`from_json` reads it back."""
        return {"version": _VERSION, **asdict(self)}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Limits:
        """The limits that :meth:`to_json` wrote.

        Raises:
            ValueError: another version wrote them.
        """
        if data.get("version") != _VERSION:
            raise ValueError(f"limits of version {data.get('version')}, expected {_VERSION}")
        return Limits(**{name: value for name, value in data.items() if name != "version"})


def machine_limits(threads: int | None = None, *, refresh: bool = False) -> Limits:
    """The limits for a thread count, from disk when this machine has measured them before.

    Args:
        threads: all cores this process may use when None.
        refresh: measure again, and keep the better of the old and the new figure: a limit is the best ever seen, and a
            busy machine shows less.
    """
    count = threads or cpus()
    path = cache_dir() / "limits" / f"{fingerprint()}-t{count}.json"
    known = _load(path)
    if known is None or refresh:
        measured = measure_limits(count)
        known = measured if known is None else known.joined(measured)
        _store(path, known)
    return known


def measure_limits(threads: int) -> Limits:
    """Measures now: the best of a few short runs of each probe, on all threads at once."""
    probes = {dtype: fma_probe(dtype) for dtype in PROBED_DTYPES}
    fma = {dtype: _fma_gflops(probe, threads) for dtype, probe in probes.items()}
    buffers = _buffers(threads)
    traffic = {level: {kind: _bandwidth(level, kind, threads, buffers) for kind in KINDS} for level in LEVELS}
    return Limits(
        threads=threads,
        fma_gflops=fma,
        bandwidth_gbs={level: max(kinds["read"], kinds["copy"]) for level, kinds in traffic.items()},
        traffic_gbs=traffic,
        machine=description(),
        instructions={dtype: probe.instruction for dtype, probe in probes.items()},
    )


def _better(a: Mapping[str, float], b: Mapping[str, float]) -> dict[str, float]:
    return {name: max(a.get(name, 0.0), b.get(name, 0.0)) for name in {**a, **b}}


def _fma_gflops(probe: FmaProbe, threads: int) -> float:
    calls = _calibrate(probe.run)
    seconds = _fastest(lambda _: probe.run(calls), threads)
    return threads * calls * probe.flops / seconds / 1e9


def _bandwidth(level: str, kind: str, threads: int, buffers: np.ndarray) -> float:
    """The best of ordinary and streaming stores; streaming ones only where the target does not fit a cache."""
    streaming = (False, True) if level == "DRAM" and kind != "read" else (False,)
    return max(_traffic(memory_probe(kind, s), _bytes_per_thread(level, threads), threads, buffers) for s in streaming)


def _traffic(probe: MemoryProbe, size: int, threads: int, buffers: np.ndarray) -> float:
    """10^9 bytes a second when each thread walks its own ``size`` bytes, two halves of them for a copy."""
    span = size // probe.moved // probe.step * probe.step

    sources = [_address(row) for row in buffers]
    apart = _round_up(span) if probe.moved == 2 else 0

    def walk(thread: int, repeats: int) -> None:
        probe.run(sources[thread], sources[thread] + apart, span, repeats)

    repeats = _calibrate(lambda n: walk(0, n))
    seconds = _fastest(lambda thread: walk(thread, repeats), threads)
    return threads * repeats * span * probe.moved / seconds / 1e9


def _bytes_per_thread(level: str, threads: int) -> int:
    """Well inside the level and well outside the one below."""
    caches = cache_bytes()
    if level in ("L1", "L2"):
        return caches[level] // 2
    if level == "L3":
        return max(caches["L3"] // 2 // threads, min(2 * caches["L2"], caches["L3"] // threads))
    return max(4 * caches["L3"] // threads, 2 * caches["L2"])


def _buffers(threads: int) -> np.ndarray:
    """A row of memory for each thread, written once so that its pages exist."""
    row = _round_up(_bytes_per_thread("DRAM", threads)) + 3 * _ALIGN
    return np.ones((threads, row), dtype=np.uint8)


def _address(row: np.ndarray) -> int:
    return _round_up(row.ctypes.data)


def _round_up(n: int) -> int:
    return (n + _ALIGN - 1) // _ALIGN * _ALIGN


def _calibrate(run: Callable[[int], Any]) -> int:
    """How often to run for one sample."""
    run(1)
    n = 1
    while True:
        started = time.perf_counter()
        run(n)
        elapsed = time.perf_counter() - started
        if elapsed > _SAMPLE_SECONDS / 8:
            return max(1, int(n * _SAMPLE_SECONDS / elapsed))
        n *= 8


def _fastest(work: Callable[[int], Any], threads: int) -> float:
    """Seconds from the common start until the last of the threads is done, at best."""
    if threads == 1:
        return min(_seconds_alone(work) for _ in range(_REPEATS))
    return min(_seconds_together(work, threads) for _ in range(_REPEATS))


def _seconds_alone(work: Callable[[int], Any]) -> float:
    started = time.perf_counter()
    work(0)
    return time.perf_counter() - started


def _seconds_together(work: Callable[[int], Any], threads: int) -> float:
    """Each thread notes its own times: what the interpreter needs to wake them is not the machine's limit."""
    gate = threading.Barrier(threads)
    times = np.zeros((threads, 2))

    def body(thread: int) -> None:
        gate.wait()
        times[thread, 0] = time.perf_counter()
        work(thread)
        times[thread, 1] = time.perf_counter()

    workers = [threading.Thread(target=body, args=(n,)) for n in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return float(times[:, 1].max() - times[:, 0].min())


@cache
def _load_text(path: Path, stamp: int) -> Limits | None:
    try:
        return Limits.from_json(dict(json.loads(path.read_text())))
    except (OSError, ValueError, TypeError):
        return None  # damaged or of another version: measured again


def _load(path: Path) -> Limits | None:
    try:
        return _load_text(path, path.stat().st_mtime_ns)
    except OSError:
        return None


def _store(path: Path, limits: Limits) -> None:
    """Whole or not at all; a cache that cannot be written costs a second next time and no more."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
            json.dump(limits.to_json(), file, indent=1)
        os.replace(file.name, path)
    except OSError:
        return
