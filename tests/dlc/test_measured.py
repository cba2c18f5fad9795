"""dlc.report.measured: a figure of each report, written in the format the name asks for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import dlc
from dlc import f32
from dlc.compiler import record_key
from dlc.records import Record
from dlc.report.measured import bench_figure, bench_ratios, save_figure, tuning_figure
from dlc.tune.measure import Measurement
from dlc.tune.outcome import TuneReport
from dlc.tune.session import Trial
from dsl.errors import ArgumentError

N = dlc.dims("N")


@dlc.kernel
def doubled(x: f32[N]):
    return x * 2.0


def search() -> TuneReport:
    request = doubled.request([(8,)], [(1,)])
    trials = [Trial(0, {}, samples=[2e-3], beside=[2e-3]), Trial(1, {"v": 2}, failure="crashed"),
              Trial(2, {"v": 4}, samples=[1e-3], beside=[2e-3])]
    times = {"default": Measurement((2e-3, 2.1e-3)), "tuned": Measurement((1e-3, 1.1e-3)), "peer": Measurement((3e-3, 3.1e-3))}
    return TuneReport("doubled", Record(record_key(request), "doubled", {"v": 4}, {}, 2.0), trials, trials[2], times, "2x", 1.0)


def test_a_search_is_drawn_with_its_baselines(tmp_path: Path) -> None:
    figure = tuning_figure(search())
    labels = [t.get_text() for t in figure.axes[0].get_legend().get_texts()]
    assert {"default", "peer", "failed", "best so far"} <= set(labels)
    save_figure(figure, tmp_path / "search.svg")
    assert "<svg" in (tmp_path / "search.svg").read_text()


def test_a_measurement_is_drawn_sample_by_sample(tmp_path: Path) -> None:
    report = doubled.bench(torch.randn(100), against=lambda x: x * 2, budget=0.1, limits=False)
    figure = bench_figure(report)
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["dlc, warm", "peer, warm", "dlc, cold", "peer, cold"]
    samples = sum(len(m.samples) for t in (report.warm, report.cold) for m in t.values())
    assert sum(len(c.get_offsets()) for c in figure.axes[0].collections) == samples
    assert bench_ratios({"doubled": report}).axes
    with pytest.raises(ArgumentError, match="end"):
        save_figure(figure, tmp_path / "bench.doc")
    with pytest.raises(ArgumentError, match="cannot write"):
        save_figure(figure, tmp_path / "missing" / "bench.png")


def test_ratios_of_the_search() -> None:
    r = search()
    assert r.improved and r.ratio.median == pytest.approx(1.95, abs=0.1)
    assert r.peer_ratio is not None and r.peer_ratio.median == pytest.approx(2.9, abs=0.2)
    assert "2x" in str(r) and r.as_dict()["history"][1]["failure"] == "crashed"
