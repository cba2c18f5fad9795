"""dlc.tune.limits: measured peaks are plausible against each other and kept on disk."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from dlc.host import cache_bytes, cpus, fingerprint
from dlc.tune import limits as module
from dlc.tune.limits import KINDS, LEVELS, Limits, machine_limits, measure_limits
from dlc.tune.probes import PROBED_DTYPES

KNOWN = Limits(2, {"f32": 200.0, "f64": 100.0}, {"L1": 400.0, "L2": 200.0, "L3": 100.0, "DRAM": 20.0}, {})


@pytest.fixture(scope="module")
def one() -> Limits:
    return measure_limits(1)


def test_every_figure_is_measured(one: Limits) -> None:
    assert set(one.fma_gflops) == set(PROBED_DTYPES)
    assert set(one.bandwidth_gbs) == set(LEVELS)
    assert all(set(one.traffic_gbs[level]) == set(KINDS) for level in LEVELS)
    assert min(one.fma_gflops.values()) > 0.5 and min(one.bandwidth_gbs.values()) > 0.5
    assert one.instructions is not None and "fma" in one.instructions["f64"]


def test_the_peak_exceeds_what_a_library_reaches(one: Limits) -> None:
    import time

    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        a, times = torch.ones(384, 384), []
        for _ in range(10):
            started = time.perf_counter()
            a @ a
            times.append(time.perf_counter() - started)
    finally:
        torch.set_num_threads(before)
    reached = 2 * 384**3 / min(times) / 1e9
    assert one.fma_gflops["f32"] > 0.5 * reached  # a generous margin: other work shares this machine


def test_limits_are_measured_once_and_read_afterwards(cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(module, "measure_limits", lambda n: asked.append(n) or dataclasses.replace(KNOWN, threads=n))
    assert machine_limits(2) == machine_limits(2) == KNOWN
    assert machine_limits(1).threads == 1
    assert machine_limits().threads == cpus()
    assert asked == list(dict.fromkeys([2, 1, cpus()]))
    machine_limits(2, refresh=True)
    assert asked[-1] == 2
    assert {p.name for p in (cache_dir / "limits").iterdir()} == {f"{fingerprint()}-t{n}.json" for n in asked}


def test_measuring_again_keeps_the_better_figures(cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    busy = dataclasses.replace(KNOWN, fma_gflops={"f32": 50.0, "f64": 120.0}, traffic_gbs={"L1": {"read": 3.0}})
    found = iter([dataclasses.replace(KNOWN, traffic_gbs={"L1": {"read": 2.0, "copy": 9.0}}), busy])
    monkeypatch.setattr(module, "measure_limits", lambda n: next(found))
    machine_limits(2)
    again = machine_limits(2, refresh=True)
    assert again.fma_gflops == {"f32": 200.0, "f64": 120.0}
    assert again.traffic_gbs == {"L1": {"read": 3.0, "copy": 9.0}}
    assert machine_limits(2) == again


def test_a_damaged_file_is_measured_again(cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "measure_limits", lambda n: KNOWN)
    path = cache_dir / "limits" / f"{fingerprint()}-t2.json"
    path.parent.mkdir()
    for text in ("{", "[]", '{"version": 0}', '{"version": 1, "unknown": 2}'):
        path.write_text(text)
        assert machine_limits(2) == KNOWN
        path.unlink()


def test_an_unwritable_cache_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("DLC_CACHE_DIR", str(blocked))
    monkeypatch.setattr(module, "measure_limits", lambda n: KNOWN)
    assert machine_limits(2) == KNOWN


def test_the_shortest_time_is_the_larger_of_work_and_traffic() -> None:
    assert KNOWN.seconds(200e9, 1e9) == pytest.approx(1.0)
    assert KNOWN.seconds(1e9, 20e9) == pytest.approx(1.0)
    assert KNOWN.seconds(1e9, 20e9, level="L3") == pytest.approx(0.2)
    assert KNOWN.gflops("f16") == 200.0 and KNOWN.gflops("f64") == 100.0


def test_the_level_that_holds_a_working_set() -> None:
    caches = cache_bytes()
    assert KNOWN.level_of(1024) == "L1"
    assert KNOWN.level_of(2 * caches["L2"]) == "L2"
    assert KNOWN.level_of(caches["L3"] + 1) == "DRAM"
