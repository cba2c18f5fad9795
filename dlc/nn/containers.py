"""Modules of modules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from dlc.nn.module import Module

Self = TypeVar("Self", bound="Listed")


class Listed(Module):
    """Modules under the names 0, 1, 2, ...: counted, indexed and iterated."""

    def append(self: Self, m: Module) -> Self:
        """Add a module at the end; returns the list."""
        setattr(self, str(len(self)), m)
        return self

    def __len__(self) -> int:
        return sum(1 for _ in self.children())

    def __getitem__(self, n: int) -> Module:
        return list(self.children())[n]

    def __iter__(self) -> Iterator[Module]:
        return self.children()


class Sequential(Listed):
    """Modules one after the other, named 0, 1, 2, ..."""

    def __init__(self, *modules: Module) -> None:
        for m in modules:
            self.append(m)

    def forward(self, x: Any) -> Any:
        """Through all of them."""
        for m in self.children():
            x = m(x)
        return x


class ModuleList(Listed):
    """A list of modules, found by what is done to all parts; it computes nothing itself."""

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        for m in modules:
            self.append(m)
