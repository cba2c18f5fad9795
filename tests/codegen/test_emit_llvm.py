"""LLVM modules: what they say to a reader, what they must not depend on, and what a launcher is told."""

from __future__ import annotations

import re

import torch

import dlc
from codegen.emit.llvm import emit_llvm
from dlc import f32
from dlc.compiler import Plan

M, N = dlc.dims("M N")


@dlc.kernel
def scaled(x: f32[M, N], s: f32[N]):
    y = dlc.exp(x)
    return y * s


def _emit(plan: Plan, places: bool) -> str:
    target = plan.request.target
    return emit_llvm(plan.tile, target.triple, target.vector_bits, target.features, places).text


def test_comments_cite_the_users_lines() -> None:
    plan = scaled.plan(torch.randn(5, 64), torch.randn(64))
    comments = [line for line in _emit(plan, True).splitlines() if line.lstrip().startswith("; ")]
    assert any("test_emit_llvm.py" in c and "return y * s" in c for c in comments)
    assert plan.listing() == scaled.source("llvm", torch.randn(5, 64), torch.randn(64)) == _emit(plan, True)


def test_what_is_compiled_does_not_depend_on_the_place() -> None:
    plan = scaled.plan(torch.randn(5, 64), torch.randn(64))
    assert plan.module.text == _emit(plan, False) and __file__ not in plan.module.text
    plain = [line for line in _emit(plan, True).splitlines() if not re.match(r"\s*; .*\.py:\d+: ", line)]
    assert _unnumbered(plain) == _unnumbered(plan.module.text.splitlines())


def _unnumbered(lines: list[str]) -> list[str]:
    return [re.sub(r"\.\d+", "", line) for line in lines]


def test_loads_are_called_as_their_tensors() -> None:
    text = scaled.plan(torch.randn(5, 64), torch.randn(64)).module.text
    assert re.search(r"%\.x\.\d+ = load <\d+ x float>", text) and re.search(r"%\.s\.\d+ = load <\d+ x float>", text)


def test_private_memory_is_a_term_of_the_sizes() -> None:
    assert scaled.plan(torch.randn(5, 64), torch.randn(64)).module.scratch == 0
