"""Whose line is cited: the innermost one that is not in our packages or in a library that calls back into them."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import torch

import dlc
from dsl.dim import as_term
from dsl.dtype import f32
from dsl.errors import UserError
from dsl.expr import Input
from dsl.loc import UNKNOWN, Loc, caller_locals, here
from dsl.program import compute, dims


def test_a_place_has_its_text() -> None:
    at = here()
    assert at.text == "    at = here()" and str(at) == f"{__file__}:{at.line}" and at.function == "test_a_place_has_its_text"
    assert Loc("/no/such/file", 3).text == "" and UNKNOWN.text == ""


def test_frames_of_ours_and_of_functools_are_passed_over() -> None:
    @functools.cache
    def found() -> Loc:
        return here()

    assert found().function == "found"
    (n,) = [dims("N")] if not isinstance(dims("N"), tuple) else dims("N")
    line = here().line + 1
    t = compute((n,), lambda i: i * 2)
    assert t.loc.file == __file__ and t.loc.line == line


def test_a_definition_in_a_file_of_the_user(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("import dlc\nN = dlc.dims('N')\n\n@dlc.kernel\ndef f(x: dlc.f32[N]):\n    y = x + 1.0\n    return dlc.exp(y)\n")
    scope: dict[str, object] = {}
    exec(compile(path.read_text(), str(path), "exec"), scope)
    kernel = scope["f"]
    assert isinstance(kernel, dlc.Kernel)
    assert {Path(c.loc.file).name for c in kernel.program.computes} == {"mine.py"} and kernel.program.loc.line in (4, 5)


def test_the_callers_variables() -> None:
    secret = 17
    assert caller_locals()["secret"] == secret


def test_frames_of_torch_are_not_the_users() -> None:
    with pytest.raises(UserError, match="torch's relu in a definition") as e:
        torch.nn.functional.relu(Input("x", (as_term(3),), f32))
    assert e.value.loc is not None and e.value.loc.file == __file__
