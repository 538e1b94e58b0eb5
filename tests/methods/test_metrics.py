"""The one declaration of every metric, and the page that shows it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from methods import metrics

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
DECLARED = [metric for table in metrics.TABLES.values() for metric in table]


@pytest.mark.parametrize("heading", metrics.TABLES)
def test_the_page_shows_what_is_declared(heading: str) -> None:
    _, _, section = PAGE.read_text(encoding="utf-8").partition(f"\n## {heading}\n")
    section = section.partition("\n## ")[0]
    table = "\n".join(line for line in section.splitlines() if line.startswith("|"))
    assert table == metrics.markdown(heading), "python -m methods.metrics prints the tables"


def test_the_page_has_no_other_table() -> None:
    headings = [line[3:] for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("## ")]
    assert headings == list(metrics.TABLES)


def test_each_name_is_declared_once_and_is_a_constant() -> None:
    names = [metric.name for metric in DECLARED]
    constants = [value for value in vars(metrics).values() if isinstance(value, str) and value in names]
    assert len(names) == len(set(names))
    assert sorted(constants) == sorted(names)


@pytest.mark.parametrize("metric", DECLARED, ids=[metric.name for metric in DECLARED])
def test_each_metric_has_a_unit_and_a_meaning_and_is_found_by_its_name(metric: metrics.Metric) -> None:
    assert metric.unit
    assert len(metric.meaning.split()) > 1
    parts = {
        "split": "train",
        "kind": "sample_parse_error",
        "part": "city",
        "model": "org/judge {1}",
        "tool": "look_up",
    }
    assert metrics.find(metric.name.format(**parts)) is not None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("parts/valid/a/b", metrics.PART_MEAN),
        ("dpo/full_valid_reward_margin", metrics.DPO_VALID_REWARD_MARGIN),
        ("dpo/reward_margin", metrics.DPO_REWARD_MARGIN),
        ("reward/median", None),
        ("time", None),
    ],
)
def test_a_name_is_found_by_its_pattern(name: str, expected: str | None) -> None:
    found = metrics.find(name)
    assert (found and found.name) == expected


def test_the_file_needs_nothing_but_the_standard_library() -> None:
    tree = ast.parse(Path(metrics.__file__).read_text(encoding="utf-8"))
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    modules |= {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    assert modules == {"__future__", "re", "typing"}


def test_nobody_spells_a_name_out() -> None:
    root = Path(metrics.__file__).parents[1]
    files = [file for folder in ("app", "workers") for file in sorted((root / folder).rglob("*.py"))]
    spelt = [
        f"{file.relative_to(root)}:{node.lineno} {node.value}"
        for file in files
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and metrics.find(node.value)
    ]
    assert spelt == [], "use the constant of methods/metrics.py"
