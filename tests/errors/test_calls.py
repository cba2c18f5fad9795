"""What a user is told who calls a kernel wrongly, or writes one that cannot be: the whole message, with the user's own line."""

import re

import numpy as np
import pytest
import torch

import dlc
from dlc import f32, i64

M, N, K = dlc.dims("M N K")


@dlc.kernel
def linear(x: f32[M, K], w: f32[N, K], b: f32[N]):
    return dlc.linear(x, w, b)


@dlc.kernel
def scaled(x: f32[M, N], s: f32):
    return x * s


@dlc.kernel
def shifted(x: f32[M]):
    return dlc.compute((M,), lambda i: x[i + 1])


@dlc.kernel
def unbound(x: f32[M, K]):
    k = dlc.reduce_axis(K)
    return dlc.compute((M,), lambda i: x[i, k])


@dlc.kernel
def nothing_typed(x):
    return x


@dlc.kernel
def recursive(x: f32[M]):
    y = dlc.compute((M,), lambda i: x[i] + y[i])  # noqa: B023
    return y


@dlc.kernel
def calls_itself(x: f32[M]):
    return calls_itself(x)


@dlc.kernel
def returns_number(x: f32[M]):
    return 3


@dlc.kernel
def other_kernel(x: f32[M]):
    return scaled(x, 2.0)


@dlc.kernel
def taken(i: i64[M], w: f32[N]):
    return dlc.compute((M,), lambda m: w[i[m]])


@dlc.kernel
def quadratic(x: f32[M*N]):
    return x*2.0


r = torch.randn
CASES = {
    "mismatch": lambda: linear(r(3,4), r(5,6), r(5)),
    "rank": lambda: linear(r(3), r(5,4), r(5)),
    "missing arg": lambda: linear(r(3,4), r(5,4)),
    "too many": lambda: linear(r(3,4), r(5,4), r(5), r(5)),
    "by name twice": lambda: linear(r(3,4), r(5,4), b=r(5), w=r(5,4)),
    "unknown name": lambda: linear(r(3,4), r(5,4), bias=r(5)),
    "dtype": lambda: scaled(r(3,4).double(), 1.0),
    "complex": lambda: scaled(torch.zeros(3,4,dtype=torch.complex64), 1.0),
    "sparse": lambda: scaled(r(3,4).to_sparse(), 1.0),
    "quantised": lambda: scaled(torch.quantize_per_tensor(r(3,4),0.1,0,torch.qint8), 1.0),
    "nested": lambda: scaled(torch.nested.nested_tensor([r(2),r(3)]), 1.0),
    "meta": lambda: scaled(r(3,4,device="meta"), 1.0),
    "string": lambda: scaled("abc", 1.0),
    "list": lambda: scaled([[1.0]], 1.0),
    "none": lambda: scaled(None, 1.0),
    "object array": lambda: scaled(np.array([["a"]],dtype=object), 1.0),
    "masked": lambda: scaled(np.ma.masked_array(np.zeros((2,2),np.float32)), 1.0),
    "number for tensor": lambda: scaled(2.0, 1.0),
    "string for number": lambda: scaled(r(2,2), "2"),
    "out shape": lambda: scaled(r(2,3), 1.0, out=torch.empty(3,2)),
    "out dtype": lambda: scaled(r(2,3), 1.0, out=torch.empty(2,3,dtype=torch.float64)),
    "out strided": lambda: scaled(r(2,3), 1.0, out=torch.empty(3,2).T),
    "out overlap": lambda: (lambda x: scaled(x[:6].view(2,3), 1.0, out=x[1:].view(2,3)))(r(7)),
    "out grad": lambda: scaled(r(2,3).requires_grad_(), 1.0, out=torch.empty(2,3)),
    "out list": lambda: scaled(r(2,3), 1.0, out=[1,2]),
    "out count": lambda: scaled(r(2,3), 1.0, out=(torch.empty(2,3),torch.empty(2,3))),
    "oob": lambda: shifted(r(5)),
    "unbound": lambda: unbound(r(3,4)),
    "untyped": lambda: nothing_typed(r(3)),
    "recursive": lambda: recursive(r(3)),
    "calls itself": lambda: calls_itself(r(3)),
    "returns number": lambda: returns_number(r(3)),
    "other kernel": lambda: other_kernel(r(3)),
    "index data": lambda: taken(torch.tensor([0,7]), r(3)),
    "undetermined": lambda: quadratic(r(6)),
    "target": lambda: scaled.compile("sm_42", r(2,3), 1.0),
    "not a function": lambda: dlc.kernel(3),
    "class": lambda: dlc.kernel(torch.nn.ReLU()),
    "static": lambda: scaled.partial(eps=1.0),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.filterwarnings("ignore")
def test_calls(name, golden):
    with pytest.raises(dlc.errors.DlcError) as e:
        CASES[name]()
    assert isinstance(e.value, dlc.errors.UserError)
    golden(re.sub(r"\S*/(\w+\.py):\d+", r"\1:LINE", re.sub(r"^ +\d+ \|", "     |", str(e.value), flags=re.MULTILINE)))
