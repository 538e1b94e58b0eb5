"""Model folders whose files pass for a model's and are none: the model is to blame, whoever raises what."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from transformers import PreTrainedTokenizerFast

from tests.tiny_model import make_tiny_model
from tests.workers.training.support import FunctionGrader, ListRecorder, make_config, make_rows
from workers.training.base.errors import ModelInvalid
from workers.training.loop import train
from workers.training.model.base_model import load_base


def edited(folder: Path, name: str, **changed: object) -> None:
    content = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({**content, **changed}))


def weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def pickled(folder: Path) -> None:
    torch.save({}, folder / "model.safetensors")


def another_shape(folder: Path) -> None:
    edited(folder, "config.json", intermediate_size=96)


def another_kind(folder: Path) -> None:
    edited(folder, "config.json", model_type="gpt2", architectures=["GPT2LMHeadModel"], n_embd=32, n_head=4)


def without_a_tensor(folder: Path) -> None:
    weights(folder, lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"))


def not_a_number(folder: Path) -> None:
    weights(folder, lambda tensors: tensors["model.embed_tokens.weight"].fill_(float("nan")))


def heads_that_do_not_divide(folder: Path) -> None:
    edited(folder, "config.json", num_attention_heads=3, num_key_value_heads=2, head_dim=None)


def an_unknown_activation(folder: Path) -> None:
    edited(folder, "config.json", hidden_act="swish-of-mine")


def a_text_for_a_number(folder: Path) -> None:
    edited(folder, "config.json", max_position_embeddings="many")


def an_end_of_no_token(folder: Path) -> None:
    edited(folder, "generation_config.json", eos_token_id={"a": 1})


def a_tokenizer_of_nothing(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")


def a_tokenizer_that_panics(folder: Path) -> None:
    """What a library in Rust raises then is no `Exception`."""
    charsmap = {"type": "Precompiled", "precompiled_charsmap": "AAAA"}
    edited(folder, "tokenizer.json", normalizer=charsmap)


@pytest.mark.parametrize(
    "spoil",
    [
        cut,
        pickled,
        another_shape,
        another_kind,
        without_a_tensor,
        not_a_number,
        heads_that_do_not_divide,
        an_unknown_activation,
        a_text_for_a_number,
        an_end_of_no_token,
        a_tokenizer_of_nothing,
        a_tokenizer_that_panics,
    ],
)
def test_the_model_is_to_blame(sharp: Path, tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    folder = tmp_path / "spoilt"
    shutil.copytree(sharp, folder)
    spoil(folder)
    with pytest.raises(ModelInvalid, match="'spoilt'") as raised:
        load_base(folder)
    assert raised.value.code == "model_invalid"
    assert len(str(raised.value)) < 1000


def test_weights_that_are_missing_are_named(sharp: Path, tmp_path: Path) -> None:
    """transformers fills them with random numbers and goes on."""
    shutil.copytree(sharp, tmp_path / "spoilt")
    without_a_tensor(tmp_path / "spoilt")
    with pytest.raises(ModelInvalid, match=r"lacks 1 weights: model\.layers\.1\.mlp\.up_proj\.weight"):
        load_base(tmp_path / "spoilt")


def of_few_words(folder: Path, size: int) -> Path:
    """A model whose whole vocabulary is an end, a pad and the letters a, b, c and so on."""
    words = ["<end>", "<pad>", *"abcdef"][:size]
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token=words[-1]))
    tokenizer.pre_tokenizer = Split("", "isolated")
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token=words[:2][-1])
    fast.chat_template = "{% for m in messages %}{{ m['content'] }}<end>{% endfor %}"
    make_tiny_model(folder, tokenizer=fast)
    return folder


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_a_vocabulary_may_be_smaller_than_the_tokens_a_model_is_tried_with(tmp_path: Path, size: int) -> None:
    config = make_config(of_few_words(tmp_path / "few", size), n_epochs=1)
    told = ListRecorder()
    grader = FunctionGrader(lambda text, _: text.count("a") / 6)
    result = train(config, make_rows("ab", "ba"), make_rows("aa"), grader, told, tmp_path / "run")
    assert result.steps == 1
    assert [step for step, _, _ in told.all("metrics")] == [0, 1]
