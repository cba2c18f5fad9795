"""dlc.tune.measure: what is kept, in which order candidates run, and how two are compared."""

from __future__ import annotations

import json
import time

import pytest
import torch

from dlc.host import cache_bytes
from dlc.tune import measure as measuring
from dlc.tune.measure import MIN_ROUNDS, Measurement, flush_caches, measure, measure_one, ratio

QUICK = {"warmup": 0.0, "min_time": 1e-4, "budget": 0.02}


def test_statistics_of_known_samples() -> None:
    m = Measurement((1.0, 2.0, 3.0, 4.0, 5.0))
    assert (m.min, m.p25, m.median, m.p75) == (1.0, 2.0, 3.0, 4.0)
    assert m.spread == pytest.approx(2 / 3)
    assert m.ok


def test_a_candidate_that_raises_is_recorded_and_the_others_are_measured() -> None:
    def broken() -> None:
        raise ValueError("no such tile\nsecond line")

    found = measure({"broken": broken, "fine": lambda: None}, **QUICK)
    assert list(found) == ["broken", "fine"]
    assert found["broken"].failure == "ValueError: no such tile"
    assert not found["broken"].ok and found["broken"].median != found["broken"].median
    assert found["fine"].ok and len(found["fine"].samples) >= MIN_ROUNDS


def test_a_candidate_that_fails_later_keeps_its_samples() -> None:
    calls = iter(range(10_000))

    def tires() -> None:
        if next(calls) > 3:
            raise RuntimeError("tired")

    found = measure({"tires": tires, "other": lambda: time.sleep(1e-3)}, warmup=0.0, min_time=0.0, budget=0.05)
    assert found["tires"].failure == "RuntimeError: tired"
    assert 0 < len(found["tires"].samples) < len(found["other"].samples)


def test_an_interrupt_is_not_a_failure_of_the_candidate() -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure({"a": interrupted}, **QUICK)


def test_candidates_alternate_and_swap_places_each_round() -> None:
    order: list[str] = []
    measure({n: lambda n=n: (order.append(n), time.sleep(2e-3)) for n in "abc"}, warmup=0.0, min_time=0.0, budget=0.06)
    timed = "".join(order)[-3 * (len(order) // 3 - 2) :]  # two warm-up calls each
    rounds = [timed[i : i + 3] for i in range(0, len(timed), 3)]
    assert rounds[0] == "abc" and set(rounds[::2]) == {"abc"} and set(rounds[1::2]) == {"cba"}


def test_tiny_calls_are_repeated_within_a_sample() -> None:
    m = measure_one(lambda: None, **QUICK)
    assert m.inner > 100
    assert 0 < m.median < 1e-5


def test_samples_walk_through_all_copies() -> None:
    seen: set[int] = set()
    m = measure_one([lambda i=i: seen.add(i) for i in range(7)], warmup=0.0, min_time=0.0, budget=0.01)
    assert seen == set(range(7))
    assert m.inner % 7 == 0


def test_cold_samples_are_single_calls() -> None:
    m = measure_one(lambda: None, cold=True, **QUICK)
    assert m.inner == 1 and m.cold and m.ok
    assert measure_one([lambda: None] * 3, cold=True, **QUICK).inner == 3


def test_a_flush_writes_more_than_every_cache_holds() -> None:
    buffer = measuring._flush_buffer()
    assert buffer.nbytes >= min(2 * cache_bytes()["L3"], measuring._LARGEST_FLUSH) and buffer.nbytes > cache_bytes()["L2"]
    before = buffer.clone()
    flush_caches()
    assert torch.equal(buffer, before + 1)


def test_the_caches_are_emptied_before_every_cold_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    monkeypatch.setattr(measuring, "flush_caches", lambda: order.append("flush"))
    m = measure_one(lambda: order.append("call"), cold=True, **QUICK)
    assert order[-2 * len(m.samples):] == ["flush", "call"] * len(m.samples)
    order.clear()
    measure_one(lambda: order.append("call"), **QUICK)
    assert "flush" not in order


def test_the_budget_is_kept_and_slow_candidates_still_get_a_sample() -> None:
    started = time.perf_counter()
    m = measure_one(lambda: time.sleep(0.05), warmup=0.0, budget=0.02)
    assert 1 <= len(m.samples) <= MIN_ROUNDS
    assert time.perf_counter() - started < 5.0


def test_the_thread_count_holds_while_measuring_only() -> None:
    before = torch.get_num_threads()
    seen: set[int] = set()
    measure({"a": lambda: seen.add(torch.get_num_threads())}, threads=1, **QUICK)
    assert seen == {1} and torch.get_num_threads() == before


def test_ratio_pairs_samples_of_the_same_round() -> None:
    drifting = Measurement((1.0, 2.0, 4.0))
    half = Measurement((0.5, 1.0, 2.0))
    r = ratio(drifting, half)
    assert (r.median, r.p25, r.p75, r.pairs) == (2.0, 2.0, 2.0, 3)
    assert str(r) == "2.00x [2.00, 2.00]"
    assert ratio(drifting, Measurement(failure="gone")).pairs == 0


def test_json_round_trip() -> None:
    for m in (Measurement((1e-3, 2e-3), None, 5, True), Measurement(failure="OSError: no")):
        assert Measurement.from_json(json.loads(json.dumps(m.to_json()))) == m
