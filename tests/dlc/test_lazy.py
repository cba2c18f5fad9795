"""Libraries imported when they are used; what ``import dlc`` loads and what it does not."""

import subprocess
import sys

import pytest

from dlc.lazy import lazy


def test_a_module_is_imported_when_it_is_used():
    sys.modules.pop("colorsys", None)
    module = lazy("colorsys")
    assert "colorsys" not in sys.modules and "colorsys" in repr(module)
    assert module.rgb_to_hsv(0, 0, 0) == (0.0, 0.0, 0) and "colorsys" in sys.modules


def test_what_is_missing_is_an_error_then():
    with pytest.raises(ModuleNotFoundError):
        _ = lazy("no_such_module").anything


def test_importing_dlc_loads_no_library_that_only_some_need():
    code = ("import sys, torch, numpy; before = set(sys.modules); import dlc; "
            "print(*sorted({m.split('.')[0] for m in set(sys.modules) - before}))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    loaded = set(done.stdout.split())
    assert not loaded & {"triton", "rich", "matplotlib", "sympy", "typer", "sklearn", "pygments", "torch._dynamo"}, loaded
