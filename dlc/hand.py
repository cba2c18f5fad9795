"""Blocks of memory at hand: lists by size that are taken from and added to in machine code, without Python and without a lock.

Whoever takes holds the interpreter's lock, so only one takes at a time; blocks are given back from any thread, by the destructor of a
tensor say, whether it holds that lock or not. The block that was given back last is taken first: it is the one the caches may still hold.
What is given back beyond a bound goes to a function of Python's.

A block is known by its record, 64 words: it begins with DLPack's ``DLManagedTensorVersioned``, so that a tensor over the block costs no
further allocation, and goes on with the links and numbers of the lists (see the constants).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from dlc.native import FASTCALL, ONE, builtin, compiled, immortal

#: Words of a record: DLPack's deleter, the address of the elements, device, dimensions and dtype, shape; then ours.
DELETER, DATA, DEVICE, KIND, SHAPE = 2, 4, 5, 6, 7
NEXT, SIZE, CLASS, HAND, TICK, DIMS, WORDS = 10, 11, 12, 13, 14, 16, 64
MOST_DIMS = WORDS - DIMS

#: Words of the lists' state: bytes at hand, their bound, how often a block was taken, how often one was given, the function for what is
#: too much, and the first record of each class.
KEPT, BOUND, TAKEN, GIVEN, HOOK, HEADS, CLASSES = 0, 1, 2, 3, 4, 8, 512

_TEXT = """
declare i64 @PyLong_AsUnsignedLongLongMask(ptr)
declare ptr @PyLong_FromUnsignedLongLong(i64)
declare ptr @PyErr_Occurred()
declare i32 @Py_IsInitialized()
declare i32 @PyGILState_Ensure()
declare void @PyGILState_Release(i32)
declare void @PyErr_Fetch(ptr, ptr, ptr)
declare void @PyErr_Restore(ptr, ptr, ptr)
declare void @PyErr_WriteUnraisable(ptr)
declare ptr @PyObject_CallFunctionObjArgs(ptr, ...)
declare void @Py_DecRef(ptr)

define ptr @hand_take(ptr %state, i64 %class) {
start:
  %n = add i64 %class, HEADS
  %head = getelementptr i64, ptr %state, i64 %n
  br label %again
again:
  %first = load atomic ptr, ptr %head acquire, align 8
  %none = icmp eq ptr %first, null
  br i1 %none, label %empty, label %try
try:
  %link = getelementptr i64, ptr %first, i64 NEXT
  %next = load ptr, ptr %link
  %swap = cmpxchg ptr %head, ptr %first, ptr %next acq_rel acquire
  %won = extractvalue { ptr, i1 } %swap, 1
  br i1 %won, label %took, label %again
took:
  %at = getelementptr i64, ptr %first, i64 SIZE
  %size = load i64, ptr %at
  %kept = getelementptr i64, ptr %state, i64 KEPT
  %1 = atomicrmw sub ptr %kept, i64 %size monotonic
  %taken = getelementptr i64, ptr %state, i64 TAKEN
  %2 = atomicrmw add ptr %taken, i64 1 monotonic
  ret ptr %first
empty:
  ret ptr null
}

define void @hand_give(ptr %record) {
start:
  %at = getelementptr i64, ptr %record, i64 SIZE
  %size = load i64, ptr %at
  %whose = getelementptr i64, ptr %record, i64 HAND
  %state = load ptr, ptr %whose
  %kept = getelementptr i64, ptr %state, i64 KEPT
  %limit = getelementptr i64, ptr %state, i64 BOUND
  %bound = load atomic i64, ptr %limit monotonic, align 8
  %before = atomicrmw add ptr %kept, i64 %size monotonic
  %after = add i64 %before, %size
  %many = icmp sgt i64 %after, %bound
  br i1 %many, label %over, label %put
over:
  %0 = atomicrmw sub ptr %kept, i64 %size monotonic
  %alive = call i32 @Py_IsInitialized()
  %dead = icmp eq i32 %alive, 0
  br i1 %dead, label %done, label %tell
put:
  %counter = getelementptr i64, ptr %state, i64 GIVEN
  %now = atomicrmw add ptr %counter, i64 1 monotonic
  %tick = getelementptr i64, ptr %record, i64 TICK
  store i64 %now, ptr %tick
  %which = getelementptr i64, ptr %record, i64 CLASS
  %class = load i64, ptr %which
  %n = add i64 %class, HEADS
  %head = getelementptr i64, ptr %state, i64 %n
  %link = getelementptr i64, ptr %record, i64 NEXT
  br label %again
again:
  %first = load atomic ptr, ptr %head monotonic, align 8
  store ptr %first, ptr %link
  %swap = cmpxchg ptr %head, ptr %first, ptr %record acq_rel monotonic
  %won = extractvalue { ptr, i1 } %swap, 1
  br i1 %won, label %done, label %again
done:
  ret void
tell:
  %type = alloca ptr
  %value = alloca ptr
  %trace = alloca ptr
  %held = call i32 @PyGILState_Ensure()
  call void @PyErr_Fetch(ptr %type, ptr %value, ptr %trace)
  %place = getelementptr i64, ptr %state, i64 HOOK
  %hook = load ptr, ptr %place
  %word = ptrtoint ptr %record to i64
  %number = call ptr @PyLong_FromUnsignedLongLong(i64 %word)
  %result = call ptr (ptr, ...) @PyObject_CallFunctionObjArgs(ptr %hook, ptr %number, ptr null)
  call void @Py_DecRef(ptr %number)
  %bad = icmp eq ptr %result, null
  br i1 %bad, label %failed, label %good
failed:
  call void @PyErr_WriteUnraisable(ptr %hook)
  br label %release
good:
  call void @Py_DecRef(ptr %result)
  br label %release
release:
  %t = load ptr, ptr %type
  %v = load ptr, ptr %value
  %b = load ptr, ptr %trace
  call void @PyErr_Restore(ptr %t, ptr %v, ptr %b)
  call void @PyGILState_Release(i32 %held)
  ret void
}

