"""The vectorised maths functions, evaluated on numpy arrays bit for bit as emitted: error in ulp, special values, identities.

A sample of what `python -m benchmarks.maths_accuracy --stride 1` does with every float32.
"""

import math

import mpmath
import numpy as np
import pytest

from benchmarks.maths_accuracy import double_samples, double_ulp_error, exact_function, paired_samples, reference, ulp_errors
from benchmarks.maths_jit import compile_loop
from codegen.micro.maths import FUNCTIONS, MAX_ULP, arity
from codegen.micro.maths.angles import LARGE_ANGLE
from codegen.micro.maths_numpy import evaluate

UNARY = sorted(n for n in FUNCTIONS if arity(n) == 1)
INF, NAN = math.inf, math.nan


def sampled_floats():
    """Float32 patterns spread over every exponent and sign, and the neighbours of values where a formula changes."""
    rng = np.random.default_rng(7)
    spread = rng.integers(0, 1 << 32, 60_000, dtype=np.uint32).view(np.float32)
    edges = np.float32([0.0, 2**-126, 2**-26, 2**-12, 0.25, 0.5, 1.0, 1.5, 2.0, math.pi, 8.0, 17.0, 88.0, 89.0, 104.0, 2**13, 2**23, 2**25,
                        2**63, 3e38])
    near = (edges.view(np.uint32)[:, None] + np.arange(-40, 41)).clip(0).astype(np.uint32).view(np.float32).ravel()
    return np.concatenate([spread, near, -near, np.float32([INF, -INF, NAN])])


def test_every_function_states_its_error():
    assert set(MAX_ULP) == set(FUNCTIONS)
    assert all(0.5 <= MAX_ULP[n][d] < 8 for n in MAX_ULP for d in ("f32", "f64"))


@pytest.mark.parametrize("name", UNARY)
def test_single_precision_is_within_the_stated_error(name):
    x = sampled_floats()
    errors = ulp_errors(evaluate(name, x), reference(name, x))
    worst = int(np.argmax(errors))
    assert errors[worst] <= MAX_ULP[name]["f32"], f"{name}({x[worst]!r}) is off by {errors[worst]} ulp"


@pytest.mark.parametrize("name", ["pow", "atan2"])
def test_functions_of_two_are_within_the_stated_error(name):
    x, y = (v[::16] for v in next(paired_samples(name, 1)))
    errors = ulp_errors(evaluate(name, x, y), reference(name, x, y))
    worst = int(np.argmax(errors))
    assert errors[worst] <= MAX_ULP[name]["f32"], f"{name}({x[worst]!r}, {y[worst]!r}) is off by {errors[worst]} ulp"


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_double_precision_is_within_the_stated_error(name):
    inputs = double_samples(name, 400)
    got = evaluate(name, *inputs)
    exact = exact_function(name)
    with mpmath.workdps(40):
        errors = [double_ulp_error(float(g), exact(*(mpmath.mpf(float(v)) for v in xs))) for g, *xs in zip(got, *inputs)]
    worst = int(np.argmax(errors))
    assert errors[worst] <= MAX_ULP[name]["f64"], f"{name} at {[x[worst] for x in inputs]} is off by {errors[worst]} ulp"


@pytest.mark.parametrize("name, at, value", [
    ("exp", -INF, 0.0), ("exp", INF, INF), ("log", 0.0, -INF), ("log", -1.0, NAN), ("log", INF, INF), ("tanh", INF, 1.0),
    ("tanh", -INF, -1.0), ("erf", -INF, -1.0), ("sin", INF, NAN), ("acosh", 0.5, NAN), ("atanh", 1.0, INF), ("atanh", 1.5, NAN),
    ("asin", 1.5, NAN), ("sigmoid", -INF, 0.0), ("log1p", -1.0, -INF), ("lgamma", 0.0, INF), ("lgamma", -3.0, INF), ("lgamma", -INF, INF),
    ("lgamma", 1.0, 0.0), ("lgamma", 2.0, 0.0), ("lgamma", NAN, NAN), ("softplus", -INF, 0.0), ("rsqrt", 0.0, INF),
])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_special_values(name, at, value, dtype):
    np.testing.assert_array_equal(evaluate(name, np.array([at], dtype)), np.array([value], dtype))


@pytest.mark.parametrize("name", ["sin", "tan", "tanh", "asin", "atan", "sinh", "asinh", "atanh", "erf", "expm1", "log1p"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_odd_functions_keep_the_sign_of_zero(name, dtype):
    got = evaluate(name, np.array([-0.0, 0.0], dtype))
    assert np.signbit(got).tolist() == [True, False] and not got.any()


def large_angles():
    """Doubles of every exponent, random ones, and those that lie closest to multiples of pi/2."""
    bits = np.random.default_rng(5).integers(0x4300000000000000, 0x7FEFFFFFFFFFFFFF, 150)
    near = [6381956970095103.0 * 2.0**797, 6381956970095103.0 * 2.0**798, LARGE_ANGLE["f64"], np.nextafter(LARGE_ANGLE["f64"], 0),
            np.finfo(float).max]
    x = np.concatenate([bits.view(np.float64), 2.0 ** np.arange(45, 1024, 7), near])
    return np.concatenate([x, -x])


@pytest.mark.parametrize("name", ["sin", "cos", "tan"])
def test_angles_of_doubles_are_right_however_large(name):
    x = large_angles()
    with mpmath.workprec(1300):
        exact = getattr(mpmath, name)
        errors = [double_ulp_error(float(g), exact(mpmath.mpf(float(v)))) for g, v in zip(evaluate(name, x), x)]
    worst = int(np.argmax(errors))
    assert errors[worst] <= MAX_ULP[name]["f64"], f"{name}({x[worst]!r}) is off by {errors[worst]} ulp"
    assert np.isnan(evaluate(name, np.array([INF, -INF, NAN]))).all()


@pytest.mark.parametrize("lanes", [1, 4, 8])
def test_compiled_code_takes_large_angles_with_the_small(lanes):
    """The part for large angles stands behind a branch, taken for all lanes when one of them needs it."""
    x = np.concatenate([large_angles(), np.linspace(-9, 9, 100)])
    x = np.random.default_rng(2).permutation(x)[:x.size // 8 * 8].copy()
    for name in ("sin", "cos", "tan"):
        np.testing.assert_array_equal(compile_loop(name, "f64", lanes)(x), evaluate(name, x))


def test_lgamma_of_negative_doubles():
    x = -np.random.default_rng(3).uniform(0, 40, 500)
    with mpmath.workdps(40):
        exact = np.array([float(mpmath.log(abs(mpmath.gamma(mpmath.mpf(float(v)))))) for v in x])
    np.testing.assert_allclose(evaluate("lgamma", x), exact, rtol=4e-15, atol=4e-15)
