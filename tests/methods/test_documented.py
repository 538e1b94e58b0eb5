"""The table of hyperparameters in the docs is the one that their declarations give."""

from __future__ import annotations

from pathlib import Path

from methods.documented import table
from methods.hyperparameters import declared, first_sentence
from methods.run_config import RequestOnly
from methods.train_config import TrainConfig
from methods.tune_config import TuneConfig

DOCS = Path(__file__).parents[2] / "docs"


def test_the_table_in_the_docs_is_that_of_the_declarations() -> None:
    assert table() in (DOCS / "extensions.md").read_text(), "run `python -m methods.documented` and paste it"


def test_every_declared_number_has_a_sentence() -> None:
    for config in (TrainConfig, TuneConfig, RequestOnly):
        for one in declared(config):
            assert first_sentence(one.info).endswith("."), f"{config.__name__}.{one.field} has no sentence"
