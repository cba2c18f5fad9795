"""Where torch keeps what a call must know of a tensor: every place is found, and says what torch says."""

import ctypes

import pytest
import torch

from dlc.runtime import tensor_layout
from dlc.runtime.arguments import TORCH
from dlc.runtime.tensor_layout import layout


def word(t, place):
    return ctypes.c_uint64.from_address(t._cdata + 8 * place).value


@pytest.fixture
def here():
    found = layout()
    if found is None:
        pytest.skip("the layout of this torch is not found")
    return found


def test_shape_and_strides(here):
    t = torch.empty(4, 6, 8)[1:3, ::2].transpose(0, 2)
    assert ctypes.c_uint64.from_address(id(t) + here.pointer).value == t._cdata
    assert word(t, here.dims) == 3 and here.most >= 3
    assert [word(t, here.sizes + d) for d in range(3)] == list(t.shape)
    assert [word(t, here.strides + d) for d in range(3)] == list(t.stride())


def test_dtypes_and_kinds(here):
    assert len(set(here.codes.values())) == len(TORCH)
    for name, dtype in TORCH.items():
        t = torch.empty(3, dtype=dtype)
        assert word(t, here.dtype) & here.mask == here.codes[name] and word(t, here.keys) == here.plain[0]
    with torch.inference_mode():
        assert word(torch.empty(3), here.keys) == here.plain[1]
    t = torch.empty(3)
    for other in (torch._neg_view(t), t.to("meta"), t.to_sparse(), torch._efficientzerotensor((3,)), t.to(torch.complex64).conj()):
        assert word(other, here.keys) not in here.plain


def test_what_autograd_has_to_do_with(here):
    t = torch.empty(3)
    assert word(t, here.autograd) == 0 and word(t.requires_grad_(), here.autograd) != 0
    assert word(torch.nn.Parameter(torch.empty(3)), here.autograd) != 0 and word(t * 2, here.autograd) != 0
    with torch.autograd.forward_ad.dual_level():
        assert word(torch.autograd.forward_ad.make_dual(torch.empty(3), torch.ones(3)), here.autograd) != 0


def test_there_is_none_where_a_place_is_in_doubt(monkeypatch):
    monkeypatch.setattr(tensor_layout, "_keys", lambda t: 1 << 63)
    assert layout.__wrapped__() is None
    monkeypatch.setattr(tensor_layout, "TORCH", {"f32": torch.float32})
    assert layout.__wrapped__() is None
