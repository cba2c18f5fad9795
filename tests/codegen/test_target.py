"""The table of targets."""

import pytest

from codegen.micro.instructions import DOTS
from codegen.target import TARGETS, by_name
from dsl.errors import TargetError


def test_instruction_sets_of_dots_are_those_of_the_machine_and_those_spelled_out():
    assert by_name("x86-64-amx").dot_sets == by_name("x86-64-amx").features
    assert {d.feature for d in DOTS} <= {f for t in TARGETS.values() for f in t.dot_sets}


def test_a_target_with_tiles_has_the_vectors_too():
    assert set(by_name("x86-64-avx512-bf16").features) < set(by_name("x86-64-amx").features) < set(by_name("x86-64-amx-fp16").features)


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(TargetError, match="did you mean 'x86-64-amx'"):
        by_name("x86-64-amz")
