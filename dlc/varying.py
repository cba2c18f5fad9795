"""Sizes that keep changing become arguments of a kernel, instead of being compiled for again and again."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeVar

from dlc.compiler import Plan, Request
from dlc.config import settings
from dsl.bind import bind_sizes
from dsl.dim import Var
from dsl.errors import DlcError

FEW = 3  # values of a size after which it becomes a run-time argument
Made = TypeVar("Made")


class Sizes:
    """Which sizes keep changing: those of which a kernel was compiled for :data:`FEW` values already.

    Attributes:
        fixed: names of sizes that no kernel for all their values can be compiled for.
    """

    def __init__(self) -> None:
        self._seen: dict[str, set[int]] = {}
        self.fixed: frozenset[str] = frozenset()

    def met(self, sizes: Mapping[Var, int]) -> None:
        """A kernel was compiled for these sizes."""
        for v, n in sizes.items():
            self._seen.setdefault(v.name, set()).add(n)

    def changing(self, sizes: Mapping[Var, int]) -> frozenset[str]:
        """The names of sizes that should be run-time arguments of the next kernel; none where one of them is zero."""
        names = frozenset(name for name, seen in self._seen.items() if len(seen) >= FEW) - self.fixed
        return names if all(n for v, n in sizes.items() if v.name in names) else frozenset()


def compile_for(request: Request, sizes: Sizes, make: Callable[[Plan], Made]) -> tuple[Made, bool]:
    """A kernel for all values of the sizes that keep changing, and True; one for the sizes at hand, and False, where there are none.

    Where no kernel for all their values can be compiled (a schedule unrolls a loop over one of them, say), a warning tells which of them
    are fixed from now on, and the others vary.
    """
    values = bind_sizes(request.program, request.shapes)
    changing = sizes.changing(values) if settings().dynamic else frozenset()
    sizes.met(values)
    while changing:
        try:
            return make(Plan(replace(request, dynamic=changing))), True
        except DlcError as e:
            fixed = changing if len(changing) == 1 else {name for name in changing if not _can_vary(request, name)} or changing
            sizes.fixed |= fixed
            changing -= fixed
            warnings.warn(f"dlc: {request.program.name} is compiled for each value of {', '.join(sorted(fixed))} ({e.title})", stacklevel=7)
    return make(Plan(request)), False


def _can_vary(request: Request, name: str) -> bool:
    """Whether a kernel for all values of one size can be compiled."""
    try:
        return bool(Plan(replace(request, dynamic=frozenset((name,)))).tile)
    except DlcError:
        return False
