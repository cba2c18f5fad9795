"""The machine code of :mod:`dlc.runtime.direct`: a call from beginning to end. ``$NAME`` stands for a number."""

from __future__ import annotations

#: The ways to call.
WAYS = ("CALL", "INTO", "FILL")

CALLS = """
; way: CALL, where autograd is asked, and a single result given as it is; INTO, for tensors that fit and a tuple of results, outs being
; a tuple of tensors or None; FILL, for what the user gives.
define internal ptr @run(ptr %self, ptr %args, ptr %outs, i32 %way) {
start:
  %held = call ptr @PyTuple_GetItem(ptr %self, i64 0)
  %facts = call ptr @PyBytes_AsString(ptr %held)
  %inputs = call i64 @fact(ptr %facts, i64 $INPUTS)
  %outputs = call i64 @fact(ptr %facts, i64 $OUTPUTS)
  %count = call i64 @fact(ptr %facts, i64 $COUNT)
  %row = call i64 @fact(ptr %facts, i64 $NUMBERS)
  %words = alloca i64, i64 %count
  %rooms = alloca i64, i64 %inputs
  %results = alloca ptr, i64 %outputs
  %numbers = alloca i64, i64 %row
  %state = alloca i32
  %is.call = icmp eq i32 %way, $CALL
  %is.into = icmp eq i32 %way, $INTO
  %is.fill = icmp eq i32 %way, $FILL
  %nothing = call ptr @object(ptr %facts, i64 $NONE)
  %gate = call ptr @object(ptr %facts, i64 $GATE)
  %closed = load i64, ptr %gate
  %open = icmp eq i64 %closed, 0
  br i1 %open, label %size, label %slow
size:
  %given = call i64 @PyTuple_Size(ptr %args)
  %right = icmp eq i64 %given, %inputs
  br i1 %right, label %look, label %miss
look:
  %first.input = call i64 @fact(ptr %facts, i64 $FIRST_INPUT)
  br label %next.input
next.input:
  %n = phi i64 [ 0, %look ], [ %n.after, %input.good ]
  %input.at = phi i64 [ %first.input, %look ], [ %input.after, %input.good ]
  %more = icmp slt i64 %n, %inputs
  br i1 %more, label %one.input, label %constants
one.input:
  %x = call ptr @PyTuple_GetItem(ptr %args, i64 %n)
  %input = getelementptr i64, ptr %facts, i64 %input.at
  %word.at = getelementptr i64, ptr %words, i64 %n
  %room = getelementptr i64, ptr %rooms, i64 %n
  %how = call i32 @fits(ptr %x, ptr %input, ptr %facts, ptr %word.at, ptr %room)
  switch i32 %how, label %slow [ i32 0, label %input.good
                                 i32 1, label %miss ]
input.good:
  %n.after = add i64 %n, 1
  %input.after = add i64 %input.at, $INPUT_WORDS
  br label %next.input

constants:
  %constant.from = call i64 @fact(ptr %facts, i64 $FIRST_NUMBER)
  br label %next.constant
next.constant:
  %c = phi i64 [ 0, %constants ], [ %c.after, %one.constant ]
  %c.more = icmp slt i64 %c, %row
  br i1 %c.more, label %one.constant, label %steps
one.constant:
  %c.from = add i64 %constant.from, %c
  %constant = call i64 @fact(ptr %facts, i64 %c.from)
  %c.to = getelementptr i64, ptr %numbers, i64 %c
  store i64 %constant, ptr %c.to
  %c.after = add i64 %c, 1
  br label %next.constant
steps:
  %first.step = call i64 @fact(ptr %facts, i64 $FIRST_STEP)
  %few = call i64 @fact(ptr %facts, i64 $STEPS)
  %many = call i64 @fact(ptr %facts, i64 $MORE_STEPS)
  %step.count = select i1 %is.fill, i64 %many, i64 %few
  %taken = call i32 @taken(ptr %facts, ptr %args, ptr %numbers, i64 %first.step, i64 %step.count)
  switch i32 %taken, label %slow [ i32 0, label %sized
                                   i32 1, label %miss ]
sized:
  br i1 %is.into, label %make, label %another
another:
  %others = call ptr @own(ptr %facts, ptr %numbers, ptr %args, ptr %outs, i32 %way, ptr %state)
  %decided = icmp ne ptr %others, null
  br i1 %decided, label %by.others, label %undecided
by.others:
  ret ptr %others
undecided:
  %next.way = load i32, ptr %state
  switch i32 %next.way, label %error [ i32 0, label %ask
                                       i32 1, label %slow ]
ask:
  %follow = call i32 @followed(ptr %args, ptr %facts)
  switch i32 %follow, label %error [ i32 0, label %make
                                     i32 1, label %tracked
                                     i32 2, label %miss ]
tracked:
  %tracker = call ptr @object(ptr %facts, i64 $TRACKED)
  %there = icmp ne ptr %tracker, null
  %may.track = and i1 %there, %is.call
  br i1 %may.track, label %track, label %miss
track:
  %by.autograd = call ptr (ptr, ...) @PyObject_CallFunctionObjArgs(ptr %tracker, ptr %args, ptr null)
  ret ptr %by.autograd

make:
  %single = call i64 @fact(ptr %facts, i64 $SINGLE)
  %one.result = icmp ne i64 %single, 0
  %first.output = call i64 @fact(ptr %facts, i64 $FIRST_OUTPUT)
  %some = icmp ne ptr %outs, %nothing
  %taking = and i1 %some, %is.into
  %filled = or i1 %taking, %is.fill
  %unpack = xor i1 %one.result, true
  %several = and i1 %is.fill, %unpack
  br i1 %several, label %sequence, label %next.output
sequence:
  %outs.type.at = getelementptr i8, ptr %outs, i64 8
  %outs.type = load ptr, ptr %outs.type.at
  %tuple.type = call ptr @object(ptr %facts, i64 $TUPLE)
  %list.type = call ptr @object(ptr %facts, i64 $LIST)
  %is.tuple = icmp eq ptr %outs.type, %tuple.type
  %is.list = icmp eq ptr %outs.type, %list.type
  %is.sequence = or i1 %is.tuple, %is.list
  br i1 %is.sequence, label %length, label %miss
length:
  %outs.tuple = call ptr @PySequence_Tuple(ptr %outs)
  %no.tuple = icmp eq ptr %outs.tuple, null
  br i1 %no.tuple, label %error, label %counted
counted:
  %outs.count = call i64 @PyTuple_Size(ptr %outs.tuple)
  %as.many = icmp eq i64 %outs.count, %outputs
  br i1 %as.many, label %next.output, label %unpacked
unpacked:
  call void @Py_DecRef(ptr %outs.tuple)
  br label %miss

next.output:
  %m = phi i64 [ 0, %make ], [ 0, %counted ], [ %m.after, %output.good ]
  %output.at = phi i64 [ %first.output, %make ], [ %first.output, %counted ], [ %output.after, %output.good ]
  %from.tuple = phi ptr [ %outs, %make ], [ %outs.tuple, %counted ], [ %from.tuple, %output.good ]
  %m.more = icmp slt i64 %m, %outputs
  br i1 %m.more, label %one.output, label %launch
one.output:
  %output = getelementptr i64, ptr %facts, i64 %output.at
  %k = add i64 %inputs, %m
  %where.at = getelementptr i64, ptr %words, i64 %k
  br i1 %filled, label %take.output, label %make.output
take.output:
  %just.it = and i1 %is.fill, %one.result
  br i1 %just.it, label %hold, label %item
item:
  %taken.item = call ptr @PyTuple_GetItem(ptr %from.tuple, i64 %m)
  %lacking = icmp eq ptr %taken.item, null
  br i1 %lacking, label %drop, label %hold
hold:
  %taken.output = phi ptr [ %outs, %take.output ], [ %taken.item, %item ]
  call void @Py_IncRef(ptr %taken.output)
  br label %have.output
make.output:
  %fresh = call ptr @made(ptr %output, ptr %facts, ptr %numbers)
  %lacks = icmp eq ptr %fresh, null
  br i1 %lacks, label %drop, label %have.output
have.output:
  %y = phi ptr [ %taken.output, %hold ], [ %fresh, %make.output ]
  %y.at = getelementptr ptr, ptr %results, i64 %m
  store ptr %y, ptr %y.at
  %m.after = add i64 %m, 1
  %output.after = add i64 %output.at, $OUTPUT_WORDS
  br i1 %is.fill, label %check.output, label %trust
trust:
  %where = call i64 @elements(ptr %y)
  store i64 %where, ptr %where.at
  br label %output.good
check.output:
  %target = call i32 @target(ptr %y, ptr %output, ptr %facts, ptr %numbers, ptr %where.at)
  %good.target = icmp eq i32 %target, 0
  br i1 %good.target, label %apart, label %unfit
apart:
  %shared = call i1 @shared(ptr %facts, ptr %numbers, ptr %words, i64 %m)
  br i1 %shared, label %unfit, label %output.good
unfit:
  br label %drop
output.good:
  br label %next.output

launch:
  %code = call i64 @launched(ptr %facts, ptr %numbers, ptr %words)
  switch i64 %code, label %failed [ i64 0, label %ran
                                    i64 -1, label %drop ]
failed:
  %number = call ptr @PyLong_FromLongLong(i64 %code)
  %raise = call ptr @object(ptr %facts, i64 $RAISE)
  %0 = call ptr (ptr, ...) @PyObject_CallFunctionObjArgs(ptr %raise, ptr %number, ptr %args, ptr null)
  call void @Py_DecRef(ptr %number)
  br label %drop
ran:
  br i1 %is.fill, label %next.change, label %give
next.change:
  %h = phi i64 [ 0, %ran ], [ %h.after, %one.change ]
  %h.more = icmp slt i64 %h, %outputs
  br i1 %h.more, label %change, label %all.changed
change:
  %h.at = getelementptr ptr, ptr %results, i64 %h
  %h.object = load ptr, ptr %h.at
  %h.done = call ptr @changed(ptr %h.object, ptr %facts)
  %h.bad = icmp eq ptr %h.done, null
  br i1 %h.bad, label %drop, label %one.change
one.change:
  %h.after = add i64 %h, 1
  br label %next.change
all.changed:
  call void @Py_IncRef(ptr %outs)
  br label %drop
give:
  %bare = and i1 %one.result, %is.call
  br i1 %bare, label %alone, label %together
alone:
  %result = load ptr, ptr %results
  ret ptr %result
together:
  %all = call ptr @PyTuple_New(i64 %outputs)
  %no.room = icmp eq ptr %all, null
  br i1 %no.room, label %drop, label %next.result
next.result:
  %r = phi i64 [ 0, %together ], [ %r.after, %one.more ]
  %r.more = icmp slt i64 %r, %outputs
  br i1 %r.more, label %one.more, label %done
one.more:
  %r.at = getelementptr ptr, ptr %results, i64 %r
  %r.object = load ptr, ptr %r.at
  %1 = call i32 @PyTuple_SetItem(ptr %all, i64 %r, ptr %r.object)
  %r.after = add i64 %r, 1
  br label %next.result
done:
  ret ptr %all

; What was made or held so far is let go, then the user's own is given back, or there is an error, or Python tries.
drop:
  %made = phi i64 [ %m, %item ], [ %m, %make.output ], [ %m.after, %unfit ], [ %outputs, %launch ], [ %outputs, %failed ],
                  [ %outputs, %change ], [ %outputs, %all.changed ], [ %outputs, %together ]
  %finished = phi i1 [ false, %item ], [ false, %make.output ], [ false, %unfit ], [ false, %launch ], [ false, %failed ],
                     [ false, %change ], [ true, %all.changed ], [ false, %together ]
  br label %next.drop
next.drop:
  %d = phi i64 [ 0, %drop ], [ %d.after, %one.drop ]
  %d.more = icmp slt i64 %d, %made
  br i1 %d.more, label %one.drop, label %dropped
one.drop:
  %d.at = getelementptr ptr, ptr %results, i64 %d
  %d.object = load ptr, ptr %d.at
  call void @Py_DecRef(ptr %d.object)
  %d.after = add i64 %d, 1
  br label %next.drop
dropped:
  br i1 %several, label %let.go, label %end
let.go:
  call void @Py_DecRef(ptr %from.tuple)
  br label %end
end:
  br i1 %finished, label %theirs, label %whether
theirs:
  ret ptr %outs
whether:
  %wrong = call ptr @PyErr_Occurred()
  %bad = icmp ne ptr %wrong, null
  br i1 %bad, label %error, label %slow
slow:
  switch i32 %way, label %by.call [ i32 $INTO, label %by.into
                                    i32 $FILL, label %by.fill ]
by.call:
  %slow.call = call ptr @object(ptr %facts, i64 $SLOW)
  %called = call ptr (ptr, ...) @PyObject_CallFunctionObjArgs(ptr %slow.call, ptr %args, ptr null)
  ret ptr %called
by.into:
  %slow.into = call ptr @object(ptr %facts, i64 $SLOW_INTO)
  %put = call ptr (ptr, ...) @PyObject_CallFunctionObjArgs(ptr %slow.into, ptr %args, ptr %outs, ptr null)
  ret ptr %put
by.fill:
  %slow.fill = call ptr @object(ptr %facts, i64 $SLOW_FILL)
  %filled.slowly = call ptr (ptr, ...) @PyObject_CallFunctionObjArgs(ptr %slow.fill, ptr %args, ptr %outs, ptr null)
  ret ptr %filled.slowly
miss:
  %missed = call ptr @missed(ptr %facts)
  ret ptr %missed
error:
  ret ptr null
}

define ptr @direct_call(ptr %self, ptr %args) {
  %result = call ptr @run(ptr %self, ptr %args, ptr %args, i32 $CALL)
  ret ptr %result
}

define ptr @direct_into(ptr %self, ptr %given, i64 %count) {
  %args = load ptr, ptr %given
  %outs.at = getelementptr ptr, ptr %given, i64 1
  %outs = load ptr, ptr %outs.at
  %result = call ptr @run(ptr %self, ptr %args, ptr %outs, i32 $INTO)
  ret ptr %result
}

define ptr @direct_fill(ptr %self, ptr %given, i64 %count) {
  %args = load ptr, ptr %given
  %outs.at = getelementptr ptr, ptr %given, i64 1
  %outs = load ptr, ptr %outs.at
  %result = call ptr @run(ptr %self, ptr %args, ptr %outs, i32 $FILL)
  ret ptr %result
}
"""
