import io
import json
import logging
from pathlib import Path

from graders import Failure, FailureKind, Grade
from tests.workers.training.support import ListRecorder, group_of
from workers.training.base.types import Checkpoint, Group, Prompt
from workers.training.recorders import ConsoleRecorder, FanOut, JsonlRecorder

CHECKPOINT = Checkpoint(2, 1, Path("/somewhere/step_000002"), 0.1, 0.01, 0.5, None, 0.2, None)


def lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def graded_group():
    group = group_of(Prompt(4, {}, (1,)), (1,), (2,))
    failure = Failure(FailureKind.OTHER, "made up")
    return Group(group.prompt, group.completions, (Grade(0.5, parts={"a": 1.0}), Grade(None, failure)))


def test_everything_told_is_a_json_line(tmp_path):
    recorder = JsonlRecorder(tmp_path)
    recorder.metrics(1, 1, {"reward/mean": 0.5})
    recorder.rollouts("train", 1, 1, [graded_group()])
    recorder.checkpoint(CHECKPOINT)
    recorder.dropped(2)
    recorder.note("warn", "careful")
    assert lines(tmp_path / "metrics.jsonl") == [{"step": 1, "epoch": 1, "reward/mean": 0.5}]
    (row,) = lines(tmp_path / "rollouts.jsonl")
    assert (row["row"], [sample["reward"] for sample in row["samples"]]) == (4, [0.5, None])
    assert row["samples"][1]["failure"] == "other_error: made up"
    saved, dropped = lines(tmp_path / "checkpoints.jsonl")
    assert (saved["folder"], saved["kl"]) == ("step_000002", 0.1)
    assert dropped == {"step": 2, "dropped": True}
    assert lines(tmp_path / "notes.jsonl") == [{"level": "warn", "message": "careful"}]


def test_a_resumed_run_replaces_the_lines_it_tells_again(tmp_path):
    first = JsonlRecorder(tmp_path)
    for step in (1, 2, 3):
        first.metrics(step, 1, {"reward/mean": 0.1})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "cut by a ki')
    resumed = JsonlRecorder(tmp_path, resumed_step=1)
    resumed.metrics(2, 1, {"reward/mean": 0.9})
    assert [(row["step"], row["reward/mean"]) for row in lines(tmp_path / "metrics.jsonl")] == [
        (1, 0.1),
        (2, 0.9),
    ]


def test_the_console_shows_a_line_for_each_step():
    out = io.StringIO()
    recorder = ConsoleRecorder(20, out)
    recorder.metrics(3, 1, {"reward/mean": 0.25, "reward/valid_mean": 0.5, "time/step": 1.0})
    recorder.note("info", "Resumed after step 2.")
    recorder.checkpoint(CHECKPOINT)
    assert out.getvalue().splitlines() == [
        "step 3/20 epoch 1  reward 0.250  valid 0.500  seconds 1.00",
        "  info: Resumed after step 2.",
        "  saved step_000002",
    ]


def test_a_broken_side_listener_stops_nothing_but_a_broken_main_recorder_does(caplog):
    class Broken(ListRecorder):
        def metrics(self, step, epoch, values):
            raise RuntimeError("no")

    main = ListRecorder()
    with caplog.at_level(logging.ERROR):
        FanOut(main, Broken()).metrics(1, 1, {})
    assert main.all("metrics") == [(1, 1, {})]
    assert "recorder_failed" in caplog.text
    try:
        FanOut(Broken(), main).metrics(1, 1, {})
    except RuntimeError:
        return
    raise AssertionError("the main recorder's error was swallowed")


def test_fan_out_passes_on_every_kind_of_message():
    main, side = ListRecorder(), ListRecorder()
    both = FanOut(main, side)
    both.phase("sampling")
    both.rollouts("train", 1, 1, [])
    both.checkpoint(CHECKPOINT)
    both.snapshot(CHECKPOINT)
    both.dropped(2)
    both.state(2, Path("state"))
    both.note("info", "x")
    assert [entry[0] for entry in side.told] == [
        "phase",
        "rollouts",
        "checkpoint",
        "snapshot",
        "dropped",
        "state",
        "note",
    ]
    assert main.told == side.told
