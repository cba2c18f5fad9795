"""Derived kernels inside torch autograd and torch.func."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from dlc.derivatives import Followed

Launcher = Callable[..., Any]


class Derived(torch.autograd.Function):
    """Runs a kernel forward and its derived kernels backward; differentiable again, since those are kernels too."""

    @staticmethod
    def forward(call: Followed, launcher: Launcher | None, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The results of the kernel, then what is saved."""
        return tuple(call.run(launcher, tensors))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
        """Keep what the backward reads."""
        call, _, *tensors = inputs
        ctx.call, ctx.count, ctx.made = call, len(tensors), len(output)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*[tensors[n] if kind == "input" else output[n] for kind, n in call.kept])
        ctx.save_for_forward(*tensors)
        silent = [r for n, r in enumerate(output) if n >= call.results or not r.dtype.is_floating_point]
        if silent:
            ctx.mark_non_differentiable(*silent)

    @staticmethod
    def backward(ctx: Any, *cotangents: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        """Run the derived kernel for the inputs that need a gradient, from the results that have one; where none has, neither do they."""
        call, count = ctx.call, ctx.count
        given = tuple([n for n in range(call.results) if cotangents[n] is not None])
        wanted = tuple([n for n in range(count) if ctx.needs_input_grad[n + 2]])
        if not given or not wanted:
            return (None,) * (count + 2)
        values = dict(zip(call.kept, ctx.saved_tensors))
        grads = iter(call.back(wanted, given)(values.__getitem__, [g for g in cotangents if g is not None]))
        return (None, None, *(next(grads) if n in wanted else None for n in range(count)))

    @staticmethod
    def jvp(ctx: Any, *tangents: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        """Run the forward derivative along the inputs that move."""
        call = ctx.call
        outputs = call.derived.kernel.program.outputs
        moving = tuple(n for n, t in enumerate(tangents[2:]) if t is not None)
        kernel, read = call.derived.pushforward(moving)
        values = ctx.saved_tensors
        found = kernel(*(values[n] for n in read), *(t for t in tangents[2:] if t is not None))
        moved = iter([found] if kernel.program.single else found)
        return (*(next(moved) if t.dtype.is_float else None for t in outputs), *[None] * (ctx.made - len(outputs)))

    @staticmethod
    def vmap(info: Any, in_dims: Sequence[int | None], call: Followed, launcher: Launcher | None,
             *tensors: torch.Tensor) -> tuple[tuple[torch.Tensor, ...], tuple[int, ...]]:
        """The kernel over the mapped dimension as its first."""
        dims = in_dims[2:]
        kernel = call.derived.batched(tuple(d is not None for d in dims))
        found = kernel(*(t if d is None else t.movedim(d, 0) for t, d in zip(tensors, dims)))
        results = (found,) if kernel.program.single else tuple(found)
        return results, (0,) * len(results)


class Direct(torch.autograd.Function):
    """The same outside of torch.func, in the form that torch calls without binding the signature of ``forward`` anew each time."""

    @staticmethod
    def forward(ctx: Any, call: Followed, launcher: Launcher | None, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The results of the kernel, then what is saved."""
        made = tuple(call.run(launcher, tensors))
        Derived.setup_context(ctx, (call, launcher, *tensors), made)
        return made

    backward = Derived.backward
    jvp = Derived.jvp


def follow(call: Followed, launcher: Launcher | None, tensors: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
    """The results of a call that autograd follows."""
    transformed = torch._C._are_functorch_transforms_active() or any(torch._C._functorch.is_functorch_wrapped_tensor(t) for t in tensors)
    return (Derived if transformed else Direct).apply(call, launcher, *tensors)[:call.results]
