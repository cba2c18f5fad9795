"""The way from Python into a compiled kernel: one native function in CPython's calling convention, shared by all kernels.

``call(entry, scratch, threads, *words)`` packs the words (addresses and sizes) into an array on the C stack, releases the interpreter
lock, calls ``i32 entry(ptr words, ptr scratch, i64 threads)`` and gives back its code. A foreign-function library does the same in four
times the time. Only the stable interface of CPython is used.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache

from dlc.lazy import lazy
from dlc.runtime.cpu import initialize, keep

llvm = lazy("llvmlite.binding")

_FASTCALL = 0x80  # METH_FASTCALL
_SYMBOLS = ("PyLong_AsUnsignedLongLongMask", "PyLong_FromLong", "PyErr_Occurred", "PyEval_SaveThread", "PyEval_RestoreThread")
_TEXT = """
declare i64 @PyLong_AsUnsignedLongLongMask(ptr)
declare ptr @PyLong_FromLong(i64)
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
"""


class _MethodDef(ctypes.Structure):
    """CPython's PyMethodDef."""

    _fields_ = (("name", ctypes.c_char_p), ("function", ctypes.c_void_p), ("flags", ctypes.c_int), ("doc", ctypes.c_char_p))


@cache
def native_call() -> Callable[..., int]:
    """The function ``call(entry, scratch, threads, *words) -> code``; every argument an int, at least the first three."""
    initialize()
    for name in _SYMBOLS:
        llvm.add_symbol(name, ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value)
    machine = llvm.Target.from_default_triple().create_target_machine(opt=1, reloc="pic")
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(_TEXT), machine)
    engine.finalize_object()
    definition = _MethodDef(b"call", engine.get_function_address("dlc_call"), _FASTCALL, b"Run a compiled kernel.")
    keep(engine, definition)
    prototype = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.POINTER(_MethodDef), ctypes.c_void_p, ctypes.c_void_p)
    make = prototype(("PyCFunction_NewEx", ctypes.pythonapi))
    function: Callable[..., int] = make(ctypes.byref(definition), None, None)
    return function
