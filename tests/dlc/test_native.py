"""Functions in machine code that CPython calls: what they get, what they hold, and that they outlive the interpreter's objects."""

import gc
import weakref

import pytest

from dlc.native import FASTCALL, ONE, builtin, compiled

_TEXT = """
declare ptr @PyLong_FromLong(i64)
declare void @Py_IncRef(ptr)
declare i64 @outside(i64)
define ptr @counted(ptr %self, ptr %args, i64 %count) {
  %n = call i64 @outside(i64 %count)
  %r = call ptr @PyLong_FromLong(i64 %n)
  ret ptr %r
}
define ptr @owner(ptr %self, ptr %arg) {
  call void @Py_IncRef(ptr %self)
  ret ptr %self
}
"""


@pytest.fixture(scope="module")
def found():
    other = compiled("define i64 @doubled(i64 %x) {\n  %y = shl i64 %x, 1\n  ret i64 %y\n}\n")
    return compiled(_TEXT, {"outside": other("doubled")})


def test_arguments_and_symbols(found):
    counted = builtin(found("counted"), "counted", FASTCALL, "Twice the number of arguments.")
    assert counted() == 0 and counted(1, "a", None) == 6 and "counted" in repr(counted) and counted.__doc__.startswith("Twice")


def test_what_it_gets_first_lives_as_long_as_it_does(found):
    class Thing:
        pass

    thing = Thing()
    alive = weakref.ref(thing)
    function = builtin(found("owner"), "owner", ONE, "Its owner.", thing)
    del thing
    gc.collect()
    assert function(None) is alive()
    del function
    gc.collect()
    assert alive() is None
