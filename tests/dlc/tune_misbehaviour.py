"""A helper process of the tuner in which some candidates crash, hang or come out wrong: what ``test_tune`` points the tuner at."""

from __future__ import annotations

import os
import time
from typing import Any

import torch

from dlc.tune import worker


def handle(request: tuple[Any, ...]) -> Any:
    """As :func:`dlc.tune.worker.handle`, but for candidates of one, two, four or eight vectors in ways of their own."""
    action, *arguments = request
    vectors = arguments[1].get("add.vectors", 0) if action in ("build", "load") else 0
    if action == "build" and vectors == 1:
        os.kill(os.getpid(), 11)
    if action == "load" and vectors == 2:
        time.sleep(60)
    result = worker.handle(request)
    if action == "load" and vectors == 8:
        session = worker._opened()
        session.loaded[arguments[0]] = _wrong(session.loaded[arguments[0]])
    return result


def _wrong(launcher: Any) -> Any:
    def call(tensors: Any, outs: Any = None) -> list[torch.Tensor]:
        return [r.mul_(1.001) for r in launcher(tensors, outs)]
    return call
