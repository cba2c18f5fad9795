"""Tuning what a training step runs of a kernel: the forward that autograd follows, with what it keeps, and the backward."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from dlc.derivatives import Followed
from dlc.tune.adversary import ORDINARY
from dlc.tune.exactness import several
from dlc.tune.outcome import TuneReport
from dlc.tune.peers import Peer
from dsl.errors import ArgumentError


def tune_training(kernel: Any, tensors: Sequence[torch.Tensor], against: Mapping[str, Peer], options: Mapping[str, Any]) -> TuneReport:
    """Tune a kernel's forward and its backward, each for half of the budget.

    Args:
        kernel: a :class:`dlc.kernel.Kernel`.
        tensors: its arguments; gradients are wanted of those that require them, or of all of floats where none does.
        against: peers by name, which torch can differentiate. They are timed beside the forward where that keeps nothing but its results,
            and their backward, whose graph is made once, beside ours.
        options: of :meth:`dlc.asking.Asked.tune`.

    Returns:
        The report of the forward, with that of the backward in it.

    Raises:
        UserError: there is nothing to differentiate.
    """
    floats = tuple(n for n, t in enumerate(tensors) if t.is_floating_point())
    wanted = tuple(n for n in floats if tensors[n].requires_grad) or floats
    if not wanted or not any(t.dtype.is_float for t in kernel.program.outputs):
        raise ArgumentError(f"{kernel.program.name} has no backward", "gradients are of results and arguments of floats",
                            "tune it with backward=False", kernel.program.loc)
    leaves = [t.detach().requires_grad_(n in wanted) for n, t in enumerate(tensors)]
    plain = [t.detach() for t in tensors]
    options = {**options, "budget": options["budget"] if options["budget"] is None else options["budget"] / 2}
    followed = kernel.derivatives.follow(leaves)
    forward = followed.forward or kernel
    first = forward.tune(*plain, **options, against=against if forward is kernel else None)
    with torch.no_grad():
        back, values, seeds = _backward(followed, plain, wanted)
        peers = {name: _gradient(peer, leaves, wanted, seeds) for name, peer in against.items()}
        data = options["data"] or (ORDINARY if peers else None)  # a graph holds for the arguments that it was made for
        second = back.tune(*values, *seeds, **{**options, "data": data}, against=peers)
    return replace(first, backward=second)


def _backward(followed: Followed, tensors: Sequence[torch.Tensor],
              wanted: tuple[int, ...]) -> tuple[Any, list[torch.Tensor], list[torch.Tensor]]:
    """The kernel of the backward, the values of the forward that it takes, and gradients of the results."""
    results = followed.run(None, tensors)
    mine = [n for n, r in enumerate(results[:followed.results]) if r.is_floating_point()]
    back = followed.derived.back(wanted, tuple(mine), followed.saved)
    generator = torch.Generator().manual_seed(0)
    seeds = [torch.randn(results[n].shape, generator=generator).to(results[n].dtype) for n in mine]
    held = {"input": tensors, "result": results}
    return back.kernel, [held[kind][n] for kind, n in back.sources], seeds


def _gradient(peer: Peer, leaves: Sequence[torch.Tensor], wanted: tuple[int, ...],
              seeds: Sequence[torch.Tensor]) -> Callable[..., Sequence[torch.Tensor]]:
    """The backward of a peer, as a function whose arguments do not matter."""
    with torch.enable_grad():
        results = [r for r in several(peer(*leaves)) if r.is_floating_point()]
    inputs = [leaves[n] for n in wanted]

    def gradient(*_: Any) -> Sequence[torch.Tensor]:
        return torch.autograd.grad(results, inputs, seeds, retain_graph=True)

    return gradient
