"""``python -m benchmarks``: measure families of cases, compare two runs, make a page.

python -m benchmarks [family ...] [--peers torch,compile,autotune,jax] [--threads 1,2] [--operands cold,warm] [--into] [--tune 10]
                     [--filter regex] [--quick] [--json out.json]
python -m benchmarks launch
python -m benchmarks compile
python -m benchmarks compare before.json after.json
python -m benchmarks page results.json -o page.html
"""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial
from itertools import groupby
from json import dumps
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import typer
from rich.console import Console

from benchmarks.calls import absent
from benchmarks.compile_times import run as run_compile
from benchmarks.harness import TUNED, Case, Protocol, Result, run_case
from benchmarks.launch import run as run_launch
from benchmarks.page import build_page
from benchmarks.progress import Watched
from benchmarks.results import default_path, load, new_run, save
from benchmarks.show import changes, changes_table, failures, geometric_mean, results_table
from dlc.host import cpus
from dlc.tune.limits import Limits, machine_limits

FAMILIES = Path(__file__).parent / "families"
_COMMANDS = ("run", "launch", "compile", "compare", "page")
_BUDGET, _QUICK_BUDGET = 1.5, 0.15
_PATIENCE, _QUICK_PATIENCE = 20.0, 2.0  # seconds of a peer's call from which on it is called once
_QUICK_FLOPS, _QUICK_EXACT = 1e10, 3e9  # of the largest case of --quick, and of the largest whose error it measures, in float64
_OPERANDS = {"cold": True, "warm": False}

app = typer.Typer(add_completion=False, help=__doc__.split("\n\n")[0] if __doc__ else None)
console = Console(width=None if sys.stdout.isatty() else 200)


@app.command()
def run(
    families: Annotated[list[str] | None, typer.Argument(help="Families to run; all when none is named.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write the results here instead of among the tracked ones.")] = None,
    peers: Annotated[str, typer.Option(help="Libraries to compare with, separated by commas.")] = "torch",
    threads: Annotated[str, typer.Option(help="Thread counts, separated by commas; all cores when empty.")] = "",
    filter: Annotated[str, typer.Option(help="Only cases whose name this regular expression finds.")] = "",  # noqa: A002  (the name of the option)
    operands: Annotated[str, typer.Option(help="cold, warm, or both separated by a comma: out of the caches, or in them.")] = "cold",
    into: Annotated[bool, typer.Option("--into", help="Measure calls that write to memory given, too, on both sides.")] = False,
    tune: Annotated[float, typer.Option(help="Tune every kernel or step for so many seconds; measure it beside the default.")] = 0.0,
    quick: Annotated[bool, typer.Option(help="A tenth of the time, no large cases; written only where --json says.")] = False,
    folder: Annotated[Path, typer.Option("--from", help="Where the families are.", show_default=False)] = FAMILIES,
) -> None:
    """Measure families of cases and keep the results, those that are there when you stop it too."""
    counts = tuple(int(count) for count in threads.split(",") if count) or (cpus(),)
    wanted = tuple(peers.split(","))
    lacking = absent(wanted)
    for name, why in lacking.items():
        console.print(f"{name} is left out: {why}", style="yellow", highlight=False)
    protocol = Protocol(tuple(p for p in wanted if p not in lacking), counts, _QUICK_BUDGET if quick else _BUDGET, _states(operands), into,
                        tune, *((_QUICK_EXACT, _QUICK_PATIENCE) if quick else (float("inf"), _PATIENCE)))
    chosen = [(name, case) for name, case in _chosen(discover(folder), families or [], filter) if not quick or case.flops <= _QUICK_FLOPS]
    for count in counts:
        machine_limits(count, refresh=not quick)
    target = json or (None if quick else default_path())
    results: list[Result] = []
    try:
        for done in _families(chosen, protocol, results):
            _print(done)
            _keep(target, done, counts, lacking)
    except KeyboardInterrupt:
        unfinished = [r for r in results if r.family == results[-1].family]
        _keep(target, unfinished, counts, lacking)
        console.print(f"stopped: {len(results)} results of {len(chosen) * protocol.runs} are kept", style="yellow", highlight=False)
    _summary(results)
    if target is not None and results:
        console.print(f"written to {target}", style="dim", highlight=False)


def _states(operands: str) -> tuple[bool, ...]:
    names = operands.split(",")
    if unknown := [name for name in names if name not in _OPERANDS]:
        raise typer.BadParameter(f"operands are cold or warm, not {', '.join(unknown)}")
    return tuple(_OPERANDS[name] for name in dict.fromkeys(names))


def _keep(target: Path | None, results: list[Result], counts: tuple[int, ...], lacking: dict[str, str]) -> None:
    """Put results beside those that the file has."""
    if target is None or not results:
        return
    newest = new_run(results, {count: machine_limits(count, refresh=False) for count in counts}, lacking)
    save(target, load(target).merged(newest) if target.exists() else newest)


