"""Derived one-pass forms: what is accepted and why not, and that derived carriers are carriers that equal the several passes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import dlc
from dlc import bf16, f32, f64
from dsl.cascade import Cascade, Derivation, derive, derived_carrier, explain
from dsl.cascade.believe import evaluate
from dsl.cascade.factored import Mixed, leaves
from dsl.cascade.merge import evaluate_in
from dsl.expr import Read
from dsl.numerics import NumpyAlgebra
from dsl.program import trace
from dsl.stages import build_nest

A = NumpyAlgebra(float64=True)
ROWS, TERMS, COLUMNS = 3, 40, 5
M, N, D = dlc.dims("M N D")
SIZES = {next(iter(size.term.vars)): n for size, n in ((M, ROWS), (N, TERMS), (D, COLUMNS))}


def derivation(fn: Callable[..., Any], approximate: bool = False) -> Derivation:
    return derive(build_nest(trace(fn).specialize(SIZES)), approximate)


def forms(fn: Callable[..., Any], approximate: bool = False) -> list[str]:
    (c,) = derivation(fn, approximate).cascades
    return [x.form for x in c.components]


def refusal(fn: Callable[..., Any]) -> str:
    (r,) = derivation(fn).refusals
    return r.reason


def chain(element: Callable[..., Any], first: Callable[..., Any] = dlc.max) -> Callable[..., Any]:
    """``d2 = sum_k element(x, d1)`` with ``d1`` the maximum (or another reduction) of the same row."""
    def program(x: f64[M, N], y: f64[M, N]):
        k = dlc.reduce_axis(N)
        d = dlc.compute((M,), lambda i: first(x[i, k], k), name="d")
        n = dlc.reduce_axis(N)
        return dlc.compute((M,), lambda i: dlc.sum(element(x[i, n], y[i, n], d[i]), n), name="s")

    return program


ACCEPTED: dict[str, tuple[str, Callable[..., Any]]] = {
    "exp": ("rolling", lambda x, y, d: dlc.exp(x - d)),
    "exp2": ("rolling", lambda x, y, d: dlc.exp2(x - d)),
    "exp times values": ("rolling", lambda x, y, d: dlc.exp(x - d) * y),
    "scaled exponent": ("rolling", lambda x, y, d: dlc.exp((x - d) * 0.125) * y),
    "exponent in parts": ("rolling", lambda x, y, d: dlc.exp(x) * dlc.exp(-d) * y),
    "quotient of exponentials": ("rolling", lambda x, y, d: y * dlc.exp(x) / dlc.exp(d + 1.0 - x)),
    "masked": ("rolling", lambda x, y, d: dlc.exp(dlc.where(y > 0.5, x, float("-inf")) - d)),
    "masked outside": ("rolling", lambda x, y, d: dlc.where(y > 0.5, dlc.exp(x - d), 0.0)),
    "masked inside": ("rolling", lambda x, y, d: dlc.exp(dlc.where(y > 0.5, x - d, float("-inf")))),
    "tanh times exp": ("rolling", lambda x, y, d: dlc.tanh(y) * dlc.exp(x - d) * dlc.sigmoid(d)),
    "binary logarithm of a weight": ("rolling", lambda x, y, d: dlc.exp(x - d) * dlc.log2(dlc.exp(x - d) * y)),
    "decimal logarithm of a power of two": ("rolling", lambda x, y, d: dlc.exp2(x - d) * dlc.log10(dlc.exp2(x - d))),
    "logarithm of a weight": ("rolling", lambda x, y, d: dlc.exp(x - d) * dlc.log(dlc.exp(x - d))),
    "over a result": ("deferred", lambda x, y, d: x / d),
    "rsqrt": ("deferred", lambda x, y, d: x * dlc.rsqrt(d * d + 1.0) * y),
    "square of a product": ("deferred", lambda x, y, d: (x * d) ** 2),
    "linear": ("rolling", lambda x, y, d: (x - d) * y),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted(name: str) -> None:
    form, element = ACCEPTED[name]
    assert forms(chain(element)) == ["independent", form]


REFUSED: dict[str, tuple[str, Callable[..., Any]]] = {
    "squared difference": ("degree 2", lambda x, y, d: (x - d) * (x - d)),
    "sigmoid of a difference": ("`sigmoid` of a mixture", lambda x, y, d: dlc.sigmoid(x - d)),
    "product in the exponent": ("multiplies data by earlier results", lambda x, y, d: dlc.exp(x * d)),
    "a rounding": ("rounds", lambda x, y, d: dlc.cast(dlc.cast(dlc.exp(x - d), bf16), f64) * y),
    "a condition on results": ("depends on earlier results", lambda x, y, d: dlc.where(x > d, 0.0, x * d)),
    "two bases": ("different bases", lambda x, y, d: dlc.exp(x - d) * dlc.exp2(y - d)),
    "reciprocal of a sum": ("the divisor", lambda x, y, d: y / (x - d + 1.0)),
    "a fractional power": ("small whole number", lambda x, y, d: (x - d) ** 1.5),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_the_reason(name: str) -> None:
    reason, element = REFUSED[name]
    assert reason in refusal(chain(element))


def test_a_product_is_refused_whatever_it_is_of() -> None:
    def program(x: f64[M, N]):
        k, n = dlc.reduce_axis(N), dlc.reduce_axis(N)
        d = dlc.compute((M,), lambda i: dlc.max(x[i, k], k))
        return dlc.compute((M,), lambda i: dlc.prod(dlc.exp(x[i, n] - d[i]), n))

    assert "nothing is known that distributes over `prod`" in refusal(program)


def test_maxima_take_a_constant_through() -> None:
    def program(x: f64[M, N]):
        k, n = dlc.reduce_axis(N), dlc.reduce_axis(N)
        d = dlc.compute((M,), lambda i: dlc.sum(x[i, k], k))
        return dlc.compute((M,), lambda i: dlc.max(x[i, n] - d[i], n))

    assert forms(program) == ["independent", "deferred"]


EXTREMA: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "of weights": (dlc.max, lambda x, y, d: dlc.exp(x - d)),
    "of weights over a positive sum": (dlc.min, lambda x, y, d: 2.0 * dlc.exp(x - d) / (dlc.abs(d) + 1.0)),
    "of data over a root": (dlc.max, lambda x, y, d: x * y * dlc.rsqrt(d * d + 1e-6)),
    "of data times an exponential": (dlc.min, lambda x, y, d: x * dlc.exp(d)),
}


@pytest.mark.parametrize("name", EXTREMA)
def test_extrema_let_a_positive_factor_through(name: str) -> None:
    of, element = EXTREMA[name]

    def program(x: f64[M, N], y: f64[M, N]):
        k, n = dlc.reduce_axis(N), dlc.reduce_axis(N)
        d = dlc.compute((M,), lambda i: dlc.sum(x[i, k], k))
        return dlc.compute((M,), lambda i: of(element(x[i, n], y[i, n], d[i]), n))

    assert forms(program) == ["independent", "deferred"]


@pytest.mark.parametrize("element", [lambda x, y, d: x * d, lambda x, y, d: x * dlc.sqrt(d * d - 1.0), lambda x, y, d: y * dlc.exp(x - d)])
def test_extrema_of_other_products_have_a_pass_of_their_own(element: Callable[..., Any]) -> None:
    def program(x: f64[M, N], y: f64[M, N]):
        k, n = dlc.reduce_axis(N), dlc.reduce_axis(N)
        d = dlc.compute((M,), lambda i: dlc.sum(x[i, k], k))
        return dlc.compute((M,), lambda i: dlc.max(element(x[i, n], y[i, n], d[i]), n))

    assert "multiplies data by earlier results" in refusal(program)


def likeliest(x: f64[M, N], y: f64[M, N]):
    return dlc.max(dlc.softmax(x), axis=-1)


def test_a_sum_of_positive_values_is_positive() -> None:
    assert sorted(forms(likeliest)) == ["deferred", "independent", "rolling"]


def test_a_rounding_is_moved_where_it_is_permitted() -> None:
    _, element = REFUSED["a rounding"]
    assert forms(chain(element), approximate=True) == ["independent", "rolling"]


def test_a_mean_gives_the_moments() -> None:
    def program(x: f64[M, N]):
        return dlc.layer_norm(x)

    def negative(x: f64[M, N]):
        n = dlc.reduce_axis(N)
        m = dlc.mean(x, axis=-1)
        return dlc.compute((M,), lambda i: dlc.sum((m[i] - x[i, n]) * (m[i] - x[i, n]), n))

    assert forms(program) == ["moments", "moments"]
    assert forms(negative) == ["moments", "moments"]


def covariance(x: f64[M, N], y: f64[M, N]):
    dx, dy = x - dlc.mean(x, axis=-1, keepdims=True), y - dlc.mean(y, axis=-1, keepdims=True)
    return dlc.mean(dx * dy, axis=-1)


def correlation(x: f64[M, N], y: f64[M, N]):
    dx, dy = dlc.mean(x, axis=-1, keepdims=True) - x, y - dlc.mean(y, axis=-1, keepdims=True)
    return dlc.sum(dx * dy, axis=-1) * dlc.rsqrt(dlc.sum(dx * dx, axis=-1) * dlc.sum(dy * dy, axis=-1))


def test_products_of_two_deviations_have_a_carrier() -> None:
    assert forms(covariance) == ["moments"] * 3
    assert forms(correlation) == ["moments"] * 5
    (c,) = derivation(correlation).cascades
    assert sorted(a.carrier.name for a in c.accumulators) == ["comoments", "moments", "moments"]
    assert "means, sum of products of deviations" in explain(derivation(covariance))


def test_two_rows_at_once_are_no_row() -> None:
    """Every product of two centred rows: the means of both belong to one reduction, at different rows."""
    def program(x: f64[M, N]):
        centred = x - dlc.mean(x, axis=-1, keepdims=True)
        return centred @ centred.T

    assert "results of two rows at once, i and j" in refusal(program)


def test_results_of_another_pass_are_given() -> None:
    """Cosines: the rows' lengths belong to the pass along with the product, the columns' lengths are there before."""
    def program(x: f64[M, N], w: f64[D, N]):
        lengths = [dlc.rsqrt(dlc.sum(t * t, axis=1, keepdims=True)) for t in (x, w)]
        return (x * lengths[0]) @ (w * lengths[1]).T

    assert forms(program) == ["independent", "deferred"] and not derivation(program).refusals


def test_what_has_no_form_shares_a_pass_of_its_own() -> None:
    """The mean of two distributions is no product: both sums against it run together, after the pass that makes the distributions."""
    def program(x: f64[M, N], y: f64[M, N]):
        p, q = dlc.softmax(x), dlc.softmax(y)
        m = (p + q) * 0.5
        return 0.5 * (dlc.sum(p * dlc.log(p / m), axis=-1) + dlc.sum(q * dlc.log(q / m), axis=-1))

    d = derivation(program)
    assert [[x.form for x in c.components] for c in d.cascades] == [["independent", "rolling"] * 2, ["independent"] * 2]
    assert len(d.refusals) == 2 and "is a sum of data and earlier results" in explain(d)


def test_passes_do_not_wait_for_each_other() -> None:
    """``c`` reads what the pass of ``a`` reads, but needs ``b``, whose pass also makes ``s`` from ``a``."""
    def program(x: f64[M, N], y: f64[M, N]):
        k = [dlc.reduce_axis(N) for _ in range(4)]
        a = dlc.compute((M,), lambda i: dlc.max(x[i, k[0]], k[0]), name="a")
        b = dlc.compute((M,), lambda i: dlc.max(y[i, k[1]], k[1]), name="b")
        s = dlc.compute((M,), lambda i: dlc.sum(dlc.sigmoid(y[i, k[2]] - a[i]), k[2]), name="s")
        return s, dlc.compute((M,), lambda i: dlc.sum(dlc.sigmoid(x[i, k[3]] - b[i]), k[3]), name="c")

    assert [{x.tensor.name for x in c.components} for c in derivation(program).cascades] == [{"b", "s"}]


def test_a_deviation_from_the_mean_of_other_values_has_none() -> None:
    def other(x: f64[M, N], y: f64[M, N]):
        n = dlc.reduce_axis(N)
        m = dlc.mean(y, axis=-1)
        return dlc.compute((M,), lambda i: dlc.sum((x[i, n] - m[i]) * (x[i, n] - m[i]), n))

    assert "degree 2" in refusal(other)


def attention(q: f64[M, D], k: f64[N, D], v: f64[N, D]):
    s = (q @ k.T) * 0.25
    return dlc.softmax(s) @ v


def test_attention_is_one_pass_of_three() -> None:
    (c,) = derivation(attention).cascades
    assert [x.form for x in c.components] == ["independent", "rolling", "rolling"]
    assert [len(a.extra) for a in c.accumulators] == [0, 0, 1]
    with pytest.raises(Mixed, match="axes that the others lack"):
        derived_carrier(c)


def test_a_chain_through_another_axis_is_no_chain() -> None:
    def program(x: f64[M, N], w: f64[N, N]):
        m = dlc.max(x, axis=-1, keepdims=True)
        return dlc.sum((x - m) @ w, axis=-1)

    (c,) = derivation(program).cascades
    assert [x.tensor.body.data[0].name for x in c.components] == ["max", "sum"]
    assert c.components[1].tensor.name == "matmul"


# -- derived carriers ----------------------------------------------------------------------------------------------
def entropy(x: f64[M, N], y: f64[M, N]):
    return -dlc.sum(dlc.softmax(x) * dlc.log_softmax(x), axis=-1)


def divergence(x: f64[M, N], y: f64[M, N]):
    return dlc.sum(dlc.softmax(x) * (dlc.log_softmax(x) - dlc.log_softmax(y)), axis=-1)


def weighted(x: f64[M, N], y: f64[M, N]):
    return dlc.sum(dlc.softmax(x) * y, axis=-1)


def variance(x: f64[M, N], y: f64[M, N]):
    return dlc.var(x, axis=-1)


def smoothed(x: f64[M, N], y: f64[M, N]):
    return dlc.logsumexp(x, axis=-1) - 0.1 * dlc.mean(x, axis=-1)


def best(x: f64[M, N], y: f64[M, N]):
    k = dlc.reduce_axis(N)
    at, top = dlc.argmax(x, axis=-1), dlc.max(x, axis=-1)
    return dlc.compute((M,), lambda i: dlc.sum(dlc.exp(x[i, k] - top[i]), k) + at[i])


PROGRAMS = {f.__name__: f for f in (entropy, divergence, weighted, variance, covariance, correlation, smoothed, best)}
PROGRAMS |= {name: chain(element) for name, (_, element) in ACCEPTED.items()}


def data(rng: np.random.Generator, scale: float) -> dict[str, np.ndarray]:
    return {"x": rng.standard_normal(TERMS) * scale + scale, "y": rng.random(TERMS)}


def direct(c: Cascade, arrays: dict[str, np.ndarray]) -> list[np.ndarray]:
    """The components one after another, each over all elements."""
    found: dict[Any, Any] = {}
    out = []
    for x in c.components:
        element = tuple(np.broadcast_to(evaluate(e, {**given(e, arrays), **found}), (TERMS,)) for e in x.element)
        carrier = x.tensor.body.data[0]
        states = carrier.lift(A, element, carrier.state(tuple(e.dtype for e in x.element)))
        states = tuple(np.broadcast_to(s, (TERMS,)) for s in states)
        found[x.read()] = carrier.finalize(A, fold(carrier, states))[x.tensor.body.data[2]]
        out.append(found[x.read()])
    return out


def given(e: Any, arrays: dict[str, np.ndarray]) -> dict[Any, np.ndarray]:
    from dsl.algebra import walk
    from dsl.expr import Index
    known = {r: arrays[r.tensor.name] for r in leaves(e) if isinstance(r, Read) and r.tensor.name in arrays}
    return known | {n: np.arange(TERMS) for n in walk(e) if isinstance(n, Index) and not n.term.is_const}


def fold(carrier: Any, states: Any, cuts: tuple[int, ...] = ()) -> Any:
    """Combine along the elements: one by one, or chunks first."""
    if cuts:
        edges = [0, *cuts, TERMS]
        parts = [fold(carrier, tuple(s[a:b] for s in states)) for a, b in zip(edges, edges[1:])]
        return fold(carrier, tuple(np.array(p) for p in zip(*parts)))
    acc = tuple(s[0] for s in states)
    for n in range(1, len(states[0])):
        acc = carrier.combine(A, acc, tuple(s[n] for s in states))
    return acc


def prepared(name: str, rng: np.random.Generator, scale: float = 1.0) -> tuple[Cascade, Any, Any, dict[str, np.ndarray]]:
    (c,) = derivation(PROGRAMS[name]).cascades
    carrier, inputs = derived_carrier(c)
    arrays = data(rng, scale)
    values = tuple(np.broadcast_to(evaluate(e, given(e, arrays)), (TERMS,)) for e in inputs)
    states = carrier.lift(A, values, carrier.state(tuple(e.dtype for e in inputs)))
    return c, carrier, tuple(np.broadcast_to(s, (TERMS,)) for s in states), arrays


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_one_pass_equals_several(name: str, scale: float, rng: np.random.Generator) -> None:
    if any(word in name for word in ("parts", "quotient", "logarithm")):
        scale = min(scale, 50.0)  # these overflow or underflow as they are written
    c, carrier, states, arrays = prepared(name, rng, scale)
    want = direct(c, arrays)
    for cuts in ((), (7, 19), (1, 2, 39)):
        for got, right in zip(carrier.finalize(A, fold(carrier, states, cuts)), want):
            np.testing.assert_allclose(got, right, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", PROGRAMS)
def test_identity_changes_nothing(name: str, rng: np.random.Generator) -> None:
    _, carrier, states, _ = prepared(name, rng)
    dtypes = carrier.state(())
    e = carrier.identity(A, dtypes)
    for side in (carrier.combine(A, states, e), carrier.combine(A, e, states)):
        for got, s in zip(side, states):
            np.testing.assert_allclose(got, s, rtol=1e-12)


def test_rows_with_nothing_in_them_give_zero() -> None:
    (c,) = derivation(weighted).cascades
    carrier, inputs = derived_carrier(c)
    arrays = {"x": np.full(TERMS, -np.inf), "y": np.ones(TERMS)}
    values = tuple(np.broadcast_to(evaluate(e, given(e, arrays)), (TERMS,)) for e in inputs)
    states = tuple(np.broadcast_to(s, (TERMS,)) for s in carrier.lift(A, values, carrier.state(())))
    with np.errstate(all="ignore"):
        assert carrier.finalize(A, fold(carrier, states))[-1] == 0


def test_a_state_must_be_given() -> None:
    (c,) = derivation(weighted).cascades
    with pytest.raises(Mixed, match="neither a state nor an input"):
        evaluate_in(A, c.components[0].element[0], {})


# -- the text ------------------------------------------------------------------------------------------------------
def test_the_derivation_is_told() -> None:
    text = explain(derivation(attention))
    assert "one pass over" in text and "for every (i)" in text
    assert "A = exp(c_new - c_old) with c = -max[i]" in text
    assert "return dlc.softmax(s) @ v" in text


def test_a_refusal_is_told_with_the_line() -> None:
    text = explain(derivation(chain(REFUSED["sigmoid of a difference"][1])))
    assert "s_sum needs a pass of its own after d" in text or "s needs a pass of its own after d" in text
    assert "test_cascade.py" in text and "because `sigmoid`" in text


def test_nothing_to_tell() -> None:
    def program(x: f32[M, N]):
        return x + 1.0

    assert "nothing to merge" in explain(derivation(program))


def test_dependent_results_of_separate_rows_do_not_share_a_pass() -> None:
    def program(x: f64[N, N]):
        rows, columns = dlc.max(x, axis=1), dlc.max(x, axis=0)
        k = dlc.reduce_axis(N)
        return dlc.compute((N,), lambda i: dlc.sum(dlc.exp(x[i, k] - rows[i]) * columns[k], k))

    d = derivation(program)
    assert [[x.form for x in c.components] for c in d.cascades] == [["independent", "rolling"]]


def test_passes_of_rows_and_of_columns_stay_apart() -> None:
    """Similarities of normalised rows: the product needs the lengths of all of ``y`` before, so that they join no pass over its rows."""
    def program(x: f64[M, N], y: f64[M, N]):
        a, b = (t / dlc.sqrt((t * t).sum(-1, keepdim=True)) for t in (x, y))
        s = a @ b.T
        return dlc.logsumexp(s, 1), dlc.logsumexp(s, 0), (a * b).sum(-1)

    (one,) = [c for c in derivation(program).cascades if any(x.stage == "matmul" for x in c.components)]
    assert "sum_1" not in {x.stage for x in one.components}
