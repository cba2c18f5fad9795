"""The tile interpreter against numpy, and every way it must refuse."""

from __future__ import annotations

import numpy as np
import pytest

from codegen.tile.interp import convert, run
from codegen.tile.ir import Phase
from codegen.tile.memory import NUMPY
from dsl.dim import Var, as_term
from dsl.dtype import bf16, f8e4m3, f16, f32, f64, i8, i32, i64, u8
from dsl.errors import BoundsError, InternalError
from dsl.opset import OPS
from tests.codegen.tile_programs import CASES, Writer, buffer, gather, program, vadd


@pytest.mark.parametrize("name", CASES)
def test_cases(name: str, rng: np.random.Generator) -> None:
    case = CASES[name](rng)
    got = run(case.program, case.arrays, case.sizes)
    assert set(got) == set(case.expected)
    for key, expected in case.expected.items():
        np.testing.assert_allclose(got[key], expected, rtol=case.tolerance, atol=case.tolerance)


@pytest.mark.parametrize("dtype", [f16, bf16, f8e4m3, f64], ids=str)
def test_float_dtypes(dtype: object, rng: np.random.Generator) -> None:
    case = vadd(rng, 100, dtype)  # type: ignore[arg-type]
    got = run(case.program, case.arrays, case.sizes)["z"]
    assert got.dtype == NUMPY[dtype]  # type: ignore[index]
    np.testing.assert_allclose(got.astype(np.float64), case.expected["z"].astype(np.float64), rtol=1e-6)
    raw = {n: a.view(np.uint8 if a.itemsize == 1 else np.uint16) if a.itemsize < 4 else a for n, a in case.arrays.items()}
    np.testing.assert_array_equal(run(case.program, raw, case.sizes)["z"], got)


def test_unwritten_memory_is_poison() -> None:
    o = buffer("o", f32, (4,), "output")
    w = Writer(set())
    w.store(o, (1,), w.const(2.0, f32))
    got = run(program("partial", (o,), (), Phase("p", (), w.block)), {}, {})["o"]
    assert got[1] == 2 and np.isnan(got[[0, 2, 3]]).all()


def test_promised_unseen_elements_are_poison(rng: np.random.Generator) -> None:
    case = vadd(rng, 100)
    for op in case.program.phases[0].body.ops[:2]:
        op.undefined = True  # type: ignore[attr-defined]
    np.testing.assert_array_equal(run(case.program, case.arrays, case.sizes)["z"], case.expected["z"])


def test_out_of_bounds(rng: np.random.Generator) -> None:
    case = vadd(rng, 100)
    case.program.phases[0].body.ops[1].mask = ()  # type: ignore[attr-defined]
    with pytest.raises(BoundsError, match=r"y\[100\] is outside y of shape \[100\]"):
        run(case.program, case.arrays, case.sizes)


def test_run_time_check(rng: np.random.Generator) -> None:
    case = gather(rng)
    case.arrays["idx"][5] = 11
    with pytest.raises(BoundsError, match="`idx` is out of range"):
        run(case.program, case.arrays, case.sizes)


def test_races_are_refused() -> None:
    g, o = Var("g", 3), buffer("o", f32, (4,), "output")
    w = Writer({g})
    w.store(o, (0,), w.const(2.0, f32))
    with pytest.raises(InternalError, match="race on o"):
        run(program("race", (o,), (), Phase("p", ((g, as_term(3)),), w.block)), {}, {})
    w = Writer({g})
    w.store(o, (g,), w.load(o, (as_term(2) - g,)))
    with pytest.raises(InternalError, match="race on o"):
        run(program("race", (o,), (), Phase("p", ((g, as_term(3)),), w.block)), {}, {})
    i = Var("i", 4)
    w = Writer(set())
    w.store(o, (as_term(i) // 2,), w.load(buffer("x", f32, (4,)), (i,)))
    with pytest.raises(InternalError, match="twice"):
        run(program("race", (buffer("x", f32, (4,)), o), (), Phase("p", (), w.block)), {"x": np.zeros(4, np.float32)}, {})


def test_low_floats_are_not_computed() -> None:
    o = buffer("o", f16, (), "output")
    w = Writer(set())
    c = w.const(2.0, f16)
    w.store(o, (), w.map("add", (c, c), f16))
    with pytest.raises(InternalError, match="low float"):
        run(program("low", (o,), (), Phase("p", (), w.block)), {}, {})


def test_conversions() -> None:
    x = np.array([1.9, -1.9, 300, -300, np.nan, np.inf, -np.inf, 1e30], np.float32)
    assert convert(x, i8).tolist() == [1, -1, 127, -128, 0, 127, -128, 127]
    assert convert(x, u8).tolist() == [1, 0, 255, 0, 0, 255, 0, 255]
    assert convert(x, i32).tolist()[5:] == [2**31 - 1, -(2**31), 2**31 - 1]
    assert convert(x, i64).tolist()[5:] == [2**63 - 1, -(2**63), 2**63 - 1]
    assert convert(np.array([1.00390625, 1.01171875], np.float32), bf16).astype(np.float32).tolist() == [1.0, 1.015625]
    assert convert(np.array([0.0, -0.0, np.nan, 2.0]), __import__("dsl.dtype").dtype.bool_).tolist() == [False, False, True, True]


@pytest.mark.parametrize("name", [n for n, o in OPS.items() if o.arity == 1 and o.rule == "float"])
def test_pointwise_keeps_its_dtype(name: str) -> None:
    from codegen.tile.interp import pointwise

    x = np.linspace(0.25, 0.75, 7, dtype=np.float32)
    with np.errstate(all="ignore"):
        got = pointwise(name, [x], f32)
        wide = pointwise(name, [x.astype(np.float64)], f64)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, wide, rtol=1e-5)
