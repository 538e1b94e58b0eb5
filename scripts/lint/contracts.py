"""Two contract types for import-linter: an allow-list of imports, and no circle among modules.

The contracts that import-linter brings say who may not import what, so a new file or package is free of them
until somebody remembers to add it. `AllowList` says what may be imported; what it does not name is refused.
"""

from __future__ import annotations

import graphlib
import sys
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import NamedTuple

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output


class Rule(NamedTuple):
    """The modules of `names` may import those of `allowed`."""

    names: list[str]
    allowed: list[str]


class RulesField(fields.Field[list[Rule]]):
    """A table of TOML: names, parted by spaces, to a list of names."""

    def parse(self, raw_data: Mapping[str, list[str]]) -> list[Rule]:  # type: ignore[override]
        return [Rule(names.split(), allowed) for names, allowed in raw_data.items()]


class Listing(Contract):
    """A contract whose faults are sentences."""

    def faults(self, graph: ImportGraph) -> Iterator[str]:
        raise NotImplementedError

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:  # noqa: ARG002
        found = sorted(self.faults(graph))
        return ContractCheck(kept=not found, metadata={"faults": found})

    def render_broken_contract(self, check: ContractCheck) -> None:
        for fault in check.metadata["faults"]:
            output.print_error(f"- {fault}", bold=False)


class AllowList(Listing):
    """Each module imports only what its rule allows.

    `rules` is a table of names, parted by spaces, and what these may import, of ours and from outside:

        "app.jobs app.events" = ["app", "methods", "sqlalchemy"]

    A name means the module and all that lies below it; `*` stands for one part of a name (`app.*.router`).
    The longest name that fits a module gives its only rule. Always allowed are the standard library and what
    lies below that name. A package without a rule of its own name is a fault, so that somebody decides about
    each new one; so are a name that fits nothing and an allowance that nobody uses.
    """

    rules = RulesField()

    def faults(self, graph: ImportGraph) -> Iterator[str]:
        rules: list[Rule] = self.rules  # type: ignore[assignment]
        by_name = {name: rule for rule in rules for name in rule.names}
        idle = {(names[0], allowed) for names, all_allowed in rules for allowed in all_allowed}
        unseen = set(by_name)
        for module in _ours(graph):
            if graph.find_children(module) and module not in by_name:
                yield f"{module} is a package without a rule: say in pyproject.toml what it may import."
            own = max((name for name in by_name if _fits(name, module)), key=_length, default="")
            rule = by_name.get(own, Rule([""], []))
            unseen.discard(own)
            for imported in graph.find_modules_directly_imported_by(module):
                uses = {(rule.names[0], allowed) for allowed in rule.allowed if _fits(allowed, imported)}
                idle -= uses
                if not uses and not _fits(own, imported) and imported not in sys.stdlib_module_names:
                    yield f"{module} imports {imported}, which the rule of '{own}' does not allow."
        yield from (f"'{name}' has a rule, and no module has that name." for name in unseen)
        yield from (f"The rule of '{name}' allows {allowed}, which nobody imports." for name, allowed in idle)


class NoCircles(Listing):
    """No module imports itself through others, not even within a function."""

    def faults(self, graph: ImportGraph) -> Iterator[str]:
        imports = {module: graph.find_modules_directly_imported_by(module) for module in _ours(graph)}
        try:
            graphlib.TopologicalSorter(imports).prepare()
        except graphlib.CycleError as error:
            yield f"These modules import each other in a circle: {' <- '.join(error.args[1])}."


def _ours(graph: ImportGraph) -> list[str]:
    """Returns the modules of our own packages; grimp squashes those from outside."""
    return [module for module in graph.modules if not graph.is_module_squashed(module)]


def _fits(name: str, module: str) -> bool:
    """Tells whether a name means a module, or a package around it."""
    parts, wanted = module.split("."), name.split(".")
    return len(parts) >= len(wanted) and all(map(fnmatchcase, parts, wanted))


def _length(name: str) -> tuple[int, int]:
    return len(name.split(".")), -name.count("*")