define ptr @hand_wrap(ptr %record, i64 %kind, ptr %shape, ptr %export) {
start:
  %made = alloca ptr
  %a = getelementptr i64, ptr %record, i64 KIND
  store i64 %kind, ptr %a
  %b = getelementptr i64, ptr %record, i64 SHAPE
  store ptr %shape, ptr %b
  %code = call i32 %export(ptr %record, ptr %made)
  %bad = icmp ne i32 %code, 0
  br i1 %bad, label %failed, label %good
failed:
  call void @hand_give(ptr %record)
  ret ptr null
good:
  %result = load ptr, ptr %made
  ret ptr %result
}

define ptr @py_take(ptr %self, ptr %args, i64 %count) {
  %a = load ptr, ptr %args
  %state = call i64 @PyLong_AsUnsignedLongLongMask(ptr %a)
  %at = getelementptr ptr, ptr %args, i64 1
  %b = load ptr, ptr %at
  %class = call i64 @PyLong_AsUnsignedLongLongMask(ptr %b)
  %where = inttoptr i64 %state to ptr
  %record = call ptr @hand_take(ptr %where, i64 %class)
  %word = ptrtoint ptr %record to i64
  %result = call ptr @PyLong_FromUnsignedLongLong(i64 %word)
  ret ptr %result
}

define ptr @py_give(ptr %self, ptr %number) {
  %word = call i64 @PyLong_AsUnsignedLongLongMask(ptr %number)
  %record = inttoptr i64 %word to ptr
  call void @hand_give(ptr %record)
  %result = call ptr @PyLong_FromUnsignedLongLong(i64 0)
  ret ptr %result
}

