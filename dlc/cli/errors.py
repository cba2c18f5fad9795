"""How a command ends: our errors as they are, without a traceback of ours, and an exit code that says whose fault it was."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console
from typer.core import TyperGroup

from dsl.errors import DlcError, InternalError, LaunchError

USER, MACHINE, OURS = 1, 3, 70


def exit_code(error: DlcError) -> int:
    """1 for the user's program or input, 3 for what the machine refused, 70 for a defect of dlc."""
    return OURS if isinstance(error, InternalError) else MACHINE if isinstance(error, LaunchError) else USER


class Group(TyperGroup):
    """The commands, with errors shown as messages."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except DlcError as e:
            Console(stderr=True, soft_wrap=True).print(e.render(), markup=False, highlight=False)
            ctx.exit(exit_code(e))
        except KeyboardInterrupt:
            Console(stderr=True).print("stopped")
            ctx.exit(130)
        except BrokenPipeError:  # the reader of our output has gone
            sys.stderr.close()
            ctx.exit(0)
