"""The machine code of :mod:`dlc.runtime.direct`: what runs, this kernel or another. ``$NAME`` stands for a number."""

from __future__ import annotations

LAUNCH = """
; Run the code with private memory around it: its code, or -1 where Python should map that memory.
define internal i64 @launched(ptr %facts, ptr %numbers, ptr %words) {
start:
  %many.at = alloca i32
  store i32 1, ptr %many.at
  %0 = call i32 @torch_get_num_threads(ptr %many.at)
  %many.short = load i32, ptr %many.at
  %many = zext i32 %many.short to i64
  %entry = call ptr @object(ptr %facts, i64 $ENTRY)
  %inputs = call i64 @fact(ptr %facts, i64 $INPUTS)
  %outputs = call i64 @fact(ptr %facts, i64 $OUTPUTS)
  %spaces = call i64 @fact(ptr %facts, i64 $SPACES)
  %first = add i64 %inputs, %outputs
  %sizes = call i64 @fact(ptr %facts, i64 $SIZES)
  %size.from = call i64 @fact(ptr %facts, i64 $FIRST_SIZE)
  %size.to = add i64 %first, %spaces
  br label %next.size
next.size:
  %s = phi i64 [ 0, %start ], [ %s.after, %one.size ]
  %s.more = icmp slt i64 %s, %sizes
  br i1 %s.more, label %one.size, label %memory
one.size:
  %s.at = add i64 %size.from, %s
  %s.place = call i64 @fact(ptr %facts, i64 %s.at)
  %s.value = call i64 @fact(ptr %numbers, i64 %s.place)
  %s.k = add i64 %size.to, %s
  %s.to = getelementptr i64, ptr %words, i64 %s.k
  store i64 %s.value, ptr %s.to
  %s.after = add i64 %s, 1
  br label %next.size
memory:
  %private = call i64 @fact(ptr %facts, i64 $PRIVATE)
  %bare = icmp eq i64 %private, 0
  br i1 %bare, label %run, label %take
take:
  %per.place = call i64 @fact(ptr %facts, i64 $PER)
  %per = call i64 @fact(ptr %numbers, i64 %per.place)
  %end.place = call i64 @fact(ptr %facts, i64 $END)
  %end = call i64 @fact(ptr %numbers, i64 %end.place)
  %all = mul i64 %per, %many
  %used = add i64 %end, %all
  %bytes = add i64 %used, 64
  %class = call i64 @class_of(i64 %bytes)
  %state = call ptr @object(ptr %facts, i64 $STATE)
  %record = call ptr @hand_take(ptr %state, i64 %class)
  %none = icmp eq ptr %record, null
  br i1 %none, label %nothing, label %place
place:
  %base = call i64 @fact(ptr %record, i64 $DATA)
  %from = call i64 @fact(ptr %facts, i64 $FIRST_SPACE)
  %behind = add i64 %base, %end
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
  %space.place = call i64 @fact(ptr %facts, i64 %space.at)
  %space = call i64 @fact(ptr %numbers, i64 %space.place)
  %word = add i64 %base, %space
  %k = add i64 %first, %n
  %to = getelementptr i64, ptr %words, i64 %k
  store i64 %word, ptr %to
  %after = add i64 %n, 1
  br label %next
run:
  %block = phi ptr [ null, %memory ], [ %record, %next ]
  %scratch = phi ptr [ null, %memory ], [ %scratch.private, %next ]
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

; Run a kernel that was compiled for just these sizes, if there is one: its results, or null for none, where state is 0 to go on, 1 to leave
; it to Python, -1 for an error.
define internal ptr @own(ptr %facts, ptr %numbers, ptr %args, ptr %outs, i32 %way, ptr %state) {
start:
  store i32 0, ptr %state
  %table = call ptr @object(ptr %facts, i64 $OWN)
  %alone = icmp eq ptr %table, null
  br i1 %alone, label %on, label %ask
ask:
  %from = call i64 @fact(ptr %facts, i64 $FIRST_SIZE)
  %count = call i64 @fact(ptr %facts, i64 $SIZES)
  %key = call ptr @tuple(ptr %facts, ptr %numbers, i64 %from, i64 %count)
  %no.key = icmp eq ptr %key, null
  br i1 %no.key, label %error, label %find
find:
  %found = call ptr @PyDict_GetItemWithError(ptr %table, ptr %key)
  call void @Py_DecRef(ptr %key)
  %missing = icmp eq ptr %found, null
  br i1 %missing, label %new, label %known
new:
  store i32 1, ptr %state
  ret ptr null
known:
  %nothing = call ptr @object(ptr %facts, i64 $NONE)
  %others = icmp eq ptr %found, %nothing
  br i1 %others, label %on, label %its
its:
  %filling = icmp eq i32 %way, $FILL
  %call.name = call ptr @object(ptr %facts, i64 $OWN_CALL)
  %fill.name = call ptr @object(ptr %facts, i64 $OWN_FILL)
  %name = select i1 %filling, ptr %fill.name, ptr %call.name
  %function = call ptr @PyObject_GetAttr(ptr %found, ptr %name)
  %no.function = icmp eq ptr %function, null
  br i1 %no.function, label %error, label %run
run:
  %second = select i1 %filling, ptr %outs, ptr null
  %result = call ptr (ptr, ...) @PyObject_CallFunctionObjArgs(ptr %function, ptr %args, ptr %second, ptr null)
  call void @Py_DecRef(ptr %function)
  %failed = icmp eq ptr %result, null
  br i1 %failed, label %error, label %look
look:
  %miss = call ptr @object(ptr %facts, i64 $MISS)
  %missed = icmp eq ptr %result, %miss
  br i1 %missed, label %drop, label %done
drop:
  call void @Py_DecRef(ptr %result)
  br label %on
on:
  ret ptr null
done:
  ret ptr %result
error:
  store i32 -1, ptr %state
  ret ptr null
}
"""
