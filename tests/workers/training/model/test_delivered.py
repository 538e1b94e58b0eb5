"""Delivered folders: they stop where training stopped, in the base's dtypes, with all that lay beside it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from methods.tune_config import TuneConfig
from tests.workers.training.conftest import moved
from tests.workers.training.support import FunctionGrader, ListRecorder, make_config, make_rows
from tests.workers.tuning.test_run import rows as tuning_rows
from workers.training.base.types import Checkpoint
from workers.training.loop import train
from workers.training.measures.drift import DriftMeter
from workers.training.model.delivered import decodes_otherwise
from workers.training.model.policy import Policy
from workers.training.model.stored_types import stored_types
from workers.training.prompts import make_prompts
from workers.training.sampling.rollout import Sampling, sample_groups
from workers.tuning.run import tune

NANO_FOLDER = Path(__file__).parents[4] / "workers" / "models" / "cherry_nano"
IM_END, END_OF_TEXT = 2, 3
QUESTIONS = ("Say hello.", "Sort: pear, fig", "What is 2 plus 3?", "Spell: cat")
LONG = 60
"""Tokens that an answer may have: more than any to these questions."""


def edit(file: Path, **changes: Any) -> None:
    """Changes keys of a JSON file; None removes one."""
    content = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def cast(file: Path, dtype: torch.dtype, only: str = "") -> None:
    tensors = {n: w.to(dtype) if only in n else w for n, w in load_file(file).items()}
    save_file(tensors, file, metadata={"format": "pt"})


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """The built-in model, whose files know one end token where its template uses another."""
    folder = tmp_path / "base"
    shutil.copytree(NANO_FOLDER, folder)
    edit(folder / "generation_config.json", eos_token_id=END_OF_TEXT, top_k=7)
    edit(folder / "config.json", eos_token_id=END_OF_TEXT)
    edit(folder / "tokenizer_config.json", eos_token="<|endoftext|>")
    return folder


def nano_config(folder: Path, **changes: Any) -> Any:
    given = {"max_completion_tokens": LONG, "lora_rank": 16, "lora_alpha": 32.0, "learning_rate": 1e-3}
    return make_config(folder, **{**given, "eval_temperature": 1.0, **changes})


def stops_at(folder: Path) -> set[int]:
    ids = GenerationConfig.from_pretrained(folder).eos_token_id
    return set(ids if isinstance(ids, list) else [ids])


def last_checkpoint(recorder: ListRecorder) -> Checkpoint:
    checkpoint: Checkpoint = recorder.all("checkpoint")[-1][0]
    return checkpoint


def generated(folder: Path, prompt: tuple[int, ...], **how: Any) -> list[int]:
    model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, **how)
    ids = torch.tensor([prompt])
    answer = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=LONG)
    found: list[int] = answer[0, len(prompt) :].tolist()
    return found


@pytest.mark.parametrize("adapter", ["lora", pytest.param("full", marks=pytest.mark.long)])
def test_plain_transformers_writes_from_the_download_what_the_greedy_validation_wrote(
    base: Path, tmp_path: Path, adapter: str
) -> None:
    """That is what the weights as delivered say: rounding may not come between."""
    recorder, rows = ListRecorder(), make_rows(*QUESTIONS, "Repeat: red")
    grader = FunctionGrader(lambda text, _: text.count("e") / max(len(text), 1))
    config = nano_config(base, adapter=adapter, n_epochs=1, eval_interval=3)
    train(config, rows, rows, grader, recorder, tmp_path / "run")
    checkpoint = last_checkpoint(recorder)
    (greedy,) = (
        groups for split, step, _, groups in recorder.all("rollouts") if (split, step) == ("greedy", 3)
    )
    for group in greedy:
        answer = generated(checkpoint.folder / "model", group.prompt.tokens, dtype=torch.float32)
        assert answer == list(group.completions[0].tokens)
    assert sum(group.completions[0].finish_reason == "stop" for group in greedy) >= 4
    assert 0 < float(checkpoint.extra["rounding_error"] or 0) < 1


@pytest.mark.parametrize("method", ["supervised", pytest.param("dpo", marks=pytest.mark.long)])
def test_a_tuned_model_stops_at_every_end_token_too(base: Path, tmp_path: Path, method: str) -> None:
    settings = {"probe_tokens": 4, "batch_size": 4, "eval_interval": 1, "n_epochs": 1, "seed": 1}
    config = TuneConfig(
        method=method, model="nano", model_path=str(base), learning_rate=1e-3, device="cpu", **settings
    )
    edit(base / "generation_config.json", repetition_penalty=1.1)
    recorder, rows = ListRecorder(), tuning_rows(method, 4)
    tune(config, rows, rows, recorder, tmp_path / "run")
    folder = last_checkpoint(recorder).folder
    assert stops_at(folder / "model") == stops_at(folder / "adapter") == {IM_END, END_OF_TEXT}
    assert {w.dtype for w in load_file(folder / "model" / "model.safetensors").values()} == {torch.bfloat16}
    assert [said for _, said in recorder.all("note") if "repetition_penalty 1.1" in said]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param({"eos_token_id": 3, "top_k": 7}, {"eos_token_id": [2, 3], "top_k": 7}, id="number"),
        pytest.param({"eos_token_id": [3], "x": None}, {"eos_token_id": [2, 3], "x": None}, id="list"),
        pytest.param({"top_p": 0.5}, {"eos_token_id": [2, 3], "top_p": 0.5}, id="without"),
        pytest.param({"eos_token_id": [3, 2]}, {"eos_token_id": [3, 2]}, id="all-there"),
        pytest.param({"_from_model_config": True}, {"eos_token_id": [2, 3]}, id="derived"),
    ],
)
def test_what_else_a_generation_config_says_stays(
    base: Path, tmp_path: Path, before: dict[str, Any], after: dict[str, Any]
) -> None:
    (base / "generation_config.json").write_text(json.dumps(before))
    policy = Policy.load(nano_config(base))
    policy.save_model(tmp_path / "model")
    policy.save_adapter(tmp_path / "adapter")
    for folder in ("model", "adapter"):
        assert json.loads((tmp_path / folder / "generation_config.json").read_text()) == after


def test_a_base_without_a_generation_config_is_delivered_with_one(base: Path, tmp_path: Path) -> None:
    (base / "generation_config.json").unlink()
    policy = Policy.load(nano_config(base))
    policy.save_model(tmp_path / "model")
    policy.save_adapter(tmp_path / "adapter")
    assert stops_at(tmp_path / "model") == stops_at(tmp_path / "adapter") == {IM_END, END_OF_TEXT}
    assert "_from_model_config" not in (tmp_path / "model" / "generation_config.json").read_text()


def test_all_that_lies_beside_the_base_comes_along(base: Path, tmp_path: Path) -> None:
    along = {
        "additional_chat_templates/tool_use.jinja": "{{ messages }}",
        "preprocessor_config.json": "{}",
        "tokenizer.model.v3": "x",
        "source.spm": "x",
        "voices/list.txt": "one",
        "LICENSE": "free",
    }
    not_along = {
        "README.md": "card",
        "onnx/model.onnx": "x",
        "figure.png": "x",
        ".cache/x.json": "{}",
        "model.safetensors.index.json": "{}",
    }
    for name, text in {**along, **not_along}.items():
        (base / name).parent.mkdir(exist_ok=True)
        (base / name).write_text(text)
    shutil.copyfile(base / "model.safetensors", base / "voices" / "other.safetensors")
    (base / "model.safetensors.index.json").unlink()
    policy = Policy.load(nano_config(base))
    policy.save_model(tmp_path / "model")
    policy.save_adapter(tmp_path / "adapter")
    for folder in (tmp_path / "model", tmp_path / "adapter"):
        assert {name: (folder / name).read_text() for name in along} == along
        assert not [name for name in not_along if (folder / name).exists()]
        assert not (folder / "voices" / "other.safetensors").exists()
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        assert tokenizer.chat_template == {
            "default": (base / "chat_template.jinja").read_text(),
            "tool_use": along["additional_chat_templates/tool_use.jinja"],
        }
    assert not (tmp_path / "adapter" / "config.json").exists()


@pytest.mark.parametrize(
    ("stored", "config", "delivered", "says"),
    [
        pytest.param("bfloat16", {}, "bfloat16", {"dtype": "bfloat16"}, id="as-it-says"),
        pytest.param(
            "float16",
            {"dtype": None, "torch_dtype": "float16"},
            "float16",
            {"torch_dtype": "float16"},
            id="old",
        ),
        pytest.param("float16", {}, "float16", {"dtype": "float16"}, id="says-another"),
        pytest.param("float32", {}, "float32", {"dtype": "float32"}, id="says-less"),
        pytest.param("bfloat16", {"dtype": None}, "bfloat16", {"dtype": "bfloat16"}, id="says-none"),
    ],
)
@pytest.mark.parametrize("adapter", ["lora", pytest.param("full", marks=pytest.mark.long)])
def test_delivered_weights_and_config_have_the_dtype_that_is_stored(
    base: Path, tmp_path: Path, adapter: str, stored: str, config: dict[str, Any], delivered: str, says: Any
) -> None:
    cast(base / "model.safetensors", getattr(torch, stored))
    edit(base / "config.json", **config)
    policy = moved(Policy.load(nano_config(base, adapter=adapter)))
    policy.save_model(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    assert {w.dtype for w in saved.values()} == {getattr(torch, delivered)}
    written = json.loads((tmp_path / "config.json").read_text())
    assert {key: written[key] for key in ("dtype", "torch_dtype") if key in written} == says
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, local_files_only=True)
    assert loaded.dtype == getattr(torch, delivered)


@pytest.mark.parametrize("shard", ["5GB", "2MB"])
def test_weights_of_several_dtypes_keep_each_its_own(base: Path, tmp_path: Path, shard: str) -> None:
    model = AutoModelForCausalLM.from_pretrained(base)
    model.generation_config.top_k = None  # transformers 5.17 would not write it without `do_sample`
    model.save_pretrained(base, max_shard_size=shard)
    for file in base.glob("model*.safetensors"):
        cast(file, torch.float32, only="norm")
    types = stored_types(base)
    assert types.is_mixed
    policy = moved(Policy.load(nano_config(base, adapter="full")))
    exact = dict(policy.model.named_parameters())
    policy.save_model(tmp_path / "out")
    saved = {n: w for file in (tmp_path / "out").glob("*.safetensors") for n, w in load_file(file).items()}
    assert {n: w.dtype for n, w in saved.items()} == types.of_weights
    assert all(torch.equal(w, exact[n].to(w.dtype)) for n, w in saved.items())
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "bfloat16"


def test_a_config_that_no_weight_agrees_with_gives_way_to_most_of_the_bytes(base: Path) -> None:
    cast(base / "model.safetensors", torch.float16)
    cast(base / "model.safetensors", torch.float32, only="norm")
    assert stored_types(base).of_model == torch.float16
    edit(base / "config.json", dtype="float32")
    assert stored_types(base).of_model == torch.float32


@pytest.mark.parametrize("changes", [{}, {"adapter": "full"}, {"dtype": "bfloat16"}])
def test_what_is_measured_is_what_is_delivered(base: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    """Greedy answers inside are the folder's, the KL is that of its weights; afterwards all is as before."""
    policy = moved(Policy.load(nano_config(base, **changes)))
    before = {name: weight.clone() for name, weight in policy.trained().items()}
    ids = torch.arange(40)[None]
    exact = policy.rollout_model(input_ids=ids).logits
    prompts = make_prompts(make_rows(*QUESTIONS), policy.tokenizer, policy.context, "validation")
    policy.save_model(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=policy.rollout_model.dtype)
    expected = loaded(input_ids=ids).logits
    with policy.as_delivered() as error:
        assert error is not None
        assert 0 < error < 1
        tolerance = (
            {"atol": 1e-5, "rtol": 1e-5} if expected.dtype == torch.float32 else {"atol": 0.1, "rtol": 0}
        )
        torch.testing.assert_close(policy.measured_model(input_ids=ids).logits, expected, **tolerance)
        held = policy.rollout_model.state_dict()
        for name, weight in load_file(tmp_path / "model.safetensors").items():
            assert torch.equal(held[name].to(weight.dtype), weight)
            assert torch.equal(held[name], weight.to(held[name].dtype))
        groups = sample_groups(policy, prompts, Sampling(1, LONG, 0.0, ("greedy",)))
        if expected.dtype == torch.float32:
            assert [list(g.completions[0].tokens) for g in groups] == [
                generated(tmp_path, prompt.tokens, dtype=torch.float32) for prompt in prompts
            ]
            rounded = DriftMeter(policy, prompts, nano_config(base, **changes)).measure_kl().start.per_token
    assert all(torch.equal(weight, before[name]) for name, weight in policy.trained().items())
    assert torch.equal(policy.rollout_model(input_ids=ids).logits, exact)
    if expected.dtype == torch.float32:
        trained = DriftMeter(policy, prompts, nano_config(base, **changes)).measure_kl().start.per_token
        assert rounded.mean != trained.mean
        assert rounded.mean == pytest.approx(trained.mean, rel=0.2)


