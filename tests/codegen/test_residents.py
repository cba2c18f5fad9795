"""Accumulators of dots on tiles are followed through loops; what cannot stay in the registers goes through memory."""

from codegen.emit.dot_match import match_dot
from codegen.emit.llvm_regs import shape_of
from codegen.emit.residents import find_residents
from codegen.tile.text_parse import parse

HEAD = """
program('p')
i = axis(32)
j = lane(32)
s = axis(16)
t = axis(2)
k = axis(8)
n = axis(4)
a = input(bf16, [4, 8, 32, 32], [8192, 1024, 32, 1])
b = input(bf16, [8, 16, 32, 2], [1024, 64, 2, 1])
y = output(f32, [4, 32, 32], [1024, 32, 1])
z = output(f32, [4, 32, 32], [1024, 32, 1])
with phase('p', grid=[]):
"""
ZERO = """
    v: f32 = const(0.0)
    acc: f32[i, j] = broadcast(v)
"""
LOADS = """
{0}x: bf16[i, s, t] = load(a, [n, k, i, t + 2*s])
{0}w: bf16[j, s, t] = load(b, [k, s, j, t])
"""


def found(body):
    program = parse(HEAD + body)
    block = program.phases[0].body

    def match(op):
        return match_dot(op, shape_of(op.results[0].axes, program.lanes, 16), ("amx-bf16",))

    return block, find_residents(block, match), match


def product_in_loops(after="        store(y, [n, i, j], sums)", init="acc"):
    return ZERO + f"""
    for n in loop(0, 4):
        for k in loop(0, 8, carry=[(before, f32[i, j], {init})], results=[sums]):
""" + LOADS.format("            ") + f"""
            more: f32[i, j] = dot(x, w, before, [s, t])
            yield more
{after}
"""


def test_a_sum_stays_over_its_loop_and_is_stored_from_the_registers():
    _, (r,), _ = found(product_in_loops())
    assert {v.hint for v in r.values} == {"before", "more", "sums"} and {v.hint for v in r.stored} == {"sums"}
    assert r.match.block.row_tiles == r.match.block.lane_tiles == 2


def test_what_is_computed_from_takes_the_stack():
    _, (r,), _ = found(product_in_loops("        e: f32[i, j] = map('exp', [sums])\n        store(y, [n, i, j], e)"))
    assert {v.hint for v in r.finished} == {"sums"} and not r.stored


def test_a_sum_that_goes_on_is_loaded_into_the_registers():
    body = product_in_loops(init="old").replace("        for k in", "        old: f32[i, j] = load(y, [n, i, j])\n        for k in", 1)
    _, (r,), _ = found(body)
    assert [op.results[0].hint for op in r.fetched] == ["old"]


def test_a_store_after_the_next_product_takes_the_stack():
    def loop(n):
        return f"""
        for k in loop(0, 8, carry=[(before{n}, f32[i, j], acc)], results=[sums{n}]):
            x{n}: bf16[i, s, t] = load(a, [n, k, i, t + 2*s])
            w{n}: bf16[j, s, t] = load(b, [k, s, j, t])
            more{n}: f32[i, j] = dot(x{n}, w{n}, before{n}, [s, t])
            yield more{n}
"""

    stores = "        store(y, [n, i, j], sums1)\n        store(z, [n, i, j], sums2)\n"
    _, rs, _ = found(f"{ZERO}    for n in loop(0, 4):{loop(1)}{loop(2)}{stores}")
    assert [sorted(v.hint for v in r.stored) for r in rs] == [[], ["sums2"]]


def test_two_sums_in_one_loop_do_not_stay():
    _, rs, _ = found(ZERO + """
    for n in loop(0, 4):
        for k in loop(0, 8, carry=[(b1, f32[i, j], acc), (b2, f32[i, j], acc)], results=[s1, s2]):
""" + LOADS.format("            ") + """
            m1: f32[i, j] = dot(x, w, b1, [s, t])
            m2: f32[i, j] = dot(x, w, b2, [s, t])
            yield m1, m2
        store(y, [n, i, j], s1)
        store(z, [n, i, j], s2)
""")
    assert [sorted(v.hint for v in r.values) for r in rs] == [["m1"], ["m2"]] and not any(r.stored for r in rs)
