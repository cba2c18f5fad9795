"""The machine code of :mod:`dlc.runtime.direct`: what is asked of tensors, and made. ``$NAME`` stands for a number."""

from __future__ import annotations

#: The facts of a kernel: one word each, then its inputs and outputs.
FACTS = ("ENTRY", "STATE", "INPUTS", "OUTPUTS", "SPACES", "PER", "FIRST_INPUT", "FIRST_OUTPUT", "FIRST_SPACE", "SCRATCH", "FIRST_CLASS",
          "SINGLE", "TRACKED", "SLOW", "RAISE", "COUNT", "MISS", "NONE", "TRUE", "TENSOR", "PARAMETER", "REQUIRES_GRAD", "FORWARD", "LEVEL",
          "OUTSIDE", "GATE")
INPUT = ("PATTERN", "WORDS", "ALIGN", "FLOAT")
OUTPUT = ("FROM_POOL", "EMPTY", "EMPTY_ARGS", "TENSOR_KIND", "SHAPE_AT", "EXPORT")

TENSORS = """
declare ptr @PyTuple_GetItem(ptr, i64)
declare i64 @PyTuple_Size(ptr)
declare ptr @PyTuple_New(i64)
declare i32 @PyTuple_SetItem(ptr, i64, ptr)
declare ptr @PyBytes_AsString(ptr)
declare ptr @PyLong_FromLong(i64)
declare ptr @PyErr_Occurred()
declare ptr @PyObject_GetAttr(ptr, ptr)
declare ptr @PyDict_GetItem(ptr, ptr)
declare ptr @PyObject_CallObject(ptr, ptr)
declare ptr @PyObject_CallFunctionObjArgs(ptr, ...)
declare void @Py_IncRef(ptr)
declare void @Py_DecRef(ptr)
declare ptr @PyEval_SaveThread()
declare void @PyEval_RestoreThread(ptr)
declare i32 @aoti_torch_get_data_ptr(ptr, ptr)
declare zeroext i1 @aoti_torch_grad_mode_is_enabled()
declare i32 @torch_get_num_threads(ptr)
declare ptr @hand_take(ptr, i64)
declare void @hand_give(ptr)
declare ptr @hand_wrap(ptr, i64, ptr, ptr)

define internal i64 @fact(ptr %facts, i64 %n) alwaysinline {
  %at = getelementptr i64, ptr %facts, i64 %n
  %value = load i64, ptr %at
  ret i64 %value
}

define internal ptr @object(ptr %facts, i64 %n) alwaysinline {
  %at = getelementptr ptr, ptr %facts, i64 %n
  %value = load ptr, ptr %at
  ret ptr %value
}

define internal ptr @inner(ptr %tensor) alwaysinline {
  %at = getelementptr i8, ptr %tensor, i64 $POINTER
  %impl = load ptr, ptr %at
  ret ptr %impl
}

define internal ptr @missed(ptr %facts) alwaysinline {
  %miss = call ptr @object(ptr %facts, i64 $MISS)
  call void @Py_IncRef(ptr %miss)
  ret ptr %miss
}

; The address of a tensor's elements; null where it has none to show.
define internal i64 @elements(ptr %tensor) {
  %handle = alloca ptr
  %found = alloca i64
  %impl = call ptr @inner(ptr %tensor)
  store ptr %impl, ptr %handle
  store i64 0, ptr %found
  %code = call i32 @aoti_torch_get_data_ptr(ptr %handle, ptr %found)
  %word = load i64, ptr %found
  %good = icmp eq i32 %code, 0
  %result = select i1 %good, i64 %word, i64 0
  ret i64 %result
}

; Whether an argument is what the kernel was compiled for: 0 it is, 1 it is not, 2 Python should look.
define internal i32 @fits(ptr %x, ptr %input, ptr %facts, ptr %to) {
start:
  %type.at = getelementptr i8, ptr %x, i64 8
  %type = load i64, ptr %type.at
  %usually = call i64 @fact(ptr %facts, i64 $TENSOR)
  %else = call i64 @fact(ptr %facts, i64 $PARAMETER)
  %plain = icmp eq i64 %type, %usually
  %parameter = icmp eq i64 %type, %else
  %tensor = or i1 %plain, %parameter
  br i1 %tensor, label %look, label %no
look:
  %impl = call ptr @inner(ptr %x)
  %count = call i64 @fact(ptr %input, i64 $WORDS)
  %from = call i64 @fact(ptr %input, i64 $PATTERN)
  br label %next
next:
  %n = phi i64 [ 0, %look ], [ %after, %same ]
  %p = phi i64 [ %from, %look ], [ %beyond, %same ]
  %more = icmp slt i64 %n, %count
  br i1 %more, label %compare, label %kind
compare:
  %place = call i64 @fact(ptr %facts, i64 %p)
  %p1 = add i64 %p, 1
  %mask = call i64 @fact(ptr %facts, i64 %p1)
  %p2 = add i64 %p, 2
  %wanted = call i64 @fact(ptr %facts, i64 %p2)
  %beyond = add i64 %p, 3
  %word = call i64 @fact(ptr %impl, i64 %place)
  %bits = and i64 %word, %mask
  %equal = icmp eq i64 %bits, %wanted
  br i1 %equal, label %same, label %no
same:
  %after = add i64 %n, 1
  br label %next
kind:
  %keys = call i64 @fact(ptr %impl, i64 $KEYS)
  %usual = icmp eq i64 %keys, $PLAIN
  %frozen = icmp eq i64 %keys, $INFERENCE
  %known = or i1 %usual, %frozen
  br i1 %known, label %address, label %ask
address:
  %where = call i64 @elements(ptr %x)
  store i64 %where, ptr %to
  %align = call i64 @fact(ptr %input, i64 $ALIGN)
  %odd = and i64 %where, %align
  %aligned = icmp eq i64 %odd, 0
  %there = icmp ne i64 %where, 0
  %good = and i1 %aligned, %there
  br i1 %good, label %yes, label %no
yes:
  ret i32 0
no:
  ret i32 1
ask:
  ret i32 2
}

; Whether autograd follows a call: 1 it does, 0 it does not, 2 forward mode may, -1 for an error.
define internal i32 @followed(ptr %args, ptr %facts) {
start:
  %count = call i64 @fact(ptr %facts, i64 $INPUTS)
  %from = call i64 @fact(ptr %facts, i64 $FIRST_INPUT)
  %name = call ptr @object(ptr %facts, i64 $REQUIRES_GRAD)
  br label %next
next:
  %n = phi i64 [ 0, %start ], [ %after, %on ]
  %place = phi i64 [ %from, %start ], [ %beyond, %on ]
  %more = icmp slt i64 %n, %count
  br i1 %more, label %one, label %no
one:
  %input = getelementptr i64, ptr %facts, i64 %place
  %float = call i64 @fact(ptr %input, i64 $FLOAT)
  %x = call ptr @PyTuple_GetItem(ptr %args, i64 %n)
  %impl = call ptr @inner(ptr %x)
  %state = call i64 @fact(ptr %impl, i64 $AUTOGRAD)
  %is = icmp ne i64 %float, 0
  %has = icmp ne i64 %state, 0
  %may = and i1 %is, %has
  br i1 %may, label %mode, label %on
mode:
  %module = call ptr @object(ptr %facts, i64 $FORWARD)
  %level.name = call ptr @object(ptr %facts, i64 $LEVEL)
  %level = call ptr @PyDict_GetItem(ptr %module, ptr %level.name)
  %level.word = ptrtoint ptr %level to i64
  %outside = call i64 @fact(ptr %facts, i64 $OUTSIDE)
  %backward = icmp eq i64 %level.word, %outside
  br i1 %backward, label %recorded, label %moving
recorded:
  %enabled = call zeroext i1 @aoti_torch_grad_mode_is_enabled()
  br i1 %enabled, label %ask, label %no
ask:
  %wanted = call ptr @PyObject_GetAttr(ptr %x, ptr %name)
  %bad = icmp eq ptr %wanted, null
  br i1 %bad, label %error, label %known
known:
  call void @Py_DecRef(ptr %wanted)
  %word = ptrtoint ptr %wanted to i64
  %true = call i64 @fact(ptr %facts, i64 $TRUE)
  %yes = icmp eq i64 %word, %true
  br i1 %yes, label %follow, label %on
on:
  %after = add i64 %n, 1
  %beyond = add i64 %place, $INPUT_WORDS
  br label %next
follow:
  ret i32 1
no:
  ret i32 0
moving:
  ret i32 2
error:
  ret i32 -1
}

; A tensor for a result; null without an error where Python should map memory for it.
define internal ptr @made(ptr %output, ptr %facts) {
  %class = call i64 @fact(ptr %output, i64 $FROM_POOL)
  %small = icmp eq i64 %class, 0
  br i1 %small, label %torch, label %pool
torch:
  %empty = call ptr @object(ptr %output, i64 $EMPTY)
  %sizes = call ptr @object(ptr %output, i64 $EMPTY_ARGS)
  %fresh = call ptr @PyObject_CallObject(ptr %empty, ptr %sizes)
  ret ptr %fresh
pool:
  %state = call ptr @object(ptr %facts, i64 $STATE)
  %record = call ptr @hand_take(ptr %state, i64 %class)
  %none = icmp eq ptr %record, null
  br i1 %none, label %nothing, label %wrap
nothing:
  ret ptr null
wrap:
  %kind = call i64 @fact(ptr %output, i64 $TENSOR_KIND)
  %place = call i64 @fact(ptr %output, i64 $SHAPE_AT)
  %shape = getelementptr i64, ptr %facts, i64 %place
  %export = call ptr @object(ptr %output, i64 $EXPORT)
  %tensor = call ptr @hand_wrap(ptr %record, i64 %kind, ptr %shape, ptr %export)
  ret ptr %tensor
}
"""
