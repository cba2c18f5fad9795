"""The machine code of :mod:`dlc.runtime.direct`: what is asked of arguments. ``$NAME`` stands for a number."""

from __future__ import annotations

#: The facts of a kernel: one word each, then its inputs and outputs, the numbers it begins with, and the steps to others.
FACTS = ("ENTRY", "STATE", "INPUTS", "OUTPUTS", "SPACES", "SIZES", "FIRST_INPUT", "FIRST_OUTPUT", "FIRST_SPACE", "FIRST_SIZE", "PRIVATE",
         "PER", "END", "SINGLE", "COUNT", "NUMBERS", "FIRST_NUMBER", "FIRST_STEP", "STEPS", "MORE_STEPS", "GATE", "OUTSIDE",
         "TRACKED", "SLOW", "SLOW_INTO", "SLOW_FILL", "RAISE", "MISS", "NONE", "TRUE", "TENSOR", "PARAMETER", "TUPLE", "LIST", "FLOAT_TYPE",
         "INT_TYPE", "BOOL_TYPE", "REQUIRES_GRAD", "FORWARD", "LEVEL", "CHANGED", "OWN", "OWN_CALL", "OWN_FILL")
INPUT = ("PATTERN", "WORDS", "ALIGN", "FLOAT", "KIND", "LOWEST", "HIGHEST", "SPAN")
OUTPUT = ("EMPTY", "EMPTY_ARGS", "DTYPE", "TENSOR_KIND", "DIMS", "SHAPE", "BYTES", "EXPORT", "OUT_PATTERN", "OUT_WORDS", "OUT_ALIGN",
          "OVER")
#: What an argument may be: a tensor, or a number for a parameter of f32, f64, integers, or bool.
KINDS = ("A_TENSOR", "AN_F32", "AN_F64", "AN_INTEGER", "A_BOOL")

