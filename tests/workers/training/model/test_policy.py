import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from methods.rows import Row
from tests.tiny_model import byte_tokenizer
from tests.workers.training.conftest import moved
from tests.workers.training.support import make_config, make_rows
from workers.training.base.errors import ModelInvalid, OutOfContext, PromptInvalid
from workers.training.model.base_model import end_ids, load_base
from workers.training.model.policy import Policy
from workers.training.passes.forward import why_general
from workers.training.prompts import make_prompts


@pytest.mark.parametrize(
    ("configured", "template", "expected"),
    [
        pytest.param(5, None, {5, 257}, id="one-number"),
        pytest.param([5, 6], None, {5, 6, 257}, id="list"),
        pytest.param(None, None, {257}, id="tokenizer-alone"),
        pytest.param(
            None, "{% for m in messages %}{{ m.content }}<pad>\n{% endfor %}", {257, 258}, id="template"
        ),
        pytest.param(None, "{{ raise_exception('no') }}", {257}, id="template-refuses"),
        pytest.param(None, "{% for m in messages %}{{ m.content }} {% endfor %}", {257}, id="no-end"),
        pytest.param(
            None,
            "<pad>{% for m in messages if m.role == 'user' %}{{ m.content }}<pad>{% endfor %}",
            {257},
            id="answer-left-out",
        ),
        pytest.param(
            None,
            "{% for m in messages %}<pad>{{ m.role }} {{ m.content }}{% endfor %}",
            {257, 258},
            id="next",
        ),
        pytest.param(
            None,
            "{% for m in messages %}{{ m.content }}{% for c in m.tool_calls or [] %}{{ c.function.name }}"
            "{{ c.function.arguments | tojson }}{% if loop.last %}<pad>{% endif %}{% endfor %}{% endfor %}",
            {257, 258},
            id="end-of-calls",
        ),
    ],
)
def test_end_ids_are_the_union_of_all_that_end_a_text(configured, template, expected):
    tokenizer = byte_tokenizer(template) if template else byte_tokenizer()
    assert set(end_ids(SimpleNamespace(eos_token_id=configured), tokenizer)) == expected


def test_lora_starts_as_the_base_and_covers_every_linear_layer_but_the_head(sharp):
    policy = Policy.load(make_config(sharp))
    names = {name.split(".lora_")[0].rsplit(".", 1)[1] for name in policy.trained()}
    assert names == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert all(weight.dtype == torch.float32 for weight in policy.trained().values())
    ids = torch.arange(10)[None]
    with policy.reference() as reference:
        expected = reference(input_ids=ids).logits
    assert torch.equal(policy.model(input_ids=ids).logits, expected)
    assert torch.equal(policy.rollout_model(input_ids=ids).logits, expected)


@pytest.mark.parametrize("adapter", ["lora", "full"])
def test_the_reference_stays_the_base_and_the_base_weights_never_move(sharp, adapter):
    policy = Policy.load(make_config(sharp, adapter=adapter))
    ids = torch.arange(10)[None]
    base = load_base(sharp).model(input_ids=ids).logits
    for _ in range(3):
        moved(policy)
    with policy.reference() as reference:
        assert torch.equal(reference(input_ids=ids).logits, base)
    assert not torch.allclose(policy.model(input_ids=ids).logits, base, atol=1e-3)
    assert all(weight.requires_grad for weight in policy.trained().values())
    assert not policy.model.training
    assert not policy.rollout_model.training


def test_lora_rollout_copy_shares_all_it_can_with_the_base(lora_policy):
    shared = {weight.data_ptr() for weight in lora_policy.model.parameters()}
    own = [n for n, weight in lora_policy.rollout_model.named_parameters() if weight.data_ptr() not in shared]
    assert all("proj" in name for name in own)
    assert len(own) == 14


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_the_saved_model_is_the_policy(kind, request, tmp_path):
    policy = request.getfixturevalue(f"{kind}_policy")
    policy.save_model(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, local_files_only=True)
    ids = torch.arange(40)[None]
    expected = policy.model(input_ids=ids).logits
    torch.testing.assert_close(loaded(input_ids=ids).logits, expected, atol=1e-4, rtol=1e-4)
    assert AutoTokenizer.from_pretrained(tmp_path).chat_template == policy.tokenizer.chat_template
    assert not list(tmp_path.glob("*.bin"))


def test_the_saved_adapter_names_the_model_and_no_path(lora_policy, tmp_path):
    lora_policy.save_adapter(tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "tiny"
    assert config["target_modules"] == sorted(config["target_modules"])
    assert len(config["target_modules"]) > 6, "a set of so many names has another order in each process"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "chat_template.jinja",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]


