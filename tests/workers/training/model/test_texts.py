"""What is known of a model without its weights is what is known with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tiny_model import byte_tokenizer, make_tiny_model
from workers.training.base.errors import ModelInvalid
from workers.training.model.base_model import load_base
from workers.training.model.texts import read_texts


@pytest.mark.parametrize("with_generation_config", [True, False])
def test_texts_are_those_of_the_whole_model(tmp_path: Path, with_generation_config: bool) -> None:
    folder = make_tiny_model(tmp_path / "tiny")
    if not with_generation_config:
        (folder / "generation_config.json").unlink()
    base, texts = load_base(folder), read_texts(folder)
    assert (texts.end_ids, texts.context, texts.vocabulary) == (base.end_ids, base.context, base.vocabulary)
    assert texts.tokenizer.get_vocab() == base.tokenizer.get_vocab()


def test_a_folder_without_a_template_is_refused(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "mute", tokenizer=byte_tokenizer(None))
    with pytest.raises(ModelInvalid, match="no chat template"):
        read_texts(folder)