def test_a_base_in_fp32_is_measured_as_it_is(lora_policy: Policy) -> None:
    with lora_policy.as_delivered() as error:
        assert error is None
        assert lora_policy.measured_model is lora_policy.model


def test_the_base_loses_nothing(base: Path) -> None:
    policy = Policy.load(nano_config(base))
    ids = torch.arange(40)[None]
    exact = policy.rollout_model(input_ids=ids).logits
    with policy.as_delivered() as error:
        assert error is None
        assert torch.equal(policy.measured_model(input_ids=ids).logits, exact)


def test_an_adapter_is_delivered_in_fp32_whatever_computes(base: Path, tmp_path: Path) -> None:
    policy = moved(Policy.load(nano_config(base, dtype="bfloat16")))
    policy.save_adapter(tmp_path)
    saved = load_file(tmp_path / "adapter_model.safetensors")
    assert {weight.dtype for weight in saved.values()} == {torch.float32}


def test_a_generation_config_that_changes_greedy_answers_is_told(base: Path) -> None:
    assert decodes_otherwise(base) is None
    edit(base / "generation_config.json", repetition_penalty=1.05, num_beams=1, temperature=0.6)
    said = decodes_otherwise(base) or ""
    assert "repetition_penalty 1.05," in said
    assert "num_beams" not in said
