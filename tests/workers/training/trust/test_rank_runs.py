"""Runs whose grader ranks: they train as by the exact grader, and are judged against the base."""

import json
import threading

import pytest

from graders import build_grader, parse_grader
from graders.judges.fence import fenced_texts
from graders.services import Reply, Services
from graders.types import TokenUsage
from tests.workers.training.support import (
    FunctionGrader,
    ListRecorder,
    early_letters,
    make_config,
    make_rows,
)
from workers.training.base.errors import RunCancelled
from workers.training.evaluate import row_rewards
from workers.training.folders import sha256
from workers.training.loop import train
from workers.training.state import read_progress

pytestmark = pytest.mark.slow

ROWS = make_rows("one", "two", "three")
VALID = make_rows("four", "five", "six", "seven", "eight")


class ExactJudge:
    """Gives each answer the exact grader's reward, and remembers the prompts."""

    def __init__(self):
        self.prompts = []
        self._lock = threading.Lock()

    def check(self, *_):
        """Takes everything."""

    def ask(self, question):
        prompt = question.messages[1]["content"]
        with self._lock:
            self.prompts.append(prompt)
        scores = [
            {"answer": name, "reason": "", "score": early_letters(text, {})}
            for name, text in fenced_texts(prompt)
            if name.startswith("answer")
        ]
        return Reply(json.dumps({"scores": scores}), TokenUsage(10, 1, calls=1))


def rank(judge):
    return build_grader(parse_grader({"type": "rank", "model": "judge"}), Services(judge=judge))


def go(tiny, folder, grader, should_stop=lambda: False, **options):
    changes = {"n_epochs": 3, "eval_samples": 3, "eval_temperature": 1.0, "save_state_every": 1}
    config = make_config(tiny, **{**changes, **options.pop("changes", {})})
    recorder = ListRecorder()
    return train(config, ROWS, VALID, grader, recorder, folder, should_stop, **options), recorder


def weights(folder):
    return {file.name: sha256(file) for file in sorted(folder.glob("state_000006/*.safetensors"))}


def values(recorder, step, split="valid"):
    (groups,) = [groups for of, at, _, groups in recorder.all("rollouts") if (of, at) == (split, step)]
    return row_rewards(groups)


@pytest.fixture(scope="module")
def exact(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exact")
    return go(tiny, folder, FunctionGrader(early_letters))[1], folder


@pytest.fixture(scope="module")
def ranked(tiny, tmp_path_factory):
    folder, judge = tmp_path_factory.mktemp("ranked"), ExactJudge()
    result, recorder = go(tiny, folder, rank(judge))
    return result, recorder, folder, judge


def test_an_exact_judge_trains_the_very_weights_that_the_exact_grader_does(exact, ranked):
    assert weights(exact[1]) == weights(ranked[2]) != {}


def test_a_validation_row_is_half_and_half_the_difference_to_the_base(exact, ranked):
    base = values(exact[0], 0)
    for step in (2, 4, 6):
        now = values(exact[0], step)
        expected = [0.5 + (one - of_base) / 2 for one, of_base in zip(now, base, strict=True)]
        assert values(ranked[1], step) == pytest.approx(expected)
        assert values(ranked[1], step, "greedy") != [0.5] * 5
    assert values(ranked[1], 0) == values(ranked[1], 0, "greedy") == [0.5] * 5
    result = ranked[0]
    assert [one.mean for one in result.judged] == pytest.approx(
        [(sum(values(exact[0], step)) - sum(base)) / 10 for step in (2, 4, 6)]
    )
    notes = [message for level, message in ranked[1].all("note")]
    assert sum("0.5 is as good as the base" in message for message in notes) == 1
    assert not any("smallest gain" in message for message in notes)


def test_a_group_is_one_call_and_counts_once(ranked):
    _, recorder, _, judge = ranked
    calls = recorder.series("usage/total/calls/judge")[-1]
    assert calls == len(judge.prompts)
    assert calls <= 6 * 2 + 3 * (5 + 5)


def test_a_run_that_goes_on_compares_with_the_same_base(tiny, ranked, tmp_path):
    stops = iter([False] * 3 + [True])
    with pytest.raises(RunCancelled):
        go(tiny, tmp_path, rank(ExactJudge()), lambda: next(stops))
    result, recorder = go(tiny, tmp_path, rank(ExactJudge()))
    assert result.judged == ranked[0].judged
    assert values(recorder, 6) == values(ranked[1], 6)
    assert weights(tmp_path) == weights(ranked[2])


@pytest.mark.long
def test_seeds_take_over_what_the_first_has_found_of_the_base(tiny, tmp_path):
    judge = ExactJudge()
    result, _ = go(tiny, tmp_path, rank(judge), changes={"n_seeds": 2})
    assert len(result.arms) == 2
    found = {
        tuple(map(str, read_progress(folder).base_answers.by_split["valid"].values()))
        for folder in tmp_path.glob("arm_*/state_*")
    }
    assert len(found) == 1


@pytest.mark.long
def test_training_rows_sampled_afresh_are_compared_completion_by_completion(tiny, tmp_path):
    exactly, ranked = ListRecorder(), ListRecorder()
    config = make_config(tiny, n_epochs=1, eval_samples=3, eval_temperature=1.0)
    results = [
        train(config, ROWS, [], grader, recorder, tmp_path / name)
        for name, grader, recorder in (
            ("exact", FunctionGrader(early_letters), exactly),
            ("ranked", rank(ExactJudge()), ranked),
        )
    ]
    exact_look, ranked_look = (result.judged[-1] for result in results)
    assert ranked_look.mean == pytest.approx(exact_look.mean / 2)


@pytest.mark.long
def test_a_gold_grader_that_ranks_is_measured_against_the_base_too(tiny, tmp_path):
    changes = {"n_epochs": 1}
    _, recorder = go(
        tiny, tmp_path, FunctionGrader(early_letters), gold_grader=rank(ExactJudge()), changes=changes
    )
    gold, over_base = recorder.series("reward/gold_mean"), recorder.series("reward/gold_over_base")
    assert gold[0] == 0.5
    assert over_base[-1] == pytest.approx(gold[-1] - 0.5)
    exactly = values(recorder, 2)
    base = values(recorder, 0)
    assert gold[-1] == pytest.approx(0.5 + (sum(exactly) - sum(base)) / 10)
