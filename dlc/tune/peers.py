"""What a kernel is compared with while it is tuned: functions of the same arguments, run in this process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from dlc.tune.accuracy import Error
from dlc.tune.adversary import changed
from dlc.tune.exactness import compare
from dlc.tune.measure import Measurement, describe, one_sample
from dsl.errors import ArgumentError

PEER = "peer"
_OURS = ("default", "tuned")
Peer = Callable[..., Any]
Against = Peer | Sequence[Peer] | Mapping[str, Peer] | None


def named(against: Against) -> dict[str, Peer]:
    """Peers by name: one alone is ``peer``; several have those of their functions, or are numbered where these say nothing.

    Raises:
        ArgumentError: what is given is no function, or has the name of one of our own sides.
    """
    if against is None:
        return {}
    if callable(against):
        return {PEER: against}
    out: dict[str, Peer] = dict(against) if isinstance(against, Mapping) else {}
    for n, peer in enumerate(against if not isinstance(against, Mapping) else (), 1):
        name = getattr(peer, "__name__", "")
        out[name if name.isidentifier() and name not in (*out, *_OURS) else f"{PEER} {n}"] = peer
    for name, peer in out.items():
        if not callable(peer) or name in _OURS:
            raise ArgumentError(f"{name!r} is no peer", "a peer is a function of the same arguments, under a name of its own",
                                "pass a function, several in a list, or names to functions")
    return out


class Peers:
    """Peers and what is found out about them; one that fails is left alone from then on.

    Args:
        against: by name.
        given: what they are called with.
        operands: where they are when a call is timed, see :func:`dlc.tune.measure.one_sample`.

    Attributes:
        failures: why a peer has no times.
        errors: kind of data to their errors, and to why one has none.
    """

    def __init__(self, against: Mapping[str, Peer], given: Sequence[Any], operands: str) -> None:
        self.against, self.given, self.operands = dict(against), given, operands
        self.samples: dict[str, list[float]] = {name: [] for name in against}
        self.failures: dict[str, str] = {}
        self.errors: dict[str, tuple[dict[str, Error], dict[str, str]]] = {}

    def sample(self) -> None:
        """One sample of each."""
        for name, peer in self.against.items():
            if name in self.failures:
                continue
            try:
                self.samples[name].append(one_sample(lambda peer=peer: peer(*self.given), self.operands))  # type: ignore[misc]
            except Exception as e:  # whatever a peer raises is its result
                self.failures[name] = describe(e)

    def judge(self, kind: str, exact: Sequence[np.ndarray]) -> None:
        """Tell their errors on a kind of data against the exact results for it."""
        if self.against and kind not in self.errors:
            self.errors[kind] = compare(self.against, changed(self.given, kind), exact)

    def forget(self) -> None:
        """Drop all samples."""
        for samples in self.samples.values():
            samples.clear()

    @property
    def times(self) -> dict[str, Measurement]:
        """Their samples."""
        return {name: Measurement(tuple(samples), self.failures.get(name), cold=self.operands == "cold")
                for name, samples in self.samples.items()}

    @property
    def notes(self) -> list[str]:
        """What is to be said of those that failed."""
        return [f"the peer failed: {why}" if name == PEER else f"the peer {name} failed: {why}" for name, why in self.failures.items()]
