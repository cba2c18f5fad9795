"""The digits network: three parts of the data that do not overlap, and a run that learns."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sklearn")

from dlc.data import load_digits
from dlc.digits import choose, loaders, network, perceptron, train


def test_the_parts_do_not_overlap_and_are_always_the_same() -> None:
    digits = load_digits()
    first, again = loaders(digits, seed=1), loaders(digits, seed=2)
    assert [p.examples for p in first] == [1149, 288]
    parts = [{image.tobytes() for image in p.arrays[0]} for p in first]
    test = {image.tobytes() for image in digits.test_images}
    assert not parts[0] & parts[1] and not parts[0] & test and not parts[1] & test
    assert all(np.array_equal(a.arrays[0], b.arrays[0]) for a, b in zip(first, again))


def test_networks_have_the_sizes_they_say() -> None:
    assert sum(p.size for p in network().parameters()) == 9930
    assert sum(p.size for p in perceptron().parameters()) == 64 * 128 + 128 + 128 * 64 + 64 + 64 * 10 + 10


def test_learns_and_repeats() -> None:
    digits = load_digits()
    run = train(digits, epochs=6, seed=3, make=perceptron)
    assert run.test_accuracy >= 0.9 and run.history.loss[-1] < 0.3 * run.history.loss[0]
    assert run.test_accuracy == np.mean(run.guesses == digits.test_labels) and not run.history.accuracy
    assert choose(digits, epochs=2, seed=3, make=perceptron)[1].loss == choose(digits, epochs=2, seed=3, make=perceptron)[1].loss
    assert len(train(digits, epochs=1, make=perceptron, hold_out=True).history.accuracy) == 1
