"""From a nest to a verified tile program: steps and their times, what cannot be proved runs serially, refusals name the user's line."""

from __future__ import annotations

import itertools

import pytest

from codegen import pipelines
from codegen.heuristics import default_schedule
from codegen.pipelines import make_tile, passes_of
from codegen.target import TARGETS
from codegen.tile.ir import For
from codegen.tile.text import show
from codegen.tile.text_parse import parse
from dsl.errors import RaceError
from dsl.nest import Nest
from dsl.stages import build_nest
from tests.strategies import random_case

UNDECIDED = """
program('turned')
M = size()
g = axis(4)
i = axis(8)
o = output(f32, [40 + M], [1])
with phase('p', grid=[(g, 4)]):
    one: f32 = const(1.0)
    store(o, [8*g + (i + M) % 8], one)
"""


def _nest(seed: int = 3) -> Nest:
    return build_nest(random_case(seed, symbolic=False).program)


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_every_step_is_timed_in_order(name: str) -> None:
    target = TARGETS[name]
    ticks = itertools.count()
    made = make_tile(default_schedule(_nest(), target, {}), {}, "k", target, every=True, clock=lambda: float(next(ticks)))
    passes = [n for p in passes_of(target) for n in (f"verify before {p.name}", p.name)]
    assert list(made.seconds) == ["lower", *passes, "verify"]
    assert all(s > 0 for s in made.seconds.values()) and not made.notes


def test_passes_state_their_reasons() -> None:
    for target in TARGETS.values():
        assert all(p.because and p.run.__doc__ for p in passes_of(target))


def test_what_cannot_be_decided_runs_serially(monkeypatch: pytest.MonkeyPatch) -> None:
    turned = UNDECIDED.replace("(i + M) % 8", "i").replace("8*g + i", "i + M*g // 4")
    monkeypatch.setattr(pipelines, "_lower", lambda *a, **options: parse(turned))
    target = TARGETS["x86-64"]
    made = make_tile(_nest(), {}, "turned", target)
    assert len(made.notes) == 1 and "p of turned runs serially" in made.notes[0]
    (phase,) = made.program.phases
    assert not phase.grid and phase.serial and isinstance(phase.body.ops[0], For)


def test_lanes_that_may_meet_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipelines, "_lower", lambda *a, **options: parse(UNDECIDED))
    with pytest.raises(RaceError, match="one store: different `i`"):
        make_tile(_nest(), {}, "turned", TARGETS["x86-64"])


def test_text_of_what_is_made_parses_back() -> None:
    target = TARGETS["x86-64-avx2"]
    program = make_tile(default_schedule(_nest(), target, {}), {}, "k", target).program
    assert show(parse(show(program, False)), False) == show(program, False)
