"""Decisions by looking at every point: counterexamples are real, the budget is kept."""

from __future__ import annotations

from dsl.decide import BUDGET, box, counterexample
from dsl.dim import Var, as_term


def test_a_term_that_never_falls_below_zero() -> None:
    i, j = Var("i", 5), Var("j", 7)
    assert counterexample(as_term(i) * 7 + j, ()) is True
    assert counterexample(34 - (as_term(i) * 7 + j), ()) is True


def test_a_counterexample_keeps_the_facts() -> None:
    i, j = Var("i", 5), Var("j", 7)
    found = counterexample(as_term(i) - j, (as_term(j) - 3, 4 - as_term(j)))
    assert isinstance(found, dict) and found[j] in (3, 4) and found[i] < found[j]
    assert counterexample(as_term(i) - j, (as_term(i) - 4, 4 - as_term(j))) is True


def test_what_is_symbolic_or_too_large_is_not_decided() -> None:
    n, i, j = Var("n", kind="dim"), Var("i", BUDGET // 2), Var("j", 3)
    assert counterexample(as_term(n) - i, ()) is False
    assert counterexample(as_term(i) + j, ()) is False
    assert box([i]) is not None and box([i, j]) is None


def test_an_empty_range_has_no_points() -> None:
    i = Var("i", 0)
    assert counterexample(as_term(i) - 1, ()) is True
