"""SGD, Adam and AdamW, with the formulas and the defaults of torch.

An update is written as operations on tensors, so it is fused like everything else: the updates of all parameters share one launch
(kernels hold a bounded number of definitions, so a model with many parameters takes several). What changes from step to step (the rate,
the corrections of the bias) is given to the kernel as numbers without dimensions, so that nothing is compiled again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from dlc.tape import each_call, guard, no_grad, phase
from dlc.tensor import Tensor, compute_now, zeros
from dlc.tensor.create import number
from dlc.tensor.tensor import record
from dsl.errors import ArgumentError
from dsl.expr import cast, op
from dsl.ops.dispatch import build

State = dict[str, Tensor]


class Optimizer:
    """What optimisers share: groups of parameters with their settings, a state for each parameter, and the state as plain data.

    Args:
        params: tensors, or mappings with ``params`` and settings of their own.
        defaults: the settings, ``lr`` among them.

    Attributes:
        param_groups: mappings with ``params`` and the settings of each group; change ``lr`` there.
        steps: how many updates were made.
        changes: how often the states were made anew.
    """

    def __init__(self, params: Iterable[Any], defaults: Mapping[str, Any]) -> None:
        given = list(params)
        if not given:
            raise ArgumentError("an optimiser without parameters", remedy="pass model.parameters()")
        groups = given if isinstance(given[0], Mapping) else [{"params": given}]
        self.param_groups: list[dict[str, Any]] = [{**defaults, **g, "params": list(g["params"])} for g in groups]
        self.state: dict[int, State] = {}
        self.steps = 0
        self.changes = 0
        seen: set[int] = set()
        for p in self.params:
            if not isinstance(p, Tensor) or not p.is_leaf or not p.dtype.is_float:
                raise ArgumentError("an optimiser updates leaves of a float dtype", f"{p!r:.80} is none", "pass model.parameters()")
            if id(p) in seen:
                raise ArgumentError("a parameter is given to the optimiser twice")
            seen.add(id(p))

    @property
    def params(self) -> list[Tensor]:
        """Every parameter, group by group."""
        return [p for g in self.param_groups for p in g["params"]]

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for p in self.params:
            p.zero_grad()

    def step(self) -> None:
        """Update every parameter that has a gradient."""
        each_call(self._advance)
        guard(self, self._settings)
        owners: list[Tensor] = []
        new: list[Tensor] = []
        with phase("update"), no_grad():
            for group in self.param_groups:
                mine = [p for p in group["params"] if p.grad is not None]
                owners += mine
                new += self.update(mine, group) if mine else []
        compute_now(*new, *(t for p in owners for t in self.state.get(id(p), {}).values()))
        for p, value in zip(owners, new):
            p.replace(value)

    def _advance(self) -> None:
        self.steps += 1

    def _settings(self) -> Any:
        """What an update is written of, besides the parameters, their states and the rate."""
        return self.changes, [v for g in self.param_groups for k, v in g.items() if k not in ("params", "lr")]

    def update(self, params: Sequence[Tensor], group: Mapping[str, Any]) -> list[Tensor]:
        """The new values of parameters of one group; their states are changed to the new ones."""
        raise NotImplementedError

    def _states(self, params: Sequence[Tensor], name: str) -> list[Tensor]:
        """An entry of the states, zeros at first."""
        states = [self.state.setdefault(id(p), {}) for p in params]
        for state, p in zip(states, params):
            if name not in state:
                state[name] = zeros(p.shape, dtype=p.dtype)
                self.changes += 1
        return [state[name] for state in states]

    def _keep(self, params: Sequence[Tensor], name: str, new: Sequence[Tensor]) -> None:
        for p, t in zip(params, new):
            self.state[id(p)][name].replace(t)

    def state_dict(self) -> dict[str, Any]:
        """Steps, settings and the states of the parameters by their numbers: what :mod:`dlc.checkpoint` writes."""
        groups = [{k: v for k, v in g.items() if k != "params"} for g in self.param_groups]
        state = {n: {name: t.detach() for name, t in self.state.get(id(p), {}).items()} for n, p in enumerate(self.params)}
        return {"steps": self.steps, "groups": groups, "state": state}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on from a saved state.

        Raises:
            ArgumentError: it is that of another number of groups or parameters.
        """
        if len(saved["groups"]) != len(self.param_groups) or any(int(n) >= len(self.params) for n in saved["state"]):
            raise ArgumentError("the state is that of another optimiser",
                                f"it has {len(saved['groups'])} groups of parameters and {len(saved['state'])} parameters")
        self.steps, self.changes = int(saved["steps"]), self.changes + 1
        for group, settings in zip(self.param_groups, saved["groups"]):
            group.update(settings)
        for n, p in enumerate(self.params):
            self.state[id(p)] = {name: Tensor(t) for name, t in (saved["state"].get(n) or saved["state"].get(str(n)) or {}).items()}


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum (Polyak, or Nesterov) and L2 weight decay."""

    def __init__(self, params: Iterable[Any], lr: float = 1e-3, momentum: float = 0.0, dampening: float = 0.0, weight_decay: float = 0.0,
                 nesterov: bool = False, maximize: bool = False) -> None:
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ArgumentError("Nesterov momentum needs momentum and no dampening")
        super().__init__(params, {"lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay,
                                  "nesterov": nesterov, "maximize": maximize})

    def update(self, params: Sequence[Tensor], group: Mapping[str, Any]) -> list[Tensor]:
        """See :func:`sgd`."""
        first = any("momentum" not in self.state.setdefault(id(p), {}) for p in params)
        moments = self._states(params, "momentum") if group["momentum"] else []
        share = 1.0 if first else 1 - group["dampening"]
        new, *kept = record(sgd, (params, [p.grad for p in params], moments, number(lambda: group["lr"]), group["momentum"], share,
                                  group["weight_decay"], group["nesterov"], group["maximize"]), {})
        for values in kept:
            self._keep(params, "momentum", values)
        return new


def sgd(params: list[Any], grads: list[Any], moments: list[Any], lr: Any, momentum: float, share: float, decay: float, nesterov: bool,
        maximize: bool) -> list[Any]:
    """``p - lr * g``, with ``g`` the gradient and the decay, or the running sum ``momentum * before + share * g``.

    Nesterov's looks one step ahead.
    """
    def element(p: Any, g: Any, m: Any, rate: Any) -> tuple[Any, ...]:
        g = -g if maximize else g
        g = g + p * decay if decay else g
        if m is None:
            return (p - rate * g,)
        m = m * momentum + (g if share == 1 else g * share)
        return p - rate * (g + m * momentum if nesterov else m), m

    return _each(element, [params, grads, moments or [None] * len(params)], [lr])


class Adam(Optimizer):
    """Adam (Kingma and Ba) with L2 weight decay; :class:`AdamW` decouples the decay."""

    decoupled = False

    def __init__(self, params: Iterable[Any], lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
                 weight_decay: float = 0.0, amsgrad: bool = False, maximize: bool = False) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad,
                                  "maximize": maximize})

    def update(self, params: Sequence[Tensor], group: Mapping[str, Any]) -> list[Tensor]:
        """See :func:`adam`; the rate with the first correction in it, the root of the second, and the decay of this step are numbers."""
        beta1, beta2 = group["betas"]
        numbers = [number(lambda: group["lr"] / (1 - beta1**self.steps)), number(lambda: (1 - beta2**self.steps) ** 0.5),
                   number(lambda: 1 - group["lr"] * group["weight_decay"])]
        states = [self._states(params, name) for name in (*"mv", *(["most"] if group["amsgrad"] else []))]
        new, *states = record(adam,
                              (params, [p.grad for p in params], *states, *([] if group["amsgrad"] else [None]), *numbers, *group["betas"],
                               group["eps"], group["weight_decay"], self.decoupled, group["maximize"]), {})
        for name, values in zip(("m", "v", "most"), states):
            self._keep(params, name, values)
        return new


def adam(params: list[Any], grads: list[Any], means: list[Any], squares: list[Any], most: list[Any] | None, rate: Any,
         second: Any, kept: Any, beta1: float, beta2: float, eps: float, decay: float, decoupled: bool, maximize: bool) -> list[Any]:
    """``p - rate * m / (sqrt(v) / second + eps)`` with running means ``m`` of the gradient and ``v`` of its square."""
    def element(p: Any, g: Any, m: Any, v: Any, top: Any, rate: Any, second: Any, kept: Any) -> tuple[Any, ...]:
        g = -g if maximize else g
        if decay:
            p, g = (p * kept, g) if decoupled else (p, g + p * decay)
        m = m + (g - m) * (1 - beta1)
        v = v * beta2 + g * g * (1 - beta2)
        top = None if top is None else op("max", top, v)
        new = p - rate * (m / (op("sqrt", v if top is None else top) / second + eps))
        return (new, m, v) if top is None else (new, m, v, top)

    return _each(element, [params, grads, means, squares, most or [None] * len(params)], [rate, second, kept])


def _each(element: Callable[..., tuple[Any, ...]], columns: Sequence[Sequence[Any]], numbers: Sequence[Any]) -> list[list[Any]]:
    """Definitions of ``element`` over every parameter, listed result by result."""
    rows = []
    for row in zip(*columns):
        rows.append(_one(element, row, numbers))
    return [list(column) for column in zip(*rows)]


def _one(element: Callable[..., tuple[Any, ...]], row: Sequence[Any], numbers: Sequence[Any]) -> tuple[Any, ...]:
    dtype = row[0].dtype

    def body(*at: Any) -> tuple[Any, ...]:
        values = element(*(None if t is None else t.read(*at) for t in row), *(cast(n.read(), dtype.held) for n in numbers))
        return tuple(cast(v, dtype) for v in values)

    results: Any = build("update", row[0].shape, body)
    return tuple(results)


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter)."""

    decoupled = True

    def __init__(self, params: Iterable[Any], lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
                 weight_decay: float = 1e-2, amsgrad: bool = False, maximize: bool = False) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize)
