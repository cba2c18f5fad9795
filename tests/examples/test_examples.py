"""The programs in examples/ run, in small form."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_custom_operator_in_a_torch_module() -> None:
    losses = example("custom_op").main(rows=32, width=24, steps=8)
    assert losses[-1] < losses[0]


def test_training_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sklearn")
    accuracy = example("train_digits").main(epochs=2, path=str(tmp_path / "digits.safetensors"), progress=False)
    assert accuracy > 0.7 and (tmp_path / "digits.safetensors").exists()
    assert "torch computed {}" in capsys.readouterr().out


def test_tuning_and_measuring() -> None:
    report = example("tune_and_bench").main(m=24, n=16, k=16, budget=1.0)
    assert report.ratio is not None and report.errors["dlc"] < 1e-5


def test_every_example_has_its_test() -> None:
    text = Path(__file__).read_text()
    assert all(f'"{path.stem}"' in text for path in EXAMPLES.glob("*.py"))
