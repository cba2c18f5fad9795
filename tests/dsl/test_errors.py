"""How an error is drawn, whose line it cites, and that blame is never mixed."""

from __future__ import annotations

import inspect

import pytest

from dsl import errors
from dsl.errors import DlcError, InternalError, LaunchError, RecordError, ShapeError, UserError
from dsl.loc import UNKNOWN, Loc, here

CLASSES = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, DlcError)]


def test_the_whole_message() -> None:
    e = ShapeError("a title", "first\nsecond", "do this\nor that", Loc(__file__, 1))
    assert str(e) == (f'shape error: a title\n  --> {__file__}:1\n   1 | """How an error is drawn, whose line it cites, and that blame is '
                      'never mixed."""\n  because: first\n           second\n  instead: do this\n           or that')
    assert str(ShapeError("alone", loc=UNKNOWN)) == "shape error: alone"
    assert str(ShapeError("gone", loc=Loc("/no/such/file.py", 7))) == "shape error: gone\n  --> /no/such/file.py:7"


def test_an_error_finds_the_users_line() -> None:
    e = UserError("here")
    assert e.loc.file == __file__ and e.loc.text.strip() == 'e = UserError("here")'
    assert e.loc.function == "test_an_error_finds_the_users_line"


@pytest.mark.parametrize("kind", CLASSES, ids=lambda c: c.__name__)
def test_every_class_has_one_root(kind: type[DlcError]) -> None:
    """The user's program, ours, or the machine."""
    roots = [r for r in (UserError, InternalError, LaunchError, RecordError) if issubclass(kind, r)]
    assert kind is DlcError or len(roots) == 1
    assert kind.kind in str(kind("x", loc=UNKNOWN)) and kind.__doc__


def test_errors_are_data() -> None:
    e = LaunchError("t", "r", "m", UNKNOWN)
    assert (e.title, e.reason, e.remedy, e.loc) == ("t", "r", "m", UNKNOWN) and isinstance(e, Exception)
    assert here().line == inspect.currentframe().f_lineno  # type: ignore[union-attr]
