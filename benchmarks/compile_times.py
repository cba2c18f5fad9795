"""What a user waits for: the import, a kernel compiled with no cache in the way, one read from the disk.

``python -m benchmarks compile`` compiles each kernel several times in this process, after one that pays for the import of the compiler, and
then loads it from a cache directory of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any
from unittest import mock

import torch

from benchmarks import kernels as k
from benchmarks.launch import cost
from dlc.compiler import Plan
from dlc.kernel import Kernel

Made = tuple[Kernel, Sequence[Sequence[int]]]
_IMPORT = "import time, torch; t = time.perf_counter(); import dlc; print(time.perf_counter() - t)"

KERNELS: dict[str, Made] = {
    "pointwise chain": (k.chain, [(1000, 1000), (1000,)]),
    "row sums": (k.row_sums, [(1000, 1000)]),
    "softmax": (k.softmax, [(1000, 1000)]),
    "layer norm": (k.layer_norm, [(1000, 768), (768,), (768,)]),
    "product, bias, gelu": (k.linear_gelu, [(512, 768), (3072, 768), (3072,)]),
    "attention": (k.attention, [(1, 8, 512, 64)] * 3),
    "causal attention": (k.causal_attention, [(1, 8, 512, 64)] * 3),
    "convolution 3x3": (k.conv3x3, [(8, 64, 56, 56), (64, 64, 3, 3)]),
    "two convolutions": (k.conv_chain, [(2, 16, 28, 28), (32, 16, 3, 3), (32, 32, 3, 3)]),
    "gated layers": (k.gated_mlp, [(256, 256), (688, 256), (688, 256), (256, 688)]),
    "norm, product, gelu": (k.norm_linear_gelu, [(256, 512), (512,), (512,), (1024, 512)]),
    "softmax, backward": (k.softmax.vjp, [(1000, 1000)] * 2),
    "attention, backward": (k.attention.vjp, [(1, 8, 512, 64)] * 4),
    "causal attention, backward": (k.causal_attention.vjp, [(1, 8, 512, 64)] * 4),
    "two convolutions, backward": (k.conv_chain.vjp, [(2, 16, 28, 28), (32, 16, 3, 3), (32, 32, 3, 3), (2, 32, 28, 28)]),
    "gated layers, backward": (k.gated_mlp.vjp, [(256, 256), (688, 256), (688, 256), (256, 688), (256, 256)]),
    "norm, product, gelu, backward": (k.norm_linear_gelu.vjp, [(256, 512), (512,), (512,), (1024, 512), (256, 1024)]),
}


def run(quick: bool = False) -> dict[str, Any]:
    """Everything, as plain data; times in seconds."""
    rounds = 2 if quick else 7
    compiled, loaded = [], []
    for name, (kernel, shapes) in KERNELS.items():
        args = [torch.empty(s) for s in shapes]
        kernel.timings(*args)
        compiled.append(cost(name, [kernel.timings(*args).seconds for _ in range(rounds)]))
        loaded.append(cost(name, _loads(kernel, args, rounds)))
    imports = [_import_time() for _ in range(rounds + 1)][1:]  # the first may write bytecode
    return {"import": [asdict(cost("import dlc, after torch", imports))], "compile": [asdict(c) for c in compiled],
            "load": [asdict(c) for c in loaded]}


def _import_time() -> float:
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run([sys.executable, "-c", _IMPORT], check=True, capture_output=True, text=True, env=kept)
    return float(done.stdout)


def _loads(kernel: Kernel, args: Sequence[torch.Tensor], rounds: int) -> list[float]:
    """Seconds from the request to a function to call, the machine code lying on the disk."""
    request = kernel.plan(*args).request
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, DLC_CACHE_DIR=folder):
        Plan(request).launcher()
        return [_timed(lambda: Plan(request).launcher()) for _ in range(rounds)]


def _timed(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


