"""Equal values are made once, identities and unused operations go; what may differ in one bit or is written between stays."""

from __future__ import annotations

import textwrap

import numpy as np
import pytest

from codegen.passes.simplify import simplify
from codegen.tile.interp import run
from codegen.tile.text import show
from codegen.tile.text_parse import parse
from codegen.tile.verify import verify

HEAD = """\
program('p')
i = axis(3)
k = axis(4)
l = axis(8)
x = input(f32, [3, 8], [8, 1])
y = output(f32, [3, 8], [8, 1])
with phase('p', grid=[(i, 3)]):
"""


def _program(text: str) -> str:
    return HEAD + textwrap.indent(textwrap.dedent(text).strip(), "    ") + "\n"


def _body(text: str) -> list[str]:
    """The lines of the phase once simplified, which must still be a valid program."""
    program = simplify(parse(text))
    verify(program)
    lines = show(program, False).splitlines()
    return [line.strip() for line in lines[1 + next(n for n, line in enumerate(lines) if line.startswith("with phase")):]]


def test_equal_values_are_made_once() -> None:
    assert _body(_program("""
        a: f32[l] = load(x, [i, l])
        b: f32[l] = load(x, [i, l])
        c: f32[l] = map('mul', [a, b])
        d: f32[l] = map('mul', [b, b])
        e: f32[l] = map('add', [c, d])
        store(y, [i, l], e)
    """)) == ["a: f32[l] = load(x, [i, l])", "c: f32[l] = map('mul', [a, a])", "e: f32[l] = map('add', [c, c])", "store(y, [i, l], e)"]


def test_values_of_an_outer_scope_serve_the_inner_but_not_the_other_way() -> None:
    assert _body(_program("""
        a: f32[l] = load(x, [i, l])
        for k in loop(0, 4):
            b: f32[l] = load(x, [i, l])
            c: f32[l] = map('neg', [b])
            store(y, [i, l], c)
        d: f32[l] = map('neg', [a])
        store(y, [i, l], d)
    """)) == ["a: f32[l] = load(x, [i, l])", "for k in loop(0, 4):", "c: f32[l] = map('neg', [a])", "store(y, [i, l], c)",
              "d: f32[l] = map('neg', [a])", "store(y, [i, l], d)"]


def test_what_the_phase_writes_is_read_again() -> None:
    text = """
        a: f32[l] = load(y, [i, l])
        store(y, [i, l], a)
        b: f32[l] = load(y, [i, l])
        c: f32[l] = map('add', [a, b])
        store(y, [i, l], c)
    """
    assert _body(_program(text)) == [line.strip() for line in text.strip().splitlines()]


def _with_constants(operation: str) -> list[str]:
    return _body(_program(f"""
        one: f32 = const(1.0)
        zero: f32 = const(0.0)
        minus: f32 = const(-0.0)
        yes: bool = const(True)
        no: bool = const(False)
        a: f32[l] = load(x, [i, l])
        b: f32[l] = map({operation})
        store(y, [i, l], b)
    """))


@pytest.mark.parametrize("operation", ["'mul', [a, one]", "'mul', [one, a]", "'div', [a, one]", "'sub', [a, zero]", "'cast', [a]",
                                       "'where', [yes, a, one]", "'where', [no, one, a]", "'where', [yes, a, a]"])
def test_operations_that_return_an_operand_go(operation: str) -> None:
    assert _with_constants(operation) == ["a: f32[l] = load(x, [i, l])", "store(y, [i, l], a)"]


@pytest.mark.parametrize("operation", ["'add', [a, zero]", "'sub', [a, minus]", "'div', [one, a]", "'sub', [zero, a]", "'mul', [a, zero]"])
def test_operations_that_change_a_bit_stay(operation: str) -> None:
    assert _with_constants(operation)[-2:] == [f"b: f32[l] = map({operation})", "store(y, [i, l], b)"]


def test_zeros_of_both_signs_are_different_constants() -> None:
    assert len(_body(_program("""
        zero: f32 = const(0.0)
        minus: f32 = const(-0.0)
        a: f32[l] = load(x, [i, l])
        b: f32[l] = map('mul', [a, zero])
        c: f32[l] = map('mul', [a, minus])
        d: f32[l] = map('max', [b, c])
        store(y, [i, l], d)
    """))) == 7


def test_results_are_the_same_to_the_bit(rng: np.random.Generator) -> None:
    text = _program("""
        one: f32 = const(1.0)
        zero: f32 = const(0.0)
        a: f32[l] = load(x, [i, l])
        b: f32[l] = load(x, [i, l])
        c: f32[l] = map('mul', [one, b])
        d: f32[l] = map('add', [c, zero])
        e: f32[l] = map('div', [a, one])
        f: f32[l] = map('add', [d, e])
        unused: f32[l] = map('exp', [f])
        store(y, [i, l], f)
    """)
    x = rng.standard_normal((3, 8), np.float32)
    x[0, :4] = [-0.0, np.inf, np.nan, -np.inf]
    want, got = run(parse(text), {"x": x}, {})["y"], run(simplify(parse(text)), {"x": x}, {})["y"]
    assert want.tobytes() == got.tobytes()
    assert "unused" not in show(simplify(parse(text)), False)


def test_loops_without_a_round_go_and_leave_what_they_began_with() -> None:
    assert _body(_program("""
        zero: f32 = const(0.0)
        start: f32[l] = broadcast(zero)
        for k in loop(2, 2, carry=[(acc, f32[l], start)], results=[done]):
            a: f32[l] = load(x, [i, l])
            b: f32[l] = map('add', [acc, a])
            store(y, [i, l], b)
            yield b
        store(y, [i, l], done)
    """)) == ["zero: f32 = const(0.0)", "start: f32[l] = broadcast(zero)", "store(y, [i, l], start)"]


@pytest.mark.parametrize("narrow, wide, goes", [("bf16", "f32", True), ("f16", "f32", True), ("f32", "f64", True), ("i8", "i32", True),
                                                ("f32", "bf16", False), ("f16", "bf16", False), ("i32", "i8", False),
                                                ("i32", "f32", False)])
def test_a_conversion_there_and_back_goes_where_nothing_is_rounded(narrow: str, wide: str, goes: bool) -> None:
    body = f"""
    a: {narrow}[l] = load(x, [i, l])
    b: {wide}[l] = map('cast', [a])
    c: {narrow}[l] = map('cast', [b])
    store(y, [i, l], c)
    """
    program = simplify(parse(HEAD.replace("f32", narrow) + textwrap.indent(textwrap.dedent(body).strip(), "    ") + "\n"))
    verify(program)
    assert ("cast" in show(program, False)) is not goes
