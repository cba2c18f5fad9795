"""Where a heuristic has a choice, it asks here; so a tuner can see every choice that was met and make it otherwise.

The heuristics are the map from decisions to schedules: run with no preset values they give the default schedule, and
:attr:`Decisions.made` lists what they chose and among what. A tuner changes some of those values and runs them again; choices that
an earlier one makes meaningless are never asked, and those it opens appear.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from codegen.analysis.access import Strides
from codegen.target.model import Target

T = TypeVar("T", bound=Hashable)


@dataclass(frozen=True)
class Choice:
    """One choice met: the value taken, the heuristic's own, and every value that is legal there."""

    name: str
    value: Any
    default: Any
    options: tuple[Any, ...]


class Decisions:
    """Preset values by name, and the record of the choices that were met.

    Args:
        preset: name of a choice -> value. A value that is not an option where the choice is met (the shape is another, say) is ignored.
    """

    def __init__(self, preset: Mapping[str, Any] | None = None) -> None:
        self.preset = dict(preset or {})
        self.made: dict[str, Choice] = {}

    @property
    def passed_over(self) -> list[str]:
        """The preset choices, by name, that were not met or whose value was no option, once a schedule is made."""
        return [name for name, wanted in self.preset.items() if name not in self.made or not _same(self.made[name].value, wanted)]

    def choose(self, name: str, default: T, options: Sequence[T]) -> T:
        """The preset value of a choice if it is an option, else ``default``.

        Args:
            name: ``"<stage>.<what>"``, the same for the same choice of the same program at any size.
            default: what the heuristic would take.
            options: the legal values; plain data (numbers, strings, booleans, tuples of those), so that a record can hold them.
        """
        values = tuple(dict.fromkeys((default, *options)))
        wanted = self.preset.get(name, default)
        value = next((v for v in values if _same(v, wanted)), default)
        self.made[name] = Choice(name, value, default, values)
        return value


def _same(value: Any, wanted: Any) -> bool:
    """Whether a value is the one asked for: True is not 1, and lists, which JSON knows, are tuples."""
    wanted = tuple(wanted) if isinstance(wanted, list) else wanted
    return bool(value == wanted) and type(value) is type(wanted)


@dataclass(frozen=True)
class Setting:
    """What every heuristic needs to know: the machine, how the inputs lie in memory, and where to ask for choices."""

    target: Target
    strides: Strides
    decisions: Decisions = field(default_factory=Decisions)

    def choose(self, name: str, default: T, options: Sequence[T]) -> T:
        """See :meth:`Decisions.choose`."""
        return self.decisions.choose(name, default, options)
