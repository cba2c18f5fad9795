"""From the lazy graph to memory: the graph is cut into kernels, each compiled once, and run.

``partition`` decides where kernels begin and end and what is written to memory between them; ``compose`` makes one program of a
kernel's definitions; ``plan`` keeps the outcome by the graph's shape, so that the second step of a training loop only launches;
``generated`` holds the kernels, which many plans share; ``frozen`` gives a plan memory of its own, for what is recorded once and run
again, and ``tuning`` searches for faster schedules there; ``counters`` tell what ran.
"""

from dlc.realize.counters import Counts, Watch, counts
from dlc.realize.frozen import Frozen
from dlc.realize.generated import untuned
from dlc.realize.plan import Collected, Plan, Step, explain, realize

__all__ = ["Collected", "Counts", "Frozen", "Plan", "Step", "Watch", "counts", "explain", "realize", "untuned"]
