"""What docstrings of the engine must give: a sentence, shapes, and where a threshold is from."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FILES = sorted(
    file for folder in ("training", "tuning", "serving") for file in (ROOT / "workers" / folder).rglob("*.py")
)
IDS = [str(file.relative_to(ROOT)) for file in FILES]

Function = ast.FunctionDef | ast.AsyncFunctionDef
Place = ast.Module | ast.ClassDef

TUPLE = re.compile(r"\(([^()]*,[^()]*)\)")
SIZE = re.compile(
    r"\.\.\.|[A-Z][a-z]?( [*+/] \w+)?|[nm]|\d+|(inputs|outputs|heads|kv_heads|slots|rows|panels|positions)"
)
"""A letter, a number or the name of a dimension: what a shape has at least one of."""

TENSORS = re.compile(r"\b(Tensor|Floats|Ints|Integers)\b")

ORIGIN = re.compile(r"[Mm]easured|[Cc]hosen|trial|arXiv|convention|follows from|as at OpenAI|docs/")
"""What says where a number is from: a measurement, a paper, or that there is none."""


def public(tree: Place, prefix: str = "") -> Iterator[tuple[str, Function | ast.ClassDef]]:
    """Public functions, classes and methods by name; `__call__` is public too."""
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            if node.name.startswith("_") and node.name != "__call__":
                continue
            yield prefix + node.name, node
            if isinstance(node, ast.ClassDef):
                yield from public(node, f"{prefix}{node.name}.")


def gives_a_shape(text: str) -> bool:
    """Whether there is a tuple such as (N,) or (B, heads, D), or words that say that none is to be given."""
    if re.search(r"any shape|scalar", text, re.IGNORECASE):
        return True
    tuples = [[size.strip() for size in found.split(",") if size.strip()] for found in TUPLE.findall(text)]
    return any(
        all(len(size.split()) <= 4 for size in sizes) and any(map(SIZE.fullmatch, sizes)) for sizes in tuples
    )


def docstring(node: Function | ast.ClassDef) -> str:
    return " ".join((ast.get_docstring(node) or "").split())


@pytest.mark.parametrize("file", FILES, ids=IDS)
def test_everything_public_has_a_sentence(file: Path) -> None:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    nodes = [(name, docstring(node)) for name, node in public(tree)]
    assert [name for name, text in nodes if not re.match(r"[A-Z-].*[.:]( |$)", text)] == []


@pytest.mark.parametrize("file", FILES, ids=IDS)
def test_functions_over_tensors_give_shapes(file: Path) -> None:
    functions = [
        (name, node)
        for name, node in public(ast.parse(file.read_text(encoding="utf-8")))
        if not isinstance(node, ast.ClassDef)
    ]
    over_tensors = [
        (name, node)
        for name, node in functions
        if TENSORS.search(ast.unparse(node.args) + (ast.unparse(node.returns) if node.returns else ""))
    ]
    assert [name for name, node in over_tensors if not gives_a_shape(docstring(node))] == []


def is_size(value: ast.expr) -> bool:
    """Whether an expression is a number that somebody has set: 3, 1 << 30, (32, 256), {"cpu": 128}."""
    match value:
        case ast.Constant(value=bool()):
            return False
        case ast.Constant(value=int() | float()):
            return True
        case ast.UnaryOp(operand=operand):
            return is_size(operand)
        case ast.BinOp(left=left, right=right):
            return is_size(left) and is_size(right)
        case ast.Tuple(elts=values) | ast.Dict(values=values):
            return bool(values) and all(map(is_size, values))
        case ast.Call(func=ast.Name(id="timedelta")):
            return True
    return False


def sizes(file: Path) -> Iterator[tuple[str, str]]:
    """Module-level numbers in capitals, and the string below each."""
    body = ast.parse(file.read_text(encoding="utf-8")).body
    for node, following in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.Assign) and is_size(node.value):
            name = ast.unparse(node.targets[0])
            if re.search(r"\b[A-Z]", name):
                match following:
                    case ast.Expr(value=ast.Constant(value=str(text))):
                        yield name, text
                    case _:
                        yield name, ""


@pytest.mark.parametrize("file", FILES, ids=IDS)
def test_thresholds_and_sizes_say_where_they_are_from(file: Path) -> None:
    assert [name for name, text in sizes(file) if not ORIGIN.search(text)] == []


def test_the_checks_find_what_they_are_for() -> None:
    for text in (
        "of (N,) tokens",
        "(B, heads, D)",
        "(..., H)",
        "(P + 1,)",
        "of Any shape",
        "(1, n_forwarded)",
    ):
        assert gives_a_shape(text)
    for text in ("tensors", "f()", "(a, b)", "(collective)", "(there, or here)", "(A is a very long one, B)"):
        assert not gives_a_shape(text)
    assert sum(len(list(sizes(file))) for file in FILES) > 30
