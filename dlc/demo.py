"""The main job on this CPU: fused operators checked, tuned, compared and cross-compiled; a network trained; one HTML page."""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console

import dlc
from dlc import f32
from dlc.data import Digits, load_digits
from dlc.digits import EPOCHS, Run, choose, loaders, network, train
from dlc.host import description
from dlc.nn import cross_entropy
from dlc.optim import AdamW
from dlc.report import Report
from dlc.report.charts import error_chart, ratio_chart
from dlc.report.measured import tuning_figure
from dlc.report.training import Sample, confusion_chart, training_chart
from dlc.train import History, train_step
from dlc.tune.measure import Ratio, ratio
from dlc.tune.outcome import TuneReport

B, H, W, M, N, K = dlc.dims("B H W M N K")
GPUS = ("sm_90", "gfx942")
SEEDS = (0, 1, 2)


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


@dataclass(frozen=True)
class Case:
    """An operator, what torch would do, and arguments."""

    name: str
    kernel: dlc.Kernel
    peer: Callable[..., Any]
    args: tuple[torch.Tensor, ...]


def cases() -> list[Case]:
    """Three operators of different kinds, at sizes that are no powers of two."""
    r = torch.Generator().manual_seed(0)

    def data(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=r)

    return [
        Case("matmul + bias + gelu", matmul_bias_gelu, lambda x, w, b: F.gelu(torch.addmm(b, x, w)),
             (data(500, 384), data(384, 700), data(700))),
        Case("softmax", softmax, lambda x: torch.softmax(x, 1), (data(1000, 1000),)),
        Case("strided padded conv2d + relu", conv_relu, lambda x, w, b: F.relu(F.conv2d(x, w, b, 2, 1)),
             (data(4, 16, 57, 57), data(32, 16, 3, 3), data(32))),
    ]


@dataclass(frozen=True)
class Measured:
    """A case, the search for its schedule, and the figures of the schedule found."""

    case: Case
    tuned: TuneReport
    result: dlc.BenchReport

    @property
    def ratio(self) -> Ratio:
        """Torch's time over dlc's, call by call, with warm operands."""
        return ratio(self.result.times["peer"], self.result.times["dlc"])


# -- operators -----------------------------------------------------------------------------------------------------
def measured(budget: float, tune: float, console: Console) -> list[Measured]:
    """Tune and measure every case."""
    out = []
    for case in cases():
        console.print(f"tuning [bold]{case.name}[/] for {tune:g} s")
        tuned = case.kernel.tune(*case.args, budget=tune, against=case.peer)
        assert isinstance(tuned, TuneReport)  # a search on this machine, which measures
        out.append(Measured(case, tuned, dlc.bench(case.kernel, *case.args, against=case.peer, budget=budget)))
    return out


def operator(report: Report, m: Measured) -> None:
    """One operator: what was written, what it takes, how it was found."""
    case, tuned, result = m.case, m.tuned, m.result
    report.section(case.name.capitalize()).text(f"{case.kernel.__doc__} Arguments: {', '.join(result.arguments)}.")
    report.code(repr(case.kernel), "python", "What was written, as dlc reads it", folded=False)
    report.table([_row(n, result) for n in result.times], ["", "median", "GFLOP/s", "GB/s", "error against float64"],
                 "Warm operands, interleaved calls; dlc is the tuned kernel, peer is torch.")
    rows = [[n, f"{t.median * 1e6:.1f} us", f"{t.p25 * 1e6:.1f} to {t.p75 * 1e6:.1f}"] for n, t in tuned.times.items() if t.samples]
    report.plot(tuning_figure(tuned),
                f"The search: {len(tuned.history)} schedules in {tuned.seconds:.0f} s, each checked before it was timed. {tuned.reason}")
    report.table(rows, ["", "median, cold", "middle half"], "The last interleaved run of the search, with cold operands.")
    report.code(case.kernel.source("schedule", *case.args), "text", "The schedule that is used now")
    report.code(case.kernel.source("cpu", *case.args), "llvm", "The LLVM IR")


