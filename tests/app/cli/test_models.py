"""`cherry models add|show|list|rm`: base models with where they came from, and what jobs may do with them."""

from __future__ import annotations

import getpass
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
import torch
from safetensors.torch import load_file, save_file
from sqlalchemy.orm import Session
from typer.testing import CliRunner, Result

from app.cli.main import cli
from app.cli.models.show import _lines, _memory, _row, in_short
from app.cli.output import CliError
from app.embedded import first_run
from app.models import bases
from app.models import service as models
from app.models.folders import BaseModelInvalid
from app.models.models import ModelAlias
from app.settings import Settings
from tests.app.answers import error_of
from tests.factories import Tenant, make_job, make_preflight, make_tuned_model
from tests.model_folders import write

NANO = Path(__file__).parents[3] / "workers" / "models" / "cherry_nano"
OWN_TEMPLATE = "{% for m in messages %}{{ m['content'] }}<|im_end|>{% endfor %}{{ date_string is defined }}"


@pytest.fixture
def place(settings: Settings) -> list[str]:
    return ["--data", str(settings.data_dir)]


def call(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["models", *arguments])


def origin_of(
    folder: Path, *, revision: str | None = None, weights: str = "a", template: str | None = None
) -> Any:
    return bases.origin_of(folder, revision, {"model.safetensors": weights}, template)


def test_a_model_shows_what_it_is_and_takes(db: Session, tenant: Tenant) -> None:
    from workers.inspect.facts import inspect

    origin = bases.origin_of(NANO, "abc123", {"model.safetensors": "5a"}, None)
    models.add_base_model(db, "nano", NANO, ["tools"], ["dpo"], origin._asdict())
    make_job(db, tenant.project_id, status="succeeded", model="nano")
    found, folder = _row(db, "nano")
    facts = inspect(str(folder))
    assert facts["architecture"] == "LlamaForCausalLM"
    assert (facts["size"]["parameters"], facts["size"]["context"]) == (3_771_136, 1024)
    assert (facts["path"], facts["dtypes"]) == ("fast", ["BF16"])
    assert facts["variables"] == ["add_generation_prompt", "messages"]
    told = {**found, **facts, "not_inspected": None, "memory": _memory(facts["size"])}
    assert told["memory"]["cpu"]["reinforcement full"]["certain"] == 5 * 4 * 3_771_136
    lines = dict(_lines(told))
    assert lines["Parameters"] == "3,771,136 (3.77M)"
    assert lines["Methods"] == "dpo"
    assert lines["Revision"] == "abc123"
    assert lines["Weights"] == "model.safetensors sha256 5a"
    assert lines["Added"].endswith(f" by {getpass.getuser()}")
    assert lines["Jobs"] == "1 succeeded"


@pytest.mark.long
def test_a_model_is_added_with_a_template_of_its_own(
    db: Session,
    tenant: Tenant,
    place: list[str],
    tmp_path: Path,
    http: httpx.Client,
    job_body: dict[str, Any],
) -> None:
    folder, template = tmp_path / "own", tmp_path / "own.jinja"
    shutil.copytree(NANO, folder)
    (folder / "chat_template.jinja").unlink()
    template.write_text(OWN_TEMPLATE)
    options = ["--revision", "abc123", "--methods", "reinforcement,dpo", "--template", str(template)]
    added = call("add", "own", str(folder), *options, *place)
    assert added.exit_code == 0, added.output
    shown = json.loads(call("show", "own", "--json", *place).output)
    digest = hashlib.sha256((NANO / "model.safetensors").read_bytes()).hexdigest()
    assert shown["origin"]["weights"] == {"model.safetensors": digest}
    assert (shown["origin"]["folder"], shown["origin"]["revision"]) == (str(folder), "abc123")
    assert shown["origin"]["template"] == hashlib.sha256(OWN_TEMPLATE.encode()).hexdigest()
    made = Path(shown["folder"])
    assert (made / "chat_template.jinja").read_text() == OWN_TEMPLATE
    assert (made / "model.safetensors").stat().st_ino == (folder / "model.safetensors").stat().st_ino
    assert shown["variables"] == ["date_string", "messages"]
    again = call("add", "own", str(folder), "--replace", "--template", str(template), *place)
    assert again.stderr == "The revision was abc123 and becomes None.\n" + (
        "The methods that jobs may use were reinforcement, dpo and become all.\n"
    )
    assert made.is_dir()
    assert http.post("/v1/fine_tuning/jobs", json=job_body | {"model": "own"}).status_code == 200
    template.write_text(OWN_TEMPLATE + " ")
    refused = call("add", "own", str(folder), "--replace", "--template", str(template), *place)
    assert "own cannot be replaced while unfinished jobs use it: ftjob-" in str(refused.exception)
    assert [each.name for each in made.parent.iterdir()] == [made.name]


