"""The commands.

Each names a kernel as ``file.py:name`` or ``package.module:name`` and its sizes as ``--dim M=512`` or ``--shape x=64,128``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

from codegen.target import TARGETS, by_name
from dlc.cli import doctor as health
from dlc.cli import train as training
from dlc.cli.arguments import empty, random
from dlc.cli.errors import Group
from dlc.cli.find import find_kernel, find_peer, find_step
from dlc.cli.records import records_app
from dlc.report.measured import bench_figure, save_figure, tuning_figure
from dlc.tune.outcome import TuneReport
from dsl.errors import ArgumentError
from dsl.loc import UNKNOWN

app = typer.Typer(cls=Group, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
                  context_settings={"help_option_names": ["-h", "--help"]},
                  help="Measure, tune, read and compile kernels written with dlc.")
app.add_typer(records_app, name="records")

Address = Annotated[str, typer.Argument(metavar="KERNEL", help="file.py:name or package.module:name")]
Shape = Annotated[list[str] | None, typer.Option("--shape", "-s", help="shape of a parameter: x=64,128 (repeatable)")]
Dim = Annotated[list[str] | None, typer.Option("--dim", "-d", help="a symbolic size: M=512 (repeatable)")]
Value = Annotated[list[str] | None, typer.Option("--value", help="a parameter that is one number throughout: lr=0.1 (repeatable)")]
Against = Annotated[str | None, typer.Option(
    help="the peer: an expression of the parameters, such as 'torch.softmax(x, 1)', or file.py:function")]
Threads = Annotated[int | None, typer.Option(min=1, help="size of the thread pool")]
Seed = Annotated[int, typer.Option(help="of the random data")]
Data = Annotated[str | None, typer.Option(
    help="kinds of data to tell errors on: ordinary,offset,cancel,denormal,extreme, or all; as many as take little time if not given")]
Json = Annotated[bool, typer.Option("--json", help="print the figures as JSON")]
Plot = Annotated[Path | None, typer.Option(help="draw the figures: a file that ends in .svg, .png or .pdf")]


@app.command()
def bench(kernel: Address, shape: Shape = None, dim: Dim = None, value: Value = None, against: Against = None,
          budget: Annotated[float, typer.Option(help="seconds")] = 2.0, threads: Threads = None, seed: Seed = 0,
          warm: Annotated[bool, typer.Option("--warm", help="only with operands in the caches")] = False,
          cold: Annotated[bool, typer.Option("--cold", help="only with emptied caches")] = False,
          data: Data = None, as_json: Json = False, plot: Plot = None) -> None:
    """Time a kernel, beside a peer if there is one, with its errors against float64 and its share of the machine's limit."""
    k = find_kernel(kernel)
    args = random(k, shape or (), dim or (), value or (), seed)
    state = None if warm == cold else cold
    report = k.bench(*args, against=find_peer(against, k), budget=budget, threads=threads, cold=state, data=data)
    if plot is not None:
        save_figure(bench_figure(report), plot)
    _show(report.as_dict() if as_json else str(report), as_json)


@app.command()
def numerics(kernel: Address, shape: Shape = None, dim: Dim = None, value: Value = None, against: Against = None, seed: Seed = 0,
             data: Data = None, as_json: Json = False) -> None:
    """Errors against float64 on ordinary and adversarial data, beside a peer's and beside what the order of summation allows."""
    k = find_kernel(kernel)
    report = k.numerics(*random(k, shape or (), dim or (), value or (), seed), against=find_peer(against, k), data=data)
    _show(report.as_dict() if as_json else str(report), as_json)


@app.command()
def tune(kernel: Address, shape: Shape = None, dim: Dim = None, value: Value = None, against: Against = None,
         budget: Annotated[float, typer.Option(help="seconds for everything")] = 30.0,
         threads: Threads = None, seed: Seed = 0,
         candidates: Annotated[int | None, typer.Option(min=1, help="try no more than so many")] = None,
         tolerance: Annotated[float | None, typer.Option(help="refuse orders of summation that allow a larger relative error")] = None,
         any_order: Annotated[bool, typer.Option(
             "--any-order", help="also admit other orders of summation: other bits, errors alike")] = False,
         target: Annotated[str | None, typer.Option(
             "--target", "-t", help="a GPU that need not be here: sm_80, sm_90, sm_100, gfx942")] = None,
         operands: Annotated[str, typer.Option(help="cold, warm or both: out of the caches when a call is timed, in them, both")] = "cold",
         backward: Annotated[bool, typer.Option("--backward", help="also tune the backward, each for half of the budget")] = False,
         data: Data = None, quiet: Annotated[bool, typer.Option("--quiet", "-q", help="no progress bar")] = False, as_json: Json = False,
         plot: Plot = None,
         arguments: Annotated[str | None, typer.Option(
             help="for a step: what in the same file gives its arguments, a tuple or a function that returns one")] = None,
         again: Annotated[bool, typer.Option("--again", help="for a step: search anew for kernels that have a record")] = False) -> None:
    """Search for a faster schedule and keep it: every later process that compiles this kernel for these shapes uses it.

    KERNEL may also be a step under dlc.jit (file.py:step, with --arguments): its kernels are tuned, the largest first.
    """
    step = find_step(kernel, arguments)
    if step is not None:
        _refuse_for_steps(shape, dim, value, against, tolerance, target, data, plot)
        if threads is not None:
            torch.set_num_threads(threads)
        found = step[0].tune(*step[1], budget=budget, reproducible=not any_order, candidates=candidates, again=again,
                             progress=False if quiet else None, seed=seed)
        _show(found.as_dict() if as_json else str(found), as_json)
        return
    k = find_kernel(kernel)
    gpu = target is not None and by_name(target).kind != "cpu"
    args = empty(k, shape or (), dim or ()) if gpu else random(k, shape or (), dim or (), value or (), seed)
    if threads is not None:
        torch.set_num_threads(threads)
    report = k.tune(*args, budget=budget, against=find_peer(against, k), reproducible=not any_order, tolerance=tolerance,
                    candidates=candidates, progress=False if quiet else None, seed=seed, target=target, data=data, operands=operands,
                    backward=backward)
    if plot is not None:
        if not isinstance(report, TuneReport):
            raise ArgumentError("there are no times to plot", "nothing was run on the GPU", "leave --plot away, or --target", UNKNOWN)
        save_figure(tuning_figure(report), plot)
    _show(report.as_dict() if as_json else str(report), as_json)


