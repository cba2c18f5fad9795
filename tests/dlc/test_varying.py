"""Sizes that keep changing become arguments where they can: of kernels scheduled by hand, too."""

import pytest
import torch

import dlc
from dlc import f32
from dlc.compiler import specialize
from dlc.varying import FEW, MOST, NEAR, Many, Often, Sizes

M, N = dlc.dims("M N")


def compiled(kernel):
    return len(kernel._calls._launchers), len(kernel._calls._many)


def test_a_size_changes_after_a_few_values_unless_it_is_fixed_or_zero():
    m, sizes = next(iter(M.term.vars)), Sizes()
    for n in range(1, FEW + 1):
        assert sizes.changing({m: 7}) == frozenset()
        sizes.met({m: n})
    assert sizes.changing({m: 7}) == {"M"} and sizes.changing({m: 0}) == frozenset()
    sizes.fixed |= {"M"}
    assert sizes.changing({m: 7}) == frozenset()


class Anything:
    def serves(self, tensors):
        return True


def test_a_kernel_serves_sizes_near_those_it_was_scheduled_for():
    m, n = (next(iter(d.term.vars)) for d in (M, N))
    many, made = Many(), [Anything() for _ in range(MOST)]
    assert many.suiting((), {m: 10, n: 10}) is None
    many.add({m: 10, n: 10}, made[0])
    assert many.suiting((), {m: 10 * NEAR, n: 4}) is made[0]
    assert many.suiting((), {m: 10 * NEAR + 1, n: 10}) is None and many.suiting((), {m: 10, n: 3}) is None
    many.add({m: 100, n: 10}, made[1])
    assert many.suiting((), {m: 40, n: 10}) is made[1] and many.suiting((), {m: 30, n: 10}) is made[0], "the nearest"
    for k in made[2:]:
        many.add({m: 1, n: 1}, k)
    assert many.suiting((), {m: 10**6, n: 10}) is made[1], "enough of them: the nearest, however far"


def test_a_schedule_by_hand_serves_all_sizes():
    many, only = Many(), Anything()
    many.add({}, only)
    assert many.suiting((), {next(iter(M.term.vars)): 10**6}) is only


@dlc.kernel
def multiplied(x: f32[M, N], y: f32[N, M]):
    return x @ y


def square(n):
    return specialize(multiplied.program, ((n, n), (n, n)))


def test_sizes_that_come_often_get_a_kernel_of_their_own_where_it_pays():
    often, calls = Often(), 1
    assert not often.waits("large") and often.pays("large", lambda: square(500)) is None
    while often.waits("large"):
        calls += 1
    assert 5 < calls < 50, "a tenth of a second of 250 million operations each"
    assert often.pays("large", lambda: square(500)) and often.pays("large", lambda: square(500)) is False
    assert often.pays("small", lambda: square(10)) is False and not often.waits("small")


def test_a_kernel_for_many_sizes_gives_way_to_one_for_those_that_come_often():
    kernel = dlc.kernel(multiplied.fn)
    for n in (300, 301, 302, 303, 304):
        kernel(torch.randn(n, n), torch.randn(n, n))
    assert compiled(kernel) == (FEW, 1)
    x, y, out = torch.randn(400, 400), torch.randn(400, 400), torch.empty(400, 400)
    for _ in range(60):
        torch.testing.assert_close(kernel(x, y), x @ y, atol=1e-3, rtol=1e-3)
    assert compiled(kernel) == (FEW + 1, 1)
    assert kernel(x, y, out=out) is out and torch.equal(out, kernel(x, y))
    assert kernel(torch.randn(404, 404), torch.randn(404, 404)).shape == (404, 404) and compiled(kernel) == (FEW + 1, 1)


@dlc.kernel
def doubled(x: f32[M, N]):
    return x * 2.0


def test_sizes_become_arguments_of_schedules_by_hand():
    s = doubled.schedule("cpu", torch.randn(8, 8), default=False).split("i", 4, tail="peel").vectorize("j").parallel("i.o")
    kernel = doubled.with_schedule(s)
    for m in (2, 3, 4, 5, 6, 700, 1, 9):
        x = torch.randn(m, 8)
        assert torch.equal(kernel(x), x * 2)
    assert compiled(kernel) == (3, 1)


def test_a_size_that_a_schedule_needs_as_a_number_is_fixed_and_the_others_vary():
    kernel = doubled.with_schedule(doubled.schedule("cpu", torch.randn(8, 8), default=False).unroll("j"))
    with pytest.warns(UserWarning, match=r"doubled is compiled for each value of N \(unroll\('j'\)"):
        for n in (2, 3, 4, 5):
            x = torch.randn(n, n)
            assert torch.equal(kernel(x), x * 2)
    before = compiled(kernel)
    for m in (7, 8, 90):
        x = torch.randn(m, 5)
        assert torch.equal(kernel(x), x * 2)
    assert compiled(kernel) == before, "M is an argument"


@dlc.kernel
def halves(x: f32[M, 2 * N + 1], y: f32[N]):
    return dlc.compute((M, N), lambda i, j: x[i, 2 * j] - x[i, 2 * j + 1] + y[j]), x * 2.0


@dlc.kernel
def pairs(x: f32[M, 2 * N + 1]):
    return dlc.compute((M, N), lambda i, j: x[i, 2 * j] - x[i, 2 * j + 1])


@pytest.mark.parametrize("kernel", [halves, pairs])
@pytest.mark.parametrize("view", [False, True])
def test_sizes_that_no_dimension_is_equal_to_are_solved_for(kernel, view):
    kernel = dlc.kernel(kernel.fn)
    for n in (1, 2, 3, 5, 8, 40, 4):
        x = torch.randn(3, 4 * n + 2)[:, ::2] if view else torch.randn(3, 2 * n + 1)
        y = torch.randn(n)
        parts = x[:, :-1:2] - x[:, 1::2]
        if "y" in [t.name for t in kernel.program.inputs]:
            torch.testing.assert_close(kernel(x, y), (parts + y, x * 2))
        else:
            torch.testing.assert_close(kernel(x), parts)
    assert compiled(kernel) == (FEW, 2), "one for 5 and 8, one for 40"
    with pytest.raises(dlc.errors.ShapeError, match="of `x` is 6, "):
        kernel(torch.randn(3, 6), *([torch.randn(3)] if len(kernel.program.inputs) > 1 else []))


@dlc.kernel
def mirrored(x: f32[M, N]):
    return dlc.pad(x, (2, 2), mode="reflect"), x[:, 2], x[:, 2:] - x[:, :-2]


def test_sizes_vary_from_the_least_on_that_was_met_where_smaller_ones_are_out_of_bounds():
    for n in (5, 4, 6, 7, 9, 40, 4):
        x = torch.randn(3, n)
        padded, third, steps = mirrored(x)
        assert torch.equal(padded, torch.nn.functional.pad(x[None], (2, 2), mode="reflect")[0])
        assert torch.equal(third, x[:, 2]) and torch.equal(steps, x[:, 2:] - x[:, :-2])
    assert compiled(mirrored) == (FEW, 2)
    assert mirrored(torch.randn(3, 3))[0].shape == (3, 7) and compiled(mirrored) == (FEW, 3), "another one from 3 on"
    with pytest.raises(dlc.errors.BoundsError):
        mirrored(torch.randn(3, 2))
    assert mirrored(torch.randn(3, 50))[0].shape == (3, 54) and compiled(mirrored) == (FEW, 3)
    assert not mirrored._calls._sizes.fixed, "a call that is refused leaves things as they were"
