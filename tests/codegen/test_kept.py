"""Sums over a row that others need too, made beside the map over that row: norms of groups, statistics that a backward begins with."""

from __future__ import annotations

import pytest
import torch

import dlc
from dlc import f32, f64
from dlc.runtime.device import host_target
from dsl.schedule import Schedule

B, H, W = dlc.dims("B H W")


@dlc.kernel
def group_norm(x: f32[B, 12, H, W], w: f32[12], b: f32[12]):
    return dlc.group_norm(x, 4, w, b)


@dlc.kernel
def group_norm_exact(x: f64[B, 12, H, W], w: f64[12], b: f64[12]):
    return dlc.group_norm(x, 4, w, b)


@dlc.kernel
def instance_norm(x: f32[B, 12, H, W], w: f32[12], b: f32[12]):
    return dlc.instance_norm(x, None, None, w, b)


@dlc.kernel
def batch_norm(x: f32[B, 12, H, W], w: f32[12], b: f32[12]):
    return dlc.batch_norm(x, None, None, w, b, True)


@dlc.kernel
def statistics(x: f32[B, 12, H, W]):
    """Every row normalised, with its mean."""
    mean = dlc.mean(x, axis=(2, 3), keepdims=True)
    return (x - mean) * 2.0, mean


def arguments(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return [torch.randn(s, generator=g, dtype=dtype) for s in (shape, (12,), (12,))]


def beside(kernel, shape: tuple[int, ...], backward: bool = True) -> dict[str, str]:
    """The stages kept beside another -> that."""
    kernel = kernel.vjp if backward else kernel
    given = [torch.empty(shape if t.ndim == 4 else (12,)) for t in kernel.program.inputs]
    return {s.name: s.attach[0] for s in kernel.plan(*given, target=host_target()).nest.stages if s.beside}


def test_a_group_is_summed_beside_its_gradient():
    """Both sums over each channel, which the gradients of weight and bias need too."""
    found = beside(group_norm, (8, 12, 32, 32))
    assert len([name for name in found if name.startswith("d_")]) == 2 and set(found.values()) == {"d_x"}


def test_what_lies_in_pieces_is_summed_apart():
    assert not beside(batch_norm, (8, 12, 32, 32))


def test_a_result_is_made_beside_what_reads_it():
    assert len(beside(statistics, (8, 12, 32, 32), backward=False)) == 1
    x = torch.randn(8, 12, 32, 32)
    y, mean = statistics(x)
    want = x.double().mean((2, 3), keepdim=True)
    assert torch.allclose(mean.double(), want, atol=1e-6) and torch.allclose(y.double(), (x - want) * 2, atol=1e-5)


REFERENCE = {
    "group_norm": lambda x, w, b: torch.nn.functional.group_norm(x, 4, w, b),
    "instance_norm": lambda x, w, b: torch.nn.functional.instance_norm(x, None, None, w, b),
    "batch_norm": lambda x, w, b: torch.nn.functional.batch_norm(x, None, None, w, b, True),
}


@pytest.mark.parametrize("name", REFERENCE)
@pytest.mark.parametrize("shape", [(8, 12, 32, 32), (5, 12, 7, 7), (3, 12, 1, 13), (1, 12, 33, 5), (9, 12, 61, 1)])
def test_gradients(name, shape):
    agrees(globals()[name], REFERENCE[name], arguments(shape), 1e-5)


@pytest.mark.parametrize("kernel", [group_norm, instance_norm])
def test_gradients_of_nothing(kernel):
    args = [t.requires_grad_() for t in arguments((0, 12, 4, 4))]
    kernel(*args).sum().backward()
    assert all(t.grad is not None and t.grad.shape == t.shape and not t.grad.any() for t in args)


def test_gradients_of_doubles():
    agrees(group_norm_exact, REFERENCE["group_norm"], arguments((6, 12, 20, 20), torch.float64), 1e-12)


def agrees(kernel, reference, args: list[torch.Tensor], tolerance: float) -> None:
    """Results and gradients against float64, relative to the largest of each."""
    ours = [t.clone().requires_grad_() for t in args]
    theirs = [t.double().requires_grad_() for t in args]
    out = kernel(*ours)
    seed = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=out.dtype)
    out.backward(seed)
    want = reference(*theirs)
    want.backward(seed.double())
    for mine, its in zip((out, *(t.grad for t in ours)), (want, *(t.grad for t in theirs))):
        assert (mine.double() - its).abs().max() <= tolerance * max(1.0, its.abs().max())


def test_a_group_with_a_nan_spoils_its_own_gradients_alone():
    x, w, b = arguments((4, 12, 16, 16))
    x[1, 4, 3, 3] = torch.nan
    x, w, b = (t.requires_grad_() for t in (x, w, b))
    group_norm(x, w, b).sum().backward()
    bad = x.grad.isnan()
    assert bad[1, 3:6].all() and not bad[1, :3].any() and not bad[1, 6:].any() and not bad[0].any() and not bad[2:].any()
    assert w.grad.isnan().tolist() == [3 <= n < 6 for n in range(12)]


def test_its_steps_apply_again():
    """From text too, where there are lists for tuples."""
    x = torch.randn(8, 12, 32, 32)
    made = statistics.schedule("cpu", x)
    assert str(Schedule.replay(made.to_json(), statistics.schedule("cpu", x, default=False))) == str(made)
