"""Chains of reductions over one axis that one pass can compute, derived from their definitions.

Over an axis ``k`` let ``d1 = (+)1 F1(x[k])`` and ``di = (+)i Fi(x[k]; D)`` with ``D`` the earlier results. If a map ``A`` exists with
``Fi(x; D') = A(D, D') . Fi(x; D)`` for every ``x``, and ``A`` distributes over ``(+)i`` and fixes its identity, then partial results at
different ``D`` can be brought to one: that is online softmax, flash attention, a normalisation folded into the product that follows.

The normal form of :mod:`dsl.factored` decides. ``F = H(D) G(x)`` is *deferred*: ``G`` is reduced and ``H`` applied once, after the loop.
``F = H(D) G(x) exp(u(x) + c(D))`` is *rolling*, since ``exp(u)`` alone could overflow: ``A = exp(c' - c)``. A sum of squared
deviations from the mean of the same values is the *moments* carrier. Everything else is refused with the reason, and keeps its pass
of its own. The normal form is checked against the definition at random points in float64 before it is believed.
"""

from __future__ import annotations

from dsl.cascade.explain import explain
from dsl.cascade.merge import derived_carrier
from dsl.cascade.model import Accumulator, Cascade, Component, Derivation, Refusal, Weight
from dsl.cascade.search import derive

__all__ = ["Accumulator", "Cascade", "Component", "Derivation", "Refusal", "Weight", "derive", "derived_carrier", "explain"]
