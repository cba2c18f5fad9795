"""``dlc records``: what tuning has found, listed, moved to other machines' directories and back, cleared."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from dlc import records
from dlc.host import fingerprint

records_app = typer.Typer(no_args_is_help=True, help="Tuning records: list, export, import, clear.")


@records_app.command(name="list")
def list_(as_json: Annotated[bool, typer.Option("--json", help="print the records as JSON")] = False) -> None:
    """List the records; those of another machine are kept but not used here."""
    found = records.all_records()
    if as_json:
        typer.echo(json.dumps([r.to_json() for r in found], indent=1))
        return
    table = Table(box=None, pad_edge=False)
    for name in ("kernel", "shapes", "target", "threads", "gain", "choices", "tried", "when", ""):
        table.add_column(name, overflow="fold")
    for r in found:
        choices = ", ".join(f"{n}={v}" for n, v in r.decisions.items()) or "the default"
        here = "" if r.key.machine in ("", fingerprint()) else "another machine"
        table.add_row(r.name, " ".join("x".join(map(str, s)) or "scalar" for s in r.key.shapes), r.key.target, str(r.key.threads),
                      f"{r.ratio:.2f}x", choices, str(r.candidates), time.strftime("%Y-%m-%d %H:%M", time.localtime(r.when)), here)
    console = Console(soft_wrap=False)
    console.print(table if found else f"no records in {records.directory()}")


@records_app.command()
def export(path: Annotated[Path, typer.Argument(help="the file to write")]) -> None:
    """Write all records to one file."""
    typer.echo(f"{records.export(path)} records written to {path}")


@records_app.command(name="import")
def import_(path: Annotated[Path, typer.Argument(help="a file written by export")]) -> None:
    """Take over the records of a file."""
    typer.echo(f"{records.import_(path)} records taken over into {records.directory()}")


@records_app.command()
def clear() -> None:
    """Remove all records."""
    typer.echo(f"{records.clear()} records removed")
