"""``python -m benchmarks``: measure families of cases, compare two runs, make a page.

python -m benchmarks [family ...] [--peers torch,compile] [--threads 1,2] [--filter regex] [--quick]
python -m benchmarks launch
python -m benchmarks compare before.json after.json
python -m benchmarks page results.json -o page.html
"""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable, Iterable
from functools import cache, partial
from json import dumps
from pathlib import Path
from types import ModuleType
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from benchmarks.harness import Case, Protocol, Result, run_case
from benchmarks.launch import run as run_launch
from benchmarks.page import build_page
from benchmarks.results import default_path, load, new_run, save
from benchmarks.show import changes, changes_table, failures, geometric_mean, results_table
from dlc.host import cpus
from dlc.tune.limits import Limits, machine_limits

FAMILIES = Path(__file__).parent / "families"
_COMMANDS = ("run", "launch", "compare", "page")
_BUDGET, _QUICK_BUDGET = 1.5, 0.15

app = typer.Typer(add_completion=False, help=__doc__.split("\n\n")[0] if __doc__ else None)
console = Console()


@app.command()
def run(
    families: Annotated[list[str] | None, typer.Argument(help="Families to run; all when none is named.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write the results here instead of among the tracked ones.")] = None,
    peers: Annotated[str, typer.Option(help="Libraries to compare with, separated by commas.")] = "torch",
    threads: Annotated[str, typer.Option(help="Thread counts, separated by commas; all cores when empty.")] = "",
    filter: Annotated[str, typer.Option(help="Only cases whose name this regular expression finds.")] = "",  # noqa: A002
    quick: Annotated[bool, typer.Option(help="A tenth of the time; written only where --json says.")] = False,
    warm: Annotated[bool, typer.Option(help="Leave the operands in the caches.")] = False,
    folder: Annotated[Path, typer.Option("--from", help="Where the families are.", show_default=False)] = FAMILIES,
) -> None:
    """Measure families of cases and keep the results."""
    counts = tuple(int(count) for count in threads.split(",") if count) or (cpus(),)
    protocol = Protocol(tuple(peers.split(",")), counts, _QUICK_BUDGET if quick else _BUDGET, not warm)
    chosen = _chosen(discover(folder), families or [], filter)
    limits = {count: machine_limits(count, refresh=not quick) for count in counts}
    results = _run_all(chosen, protocol, limits.__getitem__)
    _print(results)
    target = json or (None if quick else default_path())
    if target is not None and results:
        newest = new_run(results, limits)
        save(target, load(target).merged(newest) if target.exists() else newest)
        console.print(f"written to {target}", style="dim", highlight=False)


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
    found = run_launch(quick)
    for unit, factor, costs in (("us", 1e6, found["calls"]), ("ms", 1e3, found["results"])):
        for c in costs:
            line = f"{c['name']:28} {c['median'] * factor:8.2f} {unit}   {c['p25'] * factor:.2f} - {c['p75'] * factor:.2f}"
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


def _run_all(chosen: list[tuple[str, Case]], protocol: Protocol, limits: Callable[[int], Limits]) -> list[Result]:
    results: list[Result] = []
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("", total=len(chosen) * len(protocol.threads))
        for family, case in chosen:
            progress.update(task, description=f"{family}: {case.name}")
            for result in run_case(family, case, protocol, limits):
                results.append(result)
                progress.advance(task)
    return results


def _print(results: list[Result]) -> None:
    if not results:
        console.print("No cases.")
        return
    for family, threads in dict.fromkeys((result.family, result.threads) for result in results):
        group = [result for result in results if (result.family, result.threads) == (family, threads)]
        operands = "cold" if group[0].cold else "warm"
        console.print(results_table(f"{family}, {threads} thread{'s' if threads > 1 else ''}, {operands} operands", group))
    for line in failures(results):
        console.print(line, style="red", highlight=False)
    ratios = [found.median for result in results if (found := result.ratio())]
    if ratios:
        console.print(f"best peer / dlc: {geometric_mean(ratios):.2f}x (geometric mean of {len(ratios)})", highlight=False)


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line; without a command's name it means ``run``."""
    given = sys.argv[1:] if arguments is None else arguments
    if not given or given[0] not in (*_COMMANDS, "--help"):
        given = ["run", *given]
    app(given, prog_name="python -m benchmarks")


if __name__ == "__main__":
    main()
