"""Copies that keep terms side by side move them as words, where no word lies across those of memory or is masked in part."""

import pytest

from codegen.emit.word_copies import find_word_copies
from codegen.tile.ir import Store, walk_ops
from codegen.tile.text_parse import parse
from dsl.dtype import i32
from tests.codegen.products import exact, modelled, operands, run_on
from tests.codegen.test_llvm_dot import bf16, product

PROGRAM = """
program('p')
k = axis(16)
j = lane(16)
n = axis(4)
w = input(bf16, [16, 64], [64, 1])
p = output(bf16, [32, 16, 2], [32, 2, 1])
with phase('p', grid=[]):
    for n in loop(0, 4):
        x: bf16[k, j] = load(w, [j, k + 16*n])
        store(p, [8*n + (k // 2), j, k % 2], x)
"""


def copies(*changes):
    text = PROGRAM
    for a, b in changes:
        assert a in text
        text = text.replace(a, b)
    body = parse(text).phases[0].body
    return [op for op in walk_ops(body) if isinstance(op, Store)], find_word_copies(body)


def test_pairs_are_words_of_32_bits():
    (store,), found = copies()
    c = found[store]
    (k, j) = sorted(c.load.results[0].axes, key=lambda v: v.name, reverse=True)
    assert c.load.buffer.dtype == c.store.buffer.dtype == c.store.value.dtype == i32 and (k.size, j.size) == (8, 16)
    load, out = c.load.indices[0], c.store.indices[0]
    assert (load.coef(k), load.coef(j), out.coef(k), out.coef(j)) == (1, 32, 16, 1)
    assert [b.name for _, b in c.views] == ["w", "p"]


@pytest.mark.parametrize("mask, word", [("-k - 16*n + 59", "-2*k + 58"), ("-j + 9", "-j + 9")])
def test_masks_that_part_no_word(mask, word):
    (store,), found = copies(("k + 16*n])", f"k + 16*n], mask=[{mask}])"))
    (t,) = found[store].load.mask
    assert str(t.subs({v: 0 for v in t.vars if v.name == "n"})) == word


@pytest.mark.parametrize("change", [
    ("k + 16*n])", "k + 16*n], mask=[-k - 16*n + 60])"),  # ends inside a pair
    ("[64, 1]", "[63, 1]"),  # rows at odd places
    ("[16, 64], [64, 1]", "[16, 128], [128, 2]"),  # terms apart in memory
    ("j, k % 2]", "j, (k + 1) % 2]"), ("(k // 2), j, k % 2", "(k // 2), j, 0"),
    ("        store(p", "        e: bf16[k, j] = map('neg', [x])\n        store(p"),
])
def test_others_are_copied_by_elements(change):
    _, found = copies(change) if "neg" not in change[1] else copies(change, ("k % 2], x", "k % 2], e"))
    assert not found


@pytest.mark.parametrize("sets", [("amx-bf16",), ("avx512bf16",)])
@pytest.mark.parametrize("k", [64, 62, 61, 1000])
def test_packed_factors_are_what_they_were(k, sets):
    x, w = (v.bfloat16() for v in operands("nt", 40, 50, k))
    plan, (got,) = run_on(modelled(*sets), product("nt", bf16), x, w)
    found = [c for phase in plan.tile.phases for c in find_word_copies(phase.body)]
    assert bool(found) is (k % 2 == 0)
    assert float((got.double() - exact("nt", x, w)).abs().max()) < 1e-6 * float(exact("nt", x, w).abs().max())
