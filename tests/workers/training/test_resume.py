"""A run killed anywhere and resumed has the same history, bit for bit, as one that was not."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import save_file

from graders import Failure, FailureKind, Grade
from tests.workers.training import killed_run
from tests.workers.training.support import (
    FunctionGrader,
    Killed,
    KilledRecorder,
    ListRecorder,
    early_letters,
    make_config,
    make_rows,
)
from workers.training import state
from workers.training.base.errors import RunCancelled, RunPaused, StateMismatch
from workers.training.base.types import Completion, Group, Prompt
from workers.training.collector import Rollouts
from workers.training.folders import MANIFEST, STATES_KEPT, FolderDamaged, publish, read_manifest, sha256
from workers.training.loop import train
from workers.training.state import newest_state, saved_steps

pytestmark = pytest.mark.slow

ROWS, VALID = make_rows("one", "two", "three"), make_rows("four", "five")


def go(config, run_dir, recorder=None, rows=ROWS, should_stop=lambda: False, **options):
    recorder = recorder or ListRecorder()
    grader = FunctionGrader(early_letters)
    result = train(config, rows, VALID, grader, recorder, run_dir, should_stop, **options)
    return result, recorder


def config_of(tiny, **changes):
    return make_config(tiny, n_epochs=3, save_state_every=2, eval_interval=3, checkpoints_kept=1, **changes)


def final_weights(run_dir):
    (folder,) = run_dir.glob("state_*")
    return {file.name: sha256(file) for file in folder.glob("*.safetensors")}


def stop_after(steps):
    stops = iter([False] * steps + [True])
    return lambda: next(stops)


def rewrite(folder, change):
    """Publish a saved state anew, whole by its manifest, with something else in it."""
    facts = {name: value for name, value in read_manifest(folder).items() if name != "files"}

    def write(copy):
        for file in folder.iterdir():
            if file.name != MANIFEST:
                (copy / file.name).write_bytes(file.read_bytes())
        change(copy)

    publish(folder, write, facts)


AHEAD = {"adapter": "full", "async_steps": 1, "sampling_rounds": 2}


@pytest.fixture(scope="module", params=["lora", "full", "ahead"])
def whole(request, tiny, tmp_path_factory):
    """A run that nothing stopped: config, result, history, final state."""
    changes = AHEAD if request.param == "ahead" else {"adapter": request.param}
    config = config_of(tiny, **changes)
    folder = tmp_path_factory.mktemp("whole")
    result, recorder = go(config, folder)
    return config, result, recorder.history(), final_weights(folder)


@pytest.mark.parametrize("steps", [1, 3, 5])
def test_stopped_after_any_step_and_resumed(whole, tmp_path, steps):
    config, result, history, weights = whole
    first = ListRecorder()
    with pytest.raises(RunCancelled):
        go(config, tmp_path, first, should_stop=stop_after(steps))
    resumed, second = go(config, tmp_path)
    assert {**first.history(), **second.history()} == history
    assert set(second.history()) < set(history)
    assert final_weights(tmp_path) == weights
    assert (resumed.best.step, resumed.best.kl, resumed.trained_tokens) == (
        result.best.step,
        result.best.kl,
        result.trained_tokens,
    )


@pytest.mark.parametrize("steps", [1, 4])
def test_paused_after_any_step_and_resumed(whole, tmp_path, steps):
    config, result, history, weights = whole
    first = ListRecorder()
    with pytest.raises(RunPaused):
        go(config, tmp_path, first, should_pause=stop_after(steps))
    ((snapshot,),) = first.all("snapshot")
    assert snapshot.step == steps
    assert snapshot.valid_reward is not None
    assert (snapshot.folder / "model" / "model.safetensors").exists()
    resumed, second = go(config, tmp_path)
    assert {**first.history(), **second.history()} == history
    assert final_weights(tmp_path) == weights
    assert (resumed.best.step, resumed.best.kl) == (result.best.step, result.best.kl)
    assert second.all("dropped")[0] == (steps,)


def test_a_pause_where_a_kept_checkpoint_is_makes_no_second_one(whole, tmp_path):
    config, *_ = whole
    recorder = ListRecorder()
    with pytest.raises(RunPaused):
        go(config, tmp_path, recorder, should_pause=stop_after(0))
    assert recorder.all("snapshot") == []
    assert [saved.step for (saved,) in recorder.all("checkpoint")] == [0]


@pytest.mark.parametrize("messages", [3, 7, 12, 24, 25, 34])
def test_killed_at_any_message_and_resumed(whole, tmp_path, messages):
    """The recorder stands in for the kill: it comes between any two actions of the engine."""
    config, _, history, weights = whole
    first = KilledRecorder(messages)
    with pytest.raises(Killed):
        go(config, tmp_path, first)
    first._left = 10**6
    _, second = go(config, tmp_path)
    assert {**first.history(), **second.history()} == history
    assert final_weights(tmp_path) == weights
    assert not list(tmp_path.glob("*.partial"))


def test_without_the_optimizers_state_the_history_differs(whole, tmp_path):
    """The control: the comparison above would notice."""
    config, _, history, weights = whole
    with pytest.raises(RunCancelled):
        go(config, tmp_path, should_stop=stop_after(4))
    rewrite(tmp_path / "state_000004", lambda folder: save_file({}, folder / "optimizer.safetensors"))
    _, second = go(config, tmp_path)
    assert second.history()[6] != history[6]
    assert final_weights(tmp_path) != weights


def test_without_the_rollouts_that_were_pending_the_history_differs(tiny, tmp_path):
    """The control for sampling ahead: the weights have moved on since."""
    config = config_of(tiny, **AHEAD)
    _, recorder = go(config, tmp_path / "whole")
    with pytest.raises(RunCancelled):
        go(config, tmp_path / "run", should_stop=stop_after(4))
    rewrite(tmp_path / "run" / "state_000004", lambda folder: (folder / "pending.json").unlink())
    _, second = go(config, tmp_path / "run")
    assert second.history()[5] != recorder.history()[5]
    assert final_weights(tmp_path / "run") != final_weights(tmp_path / "whole")


def test_pending_rollouts_come_back_as_they_were(tmp_path):
    prompts = [Prompt(row, {"row": row}, (1, row)) for row in range(3)]
    completion = Completion((5, 6), (-0.1, -1 / 3), "a\ud800\n", "stop")
    failure = Failure(FailureKind.SAMPLE_PARSE, "made up")
    grades = (
        Grade(1 / 3, parts={"b": 0.1, "a": 1e-300}, part_failures={"c": failure}, reason="why", seconds=0.2),
        Grade(None, failure),
    )
    groups = [Group(prompts[row], (completion, completion), grades) for row in (2, 0)]
    pending = Rollouts(groups, [groups[1]], rounds=2)
    (tmp_path / "pending.json").write_text(json.dumps(state._rollouts_to_json(pending)))
    found = state.load_pending(tmp_path, prompts)
    assert found == pending
    assert list(found.groups[0].grades[0].parts) == ["b", "a"]
    assert state.load_pending(tmp_path / "elsewhere", prompts) is None


@pytest.mark.parametrize("async_steps", [0, 1])
def test_killed_by_the_system_and_resumed(tiny, tmp_path, async_steps):
    check_killed_and_resumed(tiny, tmp_path, {"async_steps": async_steps})


@pytest.mark.long
@pytest.mark.parametrize("precision", ["nf4", "int8"])
def test_killed_beside_a_quantised_base_and_resumed(tiny, tmp_path, precision):
    pytest.importorskip("bitsandbytes", reason="needs bitsandbytes (pip install 'cherry-rft[quant]')")
    check_killed_and_resumed(tiny, tmp_path, {"base_precision": precision})


def check_killed_and_resumed(tiny, tmp_path, changes):
    arguments = [sys.executable, "-m", "tests.workers.training.killed_run", str(tiny)]
    history = tmp_path / "history.jsonl"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()}
    arguments += [str(tmp_path / "killed"), str(history), json.dumps(changes)]
    process = subprocess.Popen(arguments, env=environment)
    deadline = time.monotonic() + 120
    while not history.exists() or history.read_text().count("\n") < 5:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = {row.pop("step"): row for row in map(json.loads, history.read_text().splitlines())}
    assert len(before) < 25
    second, uninterrupted = ListRecorder(), ListRecorder()
    killed_run.run_to_kill(tiny, tmp_path / "killed", second, changes)
    killed_run.run_to_kill(tiny, tmp_path / "whole", uninterrupted, changes)
    assert min(second.history()) > 0
    assert {**before, **second.history()} == uninterrupted.history()
    assert final_weights(tmp_path / "killed") == final_weights(tmp_path / "whole")


@pytest.mark.parametrize("file", ["trained.safetensors", "optimizer.safetensors", "progress.json"])
def test_a_damaged_state_is_noticed_and_the_one_before_is_used(whole, tmp_path, file):
    config, _, history, weights = whole
    with pytest.raises(RunCancelled):
        go(config, tmp_path, should_stop=stop_after(4))
    assert saved_steps(tmp_path) == [4, 3]
    damaged = tmp_path / "state_000004" / file
    raw = damaged.read_bytes()
    damaged.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    _, recorder = go(config, tmp_path)
    notes = [message for _, message in recorder.all("note")]
    assert "state_000004" in notes[0]
    assert notes[1] == "Resumed after step 3."
    assert recorder.history() == {step: history[step] for step in (4, 5, 6)}
    assert final_weights(tmp_path) == weights


def test_with_no_state_left_whole_the_run_starts_again(whole, tmp_path):
    config, _, history, weights = whole
    with pytest.raises(RunCancelled):
        go(config, tmp_path, should_stop=stop_after(2))
    for folder in tmp_path.glob("state_*"):
        (folder / "manifest.json").unlink()
    _, recorder = go(config, tmp_path)
    assert recorder.history() == history
    assert final_weights(tmp_path) == weights


@pytest.mark.parametrize("changes", [{"learning_rate": 0.5}, {"seed": 9}, {"beta": 0.5}])
def test_a_state_of_another_config_is_refused(tiny, tmp_path, changes):
    with pytest.raises(RunCancelled):
        go(config_of(tiny), tmp_path, should_stop=stop_after(1))
    with pytest.raises(StateMismatch) as caught:
        go(config_of(tiny, **changes), tmp_path)
    assert caught.value.code == "state_mismatch"


def test_a_state_of_other_data_is_refused_and_of_a_moved_model_is_not(tiny, tmp_path):
    config = config_of(tiny)
    with pytest.raises(RunCancelled):
        go(config, tmp_path / "run", should_stop=stop_after(1))
    with pytest.raises(StateMismatch):
        go(config, tmp_path / "run", rows=make_rows("other", "rows", "now"))
    elsewhere = Path(tmp_path / "elsewhere")
    elsewhere.symlink_to(tiny)
    go(config.model_copy(update={"model_path": str(elsewhere)}), tmp_path / "run")


def test_a_finished_run_called_again_trains_nothing_and_says_the_same(whole, tmp_path):
    config, result, _, weights = whole
    go(config, tmp_path)
    again, recorder = go(config, tmp_path)
    assert recorder.all("metrics") == []
    assert again.best.step == result.best.step
    assert final_weights(tmp_path) == weights


def test_states_hold_no_pickle(tiny, tmp_path):
    go(config_of(tiny), tmp_path)
    assert {path.suffix for path in tmp_path.glob("state_*/*")} == {".safetensors", ".json"}
    progress = json.loads(next(tmp_path.glob("state_*/progress.json")).read_text())
    assert [len(rows) for _, _, rows, *_ in progress["looks"]] == [33] * len(progress["looks"])


def test_states_in_reserve_keep_the_checkpoints_they_need(tiny, tmp_path):
    """A checkpoint dropped at one step stays on disk while an older state still counts on it."""
    recorder = ListRecorder()
    with pytest.raises(RunCancelled):
        go(config_of(tiny), tmp_path, recorder, should_stop=stop_after(4))
    folder, faults = newest_state(tmp_path, read_manifest(tmp_path / "state_000004")["belongs_to"])
    assert (folder.name, faults) == ("state_000004", [])
    for step in saved_steps(tmp_path):
        kept = state.read_progress(tmp_path / f"state_{step:06d}").kept
        assert all(read_manifest(checkpoint.folder) for checkpoint in kept)


def test_a_checkpoint_is_dropped_only_when_no_state_needs_it_and_never_forgotten(whole, tmp_path):
    """Killed between state and drop, the resumed run reports the drop."""
    config = whole[0]
    _, uninterrupted = go(config.model_copy(update={"eval_interval": 1}), tmp_path / "whole")
    dropped = [step for (step,) in uninterrupted.all("dropped")]
    assert dropped
    order = [entry[:2] for entry in uninterrupted.told if entry[0] in {"state", "dropped"}]
    assert order[-1][0] == "dropped"
    before = next(i for i, entry in enumerate(uninterrupted.told) if entry[0] == "dropped")
    first = KilledRecorder(before)
    with pytest.raises(Killed):
        go(config.model_copy(update={"eval_interval": 1}), tmp_path / "killed", first)
    first._left = 10**6
    _, second = go(config.model_copy(update={"eval_interval": 1}), tmp_path / "killed")
    told = [step for (step,) in second.all("dropped")]
    gone = {saved.step for (saved,) in uninterrupted.all("checkpoint")} - {
        int(folder.name[5:]) for folder in (tmp_path / "killed").glob("step_*")
    }
    assert sorted(told) == sorted(gone) == sorted(dropped)


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    def half(folder):
        (folder / "a").write_text("a")
        raise Killed

    with pytest.raises(Killed):
        publish(tmp_path / "step", half, {})
    assert [path.name for path in tmp_path.iterdir()] == ["step.partial"]
    publish(tmp_path / "step", lambda folder: (folder / "a").write_text("b"), {"step": 3})
    assert [path.name for path in tmp_path.iterdir()] == ["step"]
    manifest = read_manifest(tmp_path / "step")
    assert (manifest["step"], manifest["files"]["a"]["bytes"]) == (3, 1)


@pytest.mark.parametrize("damage", ["missing", "changed", "no-manifest", "bad-manifest"])
def test_a_damaged_folder_is_noticed(tmp_path, damage):
    publish(tmp_path / "step", lambda folder: (folder / "a").write_text("b"), {})
    file = tmp_path / "step" / ("manifest.json" if "manifest" in damage else "a")
    if damage in {"missing", "no-manifest"}:
        file.unlink()
    else:
        file.write_text("c")
    with pytest.raises(FolderDamaged):
        read_manifest(tmp_path / "step")


def test_the_default_keeps_two_states():
    assert STATES_KEPT == 2


def test_a_stopped_run_repeats_no_step(tiny, tmp_path):
    config = make_config(tiny, n_epochs=6, save_state_every=100, eval_interval=100)
    with pytest.raises(RunCancelled):
        go(config, tmp_path, should_stop=stop_after(3))
    _, resumed = go(config, tmp_path)
    assert next(step for step in resumed.history() if step > 0) == 4
