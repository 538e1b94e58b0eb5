"""Rollouts from a real vLLM server of the built-in model: `make test-vllm` makes its environment."""

from __future__ import annotations

import json
import math
import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import SecretStr
from safetensors.torch import load_file, save_file

from app.embedded.first_run import BUILT_IN_MODEL, built_in_model
from app.embedded.vllm import VllmServer
from app.settings import Settings
from app.table_settings import VllmEntry
from tests.workers.training.support import FunctionGrader, ListRecorder, make_config, make_rows
from workers.rollouts.backend import Limits, VllmRollouts
from workers.rollouts.errors import RolloutsRefused, ServerAway
from workers.rollouts.vllm_client import VllmClient
from workers.training.base.distributed import ALONE
from workers.training.base.types import Group, Prompt
from workers.training.episodes.environment import Reply
from workers.training.loop import train
from workers.training.model.policy import Policy
from workers.training.passes.forward import (
    batches_for,
    completion_states,
    output_head,
    per_completion,
    token_logprobs,
)
from workers.training.passes.packing import PackedCompletion
from workers.training.prompts import make_prompts
from workers.training.sampling.rollout import Sampling

PYTHON = os.environ.get("CHERRY_TEST_VLLM_PYTHON", "")
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not PYTHON, reason="no vLLM is installed here: `make test-vllm`"),
]
KEY = "of the test"
READY_SECONDS = float(os.environ.get("CHERRY_TEST_VLLM_SECONDS", "3600"))
"""How long a server may take to be ready, or to be ready again: 40 s on a quiet machine. One that ends is not
waited for."""
LAST_LINES = 40
WORDS = ("cats", "dogs", "trees", "rain")


class Server:
    """A vLLM server as `cherry up --vllm` starts it."""

    def __init__(self, folder: Path, options: str = "", model: Path | None = None) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        plain = "--dtype float32 --enforce-eager"
        given: dict[str, Any] = {"DATABASE_URL": "postgresql:///", "broker_url": "memory://", "gpus": 0}
        own = {"vllm_options": f"{plain} {options}", "vllm_whole_weights": True}
        settings = Settings(**given, vllm_python=PYTHON, **own)
        model = model or built_in_model()
        assert model is not None
        self._log = folder / "vllm.log"
        self.program = VllmServer(settings, BUILT_IN_MODEL, model, port, KEY, log_path=self._log)
        place = {"url": f"http://127.0.0.1:{port}", "adapters": folder / "adapters"}
        self.entry = VllmEntry(**place, key=KEY, whole_weights=True)

    def start(self) -> None:
        self.program.clear_away()
        self.program.start()

    def wait(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline and self.program.is_running():
            try:
                VllmClient(self.entry).check_health()
                return
            except ServerAway:
                time.sleep(1)
        lines = self._log.read_text().splitlines()[-LAST_LINES:]
        how = "was not ready in time" if self.program.is_running() else "ended"
        raise AssertionError("\n".join([f"the vLLM server {how}; its last lines:", *lines]))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("vllm"))
    server.start()
    try:
        server.wait()
        yield server
    finally:
        server.program.stop()


@pytest.fixture(scope="module")
def coarse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that is set up otherwise than the jobs here need it."""
    server = Server(tmp_path_factory.mktemp("coarse"), "--dtype bfloat16 --max-lora-rank 8")
    server.start()
    try:
        server.wait()
        yield server
    finally:
        server.program.stop()


@pytest.fixture(scope="module")
def untied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built-in model with an output layer of its own."""
    folder = tmp_path_factory.mktemp("untied") / "model"
    base = built_in_model()
    assert base is not None
    shutil.copytree(base, folder)
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
    return folder