def test_a_job_by_another_method_than_the_operator_allows_is_refused(
    db: Session, http: httpx.Client, job_body: dict[str, Any], tmp_path: Path
) -> None:
    models.add_base_model(db, "own", write(tmp_path / "m", {}), methods=["reinforcement", "dpo"])
    db.commit()
    supervised = {"model": "own", "method": {"type": "supervised"}}
    refused = error_of(http.post("/v1/fine_tuning/jobs", json=job_body | supervised))
    assert (refused["param"], refused["code"]) == ("method.type", "method_not_available")
    assert "'reinforcement' and 'dpo'" in refused["message"]
    assert http.post("/v1/fine_tuning/jobs", json=job_body | {"model": "own"}).status_code == 200
    assert http.get("/v1/models/own").json()["methods"] == ["reinforcement", "dpo"]


def test_what_is_tuned_from_a_model_may_be_trained_as_it_may(
    db: Session, tenant: Tenant, http: httpx.Client, job_body: dict[str, Any], tmp_path: Path
) -> None:
    models.add_base_model(db, "cherry-nano", write(tmp_path / "m", {}), methods=["dpo"])
    tuned = make_tuned_model(db, make_job(db, tenant.project_id, status="succeeded"))
    db.commit()
    refused = error_of(http.post("/v1/fine_tuning/jobs", json=job_body | {"model": tuned.name}))
    assert "which was tuned from 'cherry-nano', is not available for the method" in refused["message"]
    asked = error_of(http.post("/v1/fine_tuning/jobs", json=job_body | {"seed": -1}))
    assert {each["code"] for each in asked["errors"]} >= {"method_not_available"}


def test_weights_with_numbers_that_are_none_are_refused(place: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(NANO, folder)
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][3, 5] = torch.inf
    save_file(weights, folder / "model.safetensors")
    refused = call("add", "broken", str(folder), *place)
    assert isinstance(refused.exception, BaseModelInvalid)
    told = "model.safetensors holds NaN or an infinity in 'model.layers.1.mlp.up_proj.weight'."
    assert str(refused.exception).endswith(told)


def test_a_name_that_is_taken_is_not_replaced_silently(
    db: Session, tenant: Tenant, place: list[str], tmp_path: Path
) -> None:
    refused = call("add", "cherry-nano", str(NANO), *place)
    assert isinstance(refused.exception, CliError)
    assert "cherry-nano is a model already, in models/cherry-nano: --replace lets" in str(refused.exception)


@pytest.mark.parametrize(
    ("now", "methods", "told"),
    [
        ({}, ["dpo"], []),
        ({"folder": "b"}, ["dpo"], ["The folder was {a} and becomes {b}."]),
        ({"weights": "other"}, ["dpo"], ["Its weights become others."]),
        ({"revision": "2"}, ["dpo"], ["The revision was None and becomes 2."]),
        ({"template": "x"}, ["dpo"], ["Its chat template becomes another."]),
        ({}, None, ["The methods that jobs may use were dpo and become all."]),
    ],
)
def test_what_replacing_changes_is_told(
    db: Session, tmp_path: Path, now: dict[str, Any], methods: list[str] | None, told: list[str]
) -> None:
    a, b = write(tmp_path / "a", {}), tmp_path / "b"
    model = models.add_base_model(db, "m", a, methods=["dpo"], origin=origin_of(a)._asdict())
    folder = tmp_path / now.pop("folder", "a")
    assert bases.changes(model, origin_of(folder, **now), methods) == [each.format(a=a, b=b) for each in told]


def test_no_model_is_replaced_or_removed_under_a_preflight(db: Session, tenant: Tenant) -> None:
    make_preflight(db, tenant.project_id)
    with pytest.raises(BaseModelInvalid, match="cherry-nano cannot be replaced while unfinished jobs use it"):
        bases.check_unused(db, "cherry-nano", "replaced")


def test_a_model_that_is_removed_leaves_what_was_tuned_from_it(
    db: Session, tenant: Tenant, place: list[str]
) -> None:
    tuned = make_tuned_model(db, make_job(db, tenant.project_id, status="succeeded"))
    models.add_alias(db, "o4-mini", "cherry-nano")
    db.commit()
    removed = json.loads(call("rm", "cherry-nano", "--json", "--yes", *place).output)
    assert removed == {
        "name": "cherry-nano",
        "folder": "models/cherry-nano",
        "aliases": ["o4-mini"],
        "tuned": 1,
        "jobs": 1,
    }
    db.rollback()
    assert models.names(db, tenant.project_id) == [tuned.name]
    again = call("rm", "cherry-nano", *place)
    assert "there is no base model 'cherry-nano'" in str(again.exception)


def test_a_model_that_ships_or_has_aliases_is_removed_only_where_that_is_meant(
    db: Session, tenant: Tenant, place: list[str], tmp_path: Path
) -> None:
    models.add_alias(db, "o4-mini", "cherry-nano")
    models.add_base_model(db, "own", write(tmp_path / "own", {}))
    models.add_base_model(db, "named", write(tmp_path / "named", {}))
    models.add_alias(db, "gpt-4o", "named")
    db.commit()
    asked = call("rm", "cherry-nano", *place)
    assert asked.exit_code == 1
    assert asked.stderr.startswith(
        "What stands for cherry-nano goes with it: o4-mini. cherry-nano ships with"
    )
    assert call("rm", "named", *place).exit_code == 1
    assert call("rm", "own", *place).exit_code == 0
    db.rollback()
    assert models.names(db, tenant.project_id) == ["cherry-nano", "named", "gpt-4o", "o4-mini"]


