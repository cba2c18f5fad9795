"""The command line: every command on real kernels, JSON that parses, exit codes, and never a traceback of ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from dlc.cli.main import app

ROOT = Path(__file__).resolve().parents[2]

KERNELS = '''
import torch
import dlc
from dlc import f32, i64, bool_

M, N, K = dlc.dims("M N K")


@dlc.kernel
def product(x: f32[M, K], w: f32[K, N]):
    return x @ w


@dlc.kernel
def gathered(x: f32[M, N], at: i64[K], keep: bool_[K], s: f32):
    return dlc.compute((K, N), lambda i, j: dlc.where(keep[i], x[at[i], j] * s, 0.0))


def peer(x, w):
    return torch.matmul(x, w)
'''


@pytest.fixture
def file(tmp_path: Path, cache_dir: Path) -> Path:
    path = tmp_path / "kernels.py"
    path.write_text(KERNELS)
    return path


def call(*words: Any) -> Result:
    return CliRunner().invoke(app, [str(w) for w in words])


def output(*words: Any) -> str:
    result = call(*words)
    assert result.exit_code == 0, result.output
    return result.stdout


def figures(*words: Any) -> dict[str, Any]:
    return json.loads(output(*words, "--json"))


def message(*words: Any, code: int = 1) -> str:
    result = call(*words)
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output and result.exception is None or isinstance(result.exception, SystemExit)
    return result.stderr


SIZES = ("--dim", "M=20", "--dim", "N=24", "--dim", "K=16")


def test_bench_prints_figures_and_draws(file: Path, tmp_path: Path) -> None:
    found = figures("bench", f"{file}:product", *SIZES, "--against", "x @ w", "--budget", "0.2", "--plot", tmp_path / "b.svg")
    assert found["flops"] == 2 * 20 * 24 * 16 and found["ratios"]["warm"]["median"] > 0
    assert found["data"]["ordinary"]["errors"]["peer"]["relative"] < 1e-5
    assert list(found["data"]) == ["ordinary", "offset", "cancel", "denormal", "extreme"] and not found["notes"]
    assert "<svg" in (tmp_path / "b.svg").read_text()
    text = output("bench", f"{file}:product", "--shape", "x=20,16", "--shape", "w=16x24", "--against", f"{file}:peer", "--budget", "0.1",
                  "--cold", "--threads", "1", "--data", "ordinary,cancel")
    assert "cancel" in text and "denormal" not in text
    assert "peer / dlc, cold" in text and "1 threads" in text and "warm" not in text


def test_bench_makes_data_that_fits_the_declaration(file: Path) -> None:
    found = figures("bench", f"{file}:gathered", "--dim", "M=3", "--dim", "N=8", "--dim", "K=100", "--value", "s=2.5", "--budget", "0.1")
    assert found["data"]["ordinary"]["errors"]["dlc"]["relative"] < 1e-6
    assert found["arguments"][-1] == "s: f32"


def test_numerics_tells_errors_and_bounds_by_kind_of_data(file: Path) -> None:
    words = ("numerics", f"{file}:product", "-d", "M=8", "-d", "N=9", "-d", "K=20", "--against", "torch.matmul(x, w)")
    data = figures(*words)["data"]
    assert set(data) > {"ordinary", "cancel"} and all(0 < row["errors"]["dlc"]["relative"] <= row["bound"] for row in data.values())
    assert "sum[k<20]: serial(k)" in output(*words)


def test_tune_keeps_a_record_that_can_be_moved(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = figures("tune", f"{file}:product", *SIZES, "--budget", "60", "--candidates", "3", "--quiet", "--plot", tmp_path / "t.png",
                    "--against", "torch.mm(x, w)", "--data", "ordinary,offset,extreme")
    assert list(found["data"]) == ["ordinary", "offset", "extreme"]
    assert all({"default", "peer"} <= set(row["errors"]) and row["bound"] > 0 for row in found["data"].values())
    assert found["name"] == "product" and len(found["history"]) > 1 and found["times"]["peer"]["samples"]
    assert (tmp_path / "t.png").stat().st_size > 1000
    assert "product" in output("records", "list") and len(json.loads(output("records", "list", "--json"))) == 1
    assert "1 records" in output("records", "export", tmp_path / "all.jsonl")
    monkeypatch.setenv("DLC_CACHE_DIR", str(tmp_path / "elsewhere"))
    assert "no records" in output("records", "list")
    assert "1 records taken over" in output("records", "import", tmp_path / "all.jsonl")
    assert "product" in output("records", "list")
    assert "1 records removed" in output("records", "clear")


STEP = """
import torch
import dlc