@app.command()
def compare(
    before: Path,
    after: Path,
    fail_over: Annotated[float, typer.Option(help="Exit with 1 when a case is slower by more than this factor.")] = 0.0,
) -> None:
    """Our times in two runs, side by side."""
    old, new = load(before), load(after)
    if old.fingerprint != new.fingerprint:
        console.print(f"Two different machines: {old.machine} and {new.machine}.", style="yellow")
    found = changes(old, new)
    console.print(changes_table(found))
    factors = [change.factor for change in found if change.before.ok and change.after.ok]
    console.print(f"{len(found)} cases in both; before / after {geometric_mean(factors):.3f}x (geometric mean)", highlight=False)
    if fail_over and any(c.verdict == "broken" or (c.verdict == "slower" and 1 / c.factor > fail_over) for c in found):
        raise typer.Exit(1)


@app.command()
def page(results: Path, output: Annotated[Path, typer.Option("-o", "--output")] = Path("benchmarks.html")) -> None:
    """The results as one HTML page."""
    console.print(f"written to {build_page(load(results)).write(output)}", style="dim", highlight=False)


@app.command()
def launch(
    json: Annotated[Path | None, typer.Option(help="Write the figures here.")] = None,
    quick: Annotated[bool, typer.Option(help="A tenth of the time.")] = False,
) -> None:
    """What one call costs, beside torch's."""
    _costs(run_launch(quick), {"calls": "us", "results": "ms"}, json)


@app.command("compile")
def compile_times(
    json: Annotated[Path | None, typer.Option(help="Write the figures here.")] = None,
    quick: Annotated[bool, typer.Option(help="Two rounds instead of seven.")] = False,
) -> None:
    """What a user waits for: the import, kernels compiled anew, kernels read from the disk."""
    _costs(run_compile(quick), {"import": "ms", "compile": "ms", "load": "ms"}, json)


def _costs(found: dict[str, Any], units: dict[str, str], json: Path | None) -> None:
    for group, unit in units.items():
        console.print(f"{group}, {unit}", highlight=False)
        factor = {"us": 1e6, "ms": 1e3}[unit]
        for c in found[group]:
            line = f"  {c['name']:38} {c['median'] * factor:8.2f}   {c['p25'] * factor:.2f} - {c['p75'] * factor:.2f}"
            console.print(line, highlight=False)
    if json is not None:
        json.write_text(dumps(found, indent=1))


def discover(folder: Path) -> dict[str, Callable[[], Iterable[Case]]]:
    """The families of a folder: name -> what makes their cases. A module is imported when its cases are asked for."""
    paths = sorted(path for path in folder.glob("*.py") if not path.name.startswith("_"))
    return {path.stem: partial(_cases, path) for path in paths}


def _cases(path: Path) -> Iterable[Case]:
    cases: Iterable[Case] = _module(path).cases()
    return cases


@cache
def _module(path: Path) -> ModuleType:
    name = f"benchmarks.families.{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise typer.BadParameter(f"{path} is not a Python module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _chosen(available: dict[str, Callable[[], Iterable[Case]]], names: list[str], pattern: str) -> list[tuple[str, Case]]:
    unknown = [name for name in names if name not in available]
    if unknown:
        raise typer.BadParameter(f"no family {', '.join(unknown)}; there are: {', '.join(available) or 'none'}")
    wanted = re.compile(pattern)
    return [(name, case) for name in names or available for case in available[name]() if wanted.search(case.name)]


def _families(chosen: list[tuple[str, Case]], protocol: Protocol, results: list[Result]) -> Iterator[list[Result]]:
    """The results of each family when it is done; every result is added to ``results`` as it comes."""
    def limits(threads: int, again: bool) -> Limits:
        return machine_limits(threads, refresh=again)

    with Watched(console, len(chosen) * protocol.runs) as progress:
        for family, cases in groupby(chosen, key=lambda item: item[0]):
            before = len(results)
            for _, case in cases:
                progress.begin(f"{family}: {case.name}")
                for result in run_case(family, case, protocol, limits):
                    results.append(result)
                    progress.advance()
            yield results[before:]


def _print(results: list[Result]) -> None:
    for family, threads, cold in dict.fromkeys((result.family, result.threads, result.cold) for result in results):
        group = [result for result in results if (result.family, result.threads, result.cold) == (family, threads, cold)]
        operands = "cold" if cold else "warm"
        console.print(results_table(f"{family}, {threads} thread{'s' if threads > 1 else ''}, {operands} operands", group))
    for line in failures(results):
        console.print(line, style="red", highlight=False)


def _summary(results: list[Result]) -> None:
    if not results:
        console.print("No cases.")
        return
    columns = (("best peer / dlc", [r.ratio() for r in results]), ("tuned", [r.ratio(ours=TUNED) for r in results]),
               ("with memory given", [r.ratio_into() for r in results]))
    for name, found in columns:
        medians = [ratio.median for ratio in found if ratio]
        if medians:
            console.print(f"{name}: {geometric_mean(medians):.2f}x (geometric mean of {len(medians)})", highlight=False)


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line; without a command's name it means ``run``."""
    given = sys.argv[1:] if arguments is None else arguments
    if not given or given[0] not in (*_COMMANDS, "--help"):
        given = ["run", *given]
    app(given, prog_name="python -m benchmarks")


if __name__ == "__main__":
    main()
