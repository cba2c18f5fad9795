"""``python -m benchmarks.gpu``: on a GPU, every case against the exact results, timed beside torch and torch.compile; without one, bounds.

    python -m benchmarks.gpu                      on a GPU: check, time, write benchmarks/results/gpu-<device>.json
    python -m benchmarks.gpu --static sm_90       anywhere: compile, tell registers, spills and bounds; times nothing

Times are medians of single launches by the device's own clock, with the caches flushed before each, the peers in turn with dlc.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as nn
import typer
from rich.console import Console
from rich.table import Table

import dlc
from benchmarks.kernels import chain, row_sums, softmax
from dlc import bf16, f16, f32
from dlc.gpu_launch import GpuLauncher
from dlc.kernel import Kernel
from dlc.runtime.triton_run import device_target
from dlc.tune.accuracy import error

app = typer.Typer(add_completion=False)
console = Console()
RESULTS = Path(__file__).parent / "results"
NO_GPU = "There is no GPU here: nothing was run or timed. `--static sm_90` compiles every case and tells what its machine code shows."
_ROUNDS, _FLUSH = 30, 256 << 20

M, N, K, B, C, F, H, W, D = dlc.dims("M N K B C F H W D")


@dataclass(frozen=True)
class Case:
    """A kernel, torch's function of the same arguments, the shapes and dtype of those, operations and bytes of a call."""

    name: str
    kernel: Kernel
    peer: Callable[..., torch.Tensor]
    shapes: tuple[tuple[int, ...], ...]
    dtype: torch.dtype
    flops: float = 0.0

    def arguments(self, device: str) -> list[torch.Tensor]:
        """Random arguments on a device; on ``meta`` their shapes alone."""
        if device == "meta":
            return [torch.empty(s, dtype=self.dtype, device=device) for s in self.shapes]
        return [(torch.randn(s, device=device) / max(s[-1], 1) ** 0.25).to(self.dtype) for s in self.shapes]


@dlc.kernel
def _half(x: f16[M, K], w: f16[K, N]):
    return x @ w


@dlc.kernel
def _brain(x: bf16[M, K], w: bf16[N, K], b: bf16[N]):
    return dlc.gelu(dlc.linear(x, w, b))


@dlc.kernel
def _gate(x: bf16[M, K], g: bf16[K, N], u: bf16[K, N]):
    return dlc.silu(x @ g) * (x @ u)


@dlc.kernel
def _single(x: f32[M, K], w: f32[K, N]):
    return x @ w


@dlc.kernel
def _tf32(x: f32[M, K], w: f32[K, N]):
    return dlc.matmul(x, w, precision="tf32")


@dlc.kernel
def _heads(x: f16[B, M, K], w: f16[B, K, N]):
    return x @ w


@dlc.kernel
def _norm(x: bf16[M, N], w: bf16[N], b: bf16[N]):
    return dlc.layer_norm(x, w, b)


@dlc.kernel
def _rms(x: bf16[M, N], w: bf16[N]):
    return dlc.rms_norm(x, w)


@dlc.kernel
def _conv(x: f16[B, C, H, W], w: f16[F, C, 3, 3]):
    return dlc.conv2d(x, w, None, padding=1)


def cases() -> list[Case]:
    """Every case."""
    h, b, s = torch.float16, torch.bfloat16, torch.float32
    out = [Case(f"matmul f16 {n}", _half, torch.matmul, ((n, n), (n, n)), h, 2.0 * n**3) for n in (512, 1024, 2048, 4096, 8192)]
    out += [Case("matmul f16 16x4096x4096", _half, torch.matmul, ((16, 4096), (4096, 4096)), h, 2.0 * 16 * 4096**2),
            Case("matmul f16 64x64, sum of 65536", _half, torch.matmul, ((64, 65536), (65536, 64)), h, 2.0 * 64 * 64 * 65536),
            Case("linear gelu bf16 4096", _brain, lambda x, w, c: nn.gelu(nn.linear(x, w, c)), ((4096, 4096), (4096, 4096), (4096,)), b,
                 2.0 * 4096**3),
            Case("silu gate bf16 2048x4096", _gate, lambda x, g, u: nn.silu(x @ g) * (x @ u), ((2048, 4096),) + ((4096, 4096),) * 2, b,
                 4.0 * 2048 * 4096**2),
            Case("matmul f32 2048", _single, torch.matmul, ((2048, 2048),) * 2, s, 2.0 * 2048**3),
            Case("matmul tf32 4096", _tf32, torch.matmul, ((4096, 4096),) * 2, s, 2.0 * 4096**3),
            Case("batched f16 96x512x64x512", _heads, torch.matmul, ((96, 512, 64), (96, 64, 512)), h, 2.0 * 96 * 512 * 512 * 64)]
    out += [Case(f"softmax f32 4096x{n}", softmax, lambda x: torch.softmax(x, 1), ((4096, n),), s) for n in (1024, 4096, 12672, 32768)]
    out += [Case("layer norm bf16 8192x4096", _norm, lambda x, w, c: nn.layer_norm(x, w.shape, w, c), ((8192, 4096), (4096,), (4096,)), b),
            Case("rms norm bf16 8192x4096", _rms, lambda x, w: nn.rms_norm(x, w.shape, w, 1e-6), ((8192, 4096), (4096,)), b),
            Case("conv 3x3 f16 32x64x56x56", _conv, lambda x, w: nn.conv2d(x, w, padding=1), ((32, 64, 56, 56), (64, 64, 3, 3)), h,
                 2.0 * 32 * 64 * 64 * 9 * 56**2),
            Case("pointwise f32 8192x8192", chain, lambda x, y: torch.tanh(x * 2 + y) * torch.sigmoid(x), ((8192, 8192), (8192,)), s),
            Case("row sums f32 8192x8192", row_sums, lambda x: x.sum(1), ((8192, 8192),), s)]
    return out


