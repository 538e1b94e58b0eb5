"""Tokens and times of graders on their way from grades into metrics and saved states."""

import json
from dataclasses import asdict, replace

from graders import Failure, FailureKind, Grade, TokenUsage
from tests.workers.training.support import group_of
from workers.training.base.types import Prompt
from workers.training.collector import Rollouts
from workers.training.metrics import Clock, total_usage_metrics, train_metrics
from workers.training.recorders import Silent
from workers.training.state import _rollouts_from_json, _rollouts_to_json

PROMPT = Prompt(0, {}, (1,))
SMALL, LARGE = TokenUsage(100, 10, 5), TokenUsage(1000, 1)
GRADES = (
    Grade(
        1.0,
        parts={"a": 1.0},
        usage={"org/small": SMALL, "large": LARGE},
        part_seconds={"a": 1.0},
        part_usage={"a": {"org/small": SMALL}, "b": {"large": LARGE}},
    ),
    Grade(
        None,
        Failure(FailureKind.MODEL_PARSE, "no JSON"),
        part_failures={"a": Failure(FailureKind.MODEL_PARSE, "no JSON")},
        usage={"org/small": SMALL},
        part_seconds={"a": 2.0},
        part_usage={"a": {"org/small": SMALL}},
    ),
)


def graded_group():
    return replace(group_of(PROMPT, (1,), (2,)), grades=GRADES)


def test_tokens_are_summed_by_model_and_by_part_failed_grades_included():
    values = train_metrics([graded_group(), graded_group()])
    assert values["usage/train/prompt_tokens/org/small"] == 400
    assert values["usage/train/cached_tokens/org/small"] == 20
    assert values["usage/train/completion_tokens/large"] == 2
    assert values["part_usage/train/prompt_tokens/a"] == 400
    assert values["part_usage/train/prompt_tokens/b"] == 2000
    assert values["part_seconds/train/a"] == 1.5
    assert values["part_failures/train/model_grader_parse_error/a"] == 2


def test_without_judges_nothing_is_said_of_tokens():
    values = train_metrics([replace(group_of(PROMPT, (1,), (2,)), grades=(Grade(1.0), Grade(0.0)))])
    assert not [name for name in values if "usage" in name or "part_seconds" in name]
    assert total_usage_metrics({}) == {}


def test_rollouts_that_wait_in_a_saved_state_keep_what_they_cost():
    rollouts = Rollouts([graded_group()], [])
    back = _rollouts_from_json(json.loads(json.dumps(_rollouts_to_json(rollouts))), [PROMPT])
    assert back.groups[0].grades == GRADES
    assert [asdict(grade) for grade in back.groups[0].grades] == [asdict(grade) for grade in GRADES]


def test_a_long_phase_in_which_something_goes_on_is_told_again():
    told = []

    class Listening(Silent):
        def phase(self, phase):
            told.append(phase)

    patient, impatient = Clock(Listening()), Clock(Listening(), tell_again_seconds=0.0)
    with patient.phase("grading", "grading"):
        patient.alive("grading")
        assert told == ["grading"], "not after every grade"
    with impatient.phase("grading", "grading"):
        impatient.alive("grading")
    assert told == ["grading"] * 3
