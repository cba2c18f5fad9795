"""The machine code of :mod:`dlc.runtime.direct`: a call from beginning to end. ``$NAME`` stands for a number."""

from __future__ import annotations

CALLS = """
; Run the code with private memory around it: its code, or -1 where Python should map that memory.
define internal i64 @launched(ptr %facts, ptr %words) {
start:
  %many.at = alloca i32
  store i32 1, ptr %many.at
  %0 = call i32 @torch_get_num_threads(ptr %many.at)
  %many.short = load i32, ptr %many.at
  %many = zext i32 %many.short to i64
  %entry = call ptr @object(ptr %facts, i64 $ENTRY)
  %classes = call i64 @fact(ptr %facts, i64 $FIRST_CLASS)
  %bare = icmp eq i64 %classes, 0
  br i1 %bare, label %run, label %private
private:
  %too.many = icmp sgt i64 %many, $MOST_THREADS
  br i1 %too.many, label %nothing, label %take
take:
  %class.at = add i64 %classes, %many
  %class = call i64 @fact(ptr %facts, i64 %class.at)
  %state = call ptr @object(ptr %facts, i64 $STATE)
  %record = call ptr @hand_take(ptr %state, i64 %class)
  %none = icmp eq ptr %record, null
  br i1 %none, label %nothing, label %place
place:
  %base = call i64 @fact(ptr %record, i64 $DATA)
  %inputs = call i64 @fact(ptr %facts, i64 $INPUTS)
  %outputs = call i64 @fact(ptr %facts, i64 $OUTPUTS)
  %spaces = call i64 @fact(ptr %facts, i64 $SPACES)
  %from = call i64 @fact(ptr %facts, i64 $FIRST_SPACE)
  %first = add i64 %inputs, %outputs
  %per = call i64 @fact(ptr %facts, i64 $PER)
  %offset = call i64 @fact(ptr %facts, i64 $SCRATCH)
  %behind = add i64 %base, %offset
  %wanted = icmp ne i64 %per, 0
  %scratch.word = select i1 %wanted, i64 %behind, i64 0
  %scratch.private = inttoptr i64 %scratch.word to ptr
  br label %next
next:
  %n = phi i64 [ 0, %place ], [ %after, %one ]
  %more = icmp slt i64 %n, %spaces
  br i1 %more, label %one, label %run
one:
  %space.at = add i64 %from, %n
  %space = call i64 @fact(ptr %facts, i64 %space.at)
  %word = add i64 %base, %space
  %k = add i64 %first, %n
  %to = getelementptr i64, ptr %words, i64 %k
  store i64 %word, ptr %to
  %after = add i64 %n, 1
  br label %next
run:
  %block = phi ptr [ null, %start ], [ %record, %next ]
  %scratch = phi ptr [ null, %start ], [ %scratch.private, %next ]
  %unlocked = call ptr @PyEval_SaveThread()
  %code = call i32 %entry(ptr %words, ptr %scratch, i64 %many)
  call void @PyEval_RestoreThread(ptr %unlocked)
  %kept = icmp ne ptr %block, null
  br i1 %kept, label %give, label %done
give:
  call void @hand_give(ptr %block)
  br label %done
done:
  %wide = zext i32 %code to i64
  ret i64 %wide
nothing:
  ret i64 -1
}

; user: whether autograd is asked, and a single result given as it is; if not, outs is a tuple of tensors to write to, or None.
define internal ptr @run(ptr %self, ptr %args, ptr %outs, i1 %user) {
start:
  %held = call ptr @PyTuple_GetItem(ptr %self, i64 0)
  %facts = call ptr @PyBytes_AsString(ptr %held)
  %inputs = call i64 @fact(ptr %facts, i64 $INPUTS)
  %outputs = call i64 @fact(ptr %facts, i64 $OUTPUTS)
  %count = call i64 @fact(ptr %facts, i64 $COUNT)
  %words = alloca i64, i64 %count
  %results = alloca ptr, i64 %outputs
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
  br i1 %more, label %one.input, label %checked
one.input:
  %x = call ptr @PyTuple_GetItem(ptr %args, i64 %n)
  %input = getelementptr i64, ptr %facts, i64 %input.at
  %word.at = getelementptr i64, ptr %words, i64 %n
  %how = call i32 @fits(ptr %x, ptr %input, ptr %facts, ptr %word.at)
  switch i32 %how, label %slow [ i32 0, label %input.good
                                 i32 1, label %miss ]
input.good:
  %n.after = add i64 %n, 1
  %input.after = add i64 %input.at, $INPUT_WORDS
  br label %next.input
checked:
  br i1 %user, label %ask, label %make
ask:
  %follow = call i32 @followed(ptr %args, ptr %facts)
  switch i32 %follow, label %error [ i32 0, label %make
                                     i32 1, label %tracked
                                     i32 2, label %miss ]
tracked:
  %tracker = call ptr @object(ptr %facts, i64 $TRACKED)
  %untracked = icmp eq ptr %tracker, null
  br i1 %untracked, label %miss, label %track
track:
  %by.autograd = call ptr (ptr, ...) @PyObject_CallFunctionObjArgs(ptr %tracker, ptr %args, ptr null)
  ret ptr %by.autograd
make:
  %first.output = call i64 @fact(ptr %facts, i64 $FIRST_OUTPUT)
  %nothing = call ptr @object(ptr %facts, i64 $NONE)
  %some = icmp ne ptr %outs, %nothing
  %inner.call = xor i1 %user, true
  %filled = and i1 %some, %inner.call
  br label %next.output
next.output:
  %m = phi i64 [ 0, %make ], [ %m.after, %output.good ]
  %output.at = phi i64 [ %first.output, %make ], [ %output.after, %output.good ]
  %m.more = icmp slt i64 %m, %outputs
  br i1 %m.more, label %one.output, label %launch
one.output:
  br i1 %filled, label %take.output, label %make.output
take.output:
  %taken = call ptr @PyTuple_GetItem(ptr %outs, i64 %m)
  %lacking = icmp eq ptr %taken, null
  br i1 %lacking, label %drop, label %hold
hold:
  call void @Py_IncRef(ptr %taken)
  br label %have.output
make.output:
  %output = getelementptr i64, ptr %facts, i64 %output.at
  %fresh = call ptr @made(ptr %output, ptr %facts)
  %lacks = icmp eq ptr %fresh, null
  br i1 %lacks, label %drop, label %have.output
have.output:
  %y = phi ptr [ %taken, %hold ], [ %fresh, %make.output ]
  %y.at = getelementptr ptr, ptr %results, i64 %m
  store ptr %y, ptr %y.at
  %where = call i64 @elements(ptr %y)
  %k = add i64 %inputs, %m
  %where.at = getelementptr i64, ptr %words, i64 %k
  store i64 %where, ptr %where.at
  br label %output.good
output.good:
  %m.after = add i64 %m, 1
  %output.after = add i64 %output.at, $OUTPUT_WORDS
  br label %next.output
launch:
  %code = call i64 @launched(ptr %facts, ptr %words)
  switch i64 %code, label %failed [ i64 0, label %give
                                    i64 -1, label %drop ]
failed:
  %number = call ptr @PyLong_FromLong(i64 %code)
  %raise = call ptr @object(ptr %facts, i64 $RAISE)
  %1 = call ptr (ptr, ...) @PyObject_CallFunctionObjArgs(ptr %raise, ptr %number, ptr %args, ptr null)
  call void @Py_DecRef(ptr %number)
  br label %drop
give:
  %single = call i64 @fact(ptr %facts, i64 $SINGLE)
  %one.result = icmp ne i64 %single, 0
  %bare = and i1 %one.result, %user
  br i1 %bare, label %alone, label %together
alone:
  %result = load ptr, ptr %results
  ret ptr %result
together:
  %all = call ptr @PyTuple_New(i64 %outputs)
  br label %next.result
next.result:
  %r = phi i64 [ 0, %together ], [ %r.after, %one.more ]
  %r.more = icmp slt i64 %r, %outputs
  br i1 %r.more, label %one.more, label %done
one.more:
  %r.at = getelementptr ptr, ptr %results, i64 %r
  %r.object = load ptr, ptr %r.at
  %2 = call i32 @PyTuple_SetItem(ptr %all, i64 %r, ptr %r.object)
  %r.after = add i64 %r, 1
  br label %next.result
done:
  ret ptr %all

; What was made so far is let go, then there is an error, or Python tries.
drop:
  %made = phi i64 [ %m, %take.output ], [ %m, %make.output ], [ %outputs, %launch ], [ %outputs, %failed ]
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
  %wrong = call ptr @PyErr_Occurred()
  %bad = icmp ne ptr %wrong, null
  br i1 %bad, label %error, label %slow
slow:
  br i1 %user, label %python, label %miss
python:
  %other = call ptr @object(ptr %facts, i64 $SLOW)
  %by.python = call ptr (ptr, ...) @PyObject_CallFunctionObjArgs(ptr %other, ptr %args, ptr null)
  ret ptr %by.python
miss:
  %missed = call ptr @missed(ptr %facts)
  ret ptr %missed
error:
  ret ptr null
}

define ptr @direct_call(ptr %self, ptr %args) {
  %result = call ptr @run(ptr %self, ptr %args, ptr %args, i1 true)
  ret ptr %result
}

define ptr @direct_into(ptr %self, ptr %given, i64 %count) {
  %args = load ptr, ptr %given
  %outs.at = getelementptr ptr, ptr %given, i64 1
  %outs = load ptr, ptr %outs.at
  %result = call ptr @run(ptr %self, ptr %args, ptr %outs, i1 false)
  ret ptr %result
}
"""
