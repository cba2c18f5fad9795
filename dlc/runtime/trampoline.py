"""The way from Python into a compiled kernel: one native function in CPython's calling convention, shared by all kernels.

``call(entry, scratch, threads, *words)`` packs the words (addresses and sizes) into an array on the C stack, releases the interpreter
lock, calls ``i32 entry(ptr words, ptr scratch, i64 threads)`` and gives back its code. A foreign-function library does the same in four
times the time. Only the stable interface of CPython is used. Beside it lies a function for the address of a numpy array's elements, which
numpy itself gives away in a microsecond.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

from dlc.native import FASTCALL, ONE, builtin, compiled

_TEXT = """
declare i64 @PyLong_AsUnsignedLongLongMask(ptr)
declare ptr @PyLong_FromLong(i64)
declare ptr @PyLong_FromUnsignedLongLong(i64)
declare ptr @PyErr_Occurred()
declare ptr @PyEval_SaveThread()
declare void @PyEval_RestoreThread(ptr)

define ptr @dlc_call(ptr %self, ptr %args, i64 %count) {
start:
  %words = alloca i64, i64 %count
  br label %next
next:
  %n = phi i64 [ 0, %start ], [ %after, %next ]
  %from = getelementptr ptr, ptr %args, i64 %n
  %object = load ptr, ptr %from
  %word = call i64 @PyLong_AsUnsignedLongLongMask(ptr %object)
  %to = getelementptr i64, ptr %words, i64 %n
  store i64 %word, ptr %to
  %after = add i64 %n, 1
  %more = icmp slt i64 %after, %count
  br i1 %more, label %next, label %converted
converted:
  %error = call ptr @PyErr_Occurred()
  %bad = icmp ne ptr %error, null
  br i1 %bad, label %fail, label %run
fail:
  ret ptr null
run:
  %address = load i64, ptr %words
  %entry = inttoptr i64 %address to ptr
  %second = getelementptr i64, ptr %words, i64 1
  %private = load i64, ptr %second
  %scratch = inttoptr i64 %private to ptr
  %third = getelementptr i64, ptr %words, i64 2
  %threads = load i64, ptr %third
  %rest = getelementptr i64, ptr %words, i64 3
  %state = call ptr @PyEval_SaveThread()
  %code = call i32 %entry(ptr %rest, ptr %scratch, i64 %threads)
  call void @PyEval_RestoreThread(ptr %state)
  %wide = sext i32 %code to i64
  %result = call ptr @PyLong_FromLong(i64 %wide)
  ret ptr %result
}

define ptr @dlc_array(ptr %self, ptr %array) {
  %place = getelementptr i8, ptr %array, i64 HEAD
  %data = load i64, ptr %place
  %result = call ptr @PyLong_FromUnsignedLongLong(i64 %data)
  ret ptr %result
}
""".replace("HEAD", str(object.__basicsize__))  # by numpy's binary interface, the address of the elements comes first


@cache
def native_call() -> Callable[..., int]:
    """The function ``call(entry, scratch, threads, *words) -> code``; every argument an int, at least the first three."""
    made: Callable[..., int] = builtin(_found()("dlc_call"), "call", FASTCALL, "Run a compiled kernel.")
    return made


@cache
def array_address() -> Callable[[np.ndarray], int]:
    """From a numpy array to the address of its first element; the argument must be an array."""
    native: Callable[[np.ndarray], int] = builtin(_found()("dlc_array"), "array", ONE, "The address of an array's elements.")
    probe = np.empty(3)[1:]
    return native if native(probe) == probe.ctypes.data else lambda array: int(array.ctypes.data)


@cache
def _found() -> Callable[[str], int]:
    return compiled(_TEXT)
