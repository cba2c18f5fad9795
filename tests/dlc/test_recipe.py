"""Recipes: what a launcher needs survives the way to disk; what is no recipe is refused."""

import pytest
import torch

import dlc
from dlc import f32
from dlc.runtime.recipe import Recipe

M, N = dlc.dims("M N")


@dlc.kernel
def columns(x: f32[M, N]):
    return dlc.sum(x, 0), x * 2.0


def test_a_recipe_says_how_to_call():
    plan = columns.plan(torch.randn(6, 4).T)
    made = plan.recipe
    assert (made.name, made.single) == ("columns", False)
    assert made.inputs == (("x", "f32", (4, 6), (1, 4)),) and made.outputs == (("f32", (6,)), ("f32", (4, 6)))
    assert made.loc.file == __file__ and "def columns" in "".join(made.loc.text) or "@dlc.kernel" in made.loc.text


def test_text_and_back():
    plan = columns.plan(torch.randn(4, 6))
    made = plan.recipe
    again = Recipe.from_json(made.to_json())
    assert again == made and again.place == made.place


@pytest.mark.parametrize("text", ["{}", "[]", '{"name": "x", "nonsense": 1}', "not json"])
def test_other_text_is_refused(text):
    with pytest.raises(ValueError):
        Recipe.from_json(text)
