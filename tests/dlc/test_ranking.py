"""dlc.tune.ranking: counted cycles first, then what times said of single choices, also in combinations of them."""

from __future__ import annotations

from codegen.heuristics import Choice
from dlc.tune.ranking import ranked
from dlc.tune.session import Trial


def trial(number: int, cycles: float, seconds: float | None = None, **values: int) -> Trial:
    choices = tuple(Choice(n, values.get(n, 0), 0, (0, 1, 2)) for n in ("a", "b"))
    t = Trial(number, values, choices, cycles=cycles)
    if seconds is not None:
        t.samples, t.beside = [seconds], [1.0]
    return t


DEFAULT = trial(0, 100.0, 1.0)


def numbers(waiting, tried=(DEFAULT,), first=()) -> list[int]:
    return [t.number for t in ranked(waiting, tried, first)]


def test_fewer_cycles_come_first_and_of_equals_the_earlier() -> None:
    assert numbers([trial(1, 120, a=1), trial(2, 80, a=2), trial(3, 120, b=1), trial(4, 90, b=2)]) == [2, 4, 1, 3]


def test_what_took_longer_than_its_cycles_is_held_against_its_choices() -> None:
    tried = [DEFAULT, trial(1, 50, 2.0, a=1), trial(2, 100, 0.5, b=1)]
    assert numbers([trial(3, 50, a=1, b=2), trial(4, 60, a=2), trial(5, 100, a=2, b=1)], tried) == [5, 4, 3]


def test_what_won_elsewhere_comes_before_all_others() -> None:
    assert numbers([trial(1, 10, a=1), trial(2, 900, a=2, b=1)], first=[{"a": 2}]) == [2, 1]


def test_candidates_that_failed_say_nothing() -> None:
    failed = trial(1, 50, 9.0, a=1)
    failed.failure = "wrong results"
    assert numbers([trial(2, 40, a=1), trial(3, 45, b=1)], [DEFAULT, failed]) == [2, 3]
