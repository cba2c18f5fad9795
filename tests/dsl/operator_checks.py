"""How a :class:`tests.dsl.operators.Case` is checked: compiled, through the numpy meaning, and its gradients."""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import Any

import numpy as np
import torch

import dlc
from dlc.kernel import Kernel
from dsl.check import prove_bounds, verify
from dsl.derivative import vjp
from dsl.dtype import Dtype, by_name
from dsl.interp import evaluate
from dsl.program import Program, trace
from tests.dsl.operators import Case, values

TORCH = {"f32": torch.float32, "f64": torch.float64, "f16": torch.float16, "bf16": torch.bfloat16, "i64": torch.int64, "i32": torch.int32,
         "bool": torch.bool, "i16": torch.int16, "i8": torch.int8, "u8": torch.uint8}
NAMES = {t: n for n, t in TORCH.items()}


def arguments(case: Case, dtype: str = "f32", seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [values(spec, TORCH[dtype], generator) for spec in case.args]


def program_for(fn: Any, tensors: list[torch.Tensor], fixed: bool = False, name: str = "kernel") -> Program:
    """The program of ``fn`` on tensors like these; each size but 1 is a symbol unless ``fixed``."""
    symbols: dict[int, Any] = {}

    def size(n: int) -> Any:
        return n if fixed or n == 1 else symbols.setdefault(n, dlc.dims(f"N{n}"))

    def kernel(*args: Any) -> Any:
        return fn(*args)

    hints = [_hint(by_name(NAMES[t.dtype]), tuple(size(n) for n in t.shape)) for t in tensors]
    kernel.__signature__ = inspect.Signature([  # type: ignore[attr-defined]
        inspect.Parameter(f"x{n}", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=h) for n, h in enumerate(hints)])
    kernel.__name__ = name
    return trace(kernel)


def _hint(dtype: Dtype, shape: tuple[Any, ...]) -> Any:
    return dtype[shape] if shape else dtype


def flat(result: Any) -> list[Any]:
    return [r for r in result] if isinstance(result, (tuple, list)) else [result]


def compare(got: torch.Tensor, want: torch.Tensor, tol: float, what: str, scale: float | None = None) -> None:
    """Equal to within ``tol`` of the value or of ``scale`` (the greatest value when None)."""
    assert got.shape == want.shape, f"{what}: shape {tuple(got.shape)}, torch has {tuple(want.shape)}"
    assert got.dtype == want.dtype, f"{what}: {got.dtype}, torch has {want.dtype}"
    if not want.dtype.is_floating_point:
        assert torch.equal(got, want), f"{what}\n{got}\n{want}"
        return
    if scale is None:
        finite = want[want.isfinite()].abs()
        scale = float(finite.max()) if finite.numel() else 0.0
    torch.testing.assert_close(got, want, rtol=tol, atol=tol * max(scale, 1e-3), equal_nan=True,
                               msg=lambda m: f"{what}: {m}\n{got}\n{want}")


def as_torch(a: np.ndarray) -> torch.Tensor:
    if a.dtype.name == "bfloat16":
        return torch.from_numpy(a.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(np.ascontiguousarray(a)).reshape(a.shape)


def as_numpy(t: torch.Tensor) -> np.ndarray:
    import ml_dtypes
    if t.dtype == torch.bfloat16:
        return t.contiguous().view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return t.contiguous().numpy()


def check_values(case: Case, dtype: str, compiled: bool = True, seed: int = 0) -> None:
    tensors = arguments(case, dtype, seed)
    want = flat(case.theirs(*tensors))
    program = program_for(case.ours, tensors, case.fixed, case.name)
    verify(program)
    tol = {"f64": 1e-11, "f32": case.tol, "f16": 3e-3, "bf16": 2e-2}[dtype]
    for label, results in (("numpy", [as_torch(r) for r in evaluate(program, *map(as_numpy, tensors))]),
                           ("compiled", flat(Kernel.of(program)(*tensors)) if compiled else None)):
        if results is not None:
            assert len(results) == len(want)
            for n, (g, w) in enumerate(zip(results, want)):
                compare(g, w, tol, f"{case.name} {dtype} {label} {n}")


def resized(case: Case, sizes: dict[int, int]) -> Case:
    """The case on other sizes."""
    def other(spec: Any) -> Any:
        shape, *kind = spec if len(spec) == 2 and isinstance(spec[0], tuple) else (spec,)
        new = tuple(sizes.get(n, n) for n in shape)
        return (new, *kind) if kind else new

    return replace(case, args=tuple(other(s) for s in case.args))


def check_sizes(case: Case, sizes: dict[int, int], compiled: bool = True) -> bool:
    """The program declared for the case's own sizes, called with others; False where torch refuses them."""
    tensors = arguments(resized(case, sizes))
    try:
        want = flat(case.theirs(*tensors))
    except (RuntimeError, IndexError, ValueError):
        return False
    program = program_for(case.ours, arguments(case), case.fixed, case.name)
    _compare_all(case.name, program, tensors, want, case.tol, compiled)
    return True


def check_specials(case: Case, compiled: bool = True) -> None:
    """NaN, infinities and zeros of both signs among the values."""
    tensors = arguments(case)
    specials = torch.tensor([float("nan"), float("inf"), float("-inf"), 0.0, -0.0, 1e38, -1e-38, 88.8])
    for n, t in enumerate(tensors):
        if t.dtype.is_floating_point and t.numel():
            flat_ = t.view(-1)
            places = torch.arange(n, t.numel(), 2 + n)
            flat_[places] = specials[(places + n) % len(specials)]
    program = program_for(case.ours, tensors, case.fixed, case.name)
    _compare_all(case.name, program, tensors, flat(case.theirs(*tensors)), case.tol, compiled, 1.0)


def _compare_all(name: str, program: Program, tensors: list[torch.Tensor], want: list[torch.Tensor], tol: float, compiled: bool,
                 scale: float | None = None) -> None:
    runs = {"numpy": [as_torch(r) for r in evaluate(program, *map(as_numpy, tensors))]}
    if compiled:
        runs["compiled"] = flat(Kernel.of(program)(*tensors))
    for label, got in runs.items():
        for n, (g, w) in enumerate(zip(got, want)):
            compare(g, w, tol, f"{name} {label} {n}", scale)


def check_gradients(case: Case, compiled: bool = False, seed: int = 1, tol: float = 1e-9) -> None:
    """The derived backward in float64 against torch's, for random cotangents."""
    tensors = arguments(case, "f64", seed)
    still = [bool(spec) and isinstance(spec[-1], str) and spec[-1].endswith("!") for spec in case.args]
    moving = [t.clone().requires_grad_(t.dtype.is_floating_point and not s) for t, s in zip(tensors, still)]
    results = [r for r in flat(case.theirs(*moving)) if r.dtype.is_floating_point]
    generator = torch.Generator().manual_seed(seed + 1)
    cotangents = [torch.randn(r.shape, generator=generator, dtype=torch.float64).to(r.dtype) for r in results]
    wanted = [t for t in moving if t.requires_grad]
    want = torch.autograd.grad([r for r in results if r.requires_grad], wanted, [c for r, c in zip(results, cotangents) if r.requires_grad],
                               allow_unused=True)
    program = program_for(case.ours, [t.detach() for t in moving], case.fixed, case.name)
    backward = vjp(program, [p.name for p, t in zip(program.inputs, moving) if t.requires_grad])
    verify(backward)
    given = {t.name: v for t, v in zip(program.inputs, tensors)}
    given |= {t.name: c for t, c in zip([t for t in backward.inputs if t.name not in given], cotangents)}
    args = [given[t.name] for t in backward.inputs]
    runs = {"numpy": [as_torch(r) for r in evaluate(backward, *(as_numpy(a) for a in args))]}
    if compiled:
        runs["compiled"] = flat(Kernel.of(backward)(*args))
    for label, got in runs.items():
        for t, g, w in zip(backward.outputs, got, want):
            compare(g, torch.zeros_like(g) if w is None else w, tol, f"{case.name} {t.name} {label}")


def prove(case: Case) -> None:
    tensors = arguments(case, "f32")
    program = program_for(case.ours, tensors, case.fixed, case.name)
    prove_bounds(program)
