"""Kernels on a GPU: which target a device is compiled for, what a launch is given, errors; real launches where there is a GPU."""

import numpy as np
import pytest
import torch

import dlc
from codegen.target import by_name
from dlc import errors, f32, gpu_launch, i64
from dlc.compiler import Plan
from dlc.gpu_launch import GpuLauncher, nearest
from dlc.runtime.triton_run import interpret

M, N, K = dlc.dims("M N K")


@dlc.kernel
def normalized(x: f32[M, N], w: f32[N]):
    return dlc.softmax(x, 1) * w, dlc.max(x, 1)


@dlc.kernel
def taken(i: i64[M], w: f32[N]):
    return dlc.compute((M,), lambda m: w[i[m]])


@dlc.kernel
def twice(i: i64[K], j: i64[M, N], w: f32[K, 4]):
    return dlc.compute((M, N), lambda m, n: w[i[j[m, n]], n])


@pytest.fixture
def interpreted(monkeypatch):
    """In the place of a GPU: every launch runs the emitted Triton source on the CPU under the checked interpreter."""
    def launch(artifact, tensors, sizes=None):
        report = interpret(artifact, tensors, sizes)
        assert report.ok, report.findings
        for name, value in report.outputs.items():
            tensors[name].copy_(torch.from_numpy(np.ascontiguousarray(value)))

    monkeypatch.setattr(gpu_launch, "launch", launch)


def launcher(kernel, *args):
    return GpuLauncher(kernel.plan(*args, target=by_name("sm_80")))


@pytest.mark.parametrize("name, target",
                         [("sm_80", "sm_80"), ("sm_86", "sm_80"), ("sm_89", "sm_80"), ("sm_90", "sm_90"), ("sm_103", "sm_100"),
                          ("sm_120", "sm_100"), ("gfx942", "gfx942"), ("gfx950", "gfx942")])
def test_a_device_is_compiled_for_the_nearest_older_target(name, target):
    assert nearest(name).name == target


@pytest.mark.parametrize("name", ["sm_70", "gfx1100", "nonsense"])
def test_other_devices_are_refused(name):
    with pytest.raises(errors.TargetError, match=f"kernels do not run on {name}"):
        nearest(name)


def test_a_launch_names_every_tensor(interpreted):
    x, w = torch.randn(13, 40).T.contiguous().T, torch.randn(40)
    first, largest = launcher(normalized, x, w)([x, w])
    torch.testing.assert_close(first, torch.softmax(x, 1) * w)
    assert torch.equal(largest, x.amax(1))
    outs = [torch.empty(13, 40), torch.empty(13)]
    assert launcher(normalized, x, w)([x, w], outs)[0] is outs[0] and torch.equal(outs[0], first)


def test_a_failed_check_is_an_error(interpreted):
    i, w = torch.tensor([0, 2, 1]), torch.randn(3)
    assert torch.equal(launcher(taken, i, w)([i, w])[0], w[i])
    with pytest.raises(errors.BoundsError) as e:
        launcher(taken, i, w)([torch.tensor([0, 3, 1]), w])
    assert e.value.title == "a data-dependent index of taken is out of range"
    assert e.value.reason == "i[1] is 3, outside [0, 3): w has 3 elements\nit is read at m = 1"
    assert e.value.loc.text.strip() == "return dlc.compute((M,), lambda m: w[i[m]])"


def test_a_failed_check_says_what_it_says_on_the_cpu(interpreted):
    i, j, w = torch.tensor([0, 2, 1]), torch.tensor([[1, 0], [0, -7]]), torch.randn(3, 4)
    with pytest.raises(errors.BoundsError) as on_gpu:
        launcher(twice, i, j, w)([i, j, w])
    with pytest.raises(errors.BoundsError) as on_cpu:
        twice(i, j, w)
    assert on_gpu.value.reason == on_cpu.value.reason == "j[1, 1] is -7, outside [0, 3): i has 3 elements\nit is read at m = 1, n = 1"


