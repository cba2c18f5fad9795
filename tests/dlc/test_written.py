"""The lines of the functions that call kernels, as text; what they do is tested in test_fastcall.py."""

import pytest

from dlc.runtime import written
from dlc.runtime.recipe import Recipe
from dlc.runtime.written import Given

STRIDED = Recipe("scaled", True, "scaled", (("x", "f32", (4, 6), (1, 4)), ("s", "f64", (), ())), (("f32", (4, 6)),))
MANY = Recipe("total", True, "total", (("x", "bf16", ("n0", "n1"), ("n1", 1)), ("y", "bf16", ("n1",), ("n2",))), (("f32", ("n0",)),),
              workspaces=("4 * n0",), scratch=96, sizes=("n0", "n1", "n2"))


def body(lines):
    """Without indentation."""
    return [line.strip() for line in lines]


def test_known_strides_are_compared_and_numbers_are_put_in_memory():
    lines = body(written.call(STRIDED, Given(numbers=frozenset({1})), tracked=False, own=False))
    assert lines == """
def call(args):
try:
x0, x1 = args
except ValueError:
return MISS
if type(x0) not in KINDS or type(x1) not in (float, int, bool,):
return MISS
try:
if x0.dtype is not D0 or x0.shape != (4, 6) or x0.stride() != (1, 4) or not x0.is_cpu or x0.is_neg():
return MISS
p0 = x0.data_ptr()
if not p0:
return MISS
a1 = array('d', (x1,))
p1 = a1.buffer_info()[0]
except (RuntimeError, OverflowError):
return MISS
if (p0) & 3:
return MISS
if forward._current_level >= 0:
return MISS
if grad_enabled() and (x0.requires_grad):
return MISS
y0 = empty0((4, 6), (6, 1), E0)
q0 = y0.data_ptr()
code = native(ENTRY, 0, threads(), p0, p1, q0)
if code:
raise failed(code, args)
return y0
""".strip().splitlines()


def test_strides_of_arrays_are_in_bytes():
    lines = body(written.call(STRIDED, Given(frozenset({1}), frozenset({0})), tracked=True, own=False))
    assert "if x0.dtype is not N0 and x0.dtype != N0 or x0.shape != (4, 6) or x0.strides != (4, 16):" in lines
    assert "p0 = address(x0)" in lines and "y0 = array0((4, 6), (6, 1), E0)" in lines and not any("tracked" in line for line in lines)


def test_many_sizes_are_bound_and_memory_follows_them():
    lines = body(written.call(MANY, Given(), tracked=True, own=True))
    wanted = ["s0 = x0.shape", "n0 = s0[0]", "n1 = s0[1]", "if n0 < 1 or n1 < 1 or not x0.is_contiguous():", "n2 = t1[0]",
              "own = known((n0, n1, n2,), MISS)", "own = find((n0, n1, n2,), args)", "results = own.call(args)", "return tracked(args)",
              "at1 = at0 + (4 * n0) // 64 * 64 + 128", "block = take(at1 + (96) * many + 64)",
              "code = native(ENTRY, base + at1, many, p0, p1, q0, base + at0, n0, n1, n2)", "give(block)"]
    found = [line for line in lines if line in wanted]
    assert found == wanted


def test_arrays_of_many_sizes_go_forwards_in_whole_elements():
    lines = body(written.call(MANY, Given(arrays=frozenset({0, 1})), tracked=False, own=False))
    assert "n2 = t1[0] // 2" in lines and "if s1[0] != n1 or n2 < 0 or n2 * 2 != t1[0]:" in lines


@pytest.mark.parametrize("recipe, given, wanted", [
    (STRIDED, Given(numbers=frozenset({1})), "q0 & 3 or q0 < p0 + 96 and p0 < q0 + 96"),
    (STRIDED, Given(), "q0 & 3 or q0 < p0 + 96 and p0 < q0 + 96 or q0 < p1 + 8 and p1 < q0 + 96"),
    (MANY, Given(), "q0 & 3 or q0 < p0 + 2 * (n0) * (n1) and p0 < q0 + 4 * (n0) or "
                    "q0 < p1 + 2 * (((n1) - 1) * (n2) + 1) and p1 < q0 + 4 * (n0)"),
])
def test_what_is_filled_lies_apart_from_everything_else(recipe, given, wanted):
    lines = body(written.fill(recipe, given, arrays=False, own=False))
    assert f"if {wanted}:" in lines and lines[-3:] == ["if not y0.is_inference():", "changed(y0)", "return out"]


def test_what_has_no_elements_overlaps_nothing_and_runs_nothing():
    empty = Recipe("none", True, "none", (("x", "f32", (0, 3), (3, 1)),), (("f32", (0, 3)),))
    lines = body(written.fill(empty, Given(), arrays=True, own=False))
    assert not any("native" in line or " + " in line for line in lines) and "if not y0.flags.writeable" not in lines
    assert body(written.serves(empty))[-1] == "return True" and body(written.into(empty))[-1] == "return (y0,)"
