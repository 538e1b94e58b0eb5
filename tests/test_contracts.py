"""The import contracts refuse what is new and not decided: they see our modules and one import more."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from grimp import ImportGraph, build_graph
from importlinter import Contract
from importlinter.api import read_configuration
from importlinter.contracts.acyclic_siblings import AcyclicSiblingsContract
from importlinter.contracts.layers import LayersContract
from importlinter.contracts.protected import ProtectedContract

from scripts.lint.contracts import AllowList, NoCircles

ROOT = Path(__file__).parents[1]
TYPES: dict[str, type[Contract]] = {
    "acyclic_siblings": AcyclicSiblingsContract,
    "allow_list": AllowList,
    "layers": LayersContract,
    "no_circles": NoCircles,
    "protected": ProtectedContract,
}
NOT_SHIPPED = {"benchmarks", "examples", "scripts", "tests"}


@pytest.fixture(scope="module")
def configuration() -> dict[str, Any]:
    return read_configuration(str(ROOT / "pyproject.toml"))


@pytest.fixture(scope="module")
def ours(configuration: dict[str, Any]) -> ImportGraph:
    roots = configuration["session_options"]["root_packages"]
    return build_graph(*roots, include_external_packages=True, cache_dir=None)


def broken(configuration: dict[str, Any], graph: ImportGraph) -> list[str]:
    """The names of the contracts that a graph does not keep."""
    options = configuration["contracts_options"]
    contracts = [
        TYPES[each["type"]](each["name"], configuration["session_options"], each) for each in options
    ]
    return [each.name for each in contracts if not each.check(copy.deepcopy(graph), verbose=False).kept]


def with_import(graph: ImportGraph, importer: str, imported: str) -> ImportGraph:
    """The graph with one more import; modules that it lacks are made, those from outside squashed."""
    more = copy.deepcopy(graph)
    is_ours = imported.split(".")[0] in {"app", "workers", "graders", "methods", "migrations"}
    for name, is_squashed in ((importer, False), (imported, not is_ours)):
        if name not in more.modules:
            more.add_module(name, is_squashed=is_squashed)
    more.add_import(importer=importer, imported=imported)
    return more


def test_our_modules_keep_the_contracts(configuration: dict[str, Any], ours: ImportGraph) -> None:
    assert broken(configuration, ours) == []


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        pytest.param("graders.text.new", "torch", id="graders-take-no-torch"),
        pytest.param("graders.text.new", "requests", id="graders-take-no-new-package"),
        pytest.param("graders.text.new", "methods.rows", id="graders-know-no-methods"),
        pytest.param("graders.text.new", "graders.math.extract", id="kinds-of-graders-are-apart"),
        pytest.param("graders.template", "graders.spec", id="the-spec-of-all-kinds-is-on-top"),
        pytest.param("methods.new", "torch", id="methods-take-no-torch"),
        pytest.param("methods.new", "sqlalchemy", id="methods-know-no-database"),
        pytest.param("methods.new", "app.settings", id="methods-know-no-app"),
        pytest.param("app.jobs.new", "torch", id="app-takes-no-torch"),
        pytest.param("app.jobs.new", "transformers", id="app-takes-no-transformers"),
        pytest.param("app.jobs.new", "workers.jobs.run", id="app-knows-no-workers"),
        pytest.param("app.cli.new", "workers.train", id="not-even-the-command-line"),
        pytest.param("app.jobs.new", "fastapi", id="only-routers-know-fastapi"),
        pytest.param("app.jobs.new", "app.events.router", id="nobody-imports-a-router"),
        pytest.param("app.http.new", "app.http.health", id="nor-that-of-health"),
        pytest.param("app.jobs.service", "app.jobs.router", id="a-service-knows-no-router"),
        pytest.param("app.files.models", "app.files.service", id="tables-know-no-service"),
        pytest.param("app.http.new", "app.jobs.service", id="http-is-below-the-resources"),
        pytest.param("app.db", "app.http.transaction", id="the-database-is-below-http"),
        pytest.param("app.jobs.new", "app.cli.output", id="the-command-line-is-on-top"),
        pytest.param("app.jobs.new", "app.embedded.places", id="embedded-is-on-top"),
        pytest.param("app.jobs.new", "app.dashboard.job.queries", id="the-dashboard-is-on-top"),
        pytest.param("workers.jobs.new", "fastapi", id="workers-know-no-http"),
        pytest.param("workers.training.new", "app.settings", id="the-engine-knows-no-service"),
        pytest.param("workers.training.new", "sqlalchemy", id="the-engine-knows-no-database"),
        pytest.param("workers.training.new", "workers.jobs.run", id="the-engine-knows-no-job"),
        pytest.param("workers.training.base.new", "workers.training.kernels", id="base-is-below-kernels"),
        pytest.param(
            "workers.training.kernels.new", "workers.training.model.policy", id="kernels-below-model"
        ),
        pytest.param(
            "workers.training.model.new", "workers.training.passes.packing", id="model-below-passes"
        ),
        pytest.param(
            "workers.training.passes.new", "workers.training.sampling.draw", id="passes-do-not-sample"
        ),
        pytest.param("workers.training.sampling.new", "workers.training.passes.packing", id="nor-backwards"),
        pytest.param("workers.training.sampling.new", "workers.training.run", id="rooms-are-below-the-story"),
        pytest.param("workers.tuning.new", "app.settings", id="tuning-knows-no-service"),
        pytest.param("workers.train", "app.settings", id="the-engine-runs-without-a-service"),
        pytest.param("app.ids", "app.jobs.service", id="no-circle"),
        pytest.param("app.new", "app.ids", id="a-new-file-of-app-needs-a-layer"),
        pytest.param("graders.new", "graders.types", id="a-new-file-of-graders-needs-a-layer"),
        pytest.param("workers.new", "methods.rows", id="a-new-file-of-workers-needs-a-layer"),
        pytest.param("app.new.service", "app.db", id="a-new-room-of-app-needs-a-rule"),
        pytest.param("workers.training.new.file", "torch", id="a-new-room-of-the-engine-needs-a-rule"),
    ],
)
def test_an_import_that_nobody_allowed_is_refused(
    configuration: dict[str, Any], ours: ImportGraph, importer: str, imported: str
) -> None:
    package, _, _ = importer.rpartition(".")
    graph = ours if package in ours.modules else with_import(ours, package, "typing")
    assert broken(configuration, with_import(graph, importer, imported))


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        pytest.param("graders.text.new", "graders.types", id="grader"),
        pytest.param("methods.new", "graders.spec", id="method"),
        pytest.param("app.jobs.new", "app.db", id="service"),
        pytest.param("app.jobs.router", "fastapi", id="router"),
        pytest.param("workers.training.new", "workers.training.sampling.draw", id="story"),
        pytest.param("workers.jobs.new", "app.jobs.service", id="job"),
    ],
)
def test_a_new_file_that_does_as_its_room_does_is_welcome(
    configuration: dict[str, Any], ours: ImportGraph, importer: str, imported: str
) -> None:
    assert broken(configuration, with_import(ours, importer, imported)) == []


def test_every_folder_of_code_is_covered(configuration: dict[str, Any]) -> None:
    """A new folder at the top is a root package of the contracts, or is named here."""
    tops = {file.relative_to(ROOT).parts[0] for file in ROOT.glob("[!.]*/**/*.py")}
    assert tops - NOT_SHIPPED == set(configuration["session_options"]["root_packages"])


def test_every_resource_is_in_the_order_of_resources(
    configuration: dict[str, Any], ours: ImportGraph
) -> None:
    """A folder of `app` with a service is among the containers of that contract."""
    listed = next(each for each in configuration["contracts_options"] if "(router)" in each.get("layers", ()))
    names = {
        package: {child.rpartition(".")[2] for child in ours.find_children(package)}
        for package in ours.find_children("app") - {"app.cli"}
    }
    resources = {package for package, files in names.items() if "service" in files}
    assert resources == set(listed["containers"])


def made_up(*imports: tuple[str, str]) -> ImportGraph:
    graph = ImportGraph()
    for importer, imported in imports:
        for name in (importer, imported):
            if name not in graph.modules:
                graph.add_module(name, is_squashed="." not in name and name != "shop")
        graph.add_import(importer=importer, imported=imported)
    return graph


def faults(graph: ImportGraph, rules: dict[str, list[str]]) -> list[str]:
    contract = AllowList("made up", {}, {"rules": rules})
    return sorted(contract.faults(graph))


def test_the_longest_name_gives_the_rule_and_a_name_without_wildcard_wins() -> None:
    graph = made_up(
        ("shop", "os"),
        ("shop.till", "json"),
        ("shop.till.models", "sqlalchemy"),
        ("shop.till.prices", "sqlalchemy"),
        ("shop.yard", "json"),
        ("shop.yard.models", "httpx"),
    )
    rules = {
        "shop": [],
        "shop.till shop.yard": [],
        "shop.*.models": ["sqlalchemy"],
        "shop.yard.models": ["httpx"],
    }
    assert faults(graph, rules) == [
        "shop.till.prices imports sqlalchemy, which the rule of 'shop.till' does not allow."
    ]


def test_a_package_without_a_rule_a_name_of_nothing_and_an_unused_allowance_are_faults() -> None:
    graph = made_up(("shop", "os"), ("shop.till", "os"), ("shop.till.prices", "json"))
    assert faults(graph, {"shop shop.cellar": ["sqlalchemy"]}) == [
        "'shop.cellar' has a rule, and no module has that name.",
        "The rule of 'shop' allows sqlalchemy, which nobody imports.",
        "shop.till is a package without a rule: say in pyproject.toml what it may import.",
    ]


def test_a_circle_is_named() -> None:
    contract = NoCircles("made up", {}, {})
    line = (("shop.till", "shop.prices"), ("shop.prices", "shop.tax"))
    assert list(contract.faults(made_up(*line))) == []
    (fault,) = contract.faults(made_up(*line, ("shop.tax", "shop.till")))
    assert all(module in fault for module in ("shop.till", "shop.prices", "shop.tax"))
