"""The main job on this CPU: fused operators checked and measured beside torch, a network trained, one HTML page."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import Progress

import dlc
from dlc import f32
from dlc.data.digits import load_digits
from dlc.digits import History, linear_relu, train
from dlc.report import Report
from dlc.report.charts import error_chart, ratio_chart
from dlc.report.training import training_chart
from dlc.tune.measure import ratio

B, H, W, M, N, K = dlc.dims("B H W M N K")


@dlc.kernel
def matmul_bias_gelu(x: f32[M, K], w: f32[K, N], b: f32[N]) -> Any:
    """A linear layer with its activation."""
    k = dlc.reduce_axis(K)
    y = dlc.compute((M, N), lambda i, j: dlc.sum(x[i, k] * w[k, j], k) + b[j])
    return dlc.gelu(y)


@dlc.kernel
def softmax(x: f32[M, N]) -> Any:
    """Softmax along rows."""
    return dlc.softmax(x, 1)


@dlc.kernel
def conv_relu(x: f32[B, 16, H, W], w: f32[32, 16, 3, 3], b: f32[32]) -> Any:
    """A strided, padded convolution with its activation."""
    return dlc.relu(dlc.conv2d(x, w, b, stride=2, padding=1))


def cases() -> dict[str, tuple[Any, Any, tuple[torch.Tensor, ...]]]:
    """Name -> (kernel, what torch would do, arguments)."""
    r = torch.randn
    return {
        "matmul + bias + gelu": (matmul_bias_gelu, lambda x, w, b: F.gelu(torch.addmm(b, x, w)), (r(500, 384), r(384, 700), r(700))),
        "softmax": (softmax, lambda x: torch.softmax(x, 1), (r(1000, 1000),)),
        "strided padded conv2d + relu": (conv_relu, lambda x, w, b: F.relu(F.conv2d(x, w, b, 2, 1)), (r(4, 16, 57, 57), r(32, 16, 3, 3), r(32))),
    }


def run(budget: float) -> tuple[Report, list[dlc.BenchReport]]:
    """Check and measure every case; the report and the figures behind it."""
    report = Report("dlc on this CPU", "Three fused operators, written as mathematics, beside torch eager")
    results: list[dlc.BenchReport] = []
    with Progress() as progress:
        task = progress.add_task("measuring", total=len(cases()))
        for name, (kernel, peer, args) in cases().items():
            result = dlc.bench(kernel, *args, against=peer, budget=budget)
            results.append(result)
            report.section(name).code(repr(kernel), "python", "The definition", folded=False)
            report.table([_row(n, result) for n in result.times], ["", "median", "GFLOP/s", "GB/s", "error against float64"])
            report.code(kernel.source("schedule", *args), "text", "The default schedule", folded=True)
            progress.advance(task)
    return report, results


def learn(report: Report, epochs: int = 40) -> History:
    """Train the digits network and add its curves, and a derived backward, to the report."""
    with Progress() as progress:
        task = progress.add_task("training", total=epochs)
        history = train(load_digits(), epochs, report=lambda n: progress.update(task, completed=n))
    report.section("A network on handwritten digits").kpi("test accuracy", f"{history.accuracy[-1]:.1%}", "360 images never trained on")
    report.text("Every layer, the loss, every backward and the AdamW update are generated kernels; torch's engine only calls them in order.")
    report.plot(training_chart({"dlc": {"loss": history.loss, "accuracy": history.accuracy}}), "Loss and test accuracy by epoch.")
    report.code(repr(linear_relu.vjp), "python", "The derived backward of a layer", folded=False)
    return history


def _row(name: str, r: dlc.BenchReport) -> list[str]:
    seconds = r.times[name].median
    return [name, f"{seconds * 1e6:.1f} us", f"{r.flops / seconds / 1e9:.1f}", f"{r.bytes / seconds / 1e9:.1f}", f"{r.errors[name]:.1e}"]


def main() -> None:
    """Run the demo and write its page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="report.html")
    parser.add_argument("--budget", type=float, default=2.0, help="seconds to measure each operator")
    options = parser.parse_args()
    report, results = run(options.budget)
    pairs = {name: ratio(r.times["peer"], r.times["dlc"]) for name, r in zip(cases(), results)}
    report.section("Beside torch").plot(ratio_chart({n: {"torch": (p.median, p.p25, p.p75)} for n, p in pairs.items()}),
                                        "Time of torch over time of dlc: above 1 dlc is faster.")
    report.plot(error_chart({n: r.errors for n, r in zip(cases(), results)}), "Largest error against float64, relative to the largest value.")
    history = learn(report)
    report.write(Path(options.out))
    console = Console()
    for r in results:
        console.print(str(r), highlight=False)
    console.print(f"digits: test accuracy {history.accuracy[-1]:.1%}")
    console.print(f"report: {options.out}")


if __name__ == "__main__":
    main()
