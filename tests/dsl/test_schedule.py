"""Schedules as traces: what the heuristics do is a list of primitives, and replays to the same nest."""

import json
import re

import pytest

from codegen.lower import lower
from codegen.target import by_name
from codegen.tile.text import show
from dlc.kernel import Kernel
from dlc.runtime.device import host_target
from dsl.nest import Step
from dsl.nest_text import show_nest
from dsl.replay import replay
from tests.dlc.gpu_cases import CASES
from tests.strategies import random_case


def same_again(plan):
    """The nest made once more from the JSON of its trace."""
    text = json.dumps([s.as_data() for s in plan.nest.trace])
    return replay(plan.unscheduled, [Step.of_data(d) for d in json.loads(text)])


@pytest.mark.parametrize("target", ["cpu", "sm_90"])
@pytest.mark.parametrize("name", CASES)
def test_default_schedules_replay_from_json(name, target):
    kernel, make = CASES[name]
    plan = kernel.plan(*make(), target=host_target() if target == "cpu" else by_name(target))
    again = same_again(plan)
    assert show_nest(again) == show_nest(plan.nest)
    texts = [re.sub("  # .*", "", show(lower(n, {}, "k"))) for n in (again, plan.nest)]  # the places of reads aside
    assert texts[0] == texts[1]


@pytest.mark.parametrize("target", ["cpu", "gfx942"])
@pytest.mark.parametrize("seed", range(24))
def test_default_schedules_of_random_programs_replay(seed, target):
    case = random_case(seed, symbolic=False)
    plan = Kernel.of(case.program).plan(*case.arrays, target=host_target() if target == "cpu" else by_name(target))
    assert show_nest(same_again(plan)) == show_nest(plan.nest)
