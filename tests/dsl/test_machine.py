"""What a machine takes."""

import pytest

import dlc
from dlc import f32
from dsl.errors import ScheduleError
from dsl.machine import CPU, Machine
from dsl.primitives.loops import set_role, split
from dsl.program import trace
from dsl.stages import build_nest


def doubled(x: f32[100, 300]):
    """Pointwise."""
    return dlc.compute((100, 300), lambda i, j: x[i, j] * 2.0, name="y")


def test_a_gpu_takes_powers_of_two():
    n = set_role(split(build_nest(trace(doubled)), "y", "j", 48), "y", "j.i", "vectorize")
    CPU.check(n)
    with pytest.raises(ScheduleError, match="a tile of a GPU needs a power of two"):
        Machine("sm_90", True).check(n)


def test_tiles_have_a_limit():
    n = set_role(set_role(build_nest(trace(doubled)), "y", "j", "vectorize"), "y", "i", "unroll")
    with pytest.raises(ScheduleError, match="the tile of y has 30000 elements"):
        CPU.check(n)


def test_steps_for_the_other_kind():
    with pytest.raises(ScheduleError, match="warps is for GPUs"):
        CPU.need_gpu("warps", "", "")
    Machine("sm_90", True).need_gpu("warps", "", "")
    with pytest.raises(ScheduleError, match="prefetch is for CPUs"):
        Machine("sm_90", True).need_cpu("prefetch", "", "")
