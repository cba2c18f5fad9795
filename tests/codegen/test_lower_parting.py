"""Loops of pointwise stages are cut where conditions on indices change; what they compute stays what torch computes."""

import pytest
import torch

import dlc
from codegen.tile.ir import For, If, Load, walk_ops
from codegen.tile.text import show
from dlc import f32
from tests.codegen.products import planned

KINDS = {"f32": torch.float32, "f64": torch.float64, "f16": torch.float16, "bf16": torch.bfloat16, "i8": torch.int8, "i64": torch.int64,
         "u8": torch.uint8, "bool_": torch.bool}

MOVES = {
    "concat": (lambda x: dlc.concat([x, dlc.flip(x, 0), x], 1), lambda x: torch.cat([x, x.flip(0), x], 1)),
    "concat rows": (lambda x: dlc.concat([x, dlc.flip(x, 1), x], 0), lambda x: torch.cat([x, x.flip(1), x], 0)),
    "stack": (lambda x: dlc.stack([x, dlc.flip(x, 0)], 2), lambda x: torch.stack([x, x.flip(0)], 2)),
    "stack of three": (lambda x: dlc.stack([x, dlc.flip(x, 0), x], 2), lambda x: torch.stack([x, x.flip(0), x], 2)),
    "stack of five": (lambda x: dlc.stack([x, x, dlc.flip(x, 0), x, x], 2), lambda x: torch.stack([x, x, x.flip(0), x, x], 2)),
    "roll": (lambda x: dlc.roll(x, (1, -3), (0, 1)), lambda x: x.roll((1, -3), (0, 1))),
    "repeat": (lambda x: dlc.repeat(x, 2, 3), lambda x: x.repeat(2, 3)),
    "tril": (lambda x: dlc.tril(x, 1), lambda x: x.tril(1)),
    "triu": (lambda x: dlc.triu(x, -2), lambda x: x.triu(-2)),
}


def _data(kind: str, shape: tuple[int, ...]) -> torch.Tensor:
    return (torch.randn(shape) * 20).to(KINDS[kind])


def _kernel(fn, x: torch.Tensor, kind: str):
    @dlc.kernel
    def moved(x: getattr(dlc, kind)[tuple(x.shape)]):
        return fn(x)

    return moved


@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize("kind, shape", [("f32", (5, 77)), ("bf16", (3, 100)), ("u8", (4, 70)), ("i64", (1, 1)), ("bool_", (2, 33)),
                                         ("f64", (33, 9)), ("f16", (7, 40)), ("i8", (40, 8))])
def test_moves(move, kind, shape):
    ours, theirs = MOVES[move]
    x = _data(kind, shape)
    assert torch.equal(_kernel(ours, x, kind)(x), theirs(x))
    turned = _data(kind, shape[::-1]).T  # strides as they come
    assert torch.equal(_kernel(ours, turned, kind)(turned), theirs(turned))


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("shape", [(2, 3, 9, 40), (1, 1, 4, 5), (2, 1, 70, 4)])
def test_padding(mode, shape):
    x = _data("f32", shape)
    pads = (3, 2, 1, 3)
    assert torch.equal(_kernel(lambda t: dlc.pad(t, pads, mode=mode), x, "f32")(x), torch.nn.functional.pad(x, pads, mode=mode))


def test_sizes_that_are_arguments():
    m, n, k = dlc.dims("M N K")

    @dlc.kernel
    def both(x: f32[m, n], y: f32[m, k]):
        return dlc.roll(dlc.concat([x, y], 1), 2, 1), dlc.tril(x)

    for a, b, c in ((3, 5, 7), (1, 1, 2), (9, 64, 33), (4, 100, 31), (6, 31, 100), (70, 3, 90), (5, 129, 1)):
        x, y = torch.randn(a, b), torch.randn(a, c)
        rolled, lower = both(x, y)
        assert torch.equal(rolled, torch.cat([x, y], 1).roll(2, 1)) and torch.equal(lower, x.tril())


def test_pieces_read_one_operand_without_masks():
    @dlc.kernel
    def joined(x: f32[64, 512], y: f32[64, 320]):
        return dlc.concat([x, y], 1)

    plan = planned(joined, torch.empty(64, 512), torch.empty(64, 320), target="x86-64-avx2")
    assert "mask" not in show(plan.tile) and "where" not in show(plan.tile)


def test_a_remainder_starts_anew_between_two_loops():
    @dlc.kernel
    def rolled(x: f32[64, 1024]):
        return dlc.roll(x, 32, 1)

    plan = planned(rolled, torch.empty(64, 1024), target="x86-64-avx2")
    assert "%" not in show(plan.tile) and len([op for op in walk_ops(plan.tile.phases[0].body) if isinstance(op, Load)]) == 2


def test_what_only_the_row_decides_is_asked_once_a_row():
    @dlc.kernel
    def mirrored(x: f32[8, 64, 64]):
        return dlc.pad(x, (0, 0, 1, 1), mode="replicate")

    body = planned(mirrored, torch.empty(8, 64, 64), target="x86-64-avx2").tile.phases[0].body
    assert any(isinstance(op, If) for op in body.ops) and "where" not in show(planned(mirrored, torch.empty(8, 64, 64)).tile)


def test_the_other_half_of_a_triangle_is_not_read():
    @dlc.kernel
    def lower(x: f32[64, 256]):
        return dlc.tril(x)

    x = torch.randn(64, 256).tril() + torch.full((64, 256), float("inf")).triu(1)
    body = planned(lower, x, target="x86-64-avx2").tile.phases[0].body
    loops = [op for op in body.ops if isinstance(op, For)]
    assert any(all(not isinstance(op, Load) for op in loop.body.ops) for loop in loops)
    assert torch.equal(lower(x), x.tril())
