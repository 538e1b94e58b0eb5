"""The grader files of the shared data: they load and score real rows."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from graders import Sample, build_grader, has_path, item_paths, parse_grader
from graders.services import Reply, Services
from tests.shared_data import shared_path, shared_rows

SUPPORTED = {
    "bbh-3x100/grader.json": "target",
    "e2e-nlg-200/grader.json": "reference",
    "sroie-receipts-200/grader.json": "reference_json",
    "tinystories-prompts-19/grader.json": "keyword",
    "tinystories-prompts-19/grader_similarity.json": "next_sentence",
}
IN_THE_SANDBOX = {
    "countdown-azure-100/grader.json",
    "gsm8k-train-500/grader.json",
    "humaneval-40/grader.json",
    "snips-slots-200/grader.json",
    "svamp-200/grader.json",
}
"""Tested in tests/graders/sandbox/test_python_grader.py."""
JUDGED = {"countdown-azure-100/score_model_grader.json"}


def raw(name):
    return json.loads(shared_path(f"data/{name}").read_bytes())


def test_every_grader_file_is_known_here():
    files = shared_path("data").glob("*/*grader*.json")
    assert {f"{file.parent.name}/{file.name}" for file in files} == (
        SUPPORTED.keys() | IN_THE_SANDBOX | JUDGED
    )


@pytest.mark.parametrize("name", SUPPORTED)
def test_supported_graders_load_and_a_rows_own_answer_scores_1(name):
    spec = parse_grader(raw(name))
    grader = build_grader(spec)
    for row in shared_rows(f"data/{name.split('/')[0]}"):
        assert all(has_path(row, path) for _, path in item_paths(spec))
        assert grader.grade(Sample(str(row[SUPPORTED[name]])), row).value == pytest.approx(1)
        wrong = grader.grade(Sample("zzz"), row)
        assert wrong.value is not None
        assert wrong.value < 0.5


def test_threads_may_share_a_grader():
    rows = shared_rows("data/e2e-nlg-200")[:20]
    graders = {
        metric: raw("e2e-nlg-200/grader.json") | {"name": metric, "evaluation_metric": metric}
        for metric in ("fuzzy_match", "bleu", "gleu", "meteor", "rouge_2", "rouge_l")
    }
    formula = " + ".join(graders)
    grader = build_grader(parse_grader({"type": "multi", "graders": graders, "calculate_output": formula}))

    def parts(row):
        return grader.grade(Sample(row["references"][-1]), row).parts

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(parts, rows * 3)) == [parts(row) for row in rows] * 3


class FiveOfFive:
    """A judge that is pleased with everything it is told, and tells what that was."""

    def __init__(self):
        self.asked = []

    def check(self, target, sampling, media):
        """Takes everything."""

    def ask(self, question):
        self.asked.append(question)
        return Reply('{"steps": [], "result": 5}')


@pytest.mark.parametrize("name", JUDGED)
def test_judged_graders_show_each_row_to_their_judge(name):
    judge = FiveOfFive()
    grader = build_grader(parse_grader(raw(name)), Services(judge=judge))
    rows = shared_rows(f"data/{name.split('/')[0]}")
    assert {grader.grade(Sample("(1 + 2)"), row).value for row in rows} == {5.0}
    for row, question in zip(rows, judge.asked, strict=True):
        assert question.target.model == "o3-mini"
        assert f'"target": {row["target"]}' in question.messages[1]["content"]
        assert "(1 + 2)" in question.messages[1]["content"]