def test_a_checkpoint_has_the_dtype_of_the_base(sharp, tmp_path):
    folder = tmp_path / "half"
    shutil.copytree(sharp, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "dtype": "bfloat16"}))
    weights = {n: w.bfloat16() for n, w in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    policy = Policy.load(make_config(folder))
    assert {weight.dtype for weight in policy.model.parameters()} == {torch.float32}
    policy.save_model(tmp_path / "out")
    saved = load_file(tmp_path / "out" / "model.safetensors")
    assert saved.keys() == weights.keys()
    assert all(torch.equal(saved[name], weights[name]) for name in weights)


@pytest.fixture
def tied(sharp, tmp_path):
    folder = tmp_path / "tied"
    shutil.copytree(sharp, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))
    weights = load_file(folder / "model.safetensors")
    weights.pop("lm_head.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_models_are_loaded_in_several_threads_at_once(tied):
    """transformers 5.23 replaces methods of its base class while it loads, for all threads."""

    def load(_):
        base = load_base(tied)
        return base.model.lm_head.weight is base.model.model.embed_tokens.weight

    with ThreadPoolExecutor(3) as threads:
        assert all(threads.map(load, range(12)))
    assert load(0)


def test_tied_weights_are_saved_once_and_stay_tied(tied, tmp_path):
    folder, weights = tied, load_file(tied / "model.safetensors")
    policy = moved(Policy.load(make_config(folder, adapter="full")))
    policy.save_model(tmp_path / "out")
    assert load_file(tmp_path / "out" / "model.safetensors").keys() == weights.keys()
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert torch.equal(loaded.lm_head.weight, policy.model.model.embed_tokens.weight)


def test_weights_that_are_not_safetensors_are_refused(sharp, tmp_path):
    folder = tmp_path / "pickle"
    shutil.copytree(sharp, folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelInvalid, match=r"no \*\.safetensors"):
        load_base(folder)


def test_a_model_without_a_chat_template_is_refused(sharp, tmp_path):
    folder = tmp_path / "plain"
    shutil.copytree(sharp, folder)
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ModelInvalid, match="no chat template"):
        load_base(folder)


def test_a_folder_that_cannot_be_loaded_is_the_models_fault(sharp, tmp_path):
    folder = tmp_path / "broken"
    shutil.copytree(sharp, folder)
    (folder / "config.json").write_text('{"model_type": "no-such-model"}')
    with pytest.raises(ModelInvalid, match="cannot be loaded"):
        load_base(folder)


def test_a_prompt_too_long_names_its_line():
    rows = [*make_rows("short"), Row(7, {"messages": [{"role": "user", "content": "x" * 300}]})]
    with pytest.raises(OutOfContext, match="validation row on line 7 is too long: its prompt has 3"):
        make_prompts(rows, byte_tokenizer(), 256, "validation")


def test_a_row_the_template_refuses_names_its_line():
    tokenizer = byte_tokenizer("{{ raise_exception('roles must alternate') }}")
    with pytest.raises(PromptInvalid, match="training row on line 1: roles must alternate"):
        make_prompts(make_rows("a"), tokenizer, 256, "training")


def test_prompts_hold_the_generation_prompt_and_developer_counts_as_system():
    tokenizer = byte_tokenizer()
    item = {
        "messages": [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
        ]
    }
    (prompt,) = make_prompts([Row(1, item)], tokenizer, 256, "training")
    assert tokenizer.decode(prompt.tokens) == (
        "<begin>system:Be brief.<end><begin>user:Hi<end><begin>assistant:"
    )
    assert prompt.item is item


def test_a_frozen_base_in_bf16_is_trained_by_an_adapter_in_fp32(sharp):
    policy = Policy.load(make_config(sharp, dtype="bfloat16"))
    assert policy.model.get_input_embeddings().weight.dtype == torch.bfloat16
    assert {weight.dtype for weight in policy.trained().values()} == {torch.float32}
    assert {weight.dtype for weight in policy.rollout_model.parameters()} == {torch.bfloat16}


def test_full_training_in_bf16_holds_fp32_and_samples_in_bf16(sharp):
    policy = moved(Policy.load(make_config(sharp, dtype="bfloat16", adapter="full")))
    assert why_general(policy.model) is None
    exact = moved(Policy.load(make_config(sharp, adapter="full")))
    ids = torch.arange(5, 13)[None]
    states = [p.model.get_decoder()(input_ids=ids).last_hidden_state for p in (policy, exact)]
    logits = [p.model.get_output_embeddings()(s) for p, s in zip((policy, exact), states, strict=True)]
    assert logits[0].dtype == torch.bfloat16
    torch.testing.assert_close(logits[0].float(), logits[1], atol=0.1, rtol=0.1)
    logits[0].float().square().mean().backward()
    for name, weight in policy.trained().items():
        assert weight.dtype == weight.grad.dtype == torch.float32
        assert torch.equal(weight, exact.trained()[name])
    for name, weight in policy.rollout_model.named_parameters():
        assert torch.equal(weight, exact.trained()[name].to(torch.bfloat16))
    with policy.reference() as reference:
        assert {weight.dtype for weight in reference.parameters()} == {torch.bfloat16}
        base = load_base(sharp).model.get_input_embeddings().weight
        assert torch.equal(reference.get_input_embeddings().weight, base.bfloat16())


@pytest.mark.parametrize(("asked", "runs"), [(False, 1), (True, 2)])
def test_gradient_checkpointing_runs_each_layer_again_in_the_backward_pass(sharp, asked, runs):
    policy = Policy.load(make_config(sharp, gradient_checkpointing=asked))
    calls = []
    policy.model.get_decoder().layers[0].self_attn.register_forward_hook(lambda *_: calls.append(1))
    policy.model.get_decoder()(input_ids=torch.arange(5, 13)[None]).last_hidden_state.sum().backward()
    assert len(calls) == runs
