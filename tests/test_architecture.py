"""The limits on size and shape that keep the sources readable. Each rule names every offender at once.

An exemption is an entry in the rule's table with its reason; an entry that exempts nothing fails too.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("dsl", "codegen", "dlc")
MAX_FILE, MAX_FUNCTION = 400, 60

# path -> reason
LONG_FILES: dict[str, str] = {}
# path::qualified name -> reason
LONG_FUNCTIONS: dict[str, str] = {}
# path or path::qualified name -> reason
UNDOCUMENTED: dict[str, str] = {}
# path -> reason; a module leaves this list when it gets a test file of its own
UNTESTED: dict[str, str] = {}
# path -> reason
UNFINISHED: dict[str, str] = {}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def test_files_are_short() -> None:
    offenders = {name: f"{n} lines" for name, n in _line_counts() if n > MAX_FILE}
    _report(f"files longer than {MAX_FILE} lines", offenders, LONG_FILES)


def test_functions_are_short() -> None:
    offenders = {}
    for name in _sources():
        for qualified, node in _functions(_tree(name)):
            if (n := _length(node)) > MAX_FUNCTION:
                offenders[f"{name}::{qualified}"] = f"{n} lines at line {node.lineno}"
    _report(f"functions longer than {MAX_FUNCTION} lines without their docstring", offenders, LONG_FUNCTIONS)


def test_public_names_have_docstrings() -> None:
    offenders = {}
    for name in _sources():
        if not name.endswith("__init__.py") and not ast.get_docstring(_tree(name)):
            offenders[name] = "the module"
        for qualified, node in _public(_tree(name)):
            if not ast.get_docstring(node):
                offenders[f"{name}::{qualified}"] = f"line {node.lineno}"
    _report("public modules, classes and functions without a docstring", offenders, UNDOCUMENTED)


def test_nothing_is_marked_unfinished() -> None:
    marks = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b(?!\(#\d+\))")
    offenders = {}
    for name in _sources():
        lines = [str(n) for n, line in enumerate(_text(name).splitlines(), 1) if marks.search(line)]
        if lines:
            offenders[name] = "line " + ", ".join(lines)
    _report("files with TODO or FIXME (open an issue instead)", offenders, UNFINISHED)


def test_every_module_has_its_tests() -> None:
    offenders = {}
    for name in _sources(PACKAGES):
        if Path(name).name.startswith("__") or not list(_functions(_tree(name))):
            continue
        if not _tests_of(name):
            offenders[name] = "expected " + _expected_test(name)
    _report("modules without a test file of their own", offenders, UNTESTED)


def test_every_golden_has_its_test() -> None:
    golden = ROOT / "tests" / "golden"
    offenders = {}
    for path in sorted(golden.rglob("*.txt")):
        module = ROOT / "tests" / path.parent.relative_to(golden).with_suffix(".py")
        function = re.match(r"\w+", path.stem)
        if not module.exists() or not function or f"def {function.group()}" not in module.read_text():
            offenders[str(path.relative_to(ROOT))] = f"no such test in {module.relative_to(ROOT)}"
    _report("golden texts that no test reads", offenders, {})


def _report(what: str, offenders: dict[str, str], exempt: dict[str, str]) -> None:
    found = {name: why for name, why in offenders.items() if name not in exempt}
    stale = sorted(name for name in exempt if name not in offenders)
    message = []
    if found:
        message += [f"{len(found)} {what}:"] + [f"  {name}: {why}" for name, why in sorted(found.items())]
    if stale:
        message += ["exemptions that exempt nothing:"] + [f"  {name}" for name in stale]
    if message:
        pytest.fail("\n".join(message), pytrace=False)


def _sources(packages: tuple[str, ...] = (*PACKAGES, "benchmarks")) -> list[str]:
    return sorted(str(path.relative_to(ROOT)) for package in packages for path in (ROOT / package).rglob("*.py"))


@cache
def _text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@cache
def _tree(name: str) -> ast.Module:
    return ast.parse(_text(name), name)


def _line_counts() -> Iterator[tuple[str, int]]:
    for name in _sources():
        yield name, len(_text(name).splitlines())


def _functions(node: ast.AST, prefix: str = "") -> Iterator[tuple[str, Function]]:
    """Every function and method, outermost first; a nested function counts in its parent and on its own."""
    for child in ast.iter_child_nodes(node):
        named = isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        inner = f"{prefix}{child.name}." if named else prefix
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield inner[:-1], child
        yield from _functions(child, inner)


def _public(node: ast.Module | ast.ClassDef, prefix: str = "") -> Iterator[tuple[str, Function | ast.ClassDef]]:
    for child in node.body:
        if not isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) or child.name.startswith("_"):
            continue
        if any(ast.unparse(d) in ("overload", "typing.overload") or ast.unparse(d).endswith(".setter") for d in child.decorator_list):
            continue
        yield prefix + child.name, child
        if isinstance(child, ast.ClassDef):
            yield from _public(child, f"{prefix}{child.name}.")


def _length(node: Function) -> int:
    assert node.end_lineno is not None
    total = node.end_lineno - node.lineno + 1
    first = node.body[0]
    if ast.get_docstring(node) is not None and first.end_lineno is not None:
        total -= first.end_lineno - first.lineno + 1
    return total


def _tests_of(name: str) -> list[Path]:
    """The tests of a/b/c_d.py: tests/a/**/test_c_d.py, test_b_c_d.py, or one file for its kind, test_c.py, test_b.py or test_b_c.py."""
    package, *folders = Path(name).parent.parts
    stem = Path(name).stem.lstrip("_")
    names = {
        f"test_{stem}.py",
        f"test_{stem.split('_')[0]}.py",
        *(f"test_{folder}.py" for folder in folders),
        *(f"test_{folder}_{stem}.py" for folder in folders),
        *(f"test_{folder}_{stem.split('_')[0]}.py" for folder in folders),
    }
    return [path for path in (ROOT / "tests" / package).rglob("test_*.py") if path.name in names]


def _expected_test(name: str) -> str:
    package = Path(name).parts[0]
    return f"tests/{package}/test_{Path(name).stem.lstrip('_')}.py"