def test_an_alias_does_not_become_a_model(
    db: Session, tenant: Tenant, place: list[str], settings: Settings, tmp_path: Path
) -> None:
    models.add_alias(db, "gpt-4o-mini", "cherry-nano")
    db.commit()
    for options in ([], ["--replace"]):
        refused = call("add", "gpt-4o-mini", str(NANO), *options, *place)
        assert isinstance(refused.exception, BaseModelInvalid)
        assert "'gpt-4o-mini' is an alias of 'cherry-nano': remove it first" in str(refused.exception)
    models.add_base_model(db, "own", write(tmp_path / "m", {}))
    bases.remove(db, "cherry-nano")
    models.add_alias(db, "cherry-nano", "own")
    db.commit()
    first_run.migrate(settings)
    db.rollback()
    assert models.names(db, tenant.project_id) == ["own", "cherry-nano-think", "cherry-nano"]


def test_a_name_that_is_model_and_alias_is_listed_once(db: Session, tenant: Tenant) -> None:
    db.add(ModelAlias(name="cherry-nano", model="cherry-nano"))  # as earlier versions let it be
    db.flush()
    assert models.names(db, tenant.project_id) == ["cherry-nano"]


def test_a_folder_that_was_made_goes_with_its_model(tmp_path: Path) -> None:
    folder, data = (
        write(tmp_path / "m", {".cache/x": b"x", "additional_chat_templates/rag.jinja": b"x"}),
        tmp_path / "d",
    )
    made = bases.make_folder(data, "m", folder, origin_of(folder, template="T"), "T")
    assert sorted(path.name for path in made.iterdir()) == [
        "chat_template.jinja",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert bases.make_folder(data, "m", folder, origin_of(folder, template="T"), "T") == made
    (folder / "config.json").write_text("{}")
    changed = bases.make_folder(data, "m", folder, origin_of(folder, template="T"), "T")
    assert (changed / "config.json").read_text() == "{}"
    assert (made / "config.json").read_text() != "{}"
    assert not bases.remove_made(data, str(folder))
    assert bases.remove_made(data, str(made))
    assert not made.exists()
    assert folder.exists()


def test_the_start_of_a_service_leaves_a_model_that_an_operator_has_put_there(
    settings: Settings, db: Session, tmp_path: Path
) -> None:
    folder = write(tmp_path / "m", {})
    models.add_base_model(db, "cherry-nano", folder, origin=origin_of(folder)._asdict())
    db.commit()
    first_run.migrate(settings)
    db.rollback()
    model = bases.find_base(db, "cherry-nano")
    assert model is not None
    assert model.folder == str(folder)


def test_models_are_listed_with_parameters_and_context(db: Session, place: list[str], tmp_path: Path) -> None:
    models.add_base_model(db, "nano", NANO)
    config = json.dumps({"model_type": "gpt2", "n_positions": 512}).encode()
    models.add_base_model(db, "old", write(tmp_path / "m", {"config.json": config}))
    db.commit()
    listed = {row["name"]: row for row in json.loads(call("list", "--json", *place).output)}
    assert (listed["nano"]["parameters"], listed["nano"]["context"]) == (3_771_136, 1024)
    assert (listed["old"]["parameters"], listed["old"]["context"]) == (4, 512)
    (tmp_path / "m" / "config.json").unlink()
    shown = call("list", *place).output
    assert "3.77M" in shown
    assert "1,024" in shown


@pytest.mark.parametrize(
    ("number", "told"),
    [(None, ""), (999, "999"), (3_771_136, "3.77M"), (134_515_008, "135M"), (7.62e9, "7.62B")],
)
def test_parameters_are_told_in_short(number: Any, told: str) -> None:
    assert in_short(number) == told


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (
            ["--methods", "dpo,rl"],
            "--methods: there is no method 'rl'. There are: reinforcement, supervised, dpo",
        ),
        (["--template", "{empty}"], "is an empty chat template"),
    ],
)
def test_options_that_mean_nothing_are_refused(tmp_path: Path, options: list[str], told: str) -> None:
    (tmp_path / "empty").write_text(" \n")
    refused = call("add", "m", str(NANO), *(each.format(empty=tmp_path / "empty") for each in options))
    assert isinstance(refused.exception, CliError)
    assert told in str(refused.exception)


def test_the_revision_that_was_downloaded_is_known(tmp_path: Path) -> None:
    noted = {".cache/huggingface/download/config.json.metadata": b"c0ffee\netag\n123\n"}
    config = {"config.json": json.dumps({"model_type": "llama", "_name_or_path": "org/m"}).encode()}
    origin = origin_of(write(tmp_path / "m", noted | config))
    assert (origin.revision, origin.source) == ("c0ffee", "org/m")
    assert origin_of(tmp_path / "m", revision="mine").revision == "mine"
