"""The GPU script: it says that there is no GPU, and tells what machine code shows without one."""

import pytest
import torch
from typer.testing import CliRunner

from benchmarks.gpu import app, cases


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so():
    result = CliRunner().invoke(app, [])
    assert result.exit_code == 2 and "no GPU here" in result.output and "us" not in result.output.split()


def test_static_figures():
    result = CliRunner().invoke(app, ["--static", "sm_80", "--filter", "row sums"])
    assert result.exit_code == 0 and "registers" in result.output and "no GPU was asked" in result.output


def test_cases_are_told_apart_and_match_their_peers():
    names = [c.name for c in cases()]
    assert len(set(names)) == len(names)
    for c in cases():
        assert len(c.arguments("meta")) == len(c.kernel.program.inputs)
