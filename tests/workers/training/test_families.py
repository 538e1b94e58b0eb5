"""Families of models, each trained and delivered as by `make families`: a few here, all in the long run."""

from __future__ import annotations

import os
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from scripts.families import __main__ as command
from scripts.families.listed import Family, families, make_model
from scripts.families.trial import delivered, reinforce, try_family

BY_TYPE = {family.type: family for family in families()}

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # TRL's and PEFT's, of transformers
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore:.*_pattern keys did not match:RuntimeWarning"),  # PEFT
]


@pytest.mark.parametrize("model_type", ["gpt_oss", "mamba", "mistral3"])
def test_sinks_states_and_text_parts_are_trained_and_delivered_right(model_type: str, tmp_path: Path) -> None:
    model = make_model(BY_TYPE[model_type], tmp_path / "model")
    found = reinforce(model, "lora", tmp_path / "run")
    assert found["apart"] < 1e-5
    assert any("Path: general" in note for note in found["notes"]) == (found["path"] == "general")


def test_a_delivered_model_that_is_another_is_found_out(tmp_path: Path) -> None:
    base = make_model(BY_TYPE["llama"], tmp_path / "model")
    (tmp_path / "last").mkdir()
    (tmp_path / "last" / "model").symlink_to(base)
    with pytest.raises(AssertionError, match="nothing was trained"):
        delivered(base, tmp_path / "last")


def test_the_list_is_long_and_its_page_has_each_family() -> None:
    page = command.PAGE.read_text()
    assert len(families()) >= 50
    missing = [family.name for family in families() if f"| {family.name} |" not in page]
    assert not missing, f"make families, for {missing}"
    for library in ("transformers", "peft", "trl"):
        assert f"{library} {version(library)}" in page, f"make families: {library} has changed"


def test_a_fault_is_wrong_unless_trl_has_it_too() -> None:
    name = families()[0].name
    told = {method: {"fault": "RuntimeError"} for method in ("lora", "full", "supervised", "dpo")}
    assert "**wrong**" in command.table({name: {**told, "trl_trains": True}})
    assert "refused, by TRL too" in command.table({name: {**told, "trl_trains": False}})
    assert "**wrong**" in command.table({name: {"model": {"fault": "crashed"}}})


@pytest.mark.long
@pytest.mark.parametrize("family", families()[::6], ids=lambda family: family.type)
def test_a_part_of_the_table_is_made_again(family: Family) -> None:
    found = try_family(family)
    assert "**wrong**" not in command.table({family.name: found}), found


@pytest.mark.long
def test_a_process_that_ends_costs_its_family_alone(tmp_path: Path) -> None:
    """A family whose code kills the process is told, and the next one is tried."""
    program = tmp_path / "python"
    program.write_text(
        f"#!{sys.executable}\nimport sys\n"
        "names = sys.argv[4:]\nif len(names) == 1:\n    print('{\"family\": \"' + names[0] + '\"}')\n"
    )
    program.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", os.fspath(program))
        found = command.in_processes(["a", "b"])
    assert found == {"a": {"model": {"fault": "the process ended with 0"}}, "b": {}}
