"""Which passes share their loops: two directions of one matrix, where making it once outweighs an axis less for the threads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

import dlc
from codegen.tile.ir import Store, walk_ops
from dlc import f32
from dlc.compiler import Plan
from dlc.kernel import Kernel
from dsl.cascade import derive
from dsl.derivative import vjp
from dsl.errors import ScheduleError
from dsl.primitives.roll import roll

B, M, N, D, E = dlc.dims("B M N D E")


def both_ways(x: f32[B, M, D], y: f32[B, N, D], d: f32[B, N, E], e: f32[B, M, E]):
    c = dlc.tanh(dlc.matmul(x, dlc.transpose(y, 1, 2)))
    return dlc.matmul(c, d), dlc.matmul(dlc.transpose(c, 1, 2), e)


def triangle(x: f32[B, M, D], y: f32[B, N, D], d: f32[B, N, E], e: f32[B, M, E]):
    s = dlc.matmul(x, dlc.transpose(y, 1, 2))
    c = dlc.compute((B, M, N), lambda b, i, j: dlc.where(j <= i, s[b, i, j], 0.0))
    return dlc.matmul(c, d), dlc.matmul(dlc.transpose(c, 1, 2), e)


def plan(batch: int, threads: int, n: int = 4096, fn: Callable[..., object] = both_ways, **decisions: object) -> Plan:
    k = dlc.kernel(fn)
    request = replace(k.request([(batch, n, 64)] * 4, [(n * 64, 64, 1)] * 4), decisions=decisions)
    return Plan(replace(request, target=replace(request.target, threads=threads, caches=(32768, 524288, 1 << 25))))


def across(p: Plan) -> int:
    return sum(bool(s.slots) for h in p.nest.stages for s in h.states)


@pytest.mark.parametrize("batch, threads, want", [(2, 2, 1), (8, 2, 1), (5, 2, 1), (3, 2, 0), (1, 2, 0), (8, 64, 0)])
def test_threads_must_have_enough_without_the_axis_of_the_sums(batch: int, threads: int, want: int) -> None:
    p = plan(batch, threads)
    assert across(p) == want
    rolls = [s for s in p.nest.stages if s.kind == "roll"]
    assert len(rolls) == 2 - want
    if want:
        assert [rolls[0].role(x) for x in rolls[0].order] == ["parallel", "serial", "serial"]


def test_a_matrix_that_stays_in_the_cache_is_kept_unless_much_of_it_is_zero() -> None:
    assert across(plan(4, 2, 256)) == 0 and across(plan(4, 2, 256, fn=triangle)) == 1 and across(plan(1, 2, 256, fn=triangle)) == 0


def test_what_was_asked_for_is_done() -> None:
    p = plan(4, 2)
    (name,) = [x for x in (p.nest and p.decisions.made) if x.endswith(".along")]
    assert across(plan(4, 2, **{name: False})) == 0
    assert across(plan(4, 2, **{name.replace("along", "pass"): "several"})) == 0


def test_the_matrix_is_made_once_for_three_products_and_nothing_of_its_size_is_kept() -> None:
    p = plan(4, 2)
    (phase,) = [ph for ph in p.tile.phases if any(isinstance(op, Store) for op in walk_ops(ph.body)) and len(ph.scratch) > 3]
    assert sum(s.kind == "reduce" and len(s.bound) == 1 for s in p.nest.stages) == 3
    assert phase.grid and sum(1 for b in p.tile.buffers if b.scope == "workspace") == 1


def test_explain_tells_what_goes_along() -> None:
    q = torch.empty(1, 8, 4096, 64)

    def attention(q: f32[B, E, M, D], k: f32[B, E, N, D], v: f32[B, E, N, D]):
        return dlc.scaled_dot_product_attention(q, k, v)

    k = Kernel.of(vjp(dlc.kernel(attention).program))
    text = k.explain(q, q, q, q)
    assert text.count("d_q goes along in the loops of d_k, d_v: ") == 2 or "d_q and d_k, d_v are made apart: " in text


def test_what_cannot_go_along_is_refused() -> None:
    nest = plan(2, 2).unscheduled
    found = derive(nest).cascades
    names = [c.components[0].stage for c in found]
    with pytest.raises(ScheduleError, match="cannot go along"):
        roll(nest, names[0], 64, parts=2, cross=[names[1]])
    made, host = roll(nest, names[0], 64, again=True, cross=[names[1]])
    (s,) = [s for s in made.stages if s.along]
    assert made[host].states[1].slots and list(s.along.values()) == [made[host].axes[1]]