define ptr @py_wrap(ptr %self, ptr %args, i64 %count) {
start:
  %a = load ptr, ptr %args
  %number = call i64 @PyLong_AsUnsignedLongLongMask(ptr %a)
  %record = inttoptr i64 %number to ptr
  %at1 = getelementptr ptr, ptr %args, i64 1
  %b = load ptr, ptr %at1
  %kind = call i64 @PyLong_AsUnsignedLongLongMask(ptr %b)
  %at2 = getelementptr ptr, ptr %args, i64 2
  %c = load ptr, ptr %at2
  %code = call i64 @PyLong_AsUnsignedLongLongMask(ptr %c)
  %export = inttoptr i64 %code to ptr
  %dims = getelementptr i64, ptr %record, i64 DIMS
  br label %next
next:
  %n = phi i64 [ 3, %start ], [ %after, %one ]
  %more = icmp slt i64 %n, %count
  br i1 %more, label %one, label %all
one:
  %from = getelementptr ptr, ptr %args, i64 %n
  %object = load ptr, ptr %from
  %size = call i64 @PyLong_AsUnsignedLongLongMask(ptr %object)
  %d = sub i64 %n, 3
  %to = getelementptr i64, ptr %dims, i64 %d
  store i64 %size, ptr %to
  %after = add i64 %n, 1
  br label %next
all:
  %result = call ptr @hand_wrap(ptr %record, i64 %kind, ptr %dims, ptr %export)
  ret ptr %result
}
"""


@dataclass(frozen=True)
class _Native:
    """The compiled functions.

    Attributes:
        take: (state, class) to a record, or 0.
        give: a record back.
        wrap: (record, dimensions and dtype, torch's export, each size) to a tensor that gives the record back when it is freed.
        places: the addresses of what other machine code calls, by name.
    """

    take: Callable[[int, int], int]
    give: Callable[[int], int]
    wrap: Callable[..., torch.Tensor]
    places: dict[str, int]


@cache
def native() -> _Native:
    """The functions, compiled once."""
    text = _TEXT
    for name in ("HEADS", "NEXT", "SIZE", "CLASS", "HAND", "TICK", "KEPT", "BOUND", "TAKEN", "GIVEN", "HOOK", "KIND", "SHAPE", "DIMS"):
        text = text.replace(f" {name}\n", f" {globals()[name]}\n")
    found = compiled(text)
    return _Native(builtin(found("py_take"), "take", FASTCALL, "A block at hand."),
                   builtin(found("py_give"), "give", ONE, "A block back."), builtin(found("py_wrap"), "wrap", FASTCALL, "A tensor."),
                   {name: found(name) for name in ("hand_take", "hand_give", "hand_wrap")})


class Hand:
    """The lists of one pool; they stay to the end of the process, since tensors may be freed that late.

    Args:
        hook: called with a record that is given back beyond the bound.

    Attributes:
        state: the address of their words, for machine code.
    """

    def __init__(self, hook: Callable[[int], None]) -> None:
        self._native = native()
        self.state = _words(HEADS + CLASSES)
        self._words = (ctypes.c_int64 * (HEADS + CLASSES)).from_address(self.state)
        self._words[HOOK] = id(hook)
        immortal(hook)

    def take(self, kind: int) -> int:
        """The record of the block of a class that was given back last; 0 where none is at hand."""
        return self._native.take(self.state, kind)

    def give(self, record: int) -> None:
        """Give a block back; beyond the bound to the hook."""
        self._native.give(record)

    @property
    def kept(self) -> int:
        """Bytes at hand."""
        return self._words[KEPT]

    @property
    def taken(self) -> int:
        """How often a block was taken."""
        return self._words[TAKEN]

    def bound(self, most: int) -> None:
        """Say how many bytes may be at hand."""
        self._words[BOUND] = most

    def record(self, where: int, size: int, kind: int) -> int:
        """A record for a new block.

        Args:
            where: the address of its memory.
            size: its bytes.
            kind: its class.
        """
        made = _words(WORDS)
        words = (ctypes.c_int64 * WORDS).from_address(made)
        words[0], words[DELETER], words[DATA], words[DEVICE] = 1, self._native.places["hand_give"], where, 1  # version 1, on a CPU
        words[SIZE], words[CLASS], words[HAND] = size, kind, self.state
        return made

    def wrap(self, record: int, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor | None:
        """A contiguous tensor over a block taken, which gives it back when it is freed; None where torch has no direct way."""
        ways = exported(dtype)
        if ways is None or len(shape) > MOST_DIMS:
            return None
        return self._native.wrap(record, ways[1] << 32 | len(shape), ways[0], *shape)

    def all(self) -> list[int]:
        """Take everything that is at hand, what was given back first before what was given back last."""
        found = []
        for kind in range(CLASSES):
            while self._words[HEADS + kind]:
                record = self.take(kind)
                self._words[TAKEN] -= 1
                found.append(record)
        return sorted(found, key=lambda r: ctypes.c_int64.from_address(r + 8 * TICK).value)


@cache
def exported(dtype: torch.dtype) -> tuple[int, int] | None:
    """(torch's function from DLPack's tensor to its own, DLPack's word for a dtype); None where it has none."""
    capsule: Any = getattr(torch.Tensor, "__dlpack_c_exchange_api__", None)
    if capsule is None:
        return None
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    table = (ctypes.c_uint64 * 7).from_address(pointer(capsule, b"dlpack_exchange_api"))
    if table[0] & 0xFFFFFFFF != 1 or not table[4] or not table[5]:
        return None
    described = (ctypes.c_uint32 * 12)()
    look = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_void_p)(table[5])
    try:
        failed = look(torch.empty(0, dtype=dtype), ctypes.addressof(described))
    except (RuntimeError, BufferError):
        return None
    return None if failed else (table[4], described[5])


def forget(record: int) -> None:
    """Free the record of a block that is no more."""
    free = ctypes.pythonapi.PyMem_RawFree
    free.restype, free.argtypes = None, (ctypes.c_void_p,)
    free(record)


def _words(count: int) -> int:
    """The address of so many words, all zero, that stay to the end of the process."""
    allocate = ctypes.pythonapi.PyMem_RawCalloc
    allocate.restype, allocate.argtypes = ctypes.c_void_p, (ctypes.c_size_t, ctypes.c_size_t)
    return int(allocate(count, 8))
