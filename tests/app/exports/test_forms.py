"""Adapter and merged model: what each holds, for a base of every kind, and why one is refused."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path

import httpx2 as httpx
import pytest
from sqlalchemy.orm import Session

from app.cards import service as cards
from app.exports import base
from tests.app.answers import error_of
from tests.app.exports.taken import FILES, GENERATION, LORA, NANO, add_base, make_taken, path_of, unpacked
from tests.damage import flip_last_bit
from tests.factories import Tenant, make_checkpoint, make_export, make_job, make_tuned_model

REVISION = "a" * 40
SAMPLES = {"do_sample": True, "temperature": 1.0, "top_p": 1.0, "top_k": 0}


def config_of(files: dict[str, bytes]) -> dict[str, object]:
    found: dict[str, object] = json.loads(files["adapter_config.json"])
    return found


def refused(response: httpx.Response) -> str:
    assert (response.status_code, error_of(response)["code"]) == (400, "export_refused")
    assert error_of(response)["param"] == "format"
    return str(error_of(response)["message"])


def test_an_adapter_names_its_base_on_the_hub(http: httpx.Client, db: Session, tenant: Tenant) -> None:
    add_base(db, "nano", NANO, hub="acme/nano", revision=REVISION, licence="mit")
    job, checkpoint = make_taken(db, tenant, model="nano")
    files = unpacked(http.get(path_of(job, checkpoint, "adapter")))
    assert config_of(files) == {
        **LORA,
        "base_model_name_or_path": "acme/nano",
        "revision": REVISION,
        "target_modules": ["o_proj", "q_proj", "v_proj"],
    }
    assert not [name for name in files if name.startswith("base/")]
    card = files["README.md"].decode()
    assert card.startswith("---\nbase_model: acme/nano\nbase_model_relation: adapter\nlicense: mit\n")
    assert f"vllm serve acme/nano --revision {REVISION}" in card
    assert f"from_pretrained('acme/nano', revision='{REVISION}')" in card


def test_a_base_without_a_public_name_comes_along(
    http: httpx.Client, db: Session, tenant: Tenant, tmp_path: Path
) -> None:
    folder = tmp_path / "nano"
    shutil.copytree(NANO, folder)
    add_base(db, "own", folder, licence=None)
    job, checkpoint = make_taken(db, tenant, model="own")
    files = unpacked(http.get(path_of(job, checkpoint, "adapter")))
    assert config_of(files)["base_model_name_or_path"] == str(folder)
    held = {name.removeprefix("base/"): data for name, data in files.items() if name.startswith("base/")}
    assert held == {path.name: path.read_bytes() for path in NANO.iterdir()}
    assert "license: apache-2.0\n" in files["README.md"].decode()
    assert "base_model:" not in files["README.md"].decode()


def test_the_built_in_base_is_named_by_its_place_in_the_download(
    http: httpx.Client, db: Session, tenant: Tenant
) -> None:
    add_base(db, "built-in", NANO)
    job, checkpoint = make_taken(db, tenant, model="built-in")
    files = unpacked(http.get(path_of(job, checkpoint, "adapter")))
    assert config_of(files)["base_model_name_or_path"] == "base"
    assert files["base/model.safetensors"] == (NANO / "model.safetensors").read_bytes()
    assert "vllm serve FOLDER/base" in files["README.md"].decode()


def test_a_warm_starts_adapter_comes_with_what_it_stands_on(
    http: httpx.Client, db: Session, tenant: Tenant
) -> None:
    add_base(db, "nano", NANO, hub="acme/nano", licence="mit")
    first = make_job(db, tenant.project_id, status="succeeded", model="nano")
    make_checkpoint(db, first, 1, {**FILES, "model/model.safetensors": b"first"})
    model = make_tuned_model(db, first)
    job, checkpoint = make_taken(db, tenant, model=model.name)
    files = unpacked(http.get(path_of(job, checkpoint, "adapter")))
    assert config_of(files)["base_model_name_or_path"] == "base"
    assert files["base/model.safetensors"] == b"first"
    assert files["base/additional_chat_templates/tool_use.jinja"] == b"{{ tools }}"
    merged = unpacked(http.get(path_of(job, checkpoint, "merged")))["README.md"].decode()
    assert "base_model: acme/nano\nbase_model_relation: finetune\nlicense: mit\n" in merged


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("too-large", r"'own' has no public name, and its \d+ MB are more than the 50 MB"),
        ("gone", "the model that the job has started from is gone"),
        ("elsewhere", "'own' has no public name, and its files are not on the machine of the API"),
        ("full", "This checkpoint has no adapter: every weight was trained"),
    ],
)
def test_where_there_is_no_adapter_the_merged_model_is_offered(
    http: httpx.Client,
    db: Session,
    tenant: Tenant,
    tmp_path: Path,
    change: str,
    why: str,
) -> None:
    folder = tmp_path / "own"
    shutil.copytree(NANO, folder)
    add_base(db, "own", folder, revision="7")
    files = {name: data for name, data in FILES.items() if change != "full" or name.startswith("model/")}
    job, checkpoint = make_taken(db, tenant, files, model="none" if change == "gone" else "own")
    if change == "too-large":
        with (folder / "vision.safetensors").open("wb") as file:
            file.truncate(base.MOST_BYTES)
    if change == "elsewhere":
        shutil.rmtree(folder)
    message = refused(http.get(path_of(job, checkpoint, "adapter")))
    assert re.search(why, message), message
    assert "format=merged is the whole model" in message
    assert unpacked(http.get(path_of(job, checkpoint, "merged")))["model.safetensors"] == b"m" * 5000
    listed = http.get(f"/v1/fine_tuning/jobs/{job.id}/checkpoints").json()["data"][0]
    offered = {one["format"]: one["refused"] for one in listed["downloads"]}
    assert offered == {"adapter": message, "merged": None, "gguf": None}


@pytest.mark.parametrize(("code", "told"), [("export_refused", "No rule fits."), ("server_error", None)])
def test_what_a_worker_has_refused_is_offered_no_more(
    http: httpx.Client, db: Session, tenant: Tenant, code: str, told: str | None
) -> None:
    add_base(db, "own", NANO)
    job, checkpoint = make_taken(db, tenant, model="own")
    error = {"code": code, "message": "No rule fits."}
    make_export(db, job, checkpoint, status="failed", error=error)
    db.commit()
    (listed,) = http.get(f"/v1/fine_tuning/jobs/{job.id}/checkpoints").json()["data"]
    offered = {one["format"]: (one["refused"], bool(one["use"])) for one in listed["downloads"]}
    assert offered == {"adapter": (None, True), "merged": (None, True), "gguf": (told, told is None)}


def test_a_base_that_was_replaced_is_not_handed_out(http: httpx.Client, db: Session, tenant: Tenant) -> None:
    add_base(db, "own", NANO, hub="acme/nano", weights={"model.safetensors": "new"})
    job, checkpoint = make_taken(db, tenant, model="own")
    facts = {"base_model": {"name": "own", "files": {"model.safetensors": "old"}, "sha256": "x"}}
    cards.note_facts(db, job.id, {"attempt": 1}, facts)
    db.commit()
    assert "'own' means other weights now" in refused(http.get(path_of(job, checkpoint, "adapter")))


def test_a_merged_model_samples_as_training_did(http: httpx.Client, db: Session, tenant: Tenant) -> None:
    job, checkpoint = make_taken(db, tenant)
    files = unpacked(http.get(path_of(job, checkpoint, "merged")))
    config = json.loads(files["generation_config.json"])
    assert config == {"eos_token_id": [2, 3], "pad_token_id": 0, **SAMPLES}
    assert files["additional_chat_templates/tool_use.jinja"] == b"{{ tools }}"
    assert "The weights are bfloat16." in files["README.md"].decode()
    stored = unpacked(http.get(path_of(job, checkpoint)))
    assert json.loads(stored["model/generation_config.json"]) == GENERATION


def test_a_run_at_another_temperature_says_so(http: httpx.Client, db: Session, tenant: Tenant) -> None:
    add_base(db, "built-in", NANO)
    config = {"lora_rank": 8, "temperature": 0.7}
    job, checkpoint = make_taken(db, tenant, model="built-in", config=config)
    for form in ("merged", "adapter"):
        files = unpacked(http.get(path_of(job, checkpoint, form)))
        assert json.loads(files["generation_config.json"])["temperature"] == 0.7


def test_the_card_tells_how_a_load_in_the_weights_dtype_differs(
    http: httpx.Client, db: Session, tenant: Tenant
) -> None:
    job, checkpoint = make_taken(db, tenant)
    assert "was not measured" in unpacked(http.get(path_of(job, checkpoint, "merged")))["README.md"].decode()
    found = {"load_dtype": "bfloat16", "load_difference": 0.314, "load_kl": 7.12e-4, "load_tokens": 300}
    checkpoint.trust = found
    db.commit()
    card = unpacked(http.get(path_of(job, checkpoint, "merged")))["README.md"].decode()
    assert "up to 0.31 nats, and the KL is 0.00071 nats per token (300 tokens of text)" in card


def test_texts_of_users_are_no_markup_in_a_card(http: httpx.Client, db: Session, tenant: Tenant) -> None:
    job, checkpoint = make_taken(db, tenant)
    checkpoint.model_name = "ft:nano:acme:<script>[x](http://e.vil)|`"
    db.commit()
    card = unpacked(http.get(path_of(job, checkpoint, "merged")))["README.md"].decode()
    title = next(line for line in card.splitlines() if line.startswith("# "))
    assert title == r"# ft:nano:acme:&lt;script&gt;\[x\](http:&#47;/e.vil)\|\`"


@pytest.mark.parametrize("form", ["adapter", "merged"])
def test_a_form_is_the_same_bytes_each_time_and_tells_its_sums(
    http: httpx.Client, db: Session, tenant: Tenant, form: str
) -> None:
    add_base(db, "built-in", NANO)
    job, checkpoint = make_taken(db, tenant, model="built-in")
    first, second = (http.get(path_of(job, checkpoint, form)) for _ in range(2))
    assert first.content == second.content
    files = unpacked(first)
    sums = json.loads(files.pop("manifest.json"))["files"]
    assert {name: each["sha256"] for name, each in sums.items()} == {
        name: hashlib.sha256(data).hexdigest() for name, data in files.items()
    }
    assert {"card.json", "card.md", "README.md"} <= files.keys()


@pytest.mark.parametrize("name", ["adapter/adapter_model.safetensors", "adapter/adapter_config.json"])
def test_a_damaged_file_is_not_sent_in_any_form(
    http: httpx.Client, db: Session, tenant: Tenant, name: str
) -> None:
    add_base(db, "built-in", NANO)
    job, checkpoint = make_taken(db, tenant, model="built-in")
    flip_last_bit(f"{checkpoint.storage_key}/{name}")
    answer = http.get(path_of(job, checkpoint, "adapter"))
    assert (answer.status_code, error_of(answer)["code"]) == (500, "checkpoint_damaged")
    assert http.get(path_of(job, checkpoint, "merged")).status_code == 200


def test_a_checkpoint_is_found_by_id_and_by_each_of_its_names(
    http: httpx.Client, db: Session, tenant: Tenant
) -> None:
    job = make_job(db, tenant.project_id, status="succeeded")
    checkpoint = make_checkpoint(db, job, 1, FILES)
    model = make_tuned_model(db, job)
    job.fine_tuned_model = model.name
    db.commit()
    for name in (checkpoint.id, checkpoint.model_name, model.name):
        found = http.get(f"/v1/fine_tuning/checkpoints/{name}").json()
        assert (found["id"], found["fine_tuned_model_checkpoint"]) == (checkpoint.id, model.name)
        assert found["downloads"][1]["path"] == path_of(job, checkpoint, "merged")
        assert "vllm serve FOLDER --served-model-name ft-cherry-nano-acme-x-abcd1234" in str(
            found["downloads"]
        )
    assert http.get("/v1/fine_tuning/checkpoints/ft:none").status_code == 404
