"""Numbers that a call counts with: sizes that its arguments show, what follows from them, and constants.

A kernel of many sizes has formulas for shapes, strides and bytes. They become steps over a row of numbers: each reads one word of a
tensor, or computes a number of two others, or refuses. Machine code takes the steps in each call (``STEPS``); a kernel of known sizes has
none, and its row holds constants alone.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence

from codegen.artifact import Formula
from dlc.runtime.recipe import Formulas, Recipe, known

#: What a step does: put a word of an argument, or what follows from two numbers, in its place; or refuse two that differ, a stride that
#: does where the size is not one, and what is not positive.
KINDS_OF_STEP = ("WORD", "PLUS", "MINUS", "TIMES", "DIVIDE", "MODULO", "LEAST", "MOST", "SAME", "STRIDE", "POSITIVE")

_OPS: dict[type[ast.operator], str] = {ast.Add: "PLUS", ast.Sub: "MINUS", ast.Mult: "TIMES", ast.FloorDiv: "DIVIDE", ast.Mod: "MODULO"}
_FOLD: dict[str, Callable[[int, int], int]] = {"PLUS": int.__add__, "MINUS": int.__sub__, "TIMES": int.__mul__}


class Numbers:
    """The row of numbers of a kernel, and the steps to it.

    Args:
        recipe: how the kernel is called.
        sizes: the word of a tensor in which its first size stands.
        strides: that of its first stride.

    Attributes:
        row: what it holds before the first step.
        steps: four words each.

    Raises:
        ValueError: a formula that no steps compute.
    """

    def __init__(self, recipe: Recipe, sizes: int, strides: int) -> None:
        self.row: list[int] = []
        self.steps: list[int] = []
        self._places: dict[Formula, int] = {}
        self._made: dict[tuple[str, int, int], int] = {}
        self._constant: set[int] = set()
        self._bind(recipe, sizes, strides)

    def place(self, formula: Formula) -> int:
        """Where the value of a formula stands."""
        found = self._places.get(formula)
        if found is None:
            found = self._places[formula] = (
                self._number(formula) if isinstance(formula, int) else self._value(ast.parse(formula, mode="eval").body))
        return found

    def total(self, terms: Sequence[int]) -> int:
        """Where the product of numbers stands, given by their places."""
        product = self.place(1)
        for term in terms:
            product = self._step("TIMES", product, term)
        return product

    def dense(self, shape: Formulas) -> list[int]:
        """Where the strides of a tensor without gaps stand."""
        places, step = list[int](), self.place(1)
        for size in reversed(shape):
            places.append(step)
            step = self._step("TIMES", step, self.place(size))
        return places[::-1]

    def span(self, shape: Formulas, strides: Formulas, unit: int) -> int:
        """Where the bytes from the first element to behind the last stand; an element has ``unit`` of them."""
        last, one = self.place(1), self.place(1)
        for size, step in zip(shape, strides):
            last = self._step("PLUS", last, self._step("TIMES", self._step("MINUS", self.place(size), one), self.place(step)))
        return self._step("TIMES", last, self.place(unit))

    def _bind(self, recipe: Recipe, sizes: int, strides: int) -> None:
        """Read the words that are no constants; find every size; refuse what disagrees."""
        read = list[tuple[int, Formula, int | None, int]]()  # (word, formula, word of the size beside a stride, 1 where it is a size)
        for n, (_, _, shape, steps) in enumerate(recipe.inputs):
            if known(shape) is not None and known(steps) is not None:
                continue  # compared with constants
            words = [self._word(n, sizes + d) for d in range(len(shape))]
            read += [(word, size, None, 1) for word, size in zip(words, shape)]
            read += [(self._word(n, strides + d), step, words[d], 0) for d, step in enumerate(steps)]
        for word, formula, _, size in read:
            if isinstance(formula, str) and formula.isidentifier() and formula not in self._places:
                self._places[formula] = word
                if size:
                    self._refuse("POSITIVE", word)
        for name, n, d, rest, factor in recipe.solved:
            whole = self._step("MINUS", self._word(n, sizes + d), self.place(rest))
            self._places[name] = self._step("DIVIDE", whole, self.place(factor))
            self._refuse("POSITIVE", self._places[name])
        for word, formula, beside, _ in read:
            if (place := self.place(formula)) != word:
                self._refuse("SAME", word, place) if beside is None else self._refuse("STRIDE", word, place, beside)

    def _number(self, value: int) -> int:
        self.row.append(value)
        self._constant.add(len(self.row) - 1)
        return len(self.row) - 1

    def _word(self, n: int, word: int) -> int:
        """A word of argument ``n``."""
        return self._step("WORD", n, word)

    def _step(self, what: str, a: int, b: int) -> int:
        key = (what, a, b)
        if key not in self._made:
            if what in _FOLD and a in self._constant and b in self._constant:
                self._made[key] = self.place(_FOLD[what](self.row[a], self.row[b]))
            elif what == "TIMES" and self.place(1) in (a, b):
                self._made[key] = b if a == self.place(1) else a
            else:
                self.row.append(0)
                self.steps += [KINDS_OF_STEP.index(what), a, b, len(self.row) - 1]
                self._made[key] = len(self.row) - 1
        return self._made[key]

    def _refuse(self, what: str, a: int, b: int = 0, c: int = 0) -> None:
        self.steps += [KINDS_OF_STEP.index(what), a, b, c]

    def _value(self, node: ast.expr) -> int:
        match node:
            case ast.Constant(value=int() as number):
                return self.place(number)
            case ast.Name(id=name) if name in self._places:
                return self._places[name]
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return self._step("MINUS", self.place(0), self._value(operand))
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPS:
                return self._step(_OPS[type(op)], self._value(left), self._value(right))
            case ast.Call(func=ast.Name(id="min" | "max" as name), args=[left, right], keywords=[]):
                return self._step("LEAST" if name == "min" else "MOST", self._value(left), self._value(right))
        raise ValueError(f"{ast.unparse(node)} cannot be taken in steps")


STEPS = """
declare { i64, i1 } @llvm.sadd.with.overflow.i64(i64, i64)
declare { i64, i1 } @llvm.ssub.with.overflow.i64(i64, i64)
declare { i64, i1 } @llvm.smul.with.overflow.i64(i64, i64)

