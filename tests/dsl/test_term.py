"""The structure of index terms: values on arrays, coefficients, text."""

from __future__ import annotations

import numpy as np
import pytest

from dsl.dim import Var, as_term, tmax, tmin
from tests.dsl.terms import J, N, R, Y


def test_terms_evaluate_on_arrays() -> None:
    i, j = Var("i", 5), Var("j", 7)
    t = tmin((i_ := as_term(i)) * 3 // 2, as_term(j) % 4) + tmax(i_, j)
    got = t.eval({i: np.arange(5)[:, None], j: np.arange(7)[None, :]})
    want = [[min(a * 3 // 2, b % 4) + max(a, b) for b in range(7)] for a in range(5)]
    np.testing.assert_array_equal(got, want)


def test_coefficients_and_structure() -> None:
    t = 3 * as_term(Y) + as_term(Y) * N + as_term(J) // 2 + 5
    assert t.coef(Y) is None and t.coef(R) == 0 and t.coef(J) is None
    assert t.coef_term(Y) == as_term(N) + 3
    assert t.coef_term(J) is None
    assert t.vars == {Y, N, J}
    assert (2 * as_term(Y) - 1).coef(Y) == 2
    with pytest.raises(TypeError, match="is symbolic"):
        int(t)


def test_text_is_readable() -> None:
    assert str(as_term(Y) * N + J - 1) == "N*i + j - 1"
    assert str(-as_term(Y) + 2 * as_term(J)) == "2*j - i"
    assert str((as_term(Y) + 1) // 4 * 4) == "4*((i + 1) // 4)"
    assert str(tmin(as_term(Y) + 1, as_term(J))) == "min(i + 1, j)"
    assert str(as_term(0)) == "0"
