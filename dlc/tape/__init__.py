"""The tape: what was computed, lazily, and how gradients flow back through it.

``template`` turns one operation at certain shapes into a program, and that program into its backward; ``graph`` records applications
of templates as nodes over values that need not exist yet; ``backward`` walks the nodes in reverse and records the gradients, which are
nodes again: they fuse with everything else, and are differentiable themselves.
"""

from dlc.tape.backward import Leaf, pull
from dlc.tape.graph import Edge, Node, Value, apply
from dlc.tape.mode import enable_grad, is_grad_enabled, no_grad, phase, set_grad_enabled
from dlc.tape.recording import Recording, each_call, guard, unreadable
from dlc.tape.template import Reshape, Spec, Template, spec_of

__all__ = ["Edge", "Leaf", "Node", "Recording", "Reshape", "Spec", "Template", "Value", "apply", "each_call", "enable_grad", "guard",
           "is_grad_enabled", "no_grad", "phase", "pull", "set_grad_enabled", "spec_of", "unreadable"]