; Take steps: 0 all of them, 1 the sizes are others, 2 the numbers are too large for a word, or divided by none.
define internal i32 @taken(ptr %facts, ptr %args, ptr %numbers, i64 %from, i64 %count) {
start:
  br label %next
next:
  %n = phi i64 [ 0, %start ], [ %after, %on ]
  %more = icmp slt i64 %n, %count
  br i1 %more, label %one, label %done
one:
  %offset = shl i64 %n, 2
  %at = add i64 %from, %offset
  %step = getelementptr i64, ptr %facts, i64 %at
  %what = call i64 @fact(ptr %step, i64 0)
  %a.at = call i64 @fact(ptr %step, i64 1)
  %b.at = call i64 @fact(ptr %step, i64 2)
  %c.at = call i64 @fact(ptr %step, i64 3)
  %word = icmp eq i64 %what, $WORD
  br i1 %word, label %read, label %values
read:
  %x = call ptr @PyTuple_GetItem(ptr %args, i64 %a.at)
  %impl = call ptr @inner(ptr %x)
  %found = call i64 @fact(ptr %impl, i64 %b.at)
  br label %keep
values:
  %a = call i64 @fact(ptr %numbers, i64 %a.at)
  %b = call i64 @fact(ptr %numbers, i64 %b.at)
  switch i64 %what, label %other [ i64 $PLUS, label %plus
                                   i64 $MINUS, label %minus
                                   i64 $TIMES, label %times
                                   i64 $DIVIDE, label %divide
                                   i64 $MODULO, label %divide
                                   i64 $LEAST, label %least
                                   i64 $MOST, label %most
                                   i64 $SAME, label %same
                                   i64 $STRIDE, label %beside
                                   i64 $POSITIVE, label %positive ]
plus:
  %sum = call { i64, i1 } @llvm.sadd.with.overflow.i64(i64 %a, i64 %b)
  br label %checked
minus:
  %difference = call { i64, i1 } @llvm.ssub.with.overflow.i64(i64 %a, i64 %b)
  br label %checked
times:
  %product = call { i64, i1 } @llvm.smul.with.overflow.i64(i64 %a, i64 %b)
  br label %checked
checked:
  %pair = phi { i64, i1 } [ %sum, %plus ], [ %difference, %minus ], [ %product, %times ]
  %short = extractvalue { i64, i1 } %pair, 0
  %over = extractvalue { i64, i1 } %pair, 1
  br i1 %over, label %other, label %keep
divide:
  %divisible = icmp sgt i64 %b, 0
  br i1 %divisible, label %floor, label %other
floor:
  %quotient = sdiv i64 %a, %b
  %whole = mul i64 %quotient, %b
  %rest = sub i64 %a, %whole
  %below = icmp slt i64 %rest, 0
  %less = sub i64 %quotient, 1
  %back = add i64 %rest, %b
  %floored = select i1 %below, i64 %less, i64 %quotient
  %modulo = select i1 %below, i64 %back, i64 %rest
  %wants = icmp eq i64 %what, $DIVIDE
  %divided = select i1 %wants, i64 %floored, i64 %modulo
  br label %keep
least:
  %smaller = icmp slt i64 %a, %b
  %minimum = select i1 %smaller, i64 %a, i64 %b
  br label %keep
most:
  %larger = icmp sgt i64 %a, %b
  %maximum = select i1 %larger, i64 %a, i64 %b
  br label %keep
same:
  %equal = icmp eq i64 %a, %b
  br i1 %equal, label %on, label %miss
beside:
  %size = call i64 @fact(ptr %numbers, i64 %c.at)
  %once = icmp eq i64 %size, 1
  %step.equal = icmp eq i64 %a, %b
  %fine = or i1 %once, %step.equal
  br i1 %fine, label %on, label %miss
positive:
  %good = icmp sgt i64 %a, 0
  br i1 %good, label %on, label %miss
keep:
  %value = phi i64 [ %found, %read ], [ %short, %checked ], [ %divided, %floor ], [ %minimum, %least ], [ %maximum, %most ]
  %to = getelementptr i64, ptr %numbers, i64 %c.at
  store i64 %value, ptr %to
  br label %on
on:
  %after = add i64 %n, 1
  br label %next
done:
  ret i32 0
miss:
  ret i32 1
other:
  ret i32 2
}
"""
