"""dlc.runtime.nursery: children that are there at once, begin clean, and may crash or hang like any other."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import pytest

from dlc.runtime.nursery import Nursery
from dsl.errors import InternalError, LaunchError

_kept: list[Any] = []


def act(request: str) -> Any:
    _kept.append(request)
    if request == "crash":
        os.kill(os.getpid(), 11)
    if request == "hang":
        time.sleep(60)
    if request == "raise":
        raise ValueError("asked for")
    return request, os.getpid(), len(_kept), os.environ.get("DLC_TEST")


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    n = Nursery("tests.dlc.test_nursery:act", {"DLC_TEST": "here"})
    yield n
    n.close()


def test_children_are_apart_and_begin_clean(nursery: Nursery) -> None:
    a, b = nursery.child(), nursery.child()
    first, second = a.call("one", 60), b.call("one", 10)
    assert first[1] != second[1] and first[1] != nursery.start()
    assert first[2] == second[2] == 1 and a.call("two", 10)[2] == 2
    assert first[3] == "here"
    a.close()
    assert a.call("again", 10)[2] == 1
    a.close()
    b.close()


def test_a_child_survives_crash_and_hang(nursery: Nursery) -> None:
    child = nursery.child()
    with pytest.raises(LaunchError, match="exit status -11"):
        child.call("crash", 60)
    with pytest.raises(LaunchError, match=r"within 0\.3 s"):
        child.call("hang", 0.3)
    with pytest.raises(InternalError, match="ValueError"):
        child.call("raise", 10)
    assert child.call("on", 10)[0] == "on"
    child.close()


def test_replies_can_be_awaited_together(nursery: Nursery) -> None:
    children = [nursery.child() for _ in range(3)]
    for n, c in enumerate(children):
        c.send(f"request {n}")
    assert [c.receive(30)[0] for c in children] == ["request 0", "request 1", "request 2"]
    for c in children:
        c.close()


def test_a_nursery_that_died_is_started_again(nursery: Nursery) -> None:
    child = nursery.child()
    assert child.call("one", 30)[0] == "one"
    os.kill(nursery.start(), 9)
    time.sleep(0.2)
    other = nursery.child()
    assert other.call("two", 60)[0] == "two"
    child.close()
    other.close()


def test_a_handler_that_is_missing_is_told() -> None:
    missing = Nursery("tests.dlc.test_nursery:nothing")
    with pytest.raises(LaunchError, match="nothing"):
        missing.child().call("one", 60)
    missing.close()
