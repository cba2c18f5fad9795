"""Every setting dlc reads from the environment, typed, in one place; nothing else in dlc reads an environment variable.

Settings are read anew whenever :func:`settings` is called, so a program may set them at any time. Those that make no sense are refused
with the variable's name and what it may be.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from dsl.errors import UserError
from dsl.loc import UNKNOWN

_YES, _NO = ("1", "yes", "true", "on"), ("0", "no", "false", "off")

#: Variable -> what it means, as ``dlc doctor`` and the documentation show it.
VARIABLES: dict[str, str] = {
    "DLC_CACHE_DIR": "where compiled kernels, tuning records and the measured limits of this machine are kept (default: dlc in "
                     "the user's cache directory)",
    "DLC_TARGET": "the CPU target to compile for instead of the best this machine has, by name: x86-64, x86-64-avx2, "
                  "x86-64-avx512, x86-64-avx512-bf16, x86-64-amx, x86-64-amx-fp16, aarch64-neon",
    "DLC_RECORDS": "whether kernels are compiled with the choices that tuning has recorded: on (default) or off",
    "DLC_VERIFY": "when kernels are verified: once, before they are emitted (default), or all, after every pass of the compiler too",
    "DLC_DYNAMIC": "whether a size that keeps changing becomes a run-time argument of one kernel instead of a new kernel each "
                   "time: on (default) or off",
    "DLC_MEMORY": "how much memory of large results is kept for the next ones, as bytes or 512M, 2G (default: an eighth of the machine's)",
    "DLC_CACHE_SIZE": "how much disk the compiled kernels may take, as bytes or 512M, 2G (default: 1G); the least recently used ones go "
                      "first",
    "DLC_POISON": "whether results and scratch hold garbage before a kernel writes them, to show what it forgets: off (default) or on",
    "DLC_JOBS": "how many processes compile at a time while tuning (default: one for each core this process may use)",
}


_PLACES = ("DLC_CACHE_DIR", "XDG_CACHE_HOME", "HOME")
_READ = tuple(dict.fromkeys((*VARIABLES, *_PLACES)))


@dataclass(frozen=True)
class Settings:
    """The settings as they stand.

    Attributes:
        cache_dir: see DLC_CACHE_DIR.
        target: see DLC_TARGET; empty for the best of this machine.
        records: see DLC_RECORDS.
        jobs: see DLC_JOBS.
        verify_all: see DLC_VERIFY.
        dynamic: see DLC_DYNAMIC.
        memory: see DLC_MEMORY; None for the default.
        cache_size: see DLC_CACHE_SIZE.
        poison: see DLC_POISON.
    """

    cache_dir: Path
    target: str = ""
    records: bool = True
    jobs: int = 1
    verify_all: bool = False
    dynamic: bool = True
    memory: int | None = None
    cache_size: int = 1 << 30
    poison: bool = False


def settings(environment: Mapping[str, str] | None = None) -> Settings:
    """The settings of an environment; of this process when None.

    Raises:
        UserError: a variable has a value that it may not have.
    """
    if environment is None:
        return _settings(tuple(map(os.environ.get, _READ)), cpus())
    env = environment
    return Settings(_cache_dir(env), env.get("DLC_TARGET", ""), _flag(env, "DLC_RECORDS", True), _count(env, "DLC_JOBS", cpus()),
                    _choice(env, "DLC_VERIFY", ("once", "all")) == "all",
                    _flag(env, "DLC_DYNAMIC", True), _bytes(env, "DLC_MEMORY", None), _bytes(env, "DLC_CACHE_SIZE", 1 << 30) or 0,
                    _flag(env, "DLC_POISON", False))


@functools.lru_cache(16)
def _settings(values: tuple[str | None, ...], cores: int) -> Settings:
    """The settings of the variables' values, in the order of :data:`_READ`; they are asked for many times and seldom change."""
    return settings({name: value for name, value in zip(_READ, values) if value is not None})


def given() -> dict[str, str]:
    """The variables that are set, as they are."""
    return {name: os.environ[name] for name in VARIABLES if name in os.environ}


def cache_dir() -> Path:
    """Where everything that outlives the process is kept."""
    return _kept(*map(os.environ.get, _PLACES))


def cpus() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.lru_cache(16)
def _kept(*values: str | None) -> Path:
    return _cache_dir({name: value for name, value in zip(_PLACES, values) if value is not None})


def _cache_dir(env: Mapping[str, str]) -> Path:
    own = env.get("DLC_CACHE_DIR")
    return Path(own) if own else Path(env.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dlc"


def _flag(env: Mapping[str, str], name: str, default: bool) -> bool:
    value = env.get(name, "").strip().lower()
    if value in _YES or value in _NO:
        return value in _YES
    if value:
        _refuse(env, name, f"{_YES[-1]} or {_NO[-1]}")
    return default


def _choice(env: Mapping[str, str], name: str, words: tuple[str, ...]) -> str:
    value = env.get(name, "").strip().lower() or words[0]
    if value not in words:
        _refuse(env, name, " or ".join(words))
    return value


def _count(env: Mapping[str, str], name: str, default: int) -> int:
    value = env.get(name, "").strip()
    if not value:
        return default
    if not value.isdecimal() or int(value) < 1:
        _refuse(env, name, "a number of at least 1")
    return int(value)


def _bytes(env: Mapping[str, str], name: str, default: int | None) -> int | None:
    value = env.get(name, "").strip().upper().removesuffix("B").removesuffix("I")
    if not value:
        return default
    shift = {"K": 10, "M": 20, "G": 30, "T": 40}.get(value[-1], 0)
    number = value[:-1] if shift else value
    if not number.isdecimal():
        _refuse(env, name, "a number of bytes, as 1000000, 512M or 2G")
    return int(number) << shift


def _refuse(env: Mapping[str, str], name: str, remedy: str) -> NoReturn:
    raise UserError(f"the environment variable {name} is {env[name]!r}", VARIABLES[name], f"unset it, or set it to {remedy}", UNKNOWN)
