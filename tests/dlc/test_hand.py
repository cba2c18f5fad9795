"""Blocks at hand: the last one given is taken first, a bound holds, other threads may give, tensors give theirs back."""

import ctypes
import subprocess
import sys
import threading

import pytest
import torch

from dlc import hand
from dlc.hand import Hand, exported
from dlc.runtime.arguments import TORCH


@pytest.fixture
def over():
    return []


@pytest.fixture
def blocks(over):
    made = Hand(over.append)
    made.bound(1 << 40)
    return made


def records(blocks, count, size=4096, kind=9):
    memory = [ctypes.create_string_buffer(size + 64) for _ in range(count)]
    blocks.memory = [*getattr(blocks, "memory", ()), *memory]
    return [blocks.record(-(-ctypes.addressof(m) // 64) * 64, size, kind) for m in memory]


def words(record):
    return (ctypes.c_int64 * hand.WORDS).from_address(record)


def test_the_last_given_is_taken_first(blocks):
    a, b, c = records(blocks, 3)
    assert blocks.take(9) == 0
    for r in (a, b, c):
        blocks.give(r)
    assert blocks.kept == 3 * 4096 and blocks.take(8) == 0
    assert [blocks.take(9) for _ in range(4)] == [c, b, a, 0]
    assert blocks.kept == 0 and blocks.taken == 3


def test_what_is_too_much_goes_to_the_hook(blocks, over):
    a, b = records(blocks, 2)
    blocks.bound(5000)
    blocks.give(a)
    blocks.give(b)
    assert over == [b] and blocks.kept == 4096
    assert blocks.take(9) == a and blocks.take(9) == 0


def test_everything_in_the_order_in_which_it_came_back(blocks):
    small, large = records(blocks, 3), records(blocks, 2, 8192, 17)
    order = [small[1], large[0], small[0], large[1], small[2]]
    for r in order:
        blocks.give(r)
    assert blocks.all() == order and blocks.kept == 0 and blocks.taken == 0


@pytest.mark.parametrize("name", TORCH)
def test_tensors_over_a_block(blocks, name):
    dtype = TORCH[name]
    if exported(dtype) is None:
        pytest.skip("this torch has no direct way")
    (record,) = records(blocks, 1)
    shape = (3, 0, 5) if name == "i16" else (2, 3, 5, 1)
    t = blocks.wrap(record, shape, dtype)
    assert t.dtype is dtype and t.shape == shape and t.is_contiguous() and not t.requires_grad and not t._is_view()
    assert t.stride() == torch.empty(shape).stride() and t.device.type == "cpu"
    view = t[1:]
    del t
    assert blocks.take(9) == 0
    del view
    assert blocks.take(9) == record


def test_a_tensor_of_no_dimensions_and_one_of_many(blocks):
    if exported(torch.float32) is None:
        pytest.skip("this torch has no direct way")
    (record,) = records(blocks, 1)
    assert blocks.wrap(record, (), torch.float32).shape == ()
    assert blocks.wrap(record, (1,) * 30, torch.float32).shape == (1,) * 30
    assert blocks.wrap(record, (1,) * (hand.MOST_DIMS + 1), torch.float32) is None


def test_an_error_of_the_hook_is_told_and_an_error_on_its_way_is_kept(capsys):
    def hook(record):
        raise ValueError("from the hook")

    blocks = Hand(hook)
    (record,) = records(blocks, 1)
    seen = []
    old, sys.unraisablehook = sys.unraisablehook, lambda found: seen.append(str(found.exc_value))
    try:
        with pytest.raises(KeyError, match="first"):
            try:
                raise KeyError("first")
            finally:
                blocks.give(record)
    finally:
        sys.unraisablehook = old
    assert seen == ["from the hook"]


def test_threads_give_while_others_take(blocks):
    for r in records(blocks, 8):
        blocks.give(r)
    held, bad = set(), []

    def work():
        for _ in range(3000):
            r = blocks.take(9)
            if not r:
                continue
            if r in held:
                bad.append(r)
            held.add(r)
            ctypes.memset(words(r)[hand.DATA], 1, 4096)
            held.discard(r)
            blocks.give(r)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not bad and len(set(blocks.all())) == 8


def test_a_tensor_may_be_freed_when_the_interpreter_ends():
    code = ("import sys, torch; from dlc import memory; t = memory.pool.tensor((1 << 20,), torch.float32, 4 << 20).fill_(1)\n"
            "class Late:\n    def __init__(self): self.t = t; self.me = self\n    def __del__(self): self.t.add_(1)\n"
            "sys.late = Late(); torch.late = Late(); del t")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stderr == ""
