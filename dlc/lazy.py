"""Large libraries that most programs never need, imported when they are first used: ``import dlc`` should cost little beside torch.

Only libraries of others are imported this way; dlc's own modules import one another where they stand, so that the layers can be checked.
"""

from __future__ import annotations

import importlib
from typing import Any


class Lazy:
    """Stands for a module until one of its attributes is wanted."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(importlib.import_module(self._name), attribute)

    def __repr__(self) -> str:
        return f"<{self._name}, imported when it is used>"


def lazy(name: str) -> Any:
    """A module that is imported when one of its attributes is first wanted."""
    return Lazy(name)