def run_case(c: Case, compiled: bool) -> dict[str, Any]:
    """Check and time one case on the current GPU."""
    args = c.arguments("cuda")
    target = device_target("cuda")
    made = c.kernel.compile(target, *(a.to("meta") for a in args))
    dlc_call = GpuLauncher(c.kernel.plan(*(a.to("meta") for a in args), target=made.target))
    exact = c.peer(*(a.double() for a in args)).cpu().numpy()
    (result,) = dlc_call(args)
    calls: dict[str, Callable[[], Any]] = {"dlc": lambda: dlc_call(args, [result]), "torch": lambda: c.peer(*args)}
    if compiled:
        fast = torch.compile(c.peer, mode="max-autotune-no-cudagraphs")
        calls["torch.compile"] = lambda: fast(*args)
    seconds = interleaved(calls)
    moved = sum(a.numel() * a.element_size() for a in (*args, result))
    return {"name": c.name, "errors": {"dlc": error(result, exact).as_dict(), "torch": error(c.peer(*args), exact).as_dict()},
            "bound": made.bound, "seconds": {n: statistics.median(t) for n, t in seconds.items()}, "samples": seconds, "flops": c.flops,
            "bytes": moved}


def interleaved(calls: dict[str, Callable[[], Any]]) -> dict[str, list[float]]:
    """Seconds of single calls, in turn, each after a flush of the caches."""
    flush = torch.empty(_FLUSH, dtype=torch.uint8, device="cuda")
    out: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for n in range(_ROUNDS):
        for name in list(calls) if n % 2 == 0 else list(calls)[::-1]:
            flush.zero_()
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            calls[name]()
            end.record()
            end.synchronize()
            out[name].append(begin.elapsed_time(end) * 1e-3)
    return out


def show(rows: Sequence[dict[str, Any]]) -> None:
    """A table of results."""
    table = Table("case", "dlc", "torch", "torch.compile", "torch / dlc", "TFLOP/s", "GB/s", "bound / dlc", "error dlc", "error torch")
    for r in rows:
        t = r["seconds"]
        micro = [f"{t[n] * 1e6:.1f} us" if n in t else "-" for n in ("dlc", "torch", "torch.compile")]
        table.add_row(r["name"], *micro, f"{t['torch'] / t['dlc']:.2f}", f"{r['flops'] / t['dlc'] / 1e12:.0f}",
                      f"{r['bytes'] / t['dlc'] / 1e9:.0f}", f"{r['bound'] / t['dlc']:.0%}",
                      *(f"{e['relative']:.1e} {e['ulp']:.2g} ulp" for e in r["errors"].values()))
    console.print(table)


def static(target: str, chosen: Sequence[Case]) -> None:
    """What the machine code of every case shows; nothing is run."""
    for c in chosen:
        console.print(f"{c.name}", style="bold", highlight=False)
        console.print(str(c.kernel.compile(target, *c.arguments("meta"))), highlight=False, markup=False)


@app.command()
def main(filter: Annotated[str, typer.Option(help="Only cases whose name contains this.")] = "",  # noqa: A002  (the name of the option)
         static_: Annotated[str, typer.Option("--static", help="Compile for this target instead of running.")] = "",
         no_compile: Annotated[bool, typer.Option(help="Leave torch.compile out.")] = False,
         out: Annotated[Path | None, typer.Option(help="Where to write the results.")] = None) -> None:
    """Check and time every case on the GPU that is here, or tell what machine code for another one shows."""
    chosen = [c for c in cases() if filter in c.name]
    if static_:
        static(static_, chosen)
        return
    if not torch.cuda.is_available():
        console.print(NO_GPU, highlight=False)
        raise typer.Exit(2)
    device = torch.cuda.get_device_name()
    rows = [run_case(c, not no_compile) for c in chosen]
    show(rows)
    path = out or RESULTS / f"gpu-{device.replace(' ', '-').lower()}.json"
    path.write_text(json.dumps({"device": device, "torch": torch.__version__, "cases": rows}, indent=1))
    console.print(f"written to {path}", style="dim")


if __name__ == "__main__":
    app()
