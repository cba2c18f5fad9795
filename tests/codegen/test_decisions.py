"""Decisions: defaults without a preset, presets where they are options, a record of what was met."""

import pytest

from codegen.heuristics import Decisions


def test_without_a_preset_the_default_is_taken_and_recorded():
    d = Decisions()
    assert d.choose("y.tile", (64, 6), [(32, 12), (64, 6)]) == (64, 6)
    assert d.made["y.tile"].options == ((64, 6), (32, 12))
    assert d.made["y.tile"].value == d.made["y.tile"].default == (64, 6)


def test_a_default_that_is_not_among_the_options_is_one():
    assert Decisions({"u": 3}).choose("u", 3, [1, 2]) == 3


@pytest.mark.parametrize("preset, taken", [([32, 12], (32, 12)), ((32, 12), (32, 12)), ((31, 12), (64, 6)), (True, (64, 6))])
def test_a_preset_counts_where_it_is_an_option(preset, taken):
    assert Decisions({"y.tile": preset}).choose("y.tile", (64, 6), [(32, 12), (64, 6)]) == taken


def test_true_is_not_one():
    assert Decisions({"u": True}).choose("u", 2, [1, 2]) == 2


def test_presets_that_are_passed_over_are_known():
    d = Decisions({"y.tile": [32, 12], "y.form": "gone", "z.rows": 4})
    d.choose("y.tile", (64, 6), [(32, 12)])
    d.choose("y.form", "rows", ["dots"])
    assert d.passed_over == ["y.form", "z.rows"]
