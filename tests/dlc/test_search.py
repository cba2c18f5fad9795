"""dlc.tune.search: finds the best of a space it discovers as it goes, proposes nothing twice, and stops when there is nothing left."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from codegen.heuristics import Choice
from dlc.tune.search import Known, Search


def heuristics(preset: Mapping[str, Any]) -> tuple[Choice, ...]:
    """A space in which packing opens a further choice: 8 x 4 x (1 + 3) points."""
    made: list[Choice] = []

    def choose(name: str, default: Any, options: tuple[Any, ...]) -> Any:
        value = preset.get(name, default)
        value = value if value in options else default
        made.append(Choice(name, value, default, options))
        return value
    choose("tile", 4, (4, 1, 2, 8, 16, 32, 64, 128))
    choose("order", "ij", ("ij", "ji", "blocked", "morton"))
    if choose("pack", False, (False, True)):
        choose("block", 64, (64, 128, 256))
    return tuple(made)


def score(choices: tuple[Choice, ...]) -> float | None:
    d = {c.name: c.value for c in choices}
    if d["order"] == "morton":
        return None
    return -abs(d["tile"] - 32) / 32 + (d["order"] == "blocked") + d.get("block", 0) / 128


def run(batches: int, size: int = 4, seed: int = 0) -> list[Known]:
    default = heuristics({})
    known, search = [Known(default, score(default))], Search(seed)
    for _ in range(batches):
        for p in search.propose(known, size):
            choices = heuristics(p)
            known.append(Known(choices, score(choices)))
    return known


def test_the_best_is_found_among_few() -> None:
    for seed in range(5):
        known = run(14, seed=seed)
        best = max(known, key=lambda k: -9.0 if k.score is None else k.score).decisions
        assert best == {"tile": 32, "order": "blocked", "pack": True, "block": 256}, seed


def test_every_choice_is_first_varied_alone() -> None:
    default = heuristics({})
    first = Search(0).propose([Known(default, 0.0)], 11)
    values = {c.name: c.value for c in default}
    assert [sum(p[n] != values[n] for n in values) for p in first] == [1] * 11


def test_nothing_is_proposed_twice_and_the_search_ends() -> None:
    default = heuristics({})
    known, search, seen = [Known(default, score(default))], Search(1), set()
    while proposals := search.propose(known, 16):
        for p in proposals:
            key = tuple(sorted(p.items()))
            assert key not in seen
            seen.add(key)
            choices = heuristics(p)
            known.append(Known(choices, score(choices)))
    met = {tuple(sorted(k.decisions.items())) for k in known}
    assert len(met) == 8 * 4 * 4


def test_the_same_seed_proposes_the_same() -> None:
    assert [k.decisions for k in run(5, seed=7)] == [k.decisions for k in run(5, seed=7)]


def test_what_won_elsewhere_is_tried_first() -> None:
    default = heuristics({})
    first = {"tile": 64, "order": "ji"}
    assert Search(0, [first]).propose([Known(default, 0.0)], 2)[0] == {"tile": 64, "order": "ji", "pack": False}


def test_a_space_of_one_point_is_exhausted_at_once() -> None:
    assert Search(0).propose([Known((Choice("tile", 4, 4, (4,)),), 1.0)], 8) == []
    assert Search(0).propose([Known((), 1.0)], 8) == []


def test_where_there_is_nothing_to_choose_nothing_is_proposed() -> None:
    assert Search().propose([], 8) == []