def _refuse_for_steps(*options: Any) -> None:
    if any(options):
        raise ArgumentError("an option for single kernels was given with a step", "its kernels have the shapes that the step gives them",
                            "with a step go --arguments --budget --candidates --threads --any-order --again --seed --quiet --json", UNKNOWN)


@app.command()
def show(kernel: Address, shape: Shape = None, dim: Dim = None,
         level: Annotated[str, typer.Option(
             "--level", "-l", help="expr, schedule, tile, llvm, asm, or a GPU target: sm_80, sm_90, sm_100, gfx942")] = "schedule",
         explained: Annotated[bool, typer.Option(
             "--explain", help="tell which reductions share a pass, by which algebra, or why not")] = False,
         timed: Annotated[bool, typer.Option(
             "--timings", help="compile it now, for the target of --level, and tell what each step takes")] = False,
         as_json: Json = False) -> None:
    """Print a kernel at one level, from its mathematics to machine code."""
    k = find_kernel(kernel)
    if timed:
        found = k.timings(*empty(k, shape or (), dim or ()), target=by_name(level) if level in TARGETS else None)
        _show(found.as_dict() if as_json else str(found), as_json)
        return
    if as_json:
        raise ArgumentError("there are no figures in the text of a level", remedy="--json goes with --timings", loc=UNKNOWN)
    if explained:
        _show(k.explain(*empty(k, shape or (), dim or ())), False)
        return
    args = [] if level == "expr" else empty(k, shape or (), dim or ())
    _show(k.source(level, *args), False)


@app.command(name="compile")
def compile_(kernel: Address, shape: Shape = None, dim: Dim = None,
             target: Annotated[str, typer.Option(
                 "--target", "-t", help="cpu, or a machine that need not be here: sm_80, sm_90, sm_100, gfx942, aarch64-neon, ..")] = "cpu",
             out: Annotated[Path | None, typer.Option(
                 "--out", "-o", help="directory for source, intermediate text and machine code")] = None,
             as_json: Json = False) -> None:
    """Compile a kernel, tell what the machine code shows (registers, spills, shared memory, occupancy), and write it out."""
    k = find_kernel(kernel)
    made = k.compile(target, *empty(k, shape or (), dim or ()))
    files = [] if out is None else [str(f) for f in made.save(out)]
    _show({**made.as_dict(), "files": files} if as_json else "\n".join([str(made), *(f"wrote {f}" for f in files)]), as_json)


@app.command()
def train(epochs: Annotated[int, typer.Option(min=1, help="passes over the data")] = 40, seed: Seed = 0, as_json: Json = False,
          plot: Plot = None,
          tune: Annotated[float, typer.Option(min=0, help="seconds to tune the kernels of a step for, on the way")] = 0.0) -> None:
    """Train a small network on handwritten digits; forward, backward and update run in generated kernels."""
    found = training.run(epochs, seed, not as_json, tune)
    if plot is not None:
        save_figure(training.figure(found), plot)
    text = (f"loss {found.history.loss[-1]:.4f}, validation accuracy {max(found.history.accuracy):.1%}, "
            f"test accuracy {found.test_accuracy:.1%}")
    tuned = f"\n{found.history.tuning}" if found.history.tuning is not None else ""
    _show(training.facts(found) if as_json else f"{text} after {epochs} epochs{tuned}", as_json)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Tell what is installed, what this machine has, where things are kept, and whether kernels run right."""
    facts = health.examine()
    _show(facts if as_json else health.render(facts), as_json)
    if facts["problems"]:
        raise typer.Exit(1)


def _show(what: Any, as_json: bool) -> None:
    if as_json:
        what = json.dumps(what, indent=1, default=_refuse)
    Console(soft_wrap=True).print(what, markup=False, highlight=False)


def _refuse(value: Any) -> Any:
    raise ArgumentError(f"{type(value).__name__} in a report", loc=UNKNOWN)


if __name__ == "__main__":
    app()
