"""Flat memory: strides, poison, bounds."""

from __future__ import annotations

import numpy as np
import pytest

from codegen.tile.memory import NUMPY, Memory, poison
from dsl.dim import Var, as_term
from dsl.dtype import ALL, f32
from dsl.errors import BoundsError, InternalError
from tests.codegen.tile_programs import buffer


def test_inputs_by_shape_and_by_memory() -> None:
    n, step = Var("n", kind="dim"), Var("step", kind="dim")
    b = buffer("x", f32, (n, 3), strides=(step, 1))
    logical = np.arange(6, dtype=np.float32).reshape(2, 3)
    padded = Memory(b, {n: 2, step: 5}, logical)
    assert len(padded.flat) == 8 and np.isnan(padded.flat[3:5]).all()
    np.testing.assert_array_equal(padded.logical(), logical)
    flat = Memory(b, {n: 2, step: 5}, np.arange(8, dtype=np.float32))
    assert flat.logical().tolist() == [[0, 1, 2], [5, 6, 7]]
    with pytest.raises(InternalError, match="the array given is"):
        Memory(b, {n: 2, step: 5}, np.arange(7, dtype=np.float32))


def test_access_is_checked() -> None:
    m = Memory(buffer("o", f32, (2, 3), "output"), {}, None)
    m.write([np.array([1]), np.array([2])], np.array([5.0], np.float32), 0)
    assert m.read([np.array([1]), np.array([2])], 1, 0) == 5
    with pytest.raises(BoundsError, match=r"o\[0, 3\] is outside o of shape \[2, 3\]"):
        m.read([np.array([0]), np.array([3])], 1, 0)
    with pytest.raises(InternalError, match="race on o"):
        m.read([np.array([1]), np.array([2])], 1, 1)


def test_empty_and_scalar() -> None:
    assert Memory(buffer("o", f32, (0, 3), "output"), {}, None).logical().shape == (0, 3)
    assert Memory(buffer("s", f32, ()), {}, np.float32(3)).logical() == 3


@pytest.mark.parametrize("dtype", ALL.values(), ids=str)
def test_every_dtype_has_poison(dtype: object) -> None:
    value = np.full(1, poison(dtype)).astype(NUMPY[dtype])  # type: ignore[arg-type, index]
    assert value != value or value != 0
    assert as_term(1) == 1
