"""The machine code of :mod:`dlc.runtime.direct`: memory for results, made or given. ``$NAME`` stands for a number."""

from __future__ import annotations

RESULTS = """
; The class of a block for so many bytes, as dlc.memory counts them.
define internal i64 @class_of(i64 %bytes) {
  %few = icmp slt i64 %bytes, 1
  %size = select i1 %few, i64 1, i64 %bytes
  %zeros = call i64 @llvm.ctlz.i64(i64 %size, i1 true)
  %bits = sub i64 64, %zeros
  %less = sub i64 %bits, 4
  %short = icmp slt i64 %less, 0
  %shift = select i1 %short, i64 0, i64 %less
  %eighth = shl i64 1, %shift
  %small = icmp slt i64 %size, $HUGE
  %page = select i1 %small, i64 $PAGE, i64 $HUGE
  %coarse = icmp sgt i64 %eighth, %page
  %step = select i1 %coarse, i64 %eighth, i64 %page
  %most = sub i64 %step, 1
  %sum = add i64 %size, %most
  %mask = sub i64 0, %step
  %rounded = and i64 %sum, %mask
  %r.zeros = call i64 @llvm.ctlz.i64(i64 %rounded, i1 true)
  %r.bits = sub i64 64, %r.zeros
  %by = sub i64 %r.bits, 4
  %top = lshr i64 %rounded, %by
  %low = and i64 %top, 7
  %high = mul i64 %r.bits, 8
  %class = add i64 %high, %low
  ret i64 %class
}
declare i64 @llvm.ctlz.i64(i64, i1)

; A tuple of some numbers, given by where their numbers stand; null for an error.
define internal ptr @tuple(ptr %facts, ptr %numbers, i64 %from, i64 %count) {
start:
  %made = call ptr @PyTuple_New(i64 %count)
  %failed = icmp eq ptr %made, null
  br i1 %failed, label %error, label %next
next:
  %n = phi i64 [ 0, %start ], [ %after, %put ]
  %more = icmp slt i64 %n, %count
  br i1 %more, label %one, label %done
one:
  %at = add i64 %from, %n
  %which = call i64 @fact(ptr %facts, i64 %at)
  %value = call i64 @fact(ptr %numbers, i64 %which)
  %object = call ptr @PyLong_FromLongLong(i64 %value)
  %bad = icmp eq ptr %object, null
  br i1 %bad, label %drop, label %put
put:
  %0 = call i32 @PyTuple_SetItem(ptr %made, i64 %n, ptr %object)
  %after = add i64 %n, 1
  br label %next
drop:
  call void @Py_DecRef(ptr %made)
  br label %error
done:
  ret ptr %made
error:
  ret ptr null
}

; A small tensor of a shape that is known now.
define internal ptr @small(ptr %output, ptr %facts, ptr %numbers) {
start:
  %dims = call i64 @fact(ptr %output, i64 $DIMS)
  %from = call i64 @fact(ptr %output, i64 $SHAPE)
  %shape = call ptr @tuple(ptr %facts, ptr %numbers, i64 %from, i64 %dims)
  %no.shape = icmp eq ptr %shape, null
  br i1 %no.shape, label %error, label %stride
stride:
  %strides.from = add i64 %from, %dims
  %strides = call ptr @tuple(ptr %facts, ptr %numbers, i64 %strides.from, i64 %dims)
  %no.strides = icmp eq ptr %strides, null
  br i1 %no.strides, label %drop, label %make
make:
  %empty = call ptr @object(ptr %output, i64 $EMPTY)
  %dtype = call ptr @object(ptr %output, i64 $DTYPE)
  %made = call ptr (ptr, ...) @PyObject_CallFunctionObjArgs(ptr %empty, ptr %shape, ptr %strides, ptr %dtype, ptr null)
  call void @Py_DecRef(ptr %strides)
  br label %drop
drop:
  %result = phi ptr [ null, %stride ], [ %made, %make ]
  call void @Py_DecRef(ptr %shape)
  ret ptr %result
error:
  ret ptr null
}

; A tensor for a result; null without an error where Python should map memory for it.
define internal ptr @made(ptr %output, ptr %facts, ptr %numbers) {
start:
  %which = call i64 @fact(ptr %output, i64 $BYTES)
  %bytes = call i64 @fact(ptr %numbers, i64 %which)
  %large = icmp sge i64 %bytes, $THRESHOLD
  br i1 %large, label %pool, label %torch
torch:
  %sizes = call ptr @object(ptr %output, i64 $EMPTY_ARGS)
  %varies = icmp eq ptr %sizes, null
  br i1 %varies, label %build, label %again
again:
  %empty = call ptr @object(ptr %output, i64 $EMPTY)
  %fresh = call ptr @PyObject_CallObject(ptr %empty, ptr %sizes)
  ret ptr %fresh
build:
  %built = call ptr @small(ptr %output, ptr %facts, ptr %numbers)
  ret ptr %built
pool:
  %class = call i64 @class_of(i64 %bytes)
  %state = call ptr @object(ptr %facts, i64 $STATE)
  %record = call ptr @hand_take(ptr %state, i64 %class)
  %none = icmp eq ptr %record, null
  br i1 %none, label %nothing, label %shape
nothing:
  ret ptr null
shape:
  %dims = call i64 @fact(ptr %output, i64 $DIMS)
  %from = call i64 @fact(ptr %output, i64 $SHAPE)
  %room = getelementptr i64, ptr %record, i64 $RECORD_DIMS
  br label %next
next:
  %n = phi i64 [ 0, %shape ], [ %after, %one ]
  %more = icmp slt i64 %n, %dims
  br i1 %more, label %one, label %wrap
one:
  %at = add i64 %from, %n
  %number = call i64 @fact(ptr %facts, i64 %at)
  %size = call i64 @fact(ptr %numbers, i64 %number)
  %to = getelementptr i64, ptr %room, i64 %n
  store i64 %size, ptr %to
  %after = add i64 %n, 1
  br label %next
wrap:
  %kind = call i64 @fact(ptr %output, i64 $TENSOR_KIND)
  %export = call ptr @object(ptr %output, i64 $EXPORT)
  %tensor = call ptr @hand_wrap(ptr %record, i64 %kind, ptr %room, ptr %export)
  ret ptr %tensor
}

; Whether a tensor can be written to as a result: 0 it can, 1 it is no such tensor, 2 Python should look, -1 for an error.
define internal i32 @target(ptr %y, ptr %output, ptr %facts, ptr %numbers, ptr %to) {
start:
  %pattern = call i64 @fact(ptr %output, i64 $OUT_PATTERN)
  %words = call i64 @fact(ptr %output, i64 $OUT_WORDS)
  %align = call i64 @fact(ptr %output, i64 $OUT_ALIGN)
  %how = call i32 @like(ptr %y, ptr %facts, i64 %pattern, i64 %words, i64 %align, ptr %to)
  %is = icmp eq i32 %how, 0
  br i1 %is, label %shape, label %other
other:
  ret i32 %how
shape:
  %impl = call ptr @inner(ptr %y)
  %dims = call i64 @fact(ptr %output, i64 $DIMS)
  %from = call i64 @fact(ptr %output, i64 $SHAPE)
  br label %next
next:
  %n = phi i64 [ 0, %shape ], [ %after, %good ]
  %more = icmp slt i64 %n, %dims
  br i1 %more, label %one, label %free
one:
  %size.at = add i64 %from, %n
  %size.number = call i64 @fact(ptr %facts, i64 %size.at)
  %size = call i64 @fact(ptr %numbers, i64 %size.number)
  %step.at = add i64 %size.at, %dims
  %step.number = call i64 @fact(ptr %facts, i64 %step.at)
  %step = call i64 @fact(ptr %numbers, i64 %step.number)
  %size.place = add i64 %n, $SIZE_PLACE
  %step.place = add i64 %n, $STRIDE_PLACE
  %has.size = call i64 @fact(ptr %impl, i64 %size.place)
  %has.step = call i64 @fact(ptr %impl, i64 %step.place)
  %size.same = icmp eq i64 %has.size, %size
  %step.same = icmp eq i64 %has.step, %step
  %once = icmp eq i64 %size, 1
  %any = or i1 %step.same, %once
  %right = and i1 %size.same, %any
  br i1 %right, label %good, label %no
good:
  %after = add i64 %n, 1
  br label %next
free:
  %enabled = call zeroext i1 @aoti_torch_grad_mode_is_enabled()
  br i1 %enabled, label %ask, label %yes
ask:
  %wanted = call i32 @requires(ptr %y, ptr %facts)
  ret i32 %wanted
yes:
  ret i32 0
no:
  ret i32 1
}

; Whether the memory of a result may be that of something else: from one address on and from the other.
define internal i1 @meets(i64 %a, i64 %a.bytes, i64 %b, i64 %b.bytes) {
start:
  %a.end = add i64 %a, %a.bytes
  %b.end = add i64 %b, %b.bytes
  %0 = icmp ult i64 %a, %b.end
  %1 = icmp ult i64 %b, %a.end
  %result = and i1 %0, %1
  ret i1 %result
}

; Whether result m of those given shares memory with an argument that it may not be written over, or with a result before it.
define internal i1 @shared(ptr %facts, ptr %numbers, ptr %words, i64 %m) {
start:
  %inputs = call i64 @fact(ptr %facts, i64 $INPUTS)
  %first.output = call i64 @fact(ptr %facts, i64 $FIRST_OUTPUT)
  %output.offset = mul i64 %m, $OUTPUT_WORDS
  %output.at = add i64 %first.output, %output.offset
  %output = getelementptr i64, ptr %facts, i64 %output.at
  %over = call i64 @fact(ptr %output, i64 $OVER)
  %bytes.number = call i64 @fact(ptr %output, i64 $BYTES)
  %bytes = call i64 @fact(ptr %numbers, i64 %bytes.number)
  %k = add i64 %inputs, %m
  %where = call i64 @fact(ptr %words, i64 %k)
  %first.input = call i64 @fact(ptr %facts, i64 $FIRST_INPUT)
  br label %next
next:
  %n = phi i64 [ 0, %start ], [ %after, %apart ]
  %at = phi i64 [ %first.input, %start ], [ %at.after, %apart ]
  %more = icmp slt i64 %n, %inputs
  br i1 %more, label %one, label %next.other
one:
  %input = getelementptr i64, ptr %facts, i64 %at
  %span.number = call i64 @fact(ptr %input, i64 $SPAN)
  %span = call i64 @fact(ptr %numbers, i64 %span.number)
  %place = call i64 @fact(ptr %words, i64 %n)
  %meet = call i1 @meets(i64 %where, i64 %bytes, i64 %place, i64 %span)
  %same = icmp eq i64 %where, %place
  %bit = lshr i64 %over, %n
  %low = and i64 %bit, 1
  %may = icmp ne i64 %low, 0
  %just = and i1 %same, %may
  %allowed = xor i1 %just, true
  %bad = and i1 %meet, %allowed
  br i1 %bad, label %yes, label %apart
apart:
  %after = add i64 %n, 1
  %at.after = add i64 %at, $INPUT_WORDS
  br label %next
next.other:
  %r = phi i64 [ 0, %next ], [ %r.after, %r.apart ]
  %r.at = phi i64 [ %first.output, %next ], [ %r.at.after, %r.apart ]
  %r.more = icmp slt i64 %r, %m
  br i1 %r.more, label %other, label %no
other:
  %another = getelementptr i64, ptr %facts, i64 %r.at
  %r.number = call i64 @fact(ptr %another, i64 $BYTES)
  %r.bytes = call i64 @fact(ptr %numbers, i64 %r.number)
  %r.k = add i64 %inputs, %r
  %r.where = call i64 @fact(ptr %words, i64 %r.k)
  %r.meet = call i1 @meets(i64 %where, i64 %bytes, i64 %r.where, i64 %r.bytes)
  br i1 %r.meet, label %yes, label %r.apart
r.apart:
  %r.after = add i64 %r, 1
  %r.at.after = add i64 %r.at, $OUTPUT_WORDS
  br label %next.other
yes:
  ret i1 true
no:
  ret i1 false
}

; Tell torch that a tensor was written to; null for an error.
define internal ptr @changed(ptr %y, ptr %facts) {
start:
  %impl = call ptr @inner(ptr %y)
  %keys = call i64 @fact(ptr %impl, i64 $KEYS)
  %frozen = icmp eq i64 %keys, $INFERENCE
  br i1 %frozen, label %silent, label %tell
silent:
  ret ptr %y
tell:
  %pack = call ptr (i64, ...) @PyTuple_Pack(i64 1, ptr %y)
  %none = icmp eq ptr %pack, null
  br i1 %none, label %error, label %call
call:
  %changed = call ptr @object(ptr %facts, i64 $CHANGED)
  %done = call ptr (ptr, ...) @PyObject_CallFunctionObjArgs(ptr %changed, ptr %pack, ptr null)
  call void @Py_DecRef(ptr %pack)
  %failed = icmp eq ptr %done, null
  br i1 %failed, label %error, label %told
told:
  call void @Py_DecRef(ptr %done)
  ret ptr %y
error:
  ret ptr null
}
"""
