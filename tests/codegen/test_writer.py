"""Names that never clash, blocks that know what was defined around them, parentheses only where they change the meaning."""

from __future__ import annotations

import ast
import itertools
import keyword

import numpy as np

from codegen.emit.writer import Lines, Names, atom, factor, join


def test_names_are_identifiers_and_all_different() -> None:
    names = Names(["tl", "x"])
    hints = ["x", "x", "for", "a b", "2nd", "", "i.o", "i_o", "tl", "None", "x_1"]
    given = [names.fresh(h) for h in hints]
    assert len(set(given)) == len(given) and not {"tl", "x"} & set(given)
    assert all(n.isidentifier() and not keyword.iskeyword(n) for n in given)
    assert given[:2] == ["x_1", "x_2"] and given[5] == "v" and Names().fresh("...", "t") == "t"


def test_blocks_nest_and_remember() -> None:
    outer = Lines()
    outer.add("a = 1")
    outer.known["a"] = "a"
    inner = Lines(1, outer)
    inner.known["b"] = "b"
    inner.add("b = a", "")
    empty = Lines(2, inner)
    inner.nest("for _ in range(0):", empty)
    outer.nest("for i in range(2):", inner)
    assert outer.lines == ["a = 1", "for i in range(2):", "    b = a", "", "    for _ in range(0):", "        pass"]
    assert inner.find("a") == "a" and outer.find("b") is None
    assert empty.at(0) is outer and empty.at(1) is inner and empty.at(2) is empty
    ast.parse("\n".join(outer.lines))


def test_parentheses_keep_the_meaning() -> None:
    """Joined texts evaluate to what their parts evaluate to, joined; whatever stands in them."""
    parts = ["a", "a + 2", "a * b", "-a", "f(a)", "a // b", "v[0]", "7", "a - b"]
    scope = {"a": 5, "b": 3, "v": [11], "f": lambda x: x - 9}
    for left, right in itertools.product(parts, parts):
        values = [eval(t, dict(scope)) for t in (left, right)]
        assert eval(f"{atom(left)} // {atom(right)}", dict(scope)) == values[0] // values[1]
        assert eval(f"{factor(left)} * {atom(right)}", dict(scope)) == values[0] * values[1]
        assert eval(join("-", [left, right]), dict(scope)) == values[0] - values[1]
    assert [atom(t) for t in ("a", "f(a)", "v[0]", "a * b")] == ["a", "f(a)", "v[0]", "(a * b)"]
    assert factor("a * b") == "a * b" and factor("a // b") == "(a // b)" and join("&", ["a < b"]) == "a < b"


def test_a_join_of_conditions() -> None:
    m = np.array([True, False])
    assert eval(join("&", ["m", "m == False"]), {"m": m}).tolist() == [False, False]
