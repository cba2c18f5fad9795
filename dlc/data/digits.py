"""Handwritten digits: 1797 pictures of 8 by 8 points, small enough to train on in seconds, always split the same way."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import NamedTuple

import numpy as np

from dsl.errors import UserError

_TEST_SHARE, _SEED = 0.2, 0


class Digits(NamedTuple):
    """Pictures as float32 from 0 to 1, shape (n, 8, 8), and labels 0 to 9 as int64, shape (n,)."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


def load_digits() -> Digits:
    """The digits that come with scikit-learn: 1437 to train on, 360 to test, each digit in the same share in both.

    Raises:
        UserError: scikit-learn is not installed.
    """
    datasets, selection = _sklearn("datasets"), _sklearn("model_selection")
    found = datasets.load_digits()
    images = (found.images / 16).astype(np.float32)
    labels = found.target.astype(np.int64)
    split = selection.train_test_split(images, labels, test_size=_TEST_SHARE, stratify=labels, random_state=_SEED)
    train_images, test_images, train_labels, test_labels = (np.ascontiguousarray(part) for part in split)
    return Digits(train_images, train_labels, test_images, test_labels)


def _sklearn(name: str) -> ModuleType:
    """A module of an optional dependency, asked for when it is needed."""
    try:
        return importlib.import_module(f"sklearn.{name}")
    except ImportError as error:
        raise UserError(
            "the handwritten digits need scikit-learn, which is not installed",
            reason=str(error),
            remedy="pip install 'dlc[demo]'",
        ) from error
