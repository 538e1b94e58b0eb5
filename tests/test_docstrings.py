"""What is public says what it does."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]

PACKAGES = ("graders", "methods", "workers/training", "workers/tuning")
"""Packages whose public functions, classes and methods all have a docstring."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Public(NamedTuple):
    """A public definition, and the class that it is a method of."""

    file: str
    name: str
    node: Function | ast.ClassDef
    owner: ast.ClassDef | None


def public_definitions(package: str) -> Iterator[Public]:
    for path in sorted((ROOT / package).rglob("*.py")):
        file = str(path.relative_to(ROOT))
        yield from _public_in(ast.parse(path.read_text()), file, "", None)


def _public_in(
    scope: ast.Module | ast.ClassDef, file: str, above: str, owner: ast.ClassDef | None
) -> Iterator[Public]:
    for node in scope.body:
        if not isinstance(node, Function | ast.ClassDef) or node.name.startswith("_"):
            continue
        yield Public(file, f"{above}{node.name}", node, owner)
        if isinstance(node, ast.ClassDef):
            yield from _public_in(node, file, f"{above}{node.name}.", node)


def _bases(owner: ast.ClassDef) -> set[str]:
    bases = (base.value if isinstance(base, ast.Subscript) else base for base in owner.bases)
    return {base.attr if isinstance(base, ast.Attribute) else getattr(base, "id", "") for base in bases}


def _signature(method: Function) -> tuple[str, ...]:
    arguments = method.args
    return (method.name, *(each.arg for each in (*arguments.posonlyargs, *arguments.args)))


class Documented(NamedTuple):
    """The documented methods of all our classes: by class and name, and by signature those of protocols."""

    methods: frozenset[tuple[str, str]]
    protocols: frozenset[tuple[str, ...]]
    bases: dict[str, set[str]]


@cache
def documented() -> Documented:
    methods, protocols, bases = set(), set(), {}
    for package in ("app", "graders", "methods", "workers"):
        for _, _, node, owner in public_definitions(package):
            if isinstance(node, ast.ClassDef):
                bases[node.name] = _bases(node)
            elif owner is not None and ast.get_docstring(node):
                methods.add((owner.name, node.name))
                if "Protocol" in _bases(owner):
                    protocols.add(_signature(node))
    return Documented(frozenset(methods), frozenset(protocols), bases)


def is_told_elsewhere(method: Function, owner: ast.ClassDef) -> bool:
    """Whether the method overrides a documented one, or has the signature of one of a protocol of ours."""
    ours = documented()
    above, seen = _bases(owner), set()
    while above:
        base = above.pop()
        if (base, method.name) in ours.methods:
            return True
        seen.add(base)
        above |= ours.bases.get(base, set()) - seen
    return _signature(method) in ours.protocols


@pytest.mark.parametrize("package", PACKAGES)
def test_public_definitions_have_docstrings(package: str) -> None:
    missing = [
        f"{public.file}:{public.node.lineno} {public.name}"
        for public in public_definitions(package)
        if not ast.get_docstring(public.node)
        and not (
            isinstance(public.node, Function)
            and public.owner is not None
            and is_told_elsewhere(public.node, public.owner)
        )
    ]
    assert not missing, "Say what these do:\n" + "\n".join(missing)


@pytest.mark.parametrize("package", PACKAGES)
def test_docstrings_begin_with_a_sentence(package: str) -> None:
    fragments = [
        f"{public.file}:{public.node.lineno} {public.name}"
        for public in public_definitions(package)
        if (text := ast.get_docstring(public.node)) and not text.split("\n\n")[0].endswith((".", "?"))
    ]
    assert not fragments, "End the first paragraph with a full stop:\n" + "\n".join(fragments)
