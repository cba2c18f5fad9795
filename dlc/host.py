"""Facts about the machine that measuring needs: its cache sizes, its name, its fingerprint."""

from __future__ import annotations

import hashlib
import platform
from functools import cache
from pathlib import Path

from dlc.config import cpus

_DEFAULT_CACHES = {"L1": 32 << 10, "L2": 1 << 20, "L3": 32 << 20}


@cache
def cache_bytes() -> dict[str, int]:
    """Bytes of one L1 data cache, one L2 and one L3; a typical size where the system does not say."""
    sizes = dict(_DEFAULT_CACHES)
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            level, kind, size = ((index / name).read_text().strip() for name in ("level", "type", "size"))
        except OSError:
            continue
        if kind != "Instruction" and f"L{level}" in sizes and size[:-1].isdigit():
            sizes[f"L{level}"] = int(size[:-1]) << {"K": 10, "M": 20}.get(size[-1], 0)
    return sizes


@cache
def fingerprint() -> str:
    """A short name of this kind of machine: the same for two machines whose measurements may be compared."""
    model = " ".join(_cpu_facts().get(key, "") for key in ("vendor_id", "cpu family", "model", "model name", "stepping"))
    facts = (platform.machine(), model, str(cpus()), repr(sorted(cache_bytes().items())))
    return f"{platform.machine()}-{hashlib.sha256('|'.join(facts).encode()).hexdigest()[:10]}"


def description() -> str:
    """The processor in words, with the cores this process has."""
    return f"{_cpu_facts().get('model name') or platform.machine()}, {cpus()} cores"


@cache
def _cpu_facts() -> dict[str, str]:
    """What the system says of its last processor: name, family, stepping; empty where it says nothing."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return {}
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
