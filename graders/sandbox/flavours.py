"""Tells which packages a program imports, and so which fork-server runs it: calls cost what it weighs."""

from __future__ import annotations

import ast
from functools import lru_cache

from graders.sandbox.packages import MODULES, STANDARD

FLAVOURS: dict[str, frozenset[str]] = {
    "standard": frozenset(),
    "numpy": frozenset({"numpy"}),
    "text": frozenset({"rapidfuzz", "jsonschema", "yaml", "pydantic", "sqlparse"}),
    "tables": frozenset({"numpy", "pandas", "rapidfuzz"}),
    "everything": frozenset(MODULES),
}
"""Packages loaded ahead by each kind of fork-server, the lightest first."""


def modules_of(flavour: str) -> list[str]:
    """Returns the modules that a flavour's fork-server loads ahead."""
    packages = [name for name in MODULES if name in FLAVOURS[flavour]]
    return [*STANDARD, *(module for name in packages for module in MODULES[name])]


@lru_cache(maxsize=1024)
def flavour_of(source: str) -> str:
    """Returns the lightest flavour that has every known package the source imports, wherever in it."""
    imported = _imports(source) & MODULES.keys()
    return next(name for name, packages in FLAVOURS.items() if imported <= packages)


def _imports(source: str) -> set[str]:
    """Returns the top names of all imports; none for a source that does not parse, which fails anyway."""
    if not any(name in source for name in MODULES):
        return set()
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set()
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module.partition(".")[0])
    return found