TENSORS = """
declare ptr @PyTuple_GetItem(ptr, i64)
declare i64 @PyTuple_Size(ptr)
declare ptr @PyTuple_New(i64)
declare i32 @PyTuple_SetItem(ptr, i64, ptr)
declare ptr @PyBytes_AsString(ptr)
declare ptr @PyTuple_Pack(i64, ...)
declare ptr @PySequence_Tuple(ptr)
declare ptr @PyLong_FromLongLong(i64)
declare i64 @PyLong_AsLongLong(ptr)
declare double @PyFloat_AsDouble(ptr)
declare void @PyErr_Clear()
declare ptr @PyErr_Occurred()
declare ptr @PyObject_GetAttr(ptr, ptr)
declare ptr @PyDict_GetItem(ptr, ptr)
declare ptr @PyDict_GetItemWithError(ptr, ptr)
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

; Whether an argument is what the kernel was compiled for: 0 it is, 1 it is not, 2 Python should look. Numbers are put into room.
define internal i32 @fits(ptr %x, ptr %input, ptr %facts, ptr %to, ptr %room) {
start:
  %kind = call i64 @fact(ptr %input, i64 $KIND)
  %array = icmp eq i64 %kind, $A_TENSOR
  br i1 %array, label %tensor, label %number
tensor:
  %pattern = call i64 @fact(ptr %input, i64 $PATTERN)
  %words = call i64 @fact(ptr %input, i64 $WORDS)
  %align = call i64 @fact(ptr %input, i64 $ALIGN)
  %how = call i32 @like(ptr %x, ptr %facts, i64 %pattern, i64 %words, i64 %align, ptr %to)
  ret i32 %how
number:
  %type.at = getelementptr i8, ptr %x, i64 8
  %type = load i64, ptr %type.at
  %float.type = call i64 @fact(ptr %facts, i64 $FLOAT_TYPE)
  %int.type = call i64 @fact(ptr %facts, i64 $INT_TYPE)
  %bool.type = call i64 @fact(ptr %facts, i64 $BOOL_TYPE)
  %is.float = icmp eq i64 %type, %float.type
  %is.int = icmp eq i64 %type, %int.type
  %is.bool = icmp eq i64 %type, %bool.type
  %is.whole = or i1 %is.int, %is.bool
  %is.any = or i1 %is.float, %is.whole
  %place = ptrtoint ptr %room to i64
  store i64 %place, ptr %to
  switch i64 %kind, label %whole [ i64 $AN_F32, label %real
                                   i64 $AN_F64, label %real
                                   i64 $A_BOOL, label %truth ]
truth:
  br i1 %is.bool, label %integer, label %no
whole:
  br i1 %is.whole, label %integer, label %no
real:
  br i1 %is.any, label %convert, label %no
convert:
  %value = call double @PyFloat_AsDouble(ptr %x)
  %minus = fcmp oeq double %value, -1.0
  br i1 %minus, label %check, label %fine
check:
  %error = call ptr @PyErr_Occurred()
  %bad = icmp ne ptr %error, null
  br i1 %bad, label %wrong, label %fine
fine:
  %narrow = icmp eq i64 %kind, $AN_F32
  br i1 %narrow, label %single, label %double
single:
  %short = fptrunc double %value to float
  store float %short, ptr %room
  ret i32 0
double:
  store double %value, ptr %room
  ret i32 0
integer:
  %n = call i64 @PyLong_AsLongLong(ptr %x)
  %n.minus = icmp eq i64 %n, -1
  br i1 %n.minus, label %n.check, label %range
n.check:
  %n.error = call ptr @PyErr_Occurred()
  %n.bad = icmp ne ptr %n.error, null
  br i1 %n.bad, label %wrong, label %range
range:
  %low = call i64 @fact(ptr %input, i64 $LOWEST)
  %high = call i64 @fact(ptr %input, i64 $HIGHEST)
  %above = icmp sge i64 %n, %low
  %below = icmp sle i64 %n, %high
  %inside = and i1 %above, %below
  br i1 %inside, label %keep, label %no
keep:
  store i64 %n, ptr %room
  ret i32 0
wrong:
  call void @PyErr_Clear()
  ret i32 1
no:
  ret i32 1
}

; Whether a tensor has a pattern of words and elements in place: 0 it has, 1 it has not, 2 Python should look.
define internal i32 @like(ptr %x, ptr %facts, i64 %from, i64 %count, i64 %align, ptr %to) {
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

; Whether a tensor requires grad: 1 it does, 0 it does not, -1 for an error.
define internal i32 @requires(ptr %x, ptr %facts) {
start:
  %impl = call ptr @inner(ptr %x)
  %state = call i64 @fact(ptr %impl, i64 $AUTOGRAD)
  %has = icmp ne i64 %state, 0
  br i1 %has, label %ask, label %no
ask:
  %name = call ptr @object(ptr %facts, i64 $REQUIRES_GRAD)
  %wanted = call ptr @PyObject_GetAttr(ptr %x, ptr %name)
  %bad = icmp eq ptr %wanted, null
  br i1 %bad, label %error, label %known
known:
  call void @Py_DecRef(ptr %wanted)
  %true = call ptr @object(ptr %facts, i64 $TRUE)
  %yes = icmp eq ptr %wanted, %true
  %result = zext i1 %yes to i32
  ret i32 %result
no:
  ret i32 0
error:
  ret i32 -1
}

; Whether autograd follows a call: 1 it does, 0 it does not, 2 forward mode may, -1 for an error.
define internal i32 @followed(ptr %args, ptr %facts) {
start:
  %count = call i64 @fact(ptr %facts, i64 $INPUTS)
  %from = call i64 @fact(ptr %facts, i64 $FIRST_INPUT)
  br label %next
next:
  %n = phi i64 [ 0, %start ], [ %after, %on ]
  %place = phi i64 [ %from, %start ], [ %beyond, %on ]
  %more = icmp slt i64 %n, %count
  br i1 %more, label %one, label %no
one:
  %input = getelementptr i64, ptr %facts, i64 %place
  %float = call i64 @fact(ptr %input, i64 $FLOAT)
  %is = icmp ne i64 %float, 0
  br i1 %is, label %look, label %on
look:
  %x = call ptr @PyTuple_GetItem(ptr %args, i64 %n)
  %impl = call ptr @inner(ptr %x)
  %state = call i64 @fact(ptr %impl, i64 $AUTOGRAD)
  %has = icmp ne i64 %state, 0
  br i1 %has, label %mode, label %on
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
  %wanted = call i32 @requires(ptr %x, ptr %facts)
  %not = icmp eq i32 %wanted, 0
  br i1 %not, label %on, label %found
on:
  %after = add i64 %n, 1
  %beyond = add i64 %place, $INPUT_WORDS
  br label %next
found:
  ret i32 %wanted
no:
  ret i32 0
moving:
  ret i32 2
}
"""