def _row(name: str, r: dlc.BenchReport) -> list[str]:
    seconds = r.times[name].median
    return [name, f"{seconds * 1e6:.1f} us", f"{r.flops / seconds / 1e9:.1f}", f"{r.bytes / seconds / 1e9:.1f}", f"{r.errors[name]:.1e}"]


# -- GPUs that are not here ----------------------------------------------------------------------------------------
def cross_compiled(report: Report, console: Console) -> None:
    """The same operators as machine code for GPUs, with the facts that decide how it runs."""
    report.section("The same operators for GPUs")
    if importlib.util.find_spec("triton") is None:
        report.text("Triton has no wheel for this platform, so nothing was compiled for a GPU.")
        return
    rows: list[list[Any]] = []
    sources: list[tuple[str, str]] = []
    for target in GPUS:
        console.print(f"compiling for [bold]{target}[/]")
        for case in cases():
            made = case.kernel.compile(target, *case.args)
            sources.append((f"{case.name}, {target}", made.source))
            for k in made.kernels:
                r = k.resources
                rows.append([f"{case.name}: {k.kernel.name}", target, r.registers, r.spill_stores + r.spill_loads,
                             r.static_shared + r.dynamic_shared, f"{r.occupancy:.0%}", r.limited_by, r.matrix_instructions, r.wide_loads])
    report.text("Compiled here, where no GPU is: registers and spills are read from the machine code, the occupancy follows from "
                "them. No time was measured.")
    report.table(rows, ["kernel", "target", "registers", "spilled bytes", "shared bytes", "occupancy", "limited by", "matrix instructions",
                        "wide loads"])
    for title, source in sources:
        report.code(source, "triton", f"Triton source: {title}")


# -- training ------------------------------------------------------------------------------------------------------
def trained(digits: Digits, seeds: Sequence[int], epochs: int, console: Console) -> tuple[History, list[Run]]:
    """How the settings were chosen, again, for the curves; then the network trained from several seeds."""
    console.print("training on handwritten digits, validation images held out")
    _, chosen = choose(digits, epochs, progress=None)
    runs = []
    for seed in seeds:
        console.print(f"training on all training images, seed {seed}")
        runs.append(train(digits, epochs, seed, progress=None))
    return chosen, runs


def learned(report: Report, digits: Digits, chosen: History, runs: Sequence[Run]) -> None:
    """How the training went, with proof of what ran where."""
    report.section("A network on handwritten digits")
    report.text("""Architecture, rate and number of epochs were chosen by the accuracy on 288 images held out of the 1437 training images
        (validation). With those settings the network was then trained on all of them, once for each seed. That this beats fewer epochs on
        fewer images was also seen on the 360 test images, so the figures below are slightly optimistic.""")
    for run in runs:
        report.kpi(f"test accuracy, seed {run.seed}", f"{run.test_accuracy:.2%}",
                   f"{run.history.steps} steps in {run.history.seconds:.0f} s", "good" if run.test_accuracy >= 0.97 else "bad")
    curves = {"held out": {"loss": chosen.loss, "validation loss": chosen.validation_loss, "validation accuracy": chosen.accuracy}}
    report.plot(training_chart(curves | {f"seed {r.seed}": {"loss": r.history.loss} for r in runs}),
                "Loss and validation accuracy by epoch.")
    _confusion(report, digits, runs[0])
    _proof(report, digits)


def _confusion(report: Report, digits: Digits, run: Run) -> None:
    matrix = np.zeros((10, 10), dtype=int)
    np.add.at(matrix, (digits.test_labels, run.guesses), 1)
    wrong = np.flatnonzero(run.guesses != digits.test_labels)
    samples = [Sample(digits.test_images[n], str(digits.test_labels[n]), str(run.guesses[n])) for n in wrong]
    report.plot(confusion_chart(matrix, [str(n) for n in range(10)], samples, f"Test images, seed {run.seed}"),
                "Truth against guess, and what was mistaken.")


