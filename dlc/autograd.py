"""Derived backwards inside torch autograd."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

Forward = Callable[[Sequence[torch.Tensor]], list[torch.Tensor]]
Backward = Callable[[tuple[int, ...], Sequence[torch.Tensor], Sequence[torch.Tensor]], Sequence[torch.Tensor]]


class Derived(torch.autograd.Function):
    """Runs a kernel forward and its derived kernel backward; differentiable again, since the backward is a kernel too."""

    @staticmethod
    def forward(ctx: Any, run: Forward, back: Backward, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run the kernel; the inputs are kept, everything else is computed again."""
        ctx.back, ctx.count = back, len(tensors)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors)
        results = tuple(run(tensors))
        if len(results) > 1:  # a lone result has a gradient, or nothing is asked for
            ctx.outputs = [(r.shape, r.dtype, r.device) for r in results]
        if whole := [r for r in results if not r.dtype.is_floating_point]:
            ctx.mark_non_differentiable(*whole)
        return results

    @staticmethod
    def backward(ctx: Any, *cotangents: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        """Run the derived kernel for the inputs that need a gradient; where no output has one, neither do they."""
        if all(g is None for g in cotangents):
            return (None,) * (ctx.count + 2)
        wanted = tuple(n for n in range(ctx.count) if ctx.needs_input_grad[n + 2])
        given = [torch.zeros((), dtype=dtype, device=device).expand(shape) if g is None else g
                 for g, (shape, dtype, device) in zip(cotangents, ctx.outputs)] if len(cotangents) > 1 else cotangents
        grads = iter(ctx.back(wanted, ctx.saved_tensors, given))
        return (None, None, *(next(grads) if n in wanted else None for n in range(ctx.count)))
