"""Registering base models: only folders that are safe and complete."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
from sqlalchemy.orm import Session
from typer.testing import CliRunner

from app.cli.main import cli
from app.embedded.first_run import BUILT_IN_CANNOT_SHOW, built_in_model
from app.inspection import ChildLimits
from app.models import folders
from app.models import service as models
from app.models.folders import BaseModelInvalid
from tests.factories import Tenant
from tests.model_folders import write

NANO = Path(__file__).parents[3] / "workers" / "models" / "cherry_nano"
EATS_MEMORY = "{% for i in range(1000) %}{{ 'x' * 99999999 }}{% endfor %}"
NEVER_ENDS = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}{{ messages }}"


def with_template(folder: Path, template: str) -> Path:
    shutil.copytree(NANO, folder)
    (folder / "chat_template.jinja").write_text(template)
    return folder


def test_a_model_is_everybodys_and_can_move(db: Session, tenant: Tenant, tmp_path: Path) -> None:
    first = models.add_base_model(db, "qwen3-0.6b", write(tmp_path / "a", {}))
    again = models.add_base_model(db, "qwen3-0.6b", write(tmp_path / "b", {}))
    assert first.id == again.id
    assert models.tunable(db, tenant.project_id, "qwen3-0.6b").folder == str(tmp_path / "b")


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        pytest.param({"config.json": None}, "config.json is missing", id="no-config"),
        pytest.param({"model.safetensors": None}, r"no \*\.safetensors", id="no-weights"),
        pytest.param({"model.safetensors": b""}, "model.safetensors cannot be used", id="no-header"),
        pytest.param({"pytorch_model.bin": b""}, "pickled files", id="pickle"),
        pytest.param({"tokenizer.json": None}, "tokenizer is missing", id="no-tokenizer"),
        pytest.param({"tokenizer_config.json": None}, "no chat template", id="no-template"),
        pytest.param({"tokenizer_config.json": b"{"}, "no JSON.*; .*no chat template", id="broken-json"),
    ],
)
def test_an_unfit_folder_is_refused(
    db: Session, tmp_path: Path, files: dict[str, bytes | None], reason: str
) -> None:
    with pytest.raises(BaseModelInvalid, match=reason):
        models.add_base_model(db, "m", write(tmp_path / "m", files))
    assert models.list_models(db, "none") == []


@pytest.mark.parametrize("name", ["", "ft:a", "a/b", "../a", "a b", ".a", "x" * 97, "a\n"])
def test_names_are_plain(db: Session, tmp_path: Path, name: str) -> None:
    with pytest.raises(BaseModelInvalid, match="cannot name a model"):
        models.add_base_model(db, name, write(tmp_path / "m", {}))


def test_a_folder_that_is_not_there_is_refused(db: Session, tmp_path: Path) -> None:
    with pytest.raises(BaseModelInvalid, match="not a folder"):
        models.add_base_model(db, "m", tmp_path / "none")


def test_a_template_that_eats_memory_is_refused(tmp_path: Path) -> None:
    limits = ChildLimits(seconds=120, memory_bytes=2**30)
    with pytest.raises(BaseModelInvalid, match=r"do not come to an end: .*more than the 1024 MiB"):
        folders.try_model_folder(with_template(tmp_path / "m", EATS_MEMORY), limits)


@pytest.mark.long
def test_a_template_that_never_ends_is_refused(tmp_path: Path) -> None:
    limits = ChildLimits(seconds=20)
    with pytest.raises(BaseModelInvalid, match=r"do not come to an end: .*not end within 20 s"):
        folders.try_model_folder(with_template(tmp_path / "m", NEVER_ENDS), limits)


@pytest.mark.long
def test_the_command_line_tells_what_a_template_does_not_show(db: Session, tmp_path: Path) -> None:
    place = ["--data", str(tmp_path)]
    added = CliRunner().invoke(cli, ["models", "add", "nano-2", str(NANO), *place])
    assert "Its chat template does not show thoughts, tools, tool calls." in added.output
    assert "Tool calls: not understood: no jobs with tools. To mend it, give the tokenizer" in added.output
    assert "Added nano-2." in added.output
    listed = json.loads(CliRunner().invoke(cli, ["models", "list", "--json", *place]).output)
    assert [model["cannot_show"] for model in listed if model["name"] == "nano-2"] == [
        ["thoughts", "tools", "tool_calls"]
    ]
    assert CliRunner().invoke(cli, ["models", "list", *place]).exit_code == 0
    shown = " ".join(CliRunner().invoke(cli, ["models", "show", "nano-2", *place]).output.split())
    assert "not understood: no jobs with tools. To mend it, give the tokenizer" in shown
    assert "(to teach it some: docs/thinking.md)" in shown


@pytest.mark.long
@pytest.mark.parametrize(("name", "gaps"), BUILT_IN_CANNOT_SHOW.items())
def test_a_built_in_model_passes_its_trial(name: str, gaps: tuple[str, ...]) -> None:
    folder = built_in_model(name)
    assert folder is not None
    told, cannot_show, family = folders.try_model_folder(folder)
    assert (told, cannot_show) == (None, list(gaps))
    assert family is not None
    assert family["template"] is None
    assert ("not understood" in family["calls"]) == ("tools" in gaps)


def test_without_transformers_it_is_said_that_nothing_was_tried() -> None:
    without_packages = (sys.executable, "-S", "-m", "workers.inspect")
    told, cannot_show, family = folders.try_model_folder(NANO, command=without_packages)
    assert told is not None
    assert (cannot_show, family) == (None, None)
    assert "transformers is not installed here. To mend it: pip install 'cherry-rft[train]'" in told


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("config.json", json.dumps({"model_type": "no-such-model"}), "config.json is none that transformers"),
        ("config.json", json.dumps({"model_type": "t5"}), "'t5', which is no causal language model"),
        ("config.json", json.dumps({"model_type": "llama", "hidden_size": "wide"}), "config.json is none"),
        ("tokenizer.json", "{}", r"the tokenizer \(tokenizer.json\) cannot be loaded"),
        (
            "chat_template.jinja",
            "{% for m in messages %}",
            r"\(chat_template.jinja\) does not render a user's message: Template",
        ),
        ("chat_template.jinja", "{{ raise_exception('never') }}", "does not render.*never"),
        ("chat_template.jinja", "{{ messages[7].content.x }}", "does not render"),
        ("chat_template.jinja", "{{ ''.__class__.__mro__ }}", "does not render.*unsafe"),
        ("chat_template.jinja", "hello", "without its text"),
        ("chat_template.jinja", "{{ 'x' * 2000000 }}{{ messages }}", "makes 2,000,"),
    ],
)
def test_the_trial_names_what_cannot_be_used(tmp_path: Path, name: str, content: str, reason: str) -> None:
    from workers.inspect.model import inspect

    shutil.copytree(NANO, tmp_path / "m")
    (tmp_path / "m" / name).write_text(content)
    fault = inspect(str(tmp_path / "m"))["fault"]
    assert fault is not None
    assert re.search(reason, fault), fault


def test_a_template_that_reads_parts_can_be_used(tmp_path: Path) -> None:
    from workers.inspect.model import inspect

    template = "{% for m in messages %}{% for p in m.content %}{{ p.text }}{% endfor %}{% endfor %}"
    assert inspect(str(with_template(tmp_path / "m", template)))["fault"] is None


def test_a_model_that_does_not_know_its_templates_tokens_is_refused(tmp_path: Path) -> None:
    from workers.inspect.model import inspect

    folder = with_template(tmp_path / "m", "<turn>{{ messages[0].content }}")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    tokenizer["added_tokens"].append({"id": 1280, "content": "<turn>", **plain})
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    fault = inspect(str(folder))["fault"]
    assert fault == (
        "the tokenizer is of another model: its conversations take the token '<turn>' (1280), and the model"
        " has embedding rows for 1,280 tokens"
    )


def test_a_template_may_refuse_a_system_message(tmp_path: Path) -> None:
    from workers.inspect.model import inspect

    refusing = "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}"
    template = refusing + "{{ messages[0].content }}"
    found = inspect(str(with_template(tmp_path / "m", template)))
    assert found["fault"] is None
    assert "system_messages" in found["cannot_show"]


def saying(found: dict[str, object]) -> tuple[str, ...]:
    """A program in the place of the inspections, which finds this."""
    told = json.dumps({"found": {"fault": None, "reason": None, "untried": None} | found})
    return (sys.executable, "-S", "-c", f"print({told!r})")


def test_a_model_that_the_engine_computes_wrongly_is_refused_with_the_reason(tmp_path: Path) -> None:
    wrong = saying({"fault": "XForCausalLM computes logits that are not finite."})
    with pytest.raises(
        BaseModelInvalid, match=r"m cannot be trained: XForCausalLM computes logits that are not"
    ):
        folders.try_engine(tmp_path / "m", command=wrong)


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ({}, None),
        ({"reason": "it has sinks."}, "Path: general, because it has sinks."),
        ({"untried": "its layers are too large"}, "not tried with this model: its layers are too large."),
    ],
)
def test_what_an_operator_should_know_of_a_model_is_told(
    tmp_path: Path, found: dict[str, object], told: str | None
) -> None:
    said = folders.try_engine(tmp_path / "m", command=saying(found))
    assert said is None if told is None else told in str(said)


def test_an_engine_that_cannot_be_tried_is_no_fault_of_the_model(tmp_path: Path) -> None:
    said = folders.try_engine(tmp_path / "m", command=(sys.executable, "-S", "-c", "raise SystemExit(3)"))
    assert said is not None
    assert "not tried with this model" in said
