"""Downloads in an environment without Cherry: plain transformers and peft write what our sampler writes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import httpx2 as httpx
import pytest
from sqlalchemy.orm import Session

from tests.app.exports.at_home import MOST_TOKENS, QUESTIONS, Made, make_trained, unpack
from tests.app.exports.taken import NANO, add_base
from tests.factories import Tenant

pytestmark = pytest.mark.long
ROOT = Path(__file__).parents[3]
PLAIN = ("torch", "transformers", "peft")
COMMIT = "0123456789abcdef0123456789abcdef01234567"
SCRIPT = f"""
import json, sys
import torch
from peft import AutoPeftModelForCausalLM, PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

how, folder, questions = json.load(sys.stdin)
plain = AutoModelForCausalLM.from_pretrained
if how == "merged":
    model = plain(folder, dtype=torch.float32)
elif how == "adapter":
    model = PeftModel.from_pretrained(plain(folder + "/base", dtype=torch.float32), folder)
else:
    model = AutoPeftModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
tokenizer = AutoTokenizer.from_pretrained(folder)
said = []
for question in questions:
    asked = [{{"role": "user", "content": question}}]
    how = dict(add_generation_prompt=True, return_tensors="pt", return_dict=True)
    prompt = tokenizer.apply_chat_template(asked, **how)
    reply = model.generate(**prompt, do_sample=False, max_new_tokens={MOST_TOKENS})
    said.append(tokenizer.decode(reply[0, prompt["input_ids"].shape[1]:], skip_special_tokens=True))
json.dump(said, sys.stdout)
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Python with transformers and peft alone; CHERRY_TEST_PLAIN_PYTHON names one that is there already."""
    if there := os.environ.get("CHERRY_TEST_PLAIN_PYTHON"):
        return there
    folder = tmp_path_factory.mktemp("plain") / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, "--constraint", str(ROOT / "constraints.txt"), *PLAIN], check=True)
    return str(folder / "bin" / "python")


def run(python: str, script: str, given: object, cwd: Path, **environment: str) -> str:
    env = {"PATH": os.environ["PATH"], "HOME": str(cwd), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    asked = [python, "-I", "-W", "ignore", "-c", script]
    done = subprocess.run(
        asked, input=json.dumps(given), capture_output=True, text=True, cwd=cwd, env=env | environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def says(python: str, how: str, folder: Path, cwd: Path, **environment: str) -> list[str]:
    found: list[str] = json.loads(run(python, SCRIPT, [how, str(folder), QUESTIONS], cwd, **environment))
    return found


def test_cherry_is_not_there(python: str, tmp_path: Path) -> None:
    script = "import importlib.util as u; print([u.find_spec(n) for n in ('app', 'workers', 'graders')])"
    assert run(python, script, None, tmp_path).strip() == "[None, None, None]"


@pytest.fixture
def made(db: Session, tenant: Tenant, tmp_path: Path) -> Made:
    folder = tmp_path / "added"
    shutil.copytree(NANO, folder)
    add_base(db, "own", folder, licence="mit")
    return make_trained(db, tenant, "own", tmp_path / "step_000001")


def test_merged_and_adapter_write_the_samplers_text(
    http: httpx.Client, made: Made, python: str, tmp_path: Path
) -> None:
    assert len(set(made.adapter_says)) > 1
    merged = unpack(http, made, "merged", tmp_path / "merged")
    assert says(python, "merged", merged, tmp_path) == made.merged_says
    adapter = unpack(http, made, "adapter", tmp_path / "adapter")
    assert says(python, "auto", adapter, tmp_path) == made.adapter_says
    shutil.rmtree(tmp_path / "added")
    assert says(python, "adapter", adapter, tmp_path) == made.adapter_says


def test_the_lines_that_are_told_work(http: httpx.Client, made: Made, python: str, tmp_path: Path) -> None:
    found = http.get(f"/v1/fine_tuning/checkpoints/{made.checkpoint.id}").json()["downloads"]
    for form in found[:2]:
        folder = unpack(http, made, form["format"], tmp_path / form["format"])
        lines = form["use"]["transformers"].replace("FOLDER", str(folder))
        assert run(python, lines.replace("max_new_tokens=200", "max_new_tokens=5"), None, tmp_path).strip()


def test_a_base_in_the_hubs_cache_is_found_by_its_id(
    http: httpx.Client, db: Session, tenant: Tenant, python: str, tmp_path: Path
) -> None:
    repository = tmp_path / "cache" / "models--acme--nano"
    shutil.copytree(NANO, repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("f" * 40)
    add_base(db, "nano", repository / "snapshots" / COMMIT, hub="acme/nano", revision=COMMIT)
    made = make_trained(db, tenant, "nano", tmp_path / "step_000001")
    adapter = unpack(http, made, "adapter", tmp_path / "adapter")
    assert not (adapter / "base").exists()
    cache = str(tmp_path / "cache")
    assert says(python, "auto", adapter, tmp_path, HF_HUB_CACHE=cache) == made.adapter_says
