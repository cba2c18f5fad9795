"""Formulas of sizes as steps: they come to what the formulas do, and refuse what does not agree."""

import pytest

from codegen.artifact import evaluate
from dlc.runtime.direct_numbers import KINDS_OF_STEP, Numbers
from dlc.runtime.recipe import Recipe


def taken(numbers, words):
    """Take the steps in Python; None where one refuses."""
    row = list(numbers.row)
    does = {"PLUS": lambda a, b: a + b, "MINUS": lambda a, b: a - b, "TIMES": lambda a, b: a * b, "DIVIDE": lambda a, b: a // b,
            "MODULO": lambda a, b: a % b, "LEAST": min, "MOST": max}
    for at in range(0, len(numbers.steps), 4):
        what, a, b, c = numbers.steps[at:at + 4]
        kind = KINDS_OF_STEP[what]
        if kind == "WORD":
            row[c] = words[a][b]
        elif kind in does:
            row[c] = does[kind](row[a], row[b])
        elif kind == "POSITIVE":
            if row[a] < 1:
                return None
        elif row[a] != row[b] and (kind == "SAME" or row[c] != 1):
            return None
    return row


def recipe(*inputs, sizes=(), outputs=(), solved=()):
    return Recipe("k", True, "k", tuple((f"x{n}", "f32", *one) for n, one in enumerate(inputs)), outputs, sizes=sizes, solved=solved)


def test_known_sizes_take_no_step():
    numbers = Numbers(recipe(((3, 4), (4, 1))), 0, 5)
    assert numbers.steps == [] and numbers.row[numbers.span((3, 4), (4, 1), 4)] == 48 and numbers.steps == []


@pytest.mark.parametrize("text", ["n0 * 2 + n1", "min(n0, 3 * n1)", "max(n0, n1) - 5", "((n0 + 3) // (2)) * 4 + ((n1) % (3))", "-n0 + n1"])
def test_formulas(text):
    numbers = Numbers(recipe((("n0", "n1"), ("n1", 1)), sizes=("n0", "n1")), 0, 5)
    place = numbers.place(text)
    for a, b in ((1, 1), (7, 3), (2, 9)):
        row = taken(numbers, [[a, b, 0, 0, 0, b, 1]])
        assert row[place] == evaluate(text, {"n0": a, "n1": b})


def test_what_is_refused():
    numbers = Numbers(recipe((("n0", "2 * n0"), ("2 * n0", 1)), (("n0",), ("n1",)), sizes=("n0", "n1")), 0, 3)
    assert taken(numbers, [[3, 6, 0, 6, 1], [3, 0, 0, 17]]) is not None
    assert taken(numbers, [[3, 6, 0, 6, 1], [4, 0, 0, 17]]) is None  # sizes disagree
    assert taken(numbers, [[3, 7, 0, 7, 1], [3, 0, 0, 17]]) is None  # not twice
    assert taken(numbers, [[3, 6, 0, 5, 1], [3, 0, 0, 17]]) is None  # another stride
    assert taken(numbers, [[1, 2, 0, 5, 1], [1, 0, 0, 17]]) is not None  # which does not matter here
    assert taken(numbers, [[0, 0, 0, 0, 1], [0, 0, 0, 17]]) is None


def test_a_size_that_only_a_formula_shows():
    numbers = Numbers(recipe((("2 * n0 + 1",), (1,)), sizes=("n0",), solved=(("n0", 0, 0, 1, 2),)), 0, 3)
    place = numbers.place("n0")
    assert taken(numbers, [[7, 0, 0, 1]])[place] == 3
    assert taken(numbers, [[8, 0, 0, 1]]) is None and taken(numbers, [[1, 0, 0, 1]]) is None


def test_what_no_step_computes():
    numbers = Numbers(recipe(((3,), (1,))), 0, 3)
    for text in ("n7 + 1", "cdiv(3, 2)", "3 / 2"):
        with pytest.raises(ValueError):
            numbers.place(text)
