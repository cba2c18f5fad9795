"""The machine this process runs on, as a target."""

from __future__ import annotations

import functools
from dataclasses import replace

from codegen.target import Target, by_name
from dlc.config import cpus, settings
from dlc.host import cache_bytes
from dlc.lazy import lazy
from dlc.runtime.tiles import tiles_granted
from dsl.errors import TargetError

llvm = lazy("llvmlite.binding")

_PREFERRED = ("x86-64-amx-fp16", "x86-64-amx", "x86-64-avx512-bf16", "x86-64-avx512", "x86-64-avx2", "x86-64", "aarch64-neon")


@functools.cache
def host_features() -> frozenset[str]:
    """The names of the instruction sets this process may use, in LLVM's words: those of the processor, tile registers if granted."""
    found = frozenset(name for name, on in llvm.get_host_cpu_features().items() if on)
    if "amx-tile" in found and not tiles_granted():
        found = frozenset(name for name in found if not name.startswith("amx-"))
    return found


@functools.cache
def host_target(name: str = "") -> Target:
    """The best target this machine can run, with its own caches and cores; ``name`` (or DLC_TARGET) forces one.

    Raises:
        TargetError: the named target is unknown, or this machine lacks one of its instruction sets.
    """
    wanted = name or settings().target
    for candidate in (wanted,) if wanted else _PREFERRED:
        t = by_name(candidate)
        missing = sorted(set(t.features) - host_features())
        if not missing:
            sizes = cache_bytes()
            levels = tuple(sizes.get(n, default) for n, default in zip(("L1", "L2", "L3"), t.caches))
            return replace(t, caches=levels, threads=cpus())
        if wanted:
            raise TargetError(f"this machine cannot run {wanted}", f"it lacks {', '.join(missing)}",
                              "leave DLC_TARGET unset to take the best it has")
    raise TargetError("this machine's processor is not supported", remedy="x86-64 and AArch64 are")
