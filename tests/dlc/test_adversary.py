"""Kinds of data made from a user's arguments: within the dtype, the same in every kind of array, integers and scalars left alone."""

import ml_dtypes
import numpy as np
import pytest
import torch

from dlc.tune.adversary import KINDS, changed, kinds
from dsl.errors import ArgumentError

FLOATS = [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.float8_e5m2]


def test_names() -> None:
    assert kinds(None) == kinds("all") == tuple(KINDS) == ("ordinary", "offset", "cancel", "denormal", "extreme")
    assert kinds("cancel, ordinary") == ("cancel", "ordinary") and kinds(["offset", "offset"]) == ("offset",)
    with pytest.raises(ArgumentError) as unknown:
        kinds("ordinary,large")
    assert "no data of the kind 'large'" in str(unknown.value) and "ordinary, offset, cancel, denormal, extreme" in str(unknown.value)
    with pytest.raises(ArgumentError, match="no kind of data is named"):
        kinds([])


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_values_lie_within_the_dtype_and_are_what_they_are_called(dtype: torch.dtype) -> None:
    x = torch.randn(50, 64, generator=torch.Generator().manual_seed(0)).to(dtype)
    info = torch.finfo(dtype)
    made = {kind: changed([x], kind)[0].double() for kind in KINDS}
    assert all(bool(m.isfinite().all()) for m in made.values())
    assert torch.equal(made["ordinary"], x.double())
    assert float(made["offset"].min()) >= min(900.0, info.max / 8)
    within = made["cancel"]
    assert float((within[:, ::2] + within[:, 1::2]).abs().max()) <= 2 * float(within.abs().max()) * max(info.eps, 1e-3)
    small = made["denormal"].abs()
    assert 0 < float(small.max()) < info.smallest_normal
    wide = made["extreme"].abs()
    assert float(wide.max()) > 30 * float(wide[wide > 0].min())


def test_numpy_and_torch_get_the_same_values_in_their_strides() -> None:
    x = torch.randn(9, 6).T
    for kind in KINDS:
        t, n = changed([x], kind)[0], changed([x.numpy()], kind)[0]
        assert t.stride() == x.stride() and n.strides == x.numpy().strides and np.array_equal(t.numpy(), n)
    low = np.ones((3, 4), ml_dtypes.bfloat16)
    assert changed([low], "offset")[0].dtype == low.dtype and float(changed([low], "offset")[0][0, 0]) == 1000


def test_integers_scalars_and_gradients_are_left_alone() -> None:
    at, eps, w = torch.tensor([3, 1]), torch.tensor(1e-5), torch.nn.Parameter(torch.ones(3))
    assert changed([at, eps, 2.5, 7], "extreme") == (at, eps, 2.5, 7)
    assert not changed([w], "offset")[0].requires_grad and torch.equal(w, torch.ones(3))
