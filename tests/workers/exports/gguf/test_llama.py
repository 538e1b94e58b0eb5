"""GGUF files in llama.cpp itself: `make gguf` builds it once and runs these."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.shared_data import shared_path
from tests.tiny_model import byte_tokenizer
from tests.workers.exports.gguf.llama import PYTHON, ask, needs_llama
from tests.workers.exports.gguf.small_models import CONFIGS, make
from tests.workers.exports.gguf.tokenizers_of_rules import of_no_rule, trained
from workers.exports.gguf import GgufRefused, write_gguf
from workers.exports.gguf.texts import texts_for
from workers.exports.gguf.tokenizer_check import rule_for
from workers.exports.gguf.vocabulary import vocabulary_of
from workers.exports.gguf.write import read_model, write_model
from workers.inspect.gguf import inspect
from workers.inspect.gguf_tokenizer import RULES
from workers.training.base.types import Prompt
from workers.training.model.base_model import load_base
from workers.training.sampling.rollout import Sampling, sample_groups

pytestmark = [
    needs_llama,
    pytest.mark.long,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]
NANO = Path(__file__).parents[4] / "workers" / "models" / "cherry_nano"
PROMPT = list(range(40, 140))
CLOSE = 1e-4
TABLE_CLOSE = 0.005
"""llama.cpp reads GELU out of a table of 16-bit numbers: 0.0026 was the most of three architectures."""
Q8_CLOSE = 0.15
"""llama.cpp rounds what it multiplies with to 8 bits as well: 0.08 was the most of two architectures."""
QUANTISE = """
import sys, llama_cpp as llama
how = llama.llama_model_quantize_default_params()
how.ftype = llama.LLAMA_FTYPE_MOSTLY_Q8_0
sys.exit(llama.llama_model_quantize(sys.argv[1].encode(), sys.argv[2].encode(), how))
"""
ASKED = (
    "Hello, who are you?",
    "Sort: pear, apple, fig",
    "Once upon a time there was a dog",
    "What is 12 + 7?",
)
TOKENS = 40


def written(folder: Path, out: Path) -> Path:
    out.mkdir(exist_ok=True)
    return write_model(read_model(folder), "gpt-2", out, lambda share: None)


@pytest.mark.parametrize("kind", CONFIGS)
def test_llama_cpp_computes_what_transformers_does(tmp_path: Path, kind: str) -> None:
    model = make(tmp_path, kind)
    found = torch.tensor(ask(written(tmp_path, tmp_path / "out"), logits=PROMPT))
    expected = model(torch.tensor([PROMPT])).logits[0]
    assert (found - expected).abs().max() < (TABLE_CLOSE if "gemma" in kind else CLOSE)


@pytest.mark.parametrize("name", ["cherry-nano", "stories260k", "SmolLM2-135M"])
def test_llama_cpp_writes_the_same_greedy_text_as_our_sampler(tmp_path: Path, name: str) -> None:
    folder = model_of(name)
    base = load_base(folder)
    prompts = [
        base.tokenizer.apply_chat_template(
            [{"role": "user", "content": asked}], add_generation_prompt=True, return_dict=False
        )
        for asked in ASKED
    ]
    rows = [Prompt(i, {}, tuple(ids)) for i, ids in enumerate(prompts)]
    groups = sample_groups(base, rows, Sampling(1, TOKENS, 0.0, ("greedy",)))
    ours = [base.tokenizer.decode(text_of(group.completions[0].tokens, base.end_ids)) for group in groups]
    found = ask(written(folder, tmp_path), greedy=prompts, tokens=TOKENS)
    assert [base.tokenizer.decode(ids) for ids in found] == ours


def text_of(ids: tuple[int, ...], ends: tuple[int, ...]) -> list[int]:
    return [token for token in ids if token not in ends]


def model_of(name: str) -> Path:
    if name == "cherry-nano":
        return NANO
    if name == "stories260k":
        return shared_path("models/stories260k")
    folder = os.environ.get("SMOLLM2_MODEL")
    if folder is None:
        pytest.skip("SMOLLM2_MODEL names no folder with SmolLM2-135M")
    return Path(folder)


ADAPTERS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rslora": {"use_rslora": True},
    "patterns": {"alpha_pattern": {"q_proj": 24, "1.mlp.up_proj": 3}, "rank_pattern": {"v_proj": 2}},
}


@pytest.mark.parametrize("kind", ADAPTERS)
def test_an_adapter_is_as_strong_in_llama_cpp_as_in_peft(tmp_path: Path, kind: str) -> None:
    base, checkpoint, out = (tmp_path / name for name in ("base", "checkpoint", "out"))
    model = make(base)
    config = LoraConfig(
        r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM", **ADAPTERS[kind]
    )
    torch.manual_seed(1)
    tuned = get_peft_model(model, config).eval()
    for name, weight in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    tuned.save_pretrained(checkpoint / "adapter")
    expected = tuned(torch.tensor([PROMPT])).logits[0].detach()
    tuned.merge_and_unload().save_pretrained(checkpoint / "model")
    byte_tokenizer().save_pretrained(checkpoint / "model")
    out.mkdir()
    write_gguf(checkpoint, base, out, lambda *_: None, PYTHON)
    assert sorted(file.name for file in out.iterdir()) == ["Modelfile", "adapter.gguf", "model-f32.gguf"]
    beside = ask(written(base, tmp_path / "base file"), out / "adapter.gguf", logits=PROMPT)
    for found in (ask(out / "model-f32.gguf", logits=PROMPT), beside):
        assert (torch.tensor(found) - expected).abs().max() < CLOSE


@pytest.mark.parametrize("rule", RULES)
def test_a_tokenizer_is_read_alike_there_and_back(tmp_path: Path, rule: str) -> None:
    tokenizer = trained(rule)
    make(tmp_path / "model", vocab_size=len(tokenizer))
    tokenizer.save_pretrained(tmp_path / "model")
    vocabulary = vocabulary_of(tokenizer, len(tokenizer), [tokenizer.eos_token_id])
    found = rule_for(vocabulary, tokenizer, Path(PYTHON), tmp_path)
    assert found is not None
    assert RULES[found] == RULES[rule]._replace(adds_bos=RULES[found].adds_bos)
    file = write_model(read_model(tmp_path / "model"), rule, tmp_path, lambda share: None)
    assert inspect(str(file), str(tmp_path / "back")) == {"fault": None}
    back = AutoTokenizer.from_pretrained(tmp_path / "back")
    texts = texts_for(tokenizer)
    assert back(texts)["input_ids"] == tokenizer(texts)["input_ids"]


def test_a_tokenizer_without_a_rule_is_refused_with_an_example(tmp_path: Path) -> None:
    tokenizer = of_no_rule()
    make(tmp_path / "checkpoint" / "model", vocab_size=len(tokenizer))
    tokenizer.save_pretrained(tmp_path / "checkpoint" / "model")
    with pytest.raises(GgufRefused, match=r"has no way to split text as .* texts otherwise, such as "):
        write_gguf(tmp_path / "checkpoint", tmp_path, tmp_path, lambda *_: None, PYTHON)
    assert not list(tmp_path.glob("*.gguf"))


def test_an_end_token_that_would_be_lost_is_refused_by_name(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    ends = [tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.bos_token_id, 7]
    kept = vocabulary_of(tokenizer, len(tokenizer), ends[:3])
    assert rule_for(kept, tokenizer, Path(PYTHON), tmp_path) == "llama-bpe"
    lost = vocabulary_of(tokenizer, len(tokenizer), ends)
    with pytest.raises(GgufRefused, match=r"may end with '<pad>'.* names three end tokens"):
        rule_for(lost, tokenizer, Path(PYTHON), tmp_path)


@pytest.mark.parametrize(
    "kind", ["llama", "llama with biases", "linear positions", "qwen3", "gemma2", "gemma3"]
)
def test_a_file_becomes_the_same_model_again(tmp_path: Path, kind: str) -> None:
    model = make(tmp_path, kind)
    file = written(tmp_path, tmp_path / "out")
    assert inspect(str(file), str(tmp_path / "back")) == {"fault": None}
    back = AutoModelForCausalLM.from_pretrained(tmp_path / "back", attn_implementation="eager")
    prompt = torch.tensor([PROMPT])
    assert (back(prompt).logits - model(prompt).logits).abs().max() < CLOSE


@pytest.mark.parametrize("kind", ["llama", "gemma2"])
def test_a_quantised_file_becomes_the_model_that_llama_cpp_computes(tmp_path: Path, kind: str) -> None:
    make(tmp_path, kind)
    file, small = written(tmp_path, tmp_path / "out"), tmp_path / "out" / "q8.gguf"
    subprocess.run([PYTHON, "-c", QUANTISE, str(file), str(small)], check=True, capture_output=True)
    assert small.stat().st_size < 0.6 * file.stat().st_size
    assert inspect(str(small), str(tmp_path / "back")) == {"fault": None}
    back = AutoModelForCausalLM.from_pretrained(tmp_path / "back", attn_implementation="eager")
    found = torch.tensor(ask(small, logits=PROMPT))
    assert (back(torch.tensor([PROMPT])).logits[0] - found).abs().max() < Q8_CLOSE


def test_the_modelfile_is_beside_the_model(tmp_path: Path) -> None:
    make(tmp_path / "model")
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    (tmp_path / "out").mkdir()
    told: list[tuple[str, float]] = []
    write_gguf(tmp_path, tmp_path / "model", tmp_path / "out", lambda *each: told.append(each), PYTHON)
    assert told[0] == ("tokenizer", 0.0)
    assert told[-1] == ("done", 1.0)
    assert [share for _, share in told] == sorted(share for _, share in told)
    assert json.dumps((tmp_path / "out" / "Modelfile").read_text()).count("FROM ./model-f32.gguf") == 1
