"""A dot is an instruction when its factors lie in memory as the instruction wants them; it then loads them itself."""

import pytest

from codegen.emit.dot_match import operand_loads
from codegen.tile.ir import Dot, walk_ops
from tests.codegen.test_residents import found, product_in_loops


def test_a_block_of_tiles_and_the_loads_that_it_makes_itself():
    block, _, match = found(product_in_loops())
    (m,) = (match(op) for op in walk_ops(block) if isinstance(op, Dot))
    assert (m.row.name, m.lane.name, m.step.name, m.term.name) == ("i", "j", "s", "t") and m.instruction.tiled
    assert (m.lanes.buffer.name, m.rows.buffer.name) == ("b", "a")
    assert {op.results[0].hint for op in operand_loads(block, match)} == {"x", "w"}


def test_a_factor_that_something_else_needs_is_loaded_for_it():
    body = product_in_loops().replace("            more:", "            e: bf16[i, s, t] = map('neg', [x])\n            more:")
    block, _, match = found(body)
    assert {op.results[0].hint for op in operand_loads(block, match)} == {"w"}


@pytest.mark.parametrize("change", [("t + 2*s", "s + 16*t"), ("[k, s, j, t]", "[k, s, j, 1 - t]"),
                                    ("t + 2*s])", "t + 2*s], mask=[n - 1])")])
def test_factors_that_lie_otherwise_have_no_instruction(change):
    block, rs, match = found(product_in_loops().replace(*change))
    assert not rs and all(match(op) is None for op in walk_ops(block) if isinstance(op, Dot))
