"""The list of operations: exported, documented, and the same in the documentation."""

import inspect
from pathlib import Path

import dsl
from dsl.ops import catalogue

PAGE = Path(__file__).parents[2] / "docs" / "language.md"
BEGIN, END = "with --update-golden -->\n", "<!-- end -->"


def test_the_language_exports_the_catalogue():
    assert {n: getattr(dsl, n) for n in catalogue.operations()} == catalogue.operations()
    own = {n for n in dsl.__all__ if getattr(getattr(dsl, n), "__module__", "").startswith("dsl.ops.")}
    assert own == set(catalogue.operations())


def test_every_operation_says_what_it_gives():
    missing = [n for n, fn in catalogue.operations().items() if not inspect.getdoc(fn)]
    assert not missing


def test_the_table_of_the_documentation(request):
    text = PAGE.read_text()
    start, stop = text.index(BEGIN) + len(BEGIN), text.index(END)
    table = f"\n{catalogue.markdown()}\n"
    if request.config.getoption("--update-golden"):
        PAGE.write_text(text[:start] + table + text[stop:])
        return
    assert text[start:stop] == table, "accept the new table with --update-golden"