def test_a_kernel_called_on_a_device_is_compiled_for_it(interpreted, monkeypatch):
    kernel, asked = dlc.kernel(taken.fn), []
    monkeypatch.setattr(gpu_launch, "target_of", lambda device: asked.append(device) or by_name("sm_90"))
    args = [torch.tensor([0, 2, 1]), torch.randn(3)]
    for _ in range(2):
        made = kernel._calls._gpu_launcher(args)
        assert torch.equal(made(args)[0], args[1][args[0]])
    assert asked == [torch.device("cpu")] and made.artifact.kernels


def test_a_size_that_keeps_changing_becomes_an_argument(interpreted, monkeypatch):
    """After kernels for three values of a size, one serves those near the next; those that need 64-bit indices get their own."""
    from dlc import calling

    monkeypatch.setattr(calling.gpu_launch, "target_of", lambda device: by_name("sm_90"))
    kernel, w = dlc.kernel(normalized.fn), torch.randn(16)
    made = []
    for rows in (3, 5, 16, 7, 4, 20, 9, 40):
        x = torch.randn(rows, 16)
        made.append(kernel._calls._gpu_launcher([x, w]))
        first, largest = made[-1]([x, w])
        torch.testing.assert_close(first, torch.softmax(x, 1) * w)
        assert torch.equal(largest, x.amax(1))
    assert len(set(made[:4])) == 4 and set(made[3:-1]) == {made[3]} and made[-1] not in made[:-1] and list(made[3].names.values()) == ["M"]
    huge = torch.empty(1 << 28, 16, device="meta")
    assert not made[3].serves([huge, w]) and not made[3].serves([torch.randn(8, 17), torch.randn(17)])
    assert not made[3].serves([torch.randn(0, 16), w])
    monkeypatch.setenv("DLC_DYNAMIC", "off")
    fixed = dlc.kernel(normalized.fn)
    assert len({fixed._calls._gpu_launcher([torch.randn(n, 16), w]) for n in (2, 3, 4, 5, 6)}) == 5


def test_a_failed_check_of_a_kernel_for_many_sizes(interpreted, monkeypatch):
    from dlc import calling

    monkeypatch.setattr(calling.gpu_launch, "target_of", lambda device: by_name("sm_90"))
    kernel = dlc.kernel(taken.fn)
    for n in (2, 3, 4, 5):
        i, w = torch.arange(n), torch.randn(n)
        assert torch.equal(kernel._calls._gpu_launcher([i, w])([i, w])[0], w)
    many = kernel._calls._gpu_launcher([torch.zeros(6).long(), torch.randn(9)])
    assert many.names
    with pytest.raises(errors.BoundsError) as e:
        many([torch.tensor([0, 1, 2, 3, 9, 5]), torch.randn(9)])
    assert e.value.reason == "i[4] is 9, outside [0, 9): w has 9 elements\nit is read at m = 4"


@pytest.mark.gpu
def test_on_a_gpu():
    x, w = torch.randn(300, 70, device="cuda"), torch.randn(70, device="cuda")
    for _ in range(2):
        first, largest = normalized(x, w)
        torch.testing.assert_close(first, torch.softmax(x, 1) * w)
        assert torch.equal(largest, x.amax(1)) and first.device == x.device
    with pytest.raises(errors.TargetError, match="on cuda:0 and on cpu"):
        normalized(x, w.cpu())
    with pytest.raises(errors.BoundsError):
        taken(torch.tensor([0, 3], device="cuda"), w[:3])


@pytest.mark.gpu
def test_on_the_current_stream():
    x, w = torch.randn(300, 70, device="cuda"), torch.randn(70, device="cuda")
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        torch.cuda._sleep(100_000_000)
        y = x + 1
        first, _ = normalized(y, w)
    torch.cuda.current_stream().wait_stream(side)
    torch.testing.assert_close(first, torch.softmax(x + 1, 1) * w)


@pytest.mark.gpu
def test_gradients_on_a_gpu():
    @dlc.kernel
    def squared(x: f32[M, N]):
        return x * x

    x = torch.randn(30, 70, device="cuda", requires_grad=True)
    squared(x).sum().backward()
    torch.testing.assert_close(x.grad, 2 * x.detach())


def test_plans_for_cpus_are_refused():
    with pytest.raises(errors.TargetError):
        GpuLauncher(Plan(normalized.plan(torch.randn(3, 4), torch.randn(4)).request))
