"""Sizes that keep changing become arguments of a kernel, instead of being compiled for again and again."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Generic, Protocol, TypeVar

from dlc.compiler import Plan, Request, specialize
from dlc.config import settings
from dsl.bind import bind_sizes
from dsl.cost import bytes_moved, flops
from dsl.dim import Var
from dsl.errors import BoundsError, DlcError
from dsl.program import Program

FEW = 3  # values of a size after which it becomes a run-time argument
NEAR = 3  # times smaller or larger than the size a kernel was scheduled for, and its schedule still suits
MOST = 32  # kernels for changing sizes, of arguments laid out alike
_COMPILING = 0.1  # seconds that compiling takes, about
_RATE, _BANDWIDTH = 5e10, 1e10  # operations and bytes a second of kernels for many sizes, about
_OFTEN = 1000  # calls that are counted: sizes that would have to come more often are not
_REMEMBERED = 4096  # sizes that are judged, before all are forgotten
Made = TypeVar("Made")


class Server(Protocol):
    """A kernel for many sizes."""

    def serves(self, tensors: Sequence[Any]) -> bool:
        """Whether it can be called with these tensors."""


Serving = TypeVar("Serving", bound=Server)


class Many(Generic[Serving]):
    """Kernels for sizes that keep changing, each with the sizes it was scheduled for.

    One schedule does not suit a product of ten rows and one of a thousand, so there is a kernel for every neighbourhood of sizes.
    """

    def __init__(self) -> None:
        self._made: list[tuple[Mapping[Var, int], Serving]] = []

    def __len__(self) -> int:
        return len(self._made)

    def add(self, sizes: Mapping[Var, int], kernel: Serving) -> None:
        """Another kernel, scheduled for these sizes; for any, where none are given: by hand."""
        self._made.append((sizes, kernel))

    def suiting(self, tensors: Sequence[Any], sizes: Mapping[Var, int]) -> Serving | None:
        """The kernel scheduled for the nearest sizes; None where a nearer one should be made."""
        serving = [(_distance(scheduled, sizes), kernel) for scheduled, kernel in self._made if kernel.serves(tensors)]
        if not serving:
            return None
        distance, kernel = min(serving, key=lambda found: found[0])
        return kernel if distance <= NEAR or len(serving) >= MOST else None


class Often:
    """Which sizes come so often that a kernel for them alone pays: when that for many has run as long for them as compiling takes.

    Whatever the sizes, waiting for the compiler at most doubles the time, and most kernels for many sizes are slower than that for one:
    convolutions of images whose width is an argument by three times.
    """

    def __init__(self) -> None:
        self._left: dict[Hashable, int] = {}

    def waits(self, key: Hashable) -> bool:
        """Counts a call; whether these sizes have to come again. Sizes that were never judged do not wait."""
        left = self._left.get(key, 0)
        if left > 1:
            self._left[key] = left - 1
        return left > 1

    def pays(self, key: Hashable, program: Callable[[], Program]) -> bool | None:
        """Judges sizes that do not wait; whether it is time to compile, False for never, None for not yet: from now on they wait.

        Args:
            key: the sizes of the call.
            program: the program at these sizes.
        """
        left = self._left.get(key)
        if left is not None:
            self._left[key] = 0
            return left == 1
        if len(self._left) >= _REMEMBERED:
            self._left.clear()
        special = program()
        seconds = max(flops(special) / _RATE, bytes_moved(special) / _BANDWIDTH)
        self._left[key] = calls = math.ceil(_COMPILING / seconds) if seconds * _OFTEN >= _COMPILING else 0
        return None if calls else False


def _distance(a: Mapping[Var, int], b: Mapping[Var, int]) -> float:
    """How many times smaller or larger the size is that differs most."""
    return max((max(n, b[v]) / max(min(n, b[v]), 1) for v, n in a.items()), default=1.0)


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

    def least(self, names: Collection[str], now: Mapping[Var, int]) -> int:
        """The least value, above zero, of some sizes that was met, and is now."""
        met = (n for name in names for n in self._seen[name])
        return min(n for n in (*met, *(n for v, n in now.items() if v.name in names)) if n)


def compile_for(request: Request, sizes: Sizes, make: Callable[[Plan], Made]) -> tuple[Made, bool]:
    """A kernel for all values of the sizes that keep changing, and True; one for the sizes at hand, and False, where there are none.

    A reproducible kernel is compiled for each of its sizes: the bits of a call follow from its arguments, not from the calls before it.
    Where no kernel for all their values can be compiled (a schedule unrolls a loop over one of them, say), a warning tells which of them
    are fixed from now on, and the others vary.
    """
    values = bind_sizes(request.program, request.shapes)
    changing = sizes.changing(values) if settings().dynamic and not request.reproducible else frozenset()
    made: Made | None = None
    while changing and made is None:
        try:
            made = make(_varying(request, changing, sizes.least(changing, values)))
        except DlcError as e:
            specialize(request.program, request.shapes)  # an access that is out of bounds for these sizes is the caller's to know
            fixed = {name for name in changing if not _can_vary(request, name, sizes.least((name,), values))} or changing
            sizes.fixed |= fixed
            changing -= fixed
            warnings.warn(f"dlc: {request.program.name} is compiled for each value of {', '.join(sorted(fixed))} ({e.title})", stacklevel=7)
    made = make(Plan(request)) if made is None else made
    sizes.met(values)
    return made, bool(changing)


def _varying(request: Request, names: frozenset[str], least: int) -> Plan:
    """The plan in which some sizes vary: from 1 on, or from ``least`` on where the definition reads out of bounds below."""
    plan = Plan(replace(request, dynamic=names))
    try:
        specialize(request.program, request.shapes, names)
    except BoundsError:
        plan = Plan(replace(request, dynamic=names, least=least))
    return plan


def _can_vary(request: Request, name: str, least: int) -> bool:
    """Whether a kernel for all values of one size can be compiled."""
    try:
        return bool(_varying(request, frozenset((name,)), least).tile)
    except DlcError:
        return False
