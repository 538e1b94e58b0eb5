"""A job that cannot fit fails as it is validated, with numbers; one that may not fit is warned of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.orm import Session

from app.jobs.machine_memory import Memory, of_gpus, of_machine, of_training
from app.settings import Settings, get_settings
from methods.sizes.model_size import ModelSize
from methods.train_config import TrainConfig
from scripts.memory_tables import MODELS
from tests.workers.rows import make_job
from workers.jobs.checks import Checks, find_parts
from workers.jobs.job_data import JobInvalid
from workers.jobs.memory_validation import Place, judge
from workers.training.model.size import size_of

GIB = 1 << 30
SIZE = ModelSize(
    parameters=10**9,
    matrices=9 * 10**8,
    adapted=10**6,
    layers=20,
    hidden=2048,
    intermediate=8192,
    cached=10**4,
    vocabulary=10**5,
    context=4096,
    stored_bytes=2,
)


def config(**changed: Any) -> TrainConfig:
    given: dict[str, Any] = {
        "model": "m",
        "model_path": "m",
        "seed": 1,
        "n_epochs": 1,
        "learning_rate": 1e-4,
        "eval_interval": 1,
        "prompts_per_step": 8,
        "group_size": 8,
        "max_completion_tokens": 256,
    }
    return TrainConfig(**given | changed)


def judged(gib: float, *, free: float | None = None, is_busy: bool = False, **changed: Any) -> str | None:
    memory = Memory(int(gib * GIB), int((gib if free is None else free) * GIB))
    return judge(config(**changed), SIZE, 100, Place("cpu", memory, is_busy))


def test_a_job_whose_weights_alone_exceed_the_machine_fails_with_numbers() -> None:
    with pytest.raises(JobInvalid) as refused:
        judged(16, adapter="full")
    fault = refused.value
    assert (fault.code, fault.param) == (
        "insufficient_memory",
        "method.reinforcement.hyperparameters.adapter",
    )
    assert fault.message == (
        "The job cannot fit: gradient and moments in fp32 11.18 GiB, weights in fp32 3.73 GiB, reference"
        " 3.73 GiB take 18.63 GiB together, and the machine has 16.00 GiB. To lower it: adapter 'lora'; or"
        " train on a larger one."
    )
    with pytest.raises(JobInvalid, match="a smaller model, a lora_rank below 512") as refused:
        judged(14, lora_rank=512)
    assert refused.value.param == "model"


def test_a_job_whose_peak_may_exceed_what_is_free_is_doubted() -> None:
    assert judged(200) is None
    told = judged(200, free=9)
    assert told is not None
    assert "and the machine has 200.00 GiB, of which 9.00 GiB are free now. To lower it:" in told
    assert "gradient_checkpointing true, a group_size below 8, max_completion_tokens below 256" in told
    assert judged(200, free=9, is_busy=True) is None, "what runs now will be over"


def test_a_job_of_which_no_pass_fits_the_gpu_is_refused_with_what_would() -> None:
    gpu = Place("cuda", Memory(141 * 10**9, 140 * 10**9), is_busy=False)
    with pytest.raises(JobInvalid) as refused:
        judge(config(adapter="full"), MODELS["7B"], 512, gpu)
    told = refused.value.message
    assert told.startswith(
        "The job cannot fit: gradient and moments in fp32 85.11 GiB, weights in fp32 28.37"
    )
    assert "take 149." in told
    assert "and the GPU has 131.32 GiB. What would fit: adapter 'lora' (" in told
    assert "; sharding 'fsdp' over 2 GPUs (" in told
    assert judge(config(), MODELS["7B"], 512, gpu) is None, "a pass takes what is free, and no more"


def test_a_job_is_held_to_the_operators_number(
    db: Session, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHERRY_TRAINING_MEMORY_GIB", "0.00001")
    get_settings.cache_clear()
    job = make_job(db)
    faults: list[JobInvalid] = []
    assert Checks(job, find_parts(db, job), tmp_path, lambda _: None, faults.append).run() is None
    assert [fault.code for fault in faults] == ["insufficient_memory"]
    monkeypatch.setenv("CHERRY_TRAINING_MEMORY_GIB", "0.01")
    get_settings.cache_clear()
    faults.clear()
    checked = Checks(job, find_parts(db, job), tmp_path, lambda _: None, faults.append).run()
    assert faults == []
    assert checked is not None
    assert "memory_short" in [doubt.code for doubt in checked.doubts]


def test_the_size_of_a_model_is_read_off_its_headers(tiny_model: Path) -> None:
    size = size_of(tiny_model)
    assert size is not None
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    weights = {name: weight for name, weight in model.named_parameters() if weight.ndim == 2}
    layers = {name: weight for name, weight in weights.items() if ".layers." in name}
    assert size.parameters == sum(weight.numel() for weight in model.parameters())
    assert size.matrices == sum(weight.numel() for weight in layers.values())
    assert size.adapted == sum(sum(weight.shape) for weight in layers.values())


def test_a_machine_has_what_its_kernel_and_its_container_let_it_have(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:       1000 kB\nMemFree: 1 kB\nMemAvailable:    600 kB\n")
    assert of_machine(meminfo, tmp_path) == Memory(1000 * 1024, 600 * 1024)
    (tmp_path / "memory.max").write_text("512000\n")
    (tmp_path / "memory.current").write_text("112000\n")
    assert of_machine(meminfo, tmp_path) == Memory(512_000, 400_000)
    (tmp_path / "memory.max").write_text("max\n")
    assert of_machine(meminfo, tmp_path) == Memory(1000 * 1024, 600 * 1024)
    assert of_machine(tmp_path / "none", tmp_path) is None


def test_of_several_gpus_the_smallest_counts(tmp_path: Path) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(
        '#!/bin/sh\necho "$@" > "$0.asked"\nprintf "81559, 80000\\n[N/A], [N/A]\\n24564, 20000\\n"\n'
    )
    program.chmod(0o755)
    assert of_gpus({"CUDA_VISIBLE_DEVICES": "0,2"}, str(program)) == Memory(24564 << 20, 20000 << 20)
    assert (tmp_path / "nvidia-smi.asked").read_text().startswith("-i 0,2 ")
    assert of_gpus({}, str(tmp_path / "none")) is None


@pytest.mark.parametrize(("said", "expected"), [("unknown", None), ("2.5", Memory(5 << 29, 5 << 29))])
def test_the_operator_may_say_what_trainings_have(said: str, expected: Memory | None) -> None:
    given = {"DATABASE_URL": "postgresql:///", "broker_url": "memory://", "training_memory_gib": said}
    assert of_training(Settings(**given), on_gpu=False) == expected  # type: ignore[arg-type]
