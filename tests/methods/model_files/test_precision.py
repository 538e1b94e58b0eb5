"""What the precision of a base goes with, and folders that are quantised already."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from app.exports.use import Use, lines
from methods.model_files.configs import config_faults
from methods.model_files.precision import is_quantised, refusal
from methods.tune_config import TuneConfig
from tests.workers.training.support import make_config


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        pytest.param({"base_precision": "nf4", "adapter": "full"}, "adapter 'full'", id="full"),
        pytest.param({"base_precision": "bf16", "adapter": "full"}, "adapter 'full'", id="bf16-full"),
        pytest.param({"base_precision": "int8", "sharding": "fsdp"}, "sharding 'fsdp'", id="fsdp"),
        pytest.param({"base_precision": "bf16", "dtype": "float32"}, "'float32'", id="two-dtypes"),
    ],
)
def test_what_a_precision_does_not_go_with_is_refused_in_requests_and_configs(
    asked: dict[str, Any], reason: str
) -> None:
    found = refusal(asked)
    assert found is not None
    assert found.name == "base_precision"
    assert reason in found.message
    with pytest.raises(ValidationError, match=reason):
        make_config(Path("base"), **asked)


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"base_precision": "auto", "adapter": "full", "sharding": "fsdp"},
        {"base_precision": "nf4", "dtype": "float32"},
        {"base_precision": "int8", "adapter": "lora", "dtype": "bfloat16"},
        {"base_precision": "bf16", "sharding": "fsdp"},
    ],
)
def test_what_goes_together_is_not(asked: dict[str, Any]) -> None:
    assert refusal(asked) is None
    assert make_config(Path("base"), **asked).base_precision == asked.get("base_precision", "auto")


def test_supervised_runs_have_it_too_and_older_configs_say_none() -> None:
    numbers = {"n_epochs": 1, "learning_rate": 0.1, "eval_interval": 1, "batch_size": 1, "probe_tokens": 1}
    config = TuneConfig(
        method="dpo", model="base", model_path="base", seed=1, base_precision="nf4", **numbers
    )  # type: ignore[arg-type]
    assert config.as_engine_config().base_precision == "nf4"
    assert is_quantised(config.model_dump())
    assert not is_quantised({"adapter": "lora"})
    assert not is_quantised(None)


@pytest.mark.parametrize("method", ["gptq", "awq", "bitsandbytes", "fp8"])
def test_a_folder_that_is_quantised_already_is_refused_with_what_to_do(method: str) -> None:
    content = {"model_type": "llama", "quantization_config": {"quant_method": method, "bits": 4}}
    (fault,) = config_faults("config.json", content)
    assert f"quantised already ({method})" in fault
    assert "base_precision 'nf4' or 'int8'" in fault
    assert not list(config_faults("quantization_config.json", json.loads(json.dumps(content))))


def test_lines_that_load_an_adapter_quantise_its_base_as_its_file_says() -> None:
    found = lines(Use("adapter", "tuned", hub="who/what", rank=16, precision="nf4"), folder="here")
    assert "GenerationConfig, BitsAndBytesConfig\n" in found["transformers"]
    assert "json.load(open('here/quantization_config.json'))" in found["transformers"]
    assert "from_pretrained('who/what', quantization_config=quantised)" in found["transformers"]
    assert "vllm" not in found
    compile(found["transformers"], "lines", "exec")
    assert "quantis" not in lines(Use("adapter", "tuned", hub="who/what", rank=16))["transformers"]
