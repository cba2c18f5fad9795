"""Modules of modules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from dlc.nn.module import Module


class Sequential(Module):
    """Modules one after the other, named 0, 1, 2, ..."""

    def __init__(self, *modules: Module) -> None:
        for n, m in enumerate(modules):
            setattr(self, str(n), m)

    def forward(self, x: Any) -> Any:
        """Through all of them."""
        for m in self.children():
            x = m(x)
        return x

    def __len__(self) -> int:
        return sum(1 for _ in self.children())

    def __getitem__(self, n: int) -> Module:
        return list(self.children())[n]

    def __iter__(self) -> Iterator[Module]:
        return self.children()


class ModuleList(Module):
    """A list of modules, found by what is done to all parts; it computes nothing itself."""

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        for m in modules:
            self.append(m)

    def append(self, m: Module) -> ModuleList:
        """Add a module at the end."""
        setattr(self, str(len(self)), m)
        return self

    def __len__(self) -> int:
        return sum(1 for _ in self.children())

    def __getitem__(self, n: int) -> Module:
        return list(self.children())[n]

    def __iter__(self) -> Iterator[Module]:
        return self.children()