w = dlc.from_torch(torch.randn(40, 40))


@dlc.jit
def step(x, y):
    return ((x @ w - y) ** 2).mean()


def batch():
    return torch.randn(30, 40), torch.randn(30, 40)


def plain():
    return dlc.exp(w)


nothing, text = (), "text"
"""


def test_tune_takes_steps(tmp_path: Path, cache_dir: Path) -> None:
    (tmp_path / "model.py").write_text(STEP)
    address = f"{tmp_path / 'model.py'}:step"
    found = figures("tune", address, "--arguments", "batch", "--budget", "0.5", "--quiet")
    assert found["name"] == "step" and found["kernels"] and found["times"]["before"]["samples"]
    plain = f"{tmp_path / 'model.py'}:plain"
    assert output("tune", plain, "--arguments", "nothing", "--budget", "0.5", "-q", "--again").startswith("plain: ")
    assert "no kernel 'plain'" in message("tune", plain)
    assert "--arguments batch" in message("tune", address) and "x, y" in message("tune", address)
    assert "gives no arguments: str" in message("tune", address, "--arguments", "text")
    assert "an option for single kernels" in message("tune", address, "--arguments", "batch", "--dim", "M=3")


def test_show_timings(file: Path) -> None:
    text = output("show", f"{file}:product", *SIZES, "--timings")
    assert "product for " in text and "machine code" in text and "llvm new_gvn" in text
    found = figures("show", f"{file}:product", *SIZES, "--timings")
    assert found["name"] == "product" and found["steps"]["schedule"] > 0 and found["seconds"] <= sum(found["steps"].values())
    assert "--json goes with --timings" in call("show", f"{file}:product", *SIZES, "--json").output


@pytest.mark.parametrize("level, expected",
                         [("expr", "sum[k < K]"), ("schedule", "for "), ("tile", "product"), ("llvm", "define"), ("asm", "ret"),
                          ("sm_90", "tl.")])
def test_show_every_level(file: Path, level: str, expected: str) -> None:
    assert expected in output("show", f"{file}:product", *(() if level == "expr" else SIZES), "--level", level)
    assert "d_x" in output("show", f"{file}:product.vjp", "--level", "expr")


def test_compile_for_this_cpu_writes_every_form(file: Path, tmp_path: Path) -> None:
    found = figures("compile", f"{file}:product", *SIZES, "--out", tmp_path / "out")
    assert found["code_bytes"] > 100 and {Path(f).suffix for f in found["files"]} == {".ll", ".s", ".o", ".json"}
    assert (tmp_path / "out" / "product.o").read_bytes()[:4] == b"\x7fELF"


def test_compile_for_a_cpu_that_is_not_here(file: Path) -> None:
    found = figures("compile", f"{file}:product", *SIZES, "--target", "aarch64-neon")
    assert found["target"] == "aarch64-neon" and found["entry"] == "product" and found["outputs"]


def test_compile_for_a_gpu_that_is_not_here(file: Path, tmp_path: Path) -> None:
    pytest.importorskip("triton")
    found = figures("compile", f"{file}:product", *SIZES, "--target", "sm_90", "--out", tmp_path / "out")
    assert found["target"] == "sm_90" and found["launchable"] and not found["spills"] and found["kernels"][0]["registers"] > 0
    assert any(f.endswith(".cubin") for f in found["files"])
    assert "occupancy" in output("compile", f"{file}:product", *SIZES, "--target", "sm_80")


def test_train_learns() -> None:
    found = figures("train", "--epochs", "3")
    assert (len(found["loss"]) == 3 and found["loss"][-1] < found["loss"][0] and found["accuracy"][-1] > 0.3
            and 0 < found["test_accuracy"] <= 1)
    assert "test accuracy" in output("train", "--epochs", "1")


def test_doctor_finds_nothing_wrong_here_and_says_what_is_wrong_elsewhere(cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = figures("doctor")
    assert found["problems"] == [] and found["cache"]["directory"] == str(cache_dir) and found["versions"]["llvmlite"]
    assert "no problems" in output("doctor") and found["calls"] == "in machine code"
    monkeypatch.setattr("dlc.runtime.direct.layout", lambda: None)
    monkeypatch.setenv("DLC_CACHE_DIR", "/proc/none")
    monkeypatch.setenv("DLC_JOBS", "many")
    result = call("doctor")
    assert result.exit_code == 1 and "cannot be written" in result.stdout and "DLC_JOBS" in result.stdout
    assert "calls go through Python, which takes some microseconds more: where torch" in result.stdout


@pytest.mark.parametrize("words, expected", [
    (["show", "{file}:nothing"], "its kernels are product, gathered"),
    (["show", "{file}"], "which kernel"),
    (["show", "missing.py:x"], "no file missing.py"),
    (["show", "no_such_module:x"], "no file or module no_such_module"),
    (["show", "{file}:product"], "--dim M=64"),
    (["show", "{file}:product", "--dim", "M"], "--dim M=64"),
    (["show", "{file}:product", "--dim", "Q=3"], "there are M, K, N"),
    (["show", "{file}:product", "--dim", "M=x"], "whole numbers"),
    (["show", "{file}:product", "--shape", "x=2,3", "--shape", "w=4,5"], "K"),
    (["show", "{file}:product", *SIZES, "--level", "deep"], "deep"),
    (["compile", "{file}:product", *SIZES, "--target", "sm_1"], "sm_1"),
    (["bench", "{file}:product", *SIZES, "--against", "x @"], "not an expression"),
    (["bench", "{file}:product", *SIZES, "--against", "x.sum()"], "shape"),
    (["bench", "{file}:product", *SIZES, "--against", "{file}:nobody"], "no function"),
    (["bench", "{file}:product", *SIZES, "--budget", "0"], "budget"),
    (["bench", "{file}:product", *SIZES, "--data", "odd"], "no data of the kind 'odd'"),
    (["tune", "{file}:product", *SIZES, "--data", "ordinary,"], "no data of the kind ''"),
    (["tune", "{file}:product", *SIZES, "--tolerance", "-1"], "tolerance"),
    (["tune", "{file}:product", *SIZES, "--target", "sm_90", "--data", "offset"], "nothing runs on a GPU that is not here"),
    (["bench", "{file}:gathered", *SIZES, "--value", "s=two"], "not a number"),
    (["bench", "{file}:product", *SIZES, "--plot", "x.doc", "--budget", "0.05"], "x.doc"),
    (["records", "import", "missing.jsonl"], "cannot read"),
])
def test_mistakes_are_told_with_what_to_do(file: Path, words: list[str], expected: str) -> None:
    assert expected in message(*[w.format(file=file) for w in words]).replace("\n", " ")


def test_a_file_that_breaks_is_told_with_its_own_line(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import dlc\nx = 1 / 0\n")
    told = message("show", f"{tmp_path / 'broken.py'}:k")
    assert "ZeroDivisionError" in told and "broken.py:2" in told and "x = 1 / 0" in told
    (tmp_path / "wrong.py").write_text("def f(:\n")
    assert "SyntaxError" in message("show", f"{tmp_path / 'wrong.py'}:k")


def test_usage_errors_end_with_two() -> None:
    assert call("bench").exit_code == 2 and call("nothing").exit_code == 2 and call("train", "--epochs", "0").exit_code == 2


def test_as_a_program_of_its_own(file: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-m", "dlc.cli.main", "show", f"{file}:missing"], capture_output=True, text=True, env=env,
                          check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr and done.stderr.startswith("error:")


def test_show_explains_the_derivation(tmp_path: Path, cache_dir: Path) -> None:
    file = tmp_path / "norms.py"
    file.write_text(
        'import dlc\nfrom dlc import f32\nM, N = dlc.dims("M N")\n\n\n@dlc.kernel\ndef soft(x: f32[M, N]):\n    return dlc.softmax(x)\n')
    text = output("show", f"{file}:soft", "--dim", "M=4", "--dim", "N=300", "--explain")
    assert "one pass over" in text and "rolling" in text
