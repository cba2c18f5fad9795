"""Modules imported when they are used; what ``import dlc`` loads and what it does not."""

import os
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


def loaded_by(code, **env):
    """The modules that a fresh process has imported beside torch and numpy when it has run this code."""
    code = f"import sys, torch, numpy\nbefore = set(sys.modules)\n{code}\nprint(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60, env={**os.environ, **env})
    return set(done.stdout.split())


def within(modules, *packages):
    return sorted(m for m in modules if any(m == p or m.startswith(p + ".") for p in packages))


OTHERS = ("triton", "rich", "matplotlib", "sympy", "typer", "sklearn", "pygments", "torch._dynamo", "llvmlite.binding", "llvmlite.ir")
COMPILER = ("codegen.emit", "codegen.lower", "codegen.passes", "codegen.heuristics", "codegen.pipelines", "codegen.micro", "codegen.graph",
            "codegen.analysis", "codegen.tile", "dsl.derivative", "dsl.cascade", "dsl.primitives", "dsl.schedule", "dsl.stages", "dsl.nest")
TOOLS = ("dlc.tune", "dlc.gpu", "dlc.gpu_check", "dlc.gpu_model", "dlc.numerics", "dlc.emulate.emulator", "dlc.runtime.triton_run",
         "dlc.nn", "dlc.runtime.gpu_report", "dlc.report", "dlc.cli")


def test_importing_dlc_loads_only_the_language_and_what_calls_kernels():
    loaded = loaded_by("import dlc")
    assert not within(loaded, *OTHERS, *COMPILER, *TOOLS)
    own = within(loaded, "dsl", "codegen", "dlc")
    assert 50 < len(own) <= 120, own  # each costs about half a millisecond


def test_a_kernel_from_the_disk_cache_needs_no_compiler(tmp_path):
    file = tmp_path / "twice.py"
    file.write_text("""
import torch, dlc
from dlc import f32
M, N = dlc.dims("M N")
@dlc.kernel
def twice(x: f32[M, N]):
    return dlc.softmax(x * 2)
assert torch.allclose(twice(torch.ones(3, 4)), torch.full((3, 4), 0.25))
""")
    run = f"import runpy; runpy.run_path({str(file)!r})"
    first, second = (loaded_by(run, DLC_CACHE_DIR=str(tmp_path / "cache")) for _ in range(2))
    assert {"codegen.emit.llvm", "codegen.heuristics"} <= first and "llvmlite.binding" in second
    assert not within(second, *COMPILER, *TOOLS)


def test_all_that_stands_for_itself_can_be_loaded_before_a_fork():
    loaded = loaded_by("import dlc; from dlc.lazy import load; load('dsl', 'codegen', 'dlc')")
    assert {"codegen.emit.llvm", "codegen.heuristics", "dlc.tune.tuner", "dlc.gpu_check", "dsl.derivative"} <= loaded
    assert not within(loaded, "triton", "rich")


def test_names_of_modules_that_are_imported_late_do_not_hide_those_of_dlc():
    loaded_by("""
import dlc, dlc.lazy
bench, emulate, kernel = dlc.bench, dlc.emulate, dlc.kernel
dlc.lazy.load("dsl", "codegen", "dlc")
assert (dlc.bench, dlc.emulate, dlc.kernel) == (bench, emulate, kernel) and callable(bench) and callable(emulate)
assert not set(dlc.__all__) - set(dir(dlc)) and all(hasattr(dlc, name) for name in dlc.__all__)
""")


def test_the_emulator_is_a_package_whose_names_are_imported_late():
    import importlib

    package = importlib.import_module("dlc.emulate")
    assert all(getattr(package, name) is not None for name in package.__all__)
    with pytest.raises(AttributeError, match="no attribute 'emulated'"):
        _ = package.emulated
