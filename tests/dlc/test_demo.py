"""The main job in small: its cases, and the page that it writes."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
import torch
from rich.console import Console

from dlc import demo
from dlc.report import Report


def test_the_cases_compute_what_their_peers_do() -> None:
    found = demo.cases()
    assert len(found) == 3
    for case in found:
        torch.testing.assert_close(case.kernel(*case.args), case.peer(*case.args), rtol=1e-4, atol=1e-4)


def test_without_triton_the_page_says_that_nothing_was_compiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    report = Report("title", "text")
    demo.cross_compiled(report, Console(file=io.StringIO()))
    report.write(tmp_path / "page.html")
    assert "nothing was compiled for a GPU" in (tmp_path / "page.html").read_text()


def test_the_whole_job_in_small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sklearn")
    page = tmp_path / "report.html"
    monkeypatch.setattr(demo, "GPUS", ())
    monkeypatch.setattr(sys, "argv", ["demo", "--out", str(page), "--budget", "0.1", "--tune", "0.5", "--epochs", "2", "--seeds", "1"])
    demo.main()
    text, said = page.read_text(), capsys.readouterr().out
    assert "digits, seed 0: test accuracy" in said and said.count("torch / dlc") == 3
    for part in ("Matmul + bias + gelu", "The LLVM IR", "A network on handwritten digits", "What ran where"):
        assert part in text
    assert "<svg" in text and "http-equiv" not in text and "src=\"http" not in text
