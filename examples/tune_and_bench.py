"""Search for a faster schedule, keep it, and measure the kernel beside torch; then look at it as a GPU would run it."""

from __future__ import annotations

import torch
import torch.nn.functional as F

import dlc
from dlc import f32

M, N, K = dlc.dims("M N K")


@dlc.kernel
def linear_gelu(x: f32[M, K], w: f32[N, K], b: f32[N]):
    k = dlc.reduce_axis(K)
    y = dlc.compute((M, N), lambda i, j: dlc.sum(x[i, k] * w[j, k], k) + b[j])
    return dlc.gelu(y)


def main(m: int = 512, n: int = 768, k: int = 384, budget: float = 10.0) -> dlc.BenchReport:
    x, w, b = torch.randn(m, k), torch.randn(n, k), torch.randn(n)

    def peer(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return F.gelu(F.linear(x, w, b))

    print(linear_gelu.tune(x, w, b, budget=budget, against=peer))
    report = linear_gelu.bench(x, w, b, against=peer, budget=min(budget, 2.0))
    print(report)
    print(linear_gelu.source("sm_90", x, w, b))
    return report


if __name__ == "__main__":
    main()
