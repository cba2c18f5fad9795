"""What ran: launches of generated kernels by phase, kernels compiled, and what torch computed meanwhile."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

_STORAGE = ("empty", "new_empty", "empty_like", "detach", "view", "alias", "as_strided", "_unsafe_view", "lift_fresh", "set_", "select",
            "slice", "t", "transpose", "unsqueeze", "clone", "_local_scalar_dense")


@dataclass
class Counts:
    """Counted since the process began.

    Attributes:
        launches: phase -> launches of generated kernels.
        kernels: name of a kernel -> its launches.
        plans: graphs that were cut into kernels; one that was met before costs nothing more.
        compiled: kernels that were compiled, or loaded from the disk cache.
        realized: times that a graph was computed.
    """

    launches: Counter[str] = field(default_factory=Counter)
    kernels: Counter[str] = field(default_factory=Counter)
    plans: int = 0
    compiled: int = 0
    realized: int = 0

    def copy(self) -> Counts:
        """The figures as they stand."""
        return Counts(Counter(self.launches), Counter(self.kernels), self.plans, self.compiled, self.realized)

    def since(self, before: Counts) -> Counts:
        """What was counted after ``before``."""
        return Counts(self.launches - before.launches, self.kernels - before.kernels, self.plans - before.plans,
                      self.compiled - before.compiled, self.realized - before.realized)


counts = Counts()


class Watch(TorchDispatchMode):
    """``with dlc.Watch() as w:`` counts the launches of generated kernels inside, and every operation that torch computes itself.

    Attributes:
        counts: launches, by phase and by kernel.
        torch_ops: operation of torch -> times it ran; allocation, views, plain copies and the reading of one number are not among them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts, self.torch_ops = Counts(), Counter[str]()
        self._before = Counts()

    def __enter__(self) -> Watch:
        self._before = counts.copy()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self.counts = counts.since(self._before)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count an operation and let it run."""
        name = func.overloadpacket.__name__
        if name not in _STORAGE:
            self.torch_ops[name] += 1
        return func(*args, **(kwargs or {}))
