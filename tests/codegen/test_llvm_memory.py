"""Loads and stores: elements some way apart, masks tested once for a tile, nothing touched outside."""

import ctypes
import mmap
import re
from dataclasses import replace

import pytest
import torch

import dlc
from codegen.target import by_name
from dlc import f32, i64
from dlc.compiler import Plan
from dlc.runtime.arguments import TORCH
from dlc.runtime.device import host_features, host_target
from tests.codegen.products import PRODUCTS, operands, planned, run

M, N = dlc.dims("M N")
HERE = [t for t in ("x86-64", "x86-64-avx2", "x86-64-avx512") if set(by_name(t).features) <= host_features()]


def strided(step: int):
    @dlc.kernel
    def every(x: f32[M, N]):
        return x * 2.0

    return every, lambda m, n: torch.randn(m, step * n)[:, ::step]


@pytest.mark.parametrize("target", HERE)
@pytest.mark.parametrize("n", [8, 9, 31, 64, 100])
@pytest.mark.parametrize("step", [2, 3, 4, 5])
def test_elements_some_way_apart(step, n, target):
    kernel, inputs = strided(step)
    x = inputs(5, n)
    plan, got = run(kernel, x, target=target)
    assert torch.equal(got, x * 2)


@pytest.mark.parametrize("step, gathered", [(2, False), (3, False), (4, False), (5, True)])
def test_near_elements_are_not_gathered(step, gathered):
    kernel, inputs = strided(step)
    text = planned(kernel, inputs(5, 64), target="x86-64-avx2").module.text
    assert ("masked.gather" in text) is gathered


@pytest.mark.parametrize("step", [2, 3, 4])
def test_nothing_is_read_after_the_last_element(step):
    """The last element is the last before a page that may not be read: one read past it would end the process."""
    kernel, _ = strided(step)
    pages = mmap.mmap(-1, 2 * mmap.PAGESIZE)
    edge = ctypes.addressof(ctypes.c_char.from_buffer(pages)) + mmap.PAGESIZE
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mprotect(ctypes.c_void_p(edge), mmap.PAGESIZE, 0) == 0
    try:
        count = step * 63 + 1
        view = torch.frombuffer(pages, dtype=torch.float32, count=count, offset=mmap.PAGESIZE - 4 * count)[::step].unsqueeze(0)
        view.copy_(torch.arange(64, dtype=torch.float32))
        assert torch.equal(run(kernel, view)[1], torch.arange(64, dtype=torch.float32)[None] * 2)
    finally:
        libc.mprotect(ctypes.c_void_p(edge), mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_WRITE)


@pytest.mark.parametrize("shape", [(65, 35, 20), (64, 32, 20), (5, 3, 7)])
def test_ragged_tiles_write_only_what_is_theirs(shape):
    m, n, k = shape
    x, w = operands("nn", m, n, k)
    launch = PRODUCTS["nn"].plan(x, w).launcher()
    room = torch.full((m + 2, n), 7.0)
    launch([x, w], [room[1:-1]])
    torch.testing.assert_close(room[1:-1], x @ w, rtol=1e-4, atol=1e-4)
    assert bool((room[0] == 7).all()) and bool((room[-1] == 7).all())


def test_a_tile_tests_its_mask_once():
    text = planned(PRODUCTS["nn"], *operands("nn", 100, 100, 100), target="x86-64-avx2", decisions={"register_tile": (16, 6)}).assembly()
    stores = text.count("vmovups\t%ymm") + text.count("vmovaps\t%ymm")
    assert stores and host_target().kind == "cpu"
    assert re.search(r"vmovups\t%ymm\d+, \d*\(%r\w+", text), "full tiles are stored without masks"


@dlc.kernel
def rows_of(i: i64[M], table: f32[N, 40]):
    return dlc.embedding(i, table)


def test_rows_at_places_that_are_data_are_loaded_whole():
    places, table = torch.randint(0, 30, (17,)), torch.randn(30, 40)
    plan, got = run(rows_of, places, table)
    assert torch.equal(got, table[places]) and "masked.gather" not in plan.module.text


@pytest.mark.parametrize("kind", [f32, dlc.f64, dlc.bf16, dlc.f16, dlc.u8, i64, dlc.bool_], ids=str)
@pytest.mark.parametrize("n", [64, 33, 100])
def test_what_no_cache_holds_is_stored_past_the_caches(kind, n):
    @dlc.kernel
    def moved(x: kind[300, n], y: kind[300, 1]):
        return dlc.concat([x, dlc.broadcast_to(y, (300, 7))], 1)

    x, y = ((torch.randn(s) * 9).to(TORCH[kind.name]) for s in ((300, n), (300, 1)))
    plan = planned(moved, x, y)
    small = replace(plan.request.target, caches=(1024, 2048, 4096))
    plan = Plan(replace(plan.request, target=small))
    assert torch.equal(plan.launcher()([x, y])[0], torch.cat([x, y.expand(300, 7)], 1))
    assert "!nontemporal" in plan.module.text and "fence seq_cst" in plan.module.text
    assert "nontemporal" not in planned(moved, x, y).module.text


def test_what_is_updated_in_place_is_stored_where_it_was_read():
    """Its lines are in the caches; storing past them would throw them out."""
    @dlc.kernel
    def update(p: f32[4096], g: f32[4096], m: f32[4096]):
        momentum = 0.9 * m + g
        return p - 0.1 * momentum, momentum

    p, g, m = (torch.randn(4096) for _ in range(3))
    plan = planned(update, p, g, m)
    plan = Plan(replace(plan.request, target=replace(plan.request.target, caches=(1024, 2048, 4096))))
    text = plan.module.text
    assert "!nontemporal" in text and len(re.findall(r"icmp eq ptr", text)) == 2 * 3
    want = (p - 0.1 * (0.9 * m + g), 0.9 * m + g)
    for given in ([torch.empty(4096), torch.empty(4096)], [p, m]):
        plan.launcher()([p, g, m], given)
        assert all(torch.allclose(a, b) for a, b in zip(given, want))


def test_rows_of_a_table_by_several_places_and_vectors():
    """The mean of the neighbours of every node, before a product: places lie along an unrolled axis, rows along several vectors."""
    @dlc.kernel
    def neighbours(x: f32[M, 64], at: i64[N, 8], w: f32[64, 48]):
        return dlc.relu(x[at].mean(1) @ w)

    x, at, w = torch.randn(70, 64), torch.randint(0, 70, (50, 8)), torch.randn(64, 48)
    torch.testing.assert_close(neighbours(x, at, w), torch.relu(x[at].mean(1) @ w), rtol=1e-4, atol=1e-5)
