"""Sizes beside numbers: numbers where they are known, values of the program where they are not."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import dsl
from dsl.dim import as_term
from dsl.errors import UserError
from dsl.interp import evaluate
from dsl.program import trace
from tests.dsl.terms import N


@pytest.mark.parametrize(("made", "want"), [
    (lambda n: n * 0.5, 4.0), (lambda n: 0.5 * n, 4.0), (lambda n: n / 3, 8 / 3), (lambda n: 1 / n, 0.125),
    (lambda n: n ** -0.5, 8 ** -0.5),
    (lambda n: 2 ** n, 256), (lambda n: n + 0.5, 8.5), (lambda n: 0.5 - n, -7.5), (lambda n: n // 3.0, 2.0), (lambda n: n % 2.5, 0.5),
    (lambda n: math.sqrt(n), 8 ** 0.5), (lambda n: min(n, 4), 4), (lambda n: abs(n), 8), (lambda n: n > 3, True),
    (lambda n: n / as_term(4), 2.0),
    (lambda n: np.float32(0.5) * n, 4.0), (lambda n: n ** 2, 64)])
def test_known_sizes_are_numbers_beside_numbers(made: Callable[[Any], Any], want: float) -> None:
    assert made(as_term(8)) == want


@pytest.mark.parametrize("made", [
    lambda n: n * 0.5, lambda n: 0.5 * n, lambda n: n / 3, lambda n: 1 / n, lambda n: n ** -0.5, lambda n: 2.0 ** n, lambda n: 0.5 - n,
    lambda n: n // 2.5, lambda n: 8.5 % n, lambda n: abs(2 - n) * 1.0, lambda n: n ** 2 / 2, lambda n: dsl.where(n > 6, n * 0.5, 1 / n)])
def test_symbolic_sizes_are_values_beside_numbers(made: Callable[[Any], Any]) -> None:
    """``x.shape[-1] * 0.5``, ``D ** -0.5``: of a size that the call finds."""
    def program(x: dsl.f64[dsl.dims("D")]):
        return x * made(x.shape[0])

    x = np.linspace(1, 2, 7)
    value = made(7) if "where" not in made.__code__.co_names else 3.5
    np.testing.assert_allclose(evaluate(trace(program), x)[0], x * value, rtol=1e-6)


def test_symbolic_sizes_have_no_truth() -> None:
    with pytest.raises(UserError, match="truth value"):
        min(as_term(N), 4)
