"""Run the PTX of a GPU kernel on the CPU, and see what no GPU would tell.

``emulate`` executes what Triton emits for sm_80 and sm_90 with numpy: wrong numbers, accesses out of bounds, races,
missing waits, barriers and fences, coalescing, bank conflicts and traffic. It proves the lowering of a kernel on small
shapes; it says nothing of speed, and ptxas, which turns the PTX into machine code, is not part of it.
"""

from dlc.emulate.emulator import Blank, emulate, emulate_artifact
from dlc.emulate.report import AccessStat, EmulationReport, Finding, Footprint

__all__ = ["AccessStat", "Blank", "EmulationReport", "Finding", "Footprint", "emulate", "emulate_artifact"]
