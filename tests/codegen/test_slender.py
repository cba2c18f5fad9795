"""Few rows: the large factor is read once and not copied, whatever its orientation."""

import pytest
import torch

from tests.codegen.products import PRODUCTS, agrees, choice, exact, operands, run


@pytest.mark.parametrize("kind, form", [("nt", "dots"), ("nn", "stream")])
@pytest.mark.parametrize("m", [2, 3, 8, 14])
def test_few_rows_make_no_copies(kind, form, m):
    x, w = operands(kind, m, 700, 900)
    plan, got = run(PRODUCTS[kind], x, w)
    assert choice(plan, "form").value == form
    assert not any(phase.scratch for phase in plan.tile.phases)
    agrees(got, exact(kind, x, w), 900)


@pytest.mark.parametrize("columns", [1, 2, 3, 4, 6, 8])
def test_dots_of_any_number_of_columns(columns):
    x, w = operands("nt", 3, 131, 75)
    agrees(run(PRODUCTS["nt"], x, w, decisions={"form": "dots", "columns": columns})[1], exact("nt", x, w), 75)


@pytest.mark.parametrize("step", [4, 8, 16, 32])
def test_streams_of_any_step(step):
    x, w = operands("nn", 3, 331, 75)
    agrees(run(PRODUCTS["nn"], x, w, decisions={"form": "stream", "step": step})[1], exact("nn", x, w), 75)


def test_sums_kept_in_memory_start_from_zero():
    x, w = operands("nn", 2, 400, 64)
    _, first = run(PRODUCTS["nn"], x, w, decisions={"form": "stream"})
    _, second = run(PRODUCTS["nn"], x, w, decisions={"form": "stream"})
    assert torch.equal(first, second)
