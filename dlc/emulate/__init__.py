"""Run the PTX of a GPU kernel on the CPU, and see what no GPU would tell.

``emulate`` executes what Triton emits for sm_80 and sm_90 with numpy: wrong numbers, accesses out of bounds, races,
missing waits, barriers and fences, coalescing, bank conflicts and traffic. It proves the lowering of a kernel on small
shapes; it says nothing of speed, and ptxas, which turns the PTX into machine code, is not part of it.

The emulator is imported when one of these names is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dlc.emulate.emulator import Blank, emulate, emulate_artifact
    from dlc.emulate.report import AccessStat, EmulationReport, Finding, Footprint

__all__ = ["AccessStat", "Blank", "EmulationReport", "Finding", "Footprint", "PTX_TARGETS", "emulate", "emulate_artifact"]

#: The targets whose PTX can be run: their instructions are known, those of tensor memory and AMD's machine code are not.
PTX_TARGETS = ("sm_80", "sm_90")
_RUNNING = ("Blank", "emulate", "emulate_artifact")


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("dlc.emulate.emulator" if name in _RUNNING else "dlc.emulate.report"), name)
