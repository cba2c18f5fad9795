"""python -m benchmarks: families are found, measured, written, merged, compared and shown."""

from __future__ import annotations

import io
import json
import math
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from rich.console import Console

from benchmarks import __main__ as cli
from benchmarks import results as store
from benchmarks.harness import Case, Protocol, Result, case, compiled, error_against, run_case
from benchmarks.page import build_page
from benchmarks.show import ABOVE, changes, geometric_mean, results_table, seconds, share_text
from dlc.tune.accuracy import Error
from dlc.tune.limits import Limits
from dlc.tune.measure import Measurement

LIMITS = Limits(1, {"f32": 100.0}, {"L1": 300.0, "L2": 200.0, "L3": 100.0, "DRAM": 10.0}, {})

FAMILY = """
import torch
from benchmarks.harness import Case, case

def cases():
    for n in (8, 16):
        yield case(
            f"add {n}", lambda n=n: (torch.ones(n), torch.ones(n)),
            {"dlc": torch.add, "torch": torch.add, "other": lambda a, b: a + b}, flops=n, bytes=12 * n,
        )
    yield Case("broken", lambda: {"dlc": lambda: 1 / 0, "torch": lambda: None})
    yield Case("no setup", lambda: 1 / 0)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "families"
    path.mkdir()
    (path / "adding.py").write_text(FAMILY)
    (path / "empty.py").write_text("def cases():\n    return []\n")
    (path / "__init__.py").write_text("")
    monkeypatch.setattr(cli, "machine_limits", lambda threads, refresh=False: LIMITS)
    monkeypatch.setattr(store, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(cli, "_BUDGET", 0.02)
    monkeypatch.setattr(cli, "_QUICK_BUDGET", 0.01)
    return path


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    text = io.StringIO()
    monkeypatch.setattr(cli, "console", Console(file=text, width=240))
    return text


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as leaving:
        cli.main([str(argument) for argument in arguments])
    return int(leaving.value.code or 0)


def result(name: str, ours: float, peer: float, spread: float = 0.01) -> Result:
    def samples(t: float) -> Measurement:
        return Measurement(tuple(t * (1 + spread * k) for k in (-1, 0, 1)))

    return Result("f", name, 1, "f32", 100.0, 10.0, True, {"dlc": samples(ours), "torch": samples(peer)}, limit=ours / 2)


def test_a_run_measures_prints_and_writes(folder: Path, tmp_path: Path, shown: io.StringIO) -> None:
    out = tmp_path / "out.json"
    assert run("--from", folder, "--json", out, "--threads", "1,2", "--quick") == 0
    found = store.load(out)
    assert [r.key for r in found.results if r.threads == 1] == [
        ("adding", name, 1, True) for name in ("add 8", "add 16", "broken", "no setup")
    ]  # fmt: skip
    first = found.results[0]
    assert set(first.times) == {"dlc", "torch"} and first.times["dlc"].ok and first.times["dlc"].cold
    assert first.errors["dlc"] == Error(0.0, 0.0) and first.first["dlc"] > 0
    assert first.limit == pytest.approx(96 / 10e9)
    assert found.results[4].times["dlc"].failure == "ZeroDivisionError: division by zero"
    assert found.versions["torch"] and found.date and set(found.limits) == {1, 2}
    text = shown.getvalue()
    assert "add 16" in text and "best peer / dlc" in text and "no setup (1 threads), dlc: setup: ZeroDivisionError" in text


def test_peers_and_cases_are_chosen(folder: Path, tmp_path: Path, shown: io.StringIO) -> None:
    out = tmp_path / "out.json"
    run("adding", "--from", folder, "--json", out, "--threads", "1", "--filter", "add 8", "--peers", "other,absent", "--quick",
        "--operands", "warm")
    (only,) = store.load(out).results
    assert only.case == "add 8" and list(only.times) == ["dlc", "other"] and not only.cold
    assert run("nothing", "--from", folder) == 2 and run("--operands", "hot", "--from", folder) == 2


def test_both_states_of_the_operands_and_memory_given(folder: Path, tmp_path: Path, shown: io.StringIO) -> None:
    out = tmp_path / "out.json"
    assert run("--from", folder, "--json", out, "--threads", "1", "--filter", "add 8", "--quick", "--operands", "cold,warm", "--into") == 0
    found = store.load(out).results
    assert {r.cold for r in found} == {True, False} and all(set(r.into) == {"dlc", "torch"} and r.into["torch"].ok for r in found)
    text = shown.getvalue()
    assert "with memory given" in text and "cold operands" in text and "warm operands" in text
    assert run("page", out, "-o", tmp_path / "page.html") == 0 and "with memory given" in (tmp_path / "page.html").read_text()


def test_what_was_measured_before_an_interruption_is_kept(folder: Path, tmp_path: Path, shown: io.StringIO) -> None:
    (folder / "adding.py").write_text(FAMILY + """
    def stop():
        raise KeyboardInterrupt
    yield Case("stopped", lambda: {"dlc": stop})
