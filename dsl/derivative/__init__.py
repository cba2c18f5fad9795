"""Derivatives of programs: reverse mode (:func:`vjp`, :func:`pullback`) and forward mode (:func:`jvp`).

A derivative is an ordinary program: it prints, is scheduled, compiled and differentiated like any other. ``split`` gives each
reduction a definition of its own, ``rules`` and ``reductions`` hold the calculus, ``system`` and ``gather`` turn the adjoint of a
read into dense loops, ``adjoint`` puts the pieces together, ``factoring`` makes equal sums once, ``saving`` decides what the forward keeps.
"""

from dsl.derivative.forward import jvp, pushforward
from dsl.derivative.reverse import asides, forward_with_saves, pullback, vjp
from dsl.derivative.saving import SavePlan, choose_saved, plan_saved
from dsl.derivative.split import split, split_program

__all__ = [
    "SavePlan", "asides", "choose_saved", "forward_with_saves", "jvp", "plan_saved", "pullback", "pushforward", "split", "split_program",
    "vjp",
]
