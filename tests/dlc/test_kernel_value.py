"""Kernels as values: names, copies, pickles, methods, other values of keyword-only parameters."""

import copy
import functools
import gc
import inspect
import os
import pickle
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import torch

import dlc
from dlc import errors, f32

M, N = dlc.dims("M N")


@dlc.kernel
def powered(x: f32[M], *, factor: float = 2.0):
    """x times factor."""
    return x * factor


class Layer:
    scale = 3.0

    @dlc.kernel
    def forward(self, x: f32[M]):
        return x * self.scale

    @dlc.kernel
    def static(x: f32[M]):
        return x + 1.0


def test_it_looks_like_its_definition():
    assert powered.__name__ == "powered" and powered.__doc__ == "x times factor." and powered.__module__ == __name__
    assert powered.__wrapped__ is powered.fn and list(inspect.signature(powered).parameters) == ["x", "factor"]
    assert "x[" in repr(powered)


def test_the_text_of_a_kernel_that_cannot_be_traced_says_why():
    @dlc.kernel
    def untyped(x):
        return x

    assert repr(untyped) == "<kernel untyped, which cannot be traced: parameter `x` of untyped has no type>"


def test_weak_references_and_no_cycles_that_outlive_it():
    def used():
        made = dlc.kernel(powered.fn)
        made(torch.ones(3))
        return weakref.ref(made)

    ref = used()
    gc.collect()
    assert ref() is None


def test_other_values_of_keyword_only_parameters():
    x = torch.ones(3)
    assert powered(x).tolist() == [2] * 3 and powered(x, factor=5.0).tolist() == [5] * 3
    triple = powered.partial(factor=3.0)
    assert triple(x).tolist() == [3] * 3 and triple is powered.partial(factor=3.0) and triple is not powered.partial(factor=3)
    assert functools.partial(powered, factor=4.0)(x).tolist() == [4] * 3
    with pytest.raises(errors.ArgumentError, match="no keyword-only parameter `power`"):
        powered.partial(power=1)


def test_methods():
    a, b = Layer(), Layer()
    b.scale = 5.0
    x = torch.ones(2)
    assert a.forward(x).tolist() == [3, 3] and b.forward(x).tolist() == [5, 5] and a.forward is a.forward
    assert a.static(x).tolist() == [2, 2] and Layer.static(x).tolist() == [2, 2]


def test_copies():
    x = torch.ones(2)
    assert copy.copy(powered)(x).tolist() == [2, 2] and copy.deepcopy(powered)(x).tolist() == [2, 2]
    made = dlc.kernel(powered.fn, reproducible=True)
    assert copy.deepcopy(made).reproducible and made.partial(factor=7.0).reproducible
    layer = Layer()
    layer.forward(x)
    other = copy.deepcopy(layer)
    other.scale = 9.0
    assert other.forward.fn.__self__ is other


def test_pickles():
    x = torch.ones(2)
    assert pickle.loads(pickle.dumps(powered)) is powered
    local = powered.partial(factor=6.0)
    assert pickle.loads(pickle.dumps(local))(x).tolist() == [6, 6]
    assert pickle.loads(pickle.dumps(powered.vjp))(torch.ones(2)).tolist() == powered.vjp(torch.ones(2)).tolist()
    assert pickle.loads(pickle.dumps(Layer().forward))(x).tolist() == [3, 3]


def test_other_processes(tmp_path):
    (tmp_path / "there.py").write_text(
        "import multiprocessing, sys, torch, dlc\nfrom dlc import f32\nM = dlc.dims('M')\n\n@dlc.kernel\ndef twice(x: f32[M]):\n"
        "    return x * 2.0\n\nif __name__ == '__main__':\n    with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        "        assert pool.map(twice, [torch.ones(3)])[0].tolist() == [2, 2, 2]\n")
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, str(tmp_path / "there.py")], capture_output=True, text=True, check=False, timeout=60,
                          env={**os.environ, "PYTHONPATH": str(root)})
    assert done.returncode == 0, done.stderr