""")
    (folder / "before.py").write_text(FAMILY)
    out = tmp_path / "out.json"
    assert run("before", "adding", "--from", folder, "--json", out, "--threads", "1", "--quick") == 0
    keys = [(r.family, r.case) for r in store.load(out).results]
    assert keys == [(f, c) for f in ("adding", "before") for c in ("add 16", "add 8", "broken", "no setup")]
    assert "stopped: 8 results of 9 are kept" in shown.getvalue()


def test_a_library_that_cannot_run_is_named_once(folder: Path, tmp_path: Path, shown: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "absent", lambda peers: {"other": "it is not here"})
    out = tmp_path / "out.json"
    run("--from", folder, "--json", out, "--threads", "1", "--filter", "add 8", "--quick", "--peers", "torch,other")
    (only,) = store.load(out).results
    assert set(only.times) == {"dlc", "torch"} and store.load(out).absent == {"other": "it is not here"}
    assert "other is left out: it is not here" in shown.getvalue()
    run("page", out, "-o", tmp_path / "page.html")
    assert "it is not here" in (tmp_path / "page.html").read_text()


def test_a_slow_peer_is_called_once() -> None:
    calls: list[str] = []
    slow = Case("slow", lambda: {name: lambda name=name: calls.append(name) or time.sleep(0.02) for name in ("dlc", "torch", "compile")})
    (found,) = run_case("f", slow, Protocol(("torch", "compile"), budget=0.01, patience=0.01), lambda threads, again: LIMITS)
    assert calls.count("torch") == 1 and len(found.times["torch"].samples) == 1 and found.times["torch"].median >= 0.02
    assert calls.count("dlc") > 1 and calls.count("compile") > 1 and found.ratio("torch") is not None


def test_no_share_is_above_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def limits(threads: int, again: bool) -> Limits:
        asked.append(again)
        return LIMITS if len(asked) == 1 else Limits(1, {"f32": 100.0}, {"L1": 300.0, "L2": 200.0, "L3": 100.0, "DRAM": 1e-9}, {})

    quick = Case("quick", lambda: {"dlc": lambda: np.zeros(2)}, bytes=1e15)
    (found,) = run_case("f", quick, Protocol(budget=0.01), limits)
    assert asked == [False, True] and found.doubtful and found.share() == 1.0
    assert results_table("t", [found]).caption == ABOVE and share_text(found) == "100% †"


def test_a_second_run_replaces_its_own_cases_only(folder: Path, tmp_path: Path, shown: io.StringIO) -> None:
    run("--from", folder, "--threads", "1", "--filter", "add")
    path = store.default_path()
    before = {r.key: r for r in store.load(path).results}
    run("--from", folder, "--threads", "1", "--filter", "add 8")
    after = {r.key: r for r in store.load(path).results}
    assert set(before) == set(after)
    assert after["adding", "add 16", 1, True] == before["adding", "add 16", 1, True]
    assert after["adding", "add 8", 1, True] != before["adding", "add 8", 1, True]


def test_a_quick_run_leaves_large_cases_out(folder: Path, shown: io.StringIO) -> None:
    (folder / "adding.py").write_text(FAMILY.replace("flops=n", "flops=n * 1e9"))
    run("--from", folder, "--quick", "--filter", "add", "--threads", "1")
    assert "add 8" in shown.getvalue() and "add 16" not in shown.getvalue()


def test_a_quick_run_leaves_the_tracked_results_alone(folder: Path, shown: io.StringIO) -> None:
    run("--from", folder, "--quick", "--filter", "add 8", "--threads", "1")
    assert not store.default_path().exists()


def test_two_runs_are_compared_by_their_quartiles(tmp_path: Path, shown: io.StringIO) -> None:
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    store.save(old, store.new_run([result("a", 1.0, 2.0), result("b", 1.0, 2.0), result("c", 1.0, 2.0), result("gone", 1, 1)], {1: LIMITS}))
    broken = result("c", 1.0, 2.0)
    broken.times["dlc"] = Measurement(failure="lost")
    store.save(new, store.new_run([result("a", 2.0, 2.0), result("b", 1.001, 2.0), broken], {1: LIMITS}))
    found = changes(store.load(old), store.load(new))
    assert [(c.case, c.verdict) for c in found] == [("a", "slower"), ("b", "same"), ("c", "broken")]
    assert found[0].factor == pytest.approx(0.5)
    assert run("compare", old, new) == 0
    assert run("compare", old, new, "--fail-over", "1.1") == 1
    assert run("compare", old, old, "--fail-over", "1.1") == 0
    assert "slower" in shown.getvalue()


def test_the_page_has_every_case(tmp_path: Path, shown: io.StringIO) -> None:
    failed = result("failing", 1.0, 1.0)
    failed.times["torch"] = Measurement(failure="RuntimeError: <no>")
    exact = result("first", 1.0, 1.5)
    exact.errors = {"dlc": Error(1e-7, 0.5), "torch": Error(2e-7, math.nan)}
    source, page = tmp_path / "r.json", tmp_path / "page.html"
    store.save(source, store.new_run([exact, failed], {1: LIMITS}))
    assert run("page", source, "-o", page) == 0
    text = page.read_text()
    assert "1.50x" in text and "failing" in text and "&lt;no&gt;" in text and text.count("<svg") == 3
    assert "<h1>" in build_page(store.new_run([], {})).html()


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text("[]")
    with pytest.raises(ValueError, match="not a benchmark run"):
        store.load(path)


def test_errors_against_float64() -> None:
    exact = np.array([1.0, -4.0])
    assert error_against(torch.tensor([1.0, -4.0], dtype=torch.bfloat16), exact) == Error(0.0, 0.0)
    assert error_against([np.float32([1.5, -4.0]), exact], (exact, exact)).relative == pytest.approx(0.125)
    assert error_against(np.array([np.inf, 1.0]), np.array([np.inf, 1.0])).relative == 0.0
    assert error_against(1e-3, 0.0).relative == 1e-3
    assert error_against(torch.tensor([1.0, -3.984375], dtype=torch.bfloat16), exact).ulp == 0.5
    assert np.isnan(error_against(np.array([np.nan]), np.array([1.0])).relative)
    with pytest.raises(ValueError, match="shapes"):
        error_against(np.zeros(3), exact)


def test_a_wrong_shape_is_a_failure_of_the_library() -> None:
    wrong = Case("wrong", lambda: {"dlc": lambda: np.zeros(2), "float64": lambda: np.zeros(3)})
    (found,) = run_case("f", wrong, Protocol(budget=0.01), lambda threads, again: LIMITS)
    assert found.times["dlc"].failure == "ValueError: shapes [(2,)] instead of [(3,)]"
    assert found.ratio() is None and found.best_peer is None


def test_the_reference_gets_float64_operands() -> None:
    seen: list[torch.dtype] = []
    inputs = torch.ones(2), torch.arange(2)
    one = case("x", lambda: inputs, {"dlc": lambda a, i: a}, reference=lambda a, i: seen.extend([a.dtype, i.dtype]))
    one.setup()["float64"]()
    assert seen == [torch.float64, torch.int64]


def test_compiled_peers_are_made_when_first_called(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    monkeypatch.setattr(torch, "compile", lambda f, **options: made.append(f) or f)
    peer = compiled(abs)
    assert not made
    assert peer(-1) == peer(-1) == 1 and len(made) == 1
    other = compiled(abs)
    assert other(-1) == 1 and made[0].__code__ is not made[1].__code__  # torch.compile counts recompilations by code
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        assert peer(-1) == 1 and len(made) == 3
    finally:
        torch.set_num_threads(before)


def test_words_for_figures() -> None:
    assert [seconds(t) for t in (1.5, 2e-3, 3.21e-6, 5e-9, float("nan"))] == ["1.5 s", "2 ms", "3.21 µs", "5 ns", "–"]
    assert geometric_mean([2.0, 8.0]) == pytest.approx(4.0)


def test_results_are_plain_json(tmp_path: Path) -> None:
    store.save(tmp_path / "x.json", store.new_run([result("a", 1.0, 2.0)], {1: LIMITS}))
    data = json.loads((tmp_path / "x.json").read_text())
    assert data["results"][0]["times"]["dlc"]["samples"] == [0.99, 1.0, 1.01]


def test_every_family_of_the_project_is_found() -> None:
    assert set(cli.discover(cli.FAMILIES)) == {p.stem for p in cli.FAMILIES.glob("*.py") if p.stem != "__init__"}
    with pytest.raises(typer.BadParameter):
        cli._chosen({}, ["x"], "")
