"""Memory for results that does not fit is refused, with the reason."""

import numpy as np
import pytest
import torch
from torch._subclasses import FakeTensorMode

import dlc
from dlc import f32
from dlc.outs import checked_outs
from dsl.errors import ArgumentError
from dsl.program import trace

M, N = dlc.dims("M N")


def double(x: f32[M, N]):
    return x * 2, dlc.sum(x, 1)


PROGRAM = trace(double)
X = torch.randn(3, 4)
ROW = torch.empty(3)
READ_ONLY = np.empty((3, 4), np.float32)
READ_ONLY.flags.writeable = False
BOTH = torch.empty(15)


def _fake() -> torch.Tensor:
    with FakeTensorMode():
        return torch.empty(3, 4)


def _freed() -> torch.Tensor:
    t = torch.empty(3, 4)
    t.untyped_storage().resize_(0)
    return t


REFUSED = {
    "too few": ((ROW,), "double has 2 outputs, out= has 1"),
    "another shape": ((torch.empty(4, 3), ROW), r"out 0 of double has shape \(4, 3\), the result \(3, 4\)"),
    "another dtype": ((torch.empty(3, 4, dtype=torch.float64), ROW), "out 0 of double has another dtype than the result"),
    "not contiguous": ((torch.empty(4, 3).T, ROW), "out 0 of double is not contiguous"),
    "read-only": ((READ_ONLY, ROW), "out 0 of double is a read-only array"),
    "no array": (([0.0], ROW), "out 0 of double is a list"),
    "an argument": ((X, ROW), "out 0 of double overlaps another argument"),
    "each other": ((BOTH[:12].view(3, 4), BOTH[10:13]), "out 1 of double overlaps another argument"),
    "no memory": ((_fake(), ROW), "out 0 of double is a FakeTensor"),
    "freed memory": ((_freed(), ROW), "has no memory for its elements"),
    "nested": ((torch.nested.nested_tensor([torch.randn(2)], layout=torch.jagged), ROW), "out 0 of double is a NestedTensor"),
    "requires grad": ((torch.empty(3, 4, requires_grad=True), ROW), "out 0 of double requires grad"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    out, message = REFUSED[name]
    with pytest.raises(ArgumentError, match=message):
        checked_outs(PROGRAM, out, [X])


def test_tensors_and_arrays_are_taken_as_they_lie() -> None:
    array = np.empty((3, 4), np.float32)
    first, second = checked_outs(PROGRAM, (array, ROW), [X])
    first[0, 0] = 7
    assert array[0, 0] == 7 and second.data_ptr() == ROW.data_ptr()
