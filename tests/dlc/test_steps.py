"""Whose turn it is when a step is tuned, for how long, and how the report reads."""

from __future__ import annotations

import json

import pytest

import dlc
from dlc import f32, records
from dlc.compiler import record_key
from dlc.records import Record
from dlc.tune.measure import Measurement
from dlc.tune.steps import LEAST, Part, StepReport, Wish, allotted, noise_of, turns
from dsl.errors import ArgumentError

N = dlc.dims("N")


@dlc.kernel
def doubled(x: f32[N]):
    return x * 2.0


REQUEST = doubled.request([(8,)], [(1,)])


def part(name: str, share: float) -> Part:
    return Part(name, REQUEST, 1, share * 1e-3, share)


def record(reproducible: bool = True) -> Record:
    return records.Record(record_key(REQUEST), "doubled", {}, {}, 1.25, reproducible=reproducible)


def test_the_largest_come_first_and_what_cannot_matter_is_left() -> None:
    parts = [part("small", 0.002), part("middle", 0.2), part("large", 0.7), part("some", 0.05)]
    assert [p.name for p in turns(parts, [None] * 4, 0.0, Wish())] == ["large", "middle", "some"]
    assert parts[0].reason.startswith("left: the gain to be had, 0.1% of the step, is less than the noise of its times, 0.3%")
    assert [p.name for p in turns(parts, [None] * 4, 0.03, Wish())] == ["large", "middle"]
    assert "3.0%" in parts[3].reason


def test_what_has_a_record_is_searched_again_on_request_or_where_its_bits_may_differ() -> None:
    def waiting(found: Record, wish: Wish) -> bool:
        one = part("one", 1.0)
        return bool(turns([one], [found], 0.0, wish)) or "tuned already (1.25x" not in one.reason

    assert not waiting(record(), Wish()) and not waiting(record(False), Wish(reproducible=False))
    assert waiting(record(), Wish(again=True)) and waiting(record(False), Wish())


def test_time_is_given_by_share_but_never_too_little() -> None:
    parts = [part("a", 0.5), part("b", 0.3), part("c", 0.2)]
    assert allotted(parts, 40.0) == pytest.approx(20.0)
    assert allotted(parts[2:], 40.0) == pytest.approx(40.0)
    assert allotted([part("a", 0.01), part("b", 0.9)], 20.0) == LEAST
    assert allotted(parts, 0.9 * LEAST) == 0.0


def test_noise_is_that_of_the_median() -> None:
    assert noise_of([1.0] * 9) == 0.0
    few, many = [0.9, 1.0, 1.1] * 4, [0.9, 1.0, 1.1] * 64
    assert noise_of(few) == pytest.approx(4 * noise_of(many))
    assert noise_of([*many, 50.0]) < 2 * noise_of(many)


def test_budgets_are_positive_numbers() -> None:
    for budget in (0, -1.0, float("nan"), "60"):
        with pytest.raises(ArgumentError, match="budget"):
            Wish(budget=budget)  # type: ignore[arg-type]


def test_the_report_tells_every_kernel() -> None:
    faster, left = part("product", 0.75), part("update", 0.25)
    faster.times = {"before": Measurement((3e-3,) * 5), "after": Measurement((2e-3,) * 5)}
    faster.kept, faster.reason, left.reason = True, "1.60x as fast as the default schedule", "left"
    times = {"before": Measurement((4e-3,) * 5), "after": Measurement((3e-3,) * 5)}
    report = StepReport("step", [faster, left], times, 9.0, True, object())
    assert report.improved and report.ratio.median == pytest.approx(4 / 3) and faster.after == pytest.approx(0.5e-3)
    text = str(report)
    assert "step: 1.33x [1.33, 1.33] as fast: 4.00 ms before, 3.00 ms after" in text and "stopped by the user" in text
    assert "75.0%" in text and "product: 1.60x as fast" in text and "update: left" in text
    plain = json.loads(json.dumps(report.as_dict()))
    assert [k["name"] for k in plain["kernels"]] == ["product", "update"] and plain["kernels"][0]["improved"]
    assert plain["ratio"]["median"] == pytest.approx(4 / 3) and plain["interrupted"]


def test_a_report_of_nothing_found_says_so() -> None:
    same = Measurement((4e-3,) * 5)
    report = StepReport("step", [part("product", 1.0)], {"before": same, "after": same}, 9.0)
    assert not report.improved and report.ratio.median == 1.0 and "step: 4.00 ms, as before" in str(report)
