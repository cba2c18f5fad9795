"""What every test gets: golden text, seeds, a private cache directory, and the gpu and slow marks."""

from __future__ import annotations

import difflib
import os
import random
import re
import shutil
import sys
import tempfile
import zlib
from pathlib import Path

import numpy as np
import pytest

# Before anything imports dlc: no test may read or write the user's own cache.
_CACHE = tempfile.mkdtemp(prefix="dlc-test-cache-")
os.environ["DLC_CACHE_DIR"] = _CACHE
# Several test processes share the cores: a waiting OpenMP thread must not spin on one of them.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("MPLBACKEND", "Agg")

GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write the golden texts instead of comparing with them")
    parser.addoption("--slow", action="store_true", help="run the tests marked slow as well")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--slow"):
        _skip(items, "slow", "slow: run with --slow")
    if any(item.get_closest_marker("gpu") for item in items) and not _has_gpu():
        _skip(items, "gpu", "needs a CUDA device")


def _skip(items: list[pytest.Item], marker: str, reason: str) -> None:
    for item in items:
        if item.get_closest_marker(marker):
            item.add_marker(pytest.mark.skip(reason=reason))


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def pytest_sessionfinish() -> None:
    shutil.rmtree(_CACHE, ignore_errors=True)


@pytest.fixture(autouse=True)
def seeds(request: pytest.FixtureRequest) -> int:
    """Seeds every generator from the test's own name, so that order and parallelism do not matter."""
    seed = zlib.crc32(request.node.nodeid.encode())
    random.seed(seed)
    np.random.seed(seed)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(seed)
    return seed


@pytest.fixture
def rng(seeds: int) -> np.random.Generator:
    """A numpy generator of this test's own."""
    return np.random.default_rng(seeds)


@pytest.fixture
def cache_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache directory for this test alone; DLC_CACHE_DIR points to it."""
    path = tmp_path / "cache"
    path.mkdir()
    monkeypatch.setenv("DLC_CACHE_DIR", str(path))
    return path


class Golden:
    """Compares a text with the one stored for this test, or stores it under --update-golden.

    Stored at ``tests/golden/<folder of the test>/<test file>/<test name>[-<name>].txt``.
    """

    def __init__(self, request: pytest.FixtureRequest) -> None:
        test = Path(request.node.path).relative_to(GOLDEN.parent).with_suffix("")
        self.folder = GOLDEN / test
        self.test = re.sub(r"[^\w.-]+", "-", request.node.name).strip("-")
        self.update = request.config.getoption("--update-golden")

    def __call__(self, text: str, name: str = "") -> None:
        path = self.folder / (self.test + (f"-{name}" if name else "") + ".txt")
        text = text.rstrip("\n") + "\n"
        if self.update:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            return
        if not path.exists():
            pytest.fail(f"no golden text at {path}; read this and accept it with --update-golden:\n{text}")
        expected = path.read_text()
        if text != expected:
            diff = difflib.unified_diff(expected.splitlines(), text.splitlines(), "expected", "got", lineterm="")
            pytest.fail(f"{path} differs (--update-golden accepts):\n" + "\n".join(diff))


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Golden:
    """``golden(text)`` or ``golden(text, "name")``."""
    return Golden(request)
