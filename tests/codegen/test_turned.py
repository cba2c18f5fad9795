"""Short rows lie one in each lane, where counts say that lanes along them would do more."""

import pytest
import torch

import dlc
from dlc import f32, i64
from tests.codegen.products import planned, run


def softmax_of(rows: int, columns: int):
    @dlc.kernel
    def softmax(x: f32[rows, columns]):
        return dlc.softmax(x, axis=1)

    return softmax


@pytest.mark.parametrize("columns", [2, 5, 7, 10, 16])
@pytest.mark.parametrize("rows", [16, 37, 1000])
def test_short_rows_are_turned_in_registers(rows, columns):
    x = torch.randn(rows, columns)
    plan, got = run(softmax_of(rows, columns), x)
    assert "gather" not in plan.module.text and "scatter" not in plan.module.text
    assert all(s.roles[s.order[-1]] == "vectorize" and "unroll" in s.roles.values() for s in plan.nest.stages if len(s.axes) > 1)
    torch.testing.assert_close(got, x.softmax(1), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("rows, columns", [(1000, 32), (1000, 100), (8, 7)])
def test_rows_that_fill_vectors_and_few_rows_are_not(rows, columns):
    anchor = planned(softmax_of(rows, columns), torch.randn(rows, columns), target="x86-64-avx2").nest.stages[-1]
    assert anchor.axis_names()[anchor.axes[1]] == anchor.order[-1].split(".")[0]


@pytest.mark.parametrize("reduce, theirs", [(dlc.max, torch.amax), (dlc.sum, torch.sum), (dlc.argmax, torch.argmax)])
def test_reductions_of_short_rows(reduce, theirs):
    x = torch.randn(203, 11)

    @dlc.kernel
    def reduced(x: f32[203, 11]):
        return reduce(x, 1)

    torch.testing.assert_close(run(reduced, x)[1], theirs(x, 1))


def test_short_rows_of_a_pass_over_blocks_are_turned_too():
    x, labels = torch.randn(9000, 10), torch.randint(0, 10, (9000,))

    @dlc.kernel
    def loss(x: f32[9000, 10], labels: i64[9000]):
        return dlc.cross_entropy(x, labels)

    plan, got = run(loss, x, labels)
    inner = [s for s in plan.nest.stages if s.kind == "reduce" and s.bound[0].extent == 10]
    assert inner and all("unroll" in s.roles.values() and s.order[-1].endswith(".i") for s in inner)
    torch.testing.assert_close(got, torch.nn.functional.cross_entropy(x, labels), rtol=1e-5, atol=1e-6)
