"""A fused operator of one's own inside a torch model: swish-gated bias, written once, forward and backward derived."""

from __future__ import annotations

import torch

import dlc
from dlc import f32

M, N = dlc.dims("M N")


@dlc.kernel
def gated(x: f32[M, N], gate: f32[M, N], bias: f32[N]):
    """``silu(gate) * x + bias``, row by row scaled to unit root mean square."""
    y = dlc.silu(gate) * x + bias
    return dlc.rms_norm(y)


class Block(torch.nn.Module):
    """A torch module whose middle is the fused operator; autograd runs the derived backward."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up, self.gate, self.down = (torch.nn.Linear(width, width) for _ in range(3))
        self.bias = torch.nn.Parameter(torch.zeros(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(gated(self.up(x), self.gate(x), self.bias))


def main(rows: int = 256, width: int = 192, steps: int = 20) -> list[float]:
    torch.manual_seed(0)
    model, x = Block(width), torch.randn(rows, width)
    target = x.roll(1, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(model(x), target)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


if __name__ == "__main__":
    found = main()
    print(f"loss {found[0]:.4f} -> {found[-1]:.4f}")
    print("the derived backward:\n" + repr(gated.vjp))