def _proof(report: Report, digits: Digits) -> None:
    """Count what runs in one training step: launches of generated kernels by phase, and operations of torch."""
    model = network(0)
    optimizer = AdamW(model.parameters())
    x, y = next(iter(loaders(digits)[0]))
    for _ in range(2):
        train_step(model, cross_entropy, optimizer, x, y)
    start = time.perf_counter()
    with dlc.Watch() as watch:
        train_step(model, cross_entropy, optimizer, x, y)
    seconds = time.perf_counter() - start
    launches = watch.counts.launches
    report.section("What ran where").text("""One step of this network, counted while it ran: every launch of a generated kernel, and
        every operation that torch computed itself (allocations and views aside).""")
    for phase in ("forward", "backward", "update"):
        report.kpi(phase, launches[phase], "generated kernels")
    report.kpi("torch", sum(watch.torch_ops.values()), "operations computed", "bad" if watch.torch_ops else "good")
    report.kpi("compiled", watch.counts.compiled, f"kernels in this step, {seconds * 1e3:.1f} ms")
    report.table([[name, n] for name, n in watch.counts.kernels.items()], ["kernel", "launches"])
    optimizer.zero_grad()
    loss = cross_entropy(model(x), y)
    loss.backward()
    weight = next(iter(model.parameters()))
    report.code(weight.grad.explain(), "python", "The kernels of the forward and the backward, as mathematics")


# -- the page ------------------------------------------------------------------------------------------------------
def main() -> None:
    """Run the demo and write its page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="report.html")
    parser.add_argument("--budget", type=float, default=2.0, help="seconds to measure each operator")
    parser.add_argument("--tune", type=float, default=8.0, help="seconds to tune each operator")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="how many training runs")
    options = parser.parse_args()
    console, start, digits = Console(), time.perf_counter(), load_digits()
    found = measured(options.budget, options.tune, console)
    chosen, runs = trained(digits, SEEDS[:options.seeds], options.epochs, console)
    report = _head(found, runs)
    for m in found:
        operator(report, m)
    cross_compiled(report, console)
    learned(report, digits, chosen, runs)
    seconds = time.perf_counter() - start
    report.footer = (f"dlc {dlc.__version__} on {description()}; torch {torch.__version__}, {torch.get_num_threads()} threads; "
                     f"{seconds:.0f} s in all.")
    report.write(Path(options.out))
    for m in found:
        console.print(f"{m.case.name}: torch / dlc {m.ratio.median:.2f} ({m.ratio.p25:.2f} to {m.ratio.p75:.2f})", highlight=False)
    for run in runs:
        console.print(f"digits, seed {run.seed}: test accuracy {run.test_accuracy:.2%}", highlight=False)
    console.print(f"report: {options.out}, after {seconds:.0f} s", highlight=False)


def _head(found: Sequence[Measured], runs: Sequence[Run]) -> Report:
    """The page's beginning: what it shows, in figures."""
    report = Report("dlc on this CPU",
                    "Operators written once as mathematics: checked, tuned, measured beside torch, compiled for GPUs, and trained with")
    for m in found:
        report.kpi(m.case.name, f"{m.ratio.median:.2f}x", f"torch's time over dlc's, {m.ratio.p25:.2f} to {m.ratio.p75:.2f}",
                   "good" if m.ratio.median >= 1 else "")
    report.kpi("handwritten digits", f"{min(r.test_accuracy for r in runs):.1%}", f"least test accuracy of {len(runs)} seeds")
    report.section("Beside torch").plot(ratio_chart({m.case.name: {"torch": (m.ratio.median, m.ratio.p25, m.ratio.p75)} for m in found}),
                                        "Time of torch over time of dlc, tuned: above 1 dlc is faster.")
    return report.plot(error_chart({m.case.name: m.result.errors for m in found}),
                       "Largest error against float64, relative to the largest value.")


if __name__ == "__main__":
    main()
