"""A whole step of training: forward, backward and the update of an MLP, a small convolutional network and a transformer of four blocks.

Every library begins with the same weights and sees the same batch. A call is one step; it returns the loss before the update and the
last layer's weights after it, so that the first call of each is compared with the same step in float64. Ours is measured under
``dlc.jit``, as a loop should be written, and with every operation recorded anew in every step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from typing import Any

import torch

import dlc
from benchmarks.calls import NoVariant
from benchmarks.harness import Case
from dlc import nn, optim
from dlc.realize import untuned
from dlc.train import train_step

theirs = torch.nn
_CLASSES = 10
_WIDTH, _LENGTH, _BLOCKS, _HEADS = 128, 64, 4, 4

Step = Callable[[], object]


def _mlp(lib: Any) -> list[Any]:
    return [lib.Linear(784, 512), lib.ReLU(), lib.Linear(512, 512), lib.ReLU(), lib.Linear(512, _CLASSES)]


def _cnn(lib: Any) -> list[Any]:
    return [lib.Conv2d(3, 32, 3, padding=1), lib.ReLU(), lib.MaxPool2d(2), lib.Conv2d(32, 64, 3, padding=1), lib.ReLU(), lib.MaxPool2d(2),
            lib.Flatten(), lib.Linear(64 * 64, 128), lib.ReLU(), lib.Linear(128, _CLASSES)]


def _transformer(lib: Any) -> list[Any]:
    def block() -> Any:
        if lib is nn:
            return nn.TransformerBlock(_WIDTH, _HEADS, 4 * _WIDTH, "gelu")
        return theirs.TransformerEncoderLayer(_WIDTH, _HEADS, 4 * _WIDTH, 0.0, "gelu", batch_first=True, norm_first=True)

    return [*(block() for _ in range(_BLOCKS)), lib.LayerNorm(_WIDTH), lib.Flatten(), lib.Linear(_WIDTH * _LENGTH, _CLASSES)]


def _sgd(lib: Any, parameters: Any) -> Any:
    return lib.SGD(parameters, lr=0.01, momentum=0.9, **({"fused": True} if lib is torch.optim else {}))


def _adamw(lib: Any, parameters: Any) -> Any:
    return lib.AdamW(parameters, lr=1e-3, **({"fused": True} if lib is torch.optim else {}))


class Ours:
    """A step of ours on one batch, with the default schedules; :meth:`tuned` makes one whose kernels are tuned first.

    Args:
        make: makes a model that begins anew, and a function of a batch that takes a step with it.
        batch: the arguments of the function.
        jitted: whether the step is recorded once.
        budget: seconds to tune the step for, on each number of threads; 0 for the default schedules.
    """

    def __init__(self, make: Callable[[], tuple[nn.Sequential, Callable[..., dlc.Tensor]]], batch: Sequence[dlc.Tensor], jitted: bool,
                 budget: float = 0.0) -> None:
        self.make, self.batch, self.jitted, self.budget = make, batch, jitted, budget
        self.model, self.step = make()
        self.run = dlc.jit(self.step)
        self.known: set[int] = set()

    def tuned(self, budget: float, operands: str = "cold") -> Ours:
        """The same step, tuned in its first call on each number of threads; its operands are where the step has them.

        Raises:
            NoVariant: it is not jitted; its kernels are those of the jitted step.
        """
        if not self.jitted:
            raise NoVariant("not jitted")
        return Ours(self.make, self.batch, True, budget)

    def __call__(self) -> object:
        """The loss before the update, and the last layer's weights after it."""
        with nullcontext() if self.budget else untuned():
            loss = (self.run if self.jitted else self.step)(*self.batch).realize()
        result = loss, self.model[-1].weight.detach()
        if self.budget and torch.get_num_threads() not in self.known:
            self.known.add(torch.get_num_threads())
            self.run.tune(*self.batch, budget=self.budget, progress=False)
        return result


def _ours(layers: Callable[[Any], list[Any]], optimiser: Callable[..., Any], state: dict[str, torch.Tensor], x: torch.Tensor,
          y: torch.Tensor, jitted: bool) -> Ours:
    def make() -> tuple[nn.Sequential, Callable[..., dlc.Tensor]]:
        model = nn.Sequential(*layers(nn))
        model.load_state_dict(state)
        update = optimiser(optim, model.parameters())
        return model, lambda x, y: train_step(model, nn.cross_entropy, update, x, y)

    return Ours(make, (dlc.from_torch(x), dlc.from_torch(y)), jitted)


def _torchs(layers: list[Any], optimiser: Callable[..., Any], state: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor,
            **options: Any) -> Step:
    """A step in torch with its fused optimiser; with ``options``, forward and backward through torch.compile."""
    model = theirs.Sequential(*layers).to(x.dtype)
    model.load_state_dict(state)
    update = optimiser(torch.optim, model.parameters())
    last = layers[-1].weight

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return theirs.functional.cross_entropy(model(x), y)

    forward = {torch.get_num_threads(): loss_of} if not options else {}

    def step() -> object:
        threads = torch.get_num_threads()
        if options and threads not in forward:
            torch._dynamo.reset()
            forward[threads] = torch.compile(loss_of, dynamic=False, **options)
        update.zero_grad()
        loss = (forward[threads] if options else loss_of)(x, y)
        loss.backward()
        update.step()
        return loss.detach(), last.detach()

    return step


def _case(name: str, layers: Callable[[Any], list[Any]], optimiser: Callable[..., Any], shape: tuple[int, ...], flops: float,
          jitted: bool = True) -> Case:
    def setup() -> dict[str, Step]:
        torch.manual_seed(0)
        state = theirs.Sequential(*layers(theirs)).state_dict()
        x, y = torch.randn(*shape), torch.randint(0, _CLASSES, (shape[0],))
        return {
            "dlc": _ours(layers, optimiser, state, x, y, jitted),
            "torch": _torchs(layers(theirs), optimiser, state, x, y),
            "compile": _torchs(layers(theirs), optimiser, state, x, y, mode="default"),
            "autotune": _torchs(layers(theirs), optimiser, state, x, y, mode="max-autotune-no-cudagraphs"),
            "float64": _torchs(layers(theirs), optimiser, state, x.double(), y),
        }

    return Case(f"{name} {'x'.join(map(str, shape))}{'' if jitted else ', not jitted'}", setup, flops=flops)


def cases() -> Iterable[Case]:
    """Every case of the family; operations are those of the products, three times the forward's."""
    for jitted in (True, False):
        yield from _models(jitted)


def _models(jitted: bool) -> Iterable[Case]:
    for batch in (32, 256):
        yield _case("mlp", _mlp, _adamw, (batch, 784), 6 * batch * (784 * 512 + 512 * 512 + 512 * _CLASSES), jitted)
    image, weights = 9 * (3 * 32 * 1024 + 32 * 64 * 256), 64 * 64 * 128 + 128 * _CLASSES
    yield _case("cnn", _cnn, _sgd, (64, 3, 32, 32), 6 * 64 * (image + weights), jitted)
    tokens, attention = 8 * _LENGTH, 2 * _LENGTH * _WIDTH
    block = 12 * _WIDTH**2 + attention
    yield _case("transformer", _transformer, _adamw, (8, _LENGTH, _WIDTH), 6 * tokens * (_BLOCKS * block + _WIDTH * _CLASSES), jitted)
