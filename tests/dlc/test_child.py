"""A helper process that answers, errs, dies, hangs and is asked again: the caller goes on, and says what happened."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

import pytest

from dlc.runtime.child import Child
from dsl.errors import InternalError, LaunchError, ShapeError

HERE = "tests.dlc.test_child"


def answer(request: Any) -> Any:
    """What the child does."""
    what, value = request
    if what == "raise":
        raise ShapeError("a title", "a reason", "a remedy")
    if what == "crash":
        print("last words", flush=True)
        os.kill(os.getpid(), signal.SIGSEGV)
    if what == "fail":
        raise ValueError("not one of ours")
    if what == "hang":
        time.sleep(60)
    return os.environ.get("FOR_THE_CHILD"), value * 2, os.getpid()


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "path", [os.getcwd(), *sys.path])
    c = Child(f"{HERE}:answer", {"FOR_THE_CHILD": "yes"})
    yield c
    c.close()


def test_a_child_lives_through_errors_and_not_through_crashes(child: Child) -> None:
    own, doubled, first = child.call(("double", 21), 60)
    assert (own, doubled) == ("yes", 42) and first not in (os.getpid(), None) and "FOR_THE_CHILD" not in os.environ
    with pytest.raises(ShapeError) as e:
        child.call(("raise", 0), 60)
    assert (e.value.title, e.value.reason, e.value.remedy) == ("a title", "a reason", "a remedy")
    with pytest.raises(InternalError, match="ValueError in a helper process"):
        child.call(("fail", 0), 60)
    assert child.call(("double", 1), 60)[2] == first, "the same process still"
    with pytest.raises(LaunchError) as died:
        child.call(("crash", 0), 60)
    assert died.value.title == "a helper process died" and "exit status -11" in died.value.reason and "last words" in died.value.reason
    assert child.call(("double", 2), 60)[2] != first, "another one"
    with pytest.raises(LaunchError, match="no answer from a helper process within 0.2 s"):
        child.call(("hang", 0), 0.2)
    assert child.call(("double", 3), 60)[1] == 6, "the late answer is not taken for this one"
