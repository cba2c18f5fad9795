"""dlc.data.digits: the same split every time, and a clear word when the optional library is missing."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from dlc.data.digits import load_digits
from dsl.errors import UserError


def test_shapes_dtypes_and_range() -> None:
    pytest.importorskip("sklearn")
    d = load_digits()
    assert d.train_images.shape == (1437, 8, 8) and d.test_images.shape == (360, 8, 8)
    assert d.train_labels.shape == (1437,) and d.test_labels.shape == (360,)
    assert d.train_images.dtype == np.float32 and d.train_labels.dtype == np.int64
    assert d.train_images.min() == 0.0 and d.train_images.max() == 1.0
    assert all(part.flags.c_contiguous for part in d)


def test_the_split_is_fixed_and_stratified() -> None:
    pytest.importorskip("sklearn")
    first, second = load_digits(), load_digits()
    assert all((a == b).all() for a, b in zip(first, second))
    share = np.bincount(first.test_labels) / (np.bincount(first.train_labels) + np.bincount(first.test_labels))
    assert np.abs(share - 0.2).max() < 0.01
    assert first.train_labels[:10].tolist() == EXPECTED


EXPECTED = [3, 9, 1, 3, 1, 9, 4, 4, 2, 8]


def test_without_scikit_learn_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(UserError, match=r"need scikit-learn(.|\n)*pip install 'dlc\[demo\]'"):
        load_digits()