@pytest.fixture(scope="module")
def whole(untied: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of that model."""
    server = Server(tmp_path_factory.mktemp("whole"), model=untied)
    server.start()
    try:
        server.wait()
        yield server
    finally:
        server.program.stop()


def config_of(model: Path | None = None, **changes: Any) -> Any:
    model = model or built_in_model()
    assert model is not None
    fields = {"max_completion_tokens": 16, "lora_rank": 8, "learning_rate": 1e-3}
    return make_config(model, **{**fields, **changes}).model_copy(update={"model": BUILT_IN_MODEL})


def largest_difference(policy: Policy, groups: list[Group], temperature: float) -> float:
    """By how many nats a logprob of the server's differs from the trainer's at most."""
    packed = [PackedCompletion(group.prompt, one) for group in groups for one in group.completions]
    worst = 0.0
    with torch.no_grad():
        for batch in batches_for(policy.model, packed, 16_384, policy.device):
            states, head = completion_states(policy.model, batch), output_head(policy.model)
            found = token_logprobs(states, head, batch.targets, temperature, batch.allowed)[0]
            for i, values in zip(batch.indices, per_completion(found, batch), strict=True):
                completion = packed[i].completion
                apart = (values - torch.tensor(completion.logprobs)).abs()
                worst = max(worst, *completion.of_sampled(apart.tolist()))
    return worst


def prompts_of(policy: Policy) -> list[Prompt]:
    return make_prompts(make_rows(*WORDS), policy.tokenizer, policy.context, "training", policy.vocabulary)


def move(policy: Policy, seed: int, size: float) -> None:
    """Moves the weights as far as some updates would."""
    torch.manual_seed(seed)
    policy.load_trained({name: w + size * torch.randn_like(w) for name, w in policy.trained().items()})


def check_steps(server: Server, config: Any, size: float) -> None:
    """Samples by weights of three steps, and holds every logprob to the trainer's."""
    policy = Policy.load(config)
    prompts = prompts_of(policy)
    rollouts = VllmRollouts(server.entry, "run", policy, config, ALONE, ListRecorder(), Limits(60))
    seen = set()
    with closing(rollouts):
        for step in range(3):
            if step:
                move(policy, step, size)
            rollouts.follow(step)
            for temperature, stop in ((1.0, ()), (0.6, ("a",))):
                sampling = Sampling(4, 16, temperature, ("train", 1, step), stop=stop, reader=policy.reader)
                groups = rollouts.sample(prompts, sampling)
                assert largest_difference(policy, groups, temperature) < 1e-4
                texts = [one.text for group in groups for one in group.completions]
                assert not any(end in text for text in texts for end in stop)
            seen |= {one.sampled_by for group in groups for one in group.completions}
    assert len(seen) == 3
    assert [one["id"] for one in VllmClient(server.entry).models()] == [BUILT_IN_MODEL]


def test_logprobs_of_adapters_at_several_steps_are_the_trainers(server: Server) -> None:
    check_steps(server, config_of(), 0.05)


def test_logprobs_of_whole_weights_at_several_steps_are_the_trainers_and_the_base_is_put_back(
    whole: Server, untied: Path
) -> None:
    check_steps(whole, config_of(untied, adapter="full"), 0.01)
    assert VllmClient(whole.entry).weight_version() == "default"
    check_steps(whole, config_of(untied), 0.05)


def test_an_output_layer_that_vllm_does_not_load_anew_is_found(server: Server) -> None:
    """vLLM's build for CPUs packs a tied output layer, and keeps it as it was (0.32.0)."""
    with pytest.raises(RolloutsRefused, match="does not compute this policy"):
        check_steps(server, config_of(adapter="full"), 0.01)


def share_of_e(text: str, _: Any) -> float:
    return text.count("e") / max(len(text), 1)


def run(
    server: Server, folder: Path, grade: Any = share_of_e, environment: Any = None, **config: Any
) -> ListRecorder:
    recorder = ListRecorder()

    def opened(*of_run: Any) -> VllmRollouts:
        *place, _arm = of_run
        return VllmRollouts(server.entry, f"run-{folder.name}", *place, Limits(READY_SECONDS))

    chosen = config_of(kl_probe_size=1, eval_interval=100, prompts_per_step=4, group_size=8, **config)
    own = {"environment": environment, "rollouts": opened}
    train(chosen, make_rows(*WORDS), [], FunctionGrader(grade), recorder, folder, **own)
    return recorder


def updates_of(recorder: ListRecorder) -> list[int]:
    """How many updates the weights had that sampled each step."""
    found = []
    for split, _, _, groups in recorder.all("rollouts"):
        if split == "train":
            (name,) = {one.sampled_by for group in groups for one in group.completions}
            found.append(int(name.split("-after-")[1][:6]))
    return found


def test_a_run_learns(server: Server, tmp_path: Path) -> None:
    recorder = run(server, tmp_path / "learns", n_epochs=16)
    rewards = recorder.series("reward/mean")
    assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 0.05
    assert max(recorder.series("sampler/mismatch")) < 1e-4
    assert updates_of(recorder) == list(range(16))


def test_a_run_that_trains_every_weight_learns(whole: Server, untied: Path, tmp_path: Path) -> None:
    own = {"adapter": "full", "learning_rate": 3e-4, "model": untied}
    recorder = run(whole, tmp_path / "full", n_epochs=12, **own)
    rewards = recorder.series("reward/mean")
    assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 0.05
    assert max(recorder.series("sampler/mismatch")) < 1e-4
    assert updates_of(recorder) == list(range(12))
    assert any("GB of weights go to the vLLM server" in said for _, said in recorder.all("note"))


def test_whole_weights_are_sampled_ahead_by_those_one_update_older(
    whole: Server, untied: Path, tmp_path: Path
) -> None:
    own = {"adapter": "full", "learning_rate": 1e-4, "model": untied}
    recorder = run(whole, tmp_path / "full-ahead", n_epochs=4, async_steps=1, **own)
    assert updates_of(recorder) == [0, 0, 1, 2]


class Asking:
    """A user who asks on, three times."""

    def start(self, item: Any, trace_id: str) -> Any:
        class Episode:
            def reply(self, parts: Any) -> Reply:
                return Reply(messages=[{"role": "user", "content": f"And after '{parts.answer[-5:]}'?"}])

        return Episode()


def test_turns_of_episodes_go_on_from_what_was_replied(server: Server, tmp_path: Path) -> None:
    own = {"max_completion_tokens": 64, "max_episode_steps": 3, "stop": ("e",)}
    recorder = run(server, tmp_path / "episodes", environment=Asking(), n_epochs=2, **own)
    assert max(recorder.series("sampler/mismatch")) < 1e-4
    told = [groups for split, _, _, groups in recorder.all("rollouts") if split == "train"]
    completions = [one for groups in told for group in groups for one in group.completions]
    assert max(len(one.turns) for one in completions) == 3
    assert all(one.sampled_by for one in completions)
    assert updates_of(recorder) == [0, 1]


def test_sampling_ahead_is_by_weights_one_update_older(server: Server, tmp_path: Path) -> None:
    recorder = run(server, tmp_path / "ahead", n_epochs=4, async_steps=1)
    assert updates_of(recorder) == [0, 0, 1, 2]
    assert all(map(math.isfinite, recorder.series("sampler/lag")))


def test_raw_logprobs_of_the_real_server_are_refused(tmp_path: Path) -> None:
    raw = Server(tmp_path, "--logprobs-mode raw_logprobs")
    raw.start()
    try:
        raw.wait()
        with pytest.raises(RolloutsRefused, match="processed_logprobs"):
            run(raw, tmp_path / "raw", n_epochs=1)
    finally:
        raw.program.stop()


def told_by(server: Server, config: Any, entry: VllmEntry, then: Any = None) -> ListRecorder:
    """What a run is told by a server that is asked once."""
    policy = Policy.load(config)
    recorder = ListRecorder()
    rollouts = VllmRollouts(entry, "told", policy, config, ALONE, recorder, Limits(60))
    try:
        rollouts.follow(0)
        if then is not None:
            then()
        rollouts.sample(prompts_of(policy), Sampling(1, 4, 1.0, ("train", 1, 1)))
    finally:
        rollouts.close()
    return recorder


def test_a_coarser_server_is_named_with_the_distance(coarse: Server) -> None:
    notes = told_by(coarse, config_of(), coarse.entry).all("note")
    assert any(level == "warn" and "--dtype float32" in said for level, said in notes)


def test_what_is_set_up_wrongly_is_said_with_what_to_set(coarse: Server) -> None:
    entry = coarse.entry
    with pytest.raises(RolloutsRefused, match="refuses the key that CHERRY_VLLM has"):
        told_by(coarse, config_of(), entry.model_copy(update={"key": SecretStr("wrong")}))
    with pytest.raises(RolloutsRefused, match=r"--max-lora-rank is at least the job's lora_rank"):
        told_by(coarse, config_of(lora_rank=16), entry)
    with pytest.raises(RolloutsRefused, match=f"serves {BUILT_IN_MODEL}, and not other"):
        told_by(coarse, config_of(), entry.model_copy(update={"model": "other"}))
    with pytest.raises(RolloutsRefused, match="See that it reads"):
        told_by(coarse, config_of(), entry, lambda: shutil.rmtree(entry.adapters / "told"))


def test_a_killed_server_is_waited_for_and_the_step_sampled_again(server: Server, tmp_path: Path) -> None:
    """It is killed while a step is graded and the next completions of it are still sampled."""
    grades = 0

    def killing(text: str, item: Any) -> float:
        nonlocal grades
        grades += 1
        if grades == 50:
            server.start()  # which kills what is left of the one before
        return share_of_e(text, item)

    recorder = run(server, tmp_path / "killed", killing, n_epochs=3, grade_concurrency=1)
    assert updates_of(recorder) == [0, 1, 2]
    told = [groups for split, _, _, groups in recorder.all("rollouts") if split == "train"]
    assert all(len(group.completions) == 8 for groups in told for group in groups)
