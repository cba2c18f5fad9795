"""Models and the states of their optimisers in one safetensors file: no code in it, readable by every library that knows the format."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from dlc.nn import Module
from dlc.optim import Optimizer
from dlc.tensor import Tensor, compute_now
from dsl.errors import ArgumentError, RecordError
from dsl.loc import UNKNOWN

FORMAT = "dlc 1"


def save(path: str | Path, model: Module | None = None, optimizer: Optimizer | None = None, extra: Mapping[str, Any] | None = None) -> Path:
    """Write a model, the state of an optimiser and plain data; the file appears whole or not at all.

    Args:
        path: of the file; ``.safetensors`` by convention.
        model: its parameters and buffers are stored as ``model.<name>``.
        optimizer: its states are stored as ``optimizer.<parameter>.<name>``.
        extra: data that JSON can hold, given back by :func:`load`.

    Raises:
        RecordError: the file cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    facts: dict[str, Any] = {"format": FORMAT, "extra": dict(extra or {})}
    if model is not None:
        tensors |= {f"model.{name}": t for name, t in model.state_dict().items()}
    if optimizer is not None:
        state = optimizer.state_dict()
        facts["optimizer"] = {"steps": state["steps"], "groups": state["groups"]}
        tensors |= {f"optimizer.{n}.{name}": t for n, own in state["state"].items() for name, t in own.items()}
    compute_now(*tensors.values())
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=target.parent, suffix=".tmp")
        os.close(handle)
        save_file({name: t.torch().contiguous().clone() for name, t in tensors.items()}, temporary, {"dlc": json.dumps(facts)})
        os.replace(temporary, target)
    except OSError as e:
        raise RecordError(f"the checkpoint {target} cannot be written", str(e), loc=UNKNOWN) from e
    return target


def load(path: str | Path, model: Module | None = None, optimizer: Optimizer | None = None, strict: bool = True) -> dict[str, Any]:
    """Read what :func:`save` wrote into a model and an optimiser; returns the extra data.

    Raises:
        RecordError: there is no such file, or it is damaged.
        ArgumentError: it is the checkpoint of another model or optimiser.
    """
    tensors, facts = _read(Path(path))
    if model is not None:
        model.load_state_dict({name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")}, strict)
    if optimizer is not None:
        if "optimizer" not in facts:
            raise ArgumentError(f"{path} holds no state of an optimiser", loc=UNKNOWN)
        optimizer.load_state_dict(facts["optimizer"] | {"state": _states(tensors)})
    return dict(facts.get("extra", {}))


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        with safe_open(path, "pt") as f:
            return {name: f.get_tensor(name) for name in f.keys()}, json.loads((f.metadata() or {}).get("dlc", "{}"))
    except (OSError, SafetensorError, ValueError) as e:
        raise RecordError(f"the checkpoint {path} cannot be read", str(e), loc=UNKNOWN) from e


def _states(tensors: Mapping[str, Any]) -> dict[int, dict[str, Any]]:
    states: dict[int, dict[str, Any]] = {}
    for key, t in tensors.items():
        if key.startswith("optimizer."):
            _, number, name = key.split(".", 2)
            states.setdefault(int(number), {})[name] = t
    return states
