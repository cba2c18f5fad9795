"""dlc.tune.peers: one peer, several, by name; one that fails is left alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dlc.tune.peers import Peers, named
from dsl.errors import ArgumentError


def doubled(x: torch.Tensor) -> torch.Tensor:
    return x * 2


def broken(x: torch.Tensor) -> torch.Tensor:
    raise ValueError("no such thing")


def test_peers_have_names() -> None:
    assert named(None) == {} and list(named(doubled)) == ["peer"]
    assert list(named([doubled, lambda x: x, doubled])) == ["doubled", "peer 2", "peer 3"]
    assert list(named({"a": doubled, "b": broken})) == ["a", "b"]
    with pytest.raises(ArgumentError, match="no peer"):
        named({"default": doubled})
    with pytest.raises(ArgumentError, match="no peer"):
        named([3])


@pytest.mark.parametrize("operands", ["cold", "warm", "both"])
def test_they_are_timed_and_judged(operands: str) -> None:
    x = torch.randn(100)
    peers = Peers({"doubled": doubled, "broken": broken}, [x], operands)
    for _ in range(3):
        peers.sample()
    peers.judge("ordinary", [2.0 * x.double().numpy()])
    assert len(peers.times["doubled"].samples) == 3 and min(peers.times["doubled"].samples) > 0
    assert peers.times["doubled"].cold == (operands == "cold")
    assert not peers.times["broken"].ok and "no such thing" in peers.notes[0]
    errors, failures = peers.errors["ordinary"]
    assert errors["doubled"].relative == 0 and "no such thing" in failures["broken"]
    assert np.isnan(peers.times["broken"].median)
