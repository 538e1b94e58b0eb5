"""Published RLVR rows become rows of a job as they are, and what was put right is told."""

import json

import pytest
from typer.testing import CliRunner

from app.cli.main import cli
from app.cli.output import CliError
from graders import GraderInvalid, Sample, build_grader, parse_grader
from methods.rlvr_import import import_rlvr
from methods.rows import DatasetInvalid, read_rows

USER = {"role": "user", "content": "What is 40 + 32?"}
SYSTEM = {"role": "system", "content": "Be short."}
ANSWER = {"role": "assistant", "content": "72"}
GSM8K = {"messages": [USER], "ground_truth": "72", "dataset": "gsm8k"}
IFEVAL = {
    "messages": [{"role": "user", "content": "Write without commas."}],
    "ground_truth": "[{'instruction_id': ['punctuation:no_comma'], 'kwargs': [None]}]",
    "dataset": ["ifeval"],
}
VERL = {
    "data_source": "openai/gsm8k",
    "prompt": [SYSTEM, USER],
    "ability": "math",
    "reward_model": {"style": "rule", "ground_truth": "72"},
    "extra_info": {"index": 3},
}


def written(tmp_path, *rows):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n")
    return path


def imported(tmp_path, *rows, **options):
    return import_rlvr(written(tmp_path, *rows), **({"remap": {}} | options))


def test_rows_of_open_instruct_stay_as_they_are(tmp_path):
    rows = [GSM8K | {"source": "x", "env_config": {"a": 1}}, IFEVAL]
    found = imported(tmp_path, *rows)
    assert found.rows == rows
    assert found.verifiers == {"gsm8k": 1, "ifeval": 1}
    assert found.grader == {"type": "rlvr", "name": "rlvr"}
    assert found.told() == []
    grader = build_grader(parse_grader(found.grader))
    assert grader.grade(Sample("It is 72"), found.rows[0]).value == 1
    assert grader.grade(Sample("a, b"), found.rows[1]).value == 0


def test_a_prompt_of_system_and_user_keeps_the_users_turn(tmp_path):
    (row,) = imported(tmp_path, GSM8K | {"messages": [SYSTEM, USER]}).rows
    assert row["messages"] == [SYSTEM, USER]


def test_an_assistants_turn_at_the_end_is_dropped_and_told_and_others_stay(tmp_path):
    found = imported(tmp_path, GSM8K | {"messages": [SYSTEM, USER, ANSWER, USER, ANSWER]}, GSM8K)
    assert found.rows[0]["messages"] == [SYSTEM, USER, ANSWER, USER]
    assert found.told() == [
        "dropped the assistant's turn at the end of 1 rows: a job samples that answer itself"
    ]


def test_verls_rows_are_read(tmp_path):
    found = imported(tmp_path, VERL, VERL | {"prompt": "Just text"})
    assert found.rows[0] == {
        "messages": [SYSTEM, USER],
        "dataset": "openai/gsm8k",
        "ground_truth": "72",
        "ability": "math",
        "extra_info": {"index": 3},
    }
    assert found.rows[1]["messages"] == [{"role": "user", "content": "Just text"}]
    assert found.verifiers == {"verl_gsm8k": 2}
    assert [note.split(":")[0] for note in found.told()] == [
        "read 2 rows of verl's form",
        "made a user's message of the text prompt of 1 rows",
    ]
    grader = build_grader(parse_grader(found.grader))
    assert grader.grade(Sample("#### 72"), found.rows[0]).value == 1


def test_several_verifiers_are_told_with_the_factor(tmp_path):
    both = GSM8K | {"dataset": ["gsm8k", "max_length"], "ground_truth": ["72", "100"]}
    found = imported(tmp_path, both, GSM8K, scale=10.0)
    assert found.verifiers == {"gsm8k": 2, "max_length": 1}
    told = " ".join(found.told())
    assert "1 rows have several verifiers" in told
    assert "multiplies rewards by 10" in told
    assert "1 rows are scored by their length in tokens" in told
    grader = build_grader(parse_grader(found.grader))
    assert grader.grade(Sample("72", output_tokens=100), both).value == 20


def test_old_and_new_labels_of_ifeval_are_both_read_under_either_name(tmp_path):
    old = IFEVAL | {
        "ground_truth": json.dumps({"func_name": "validate_no_commas", "N": None}),
        "dataset": "ifeval",
    }
    found = imported(tmp_path, old, old | {"dataset": "ifeval_old"}, IFEVAL)
    assert found.verifiers == {"ifeval": 2, "ifeval_old": 1}


def test_code_is_imported_without_a_sandbox_and_told(tmp_path):
    code = GSM8K | {"dataset": "code", "ground_truth": '["assert f(1) == 2"]'}
    assert "1 rows run code" in imported(tmp_path, code).told()[0]


def test_tools_that_a_job_cannot_read_are_left_out_and_told(tmp_path):
    found = imported(tmp_path, GSM8K | {"tools": ["python"]}, GSM8K | {"tools": [{"type": "function"}]})
    assert "tools" not in found.rows[0]
    assert found.rows[1]["tools"] == [{"type": "function"}]
    assert "left the tools out of 1 rows" in found.told()[0]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        pytest.param("not json", "Expecting", id="not-json"),
        pytest.param("[1]", "JSON object", id="a-list"),
        pytest.param({"messages": [USER], "answer": "72"}, "'dataset' is missing", id="not-rlvr"),
        pytest.param({"messages": [USER], "dataset": "gsm8k"}, "'ground_truth' is missing", id="no-label"),
        pytest.param(GSM8K | {"dataset": "gsm9k"}, "'gsm9k', which is not known", id="unknown-verifier"),
        pytest.param(GSM8K | {"dataset": "general-quality"}, "--judge MODEL", id="judge"),
        pytest.param(
            GSM8K | {"dataset": ["gsm8k", "rubric"], "ground_truth": ["1", "2"]}, "rubric", id="one-of-two"
        ),
        pytest.param(GSM8K | {"dataset": ["gsm8k", "math"]}, "list as long", id="lengths-differ"),
        pytest.param(GSM8K | {"ground_truth": "???"}, "no number", id="label-unread"),
        pytest.param(GSM8K | {"messages": [ANSWER]}, "at least one message", id="only-an-answer"),
        pytest.param(GSM8K | {"messages": [SYSTEM]}, "from the user", id="no-users-turn"),
        pytest.param(GSM8K | {"messages": "hello"}, "must be a list", id="messages-are-text"),
        pytest.param({"dataset": "gsm8k", "ground_truth": "1"}, "'messages' is missing", id="no-prompt"),
        pytest.param(VERL | {"reward_model": {"style": "model"}}, "'model'", id="a-model-judges"),
        pytest.param(IFEVAL | {"ground_truth": "__import__('os')"}, "literal", id="label-is-code"),
        pytest.param('{"dataset": "gsm8k", "dataset": "math"}', "duplicate", id="twice"),
    ],
)
def test_what_cannot_be_imported_is_refused_with_its_line(tmp_path, row, reason):
    with pytest.raises(DatasetInvalid) as caught:
        imported(tmp_path, GSM8K, "", row)
    (fault,) = caught.value.faults
    assert fault.line == 3
    assert reason in fault.reason


def test_an_empty_file_is_refused(tmp_path):
    with pytest.raises(DatasetInvalid, match="no rows"):
        imported(tmp_path, "")


def test_verifiers_can_be_renamed_to_known_ones_only(tmp_path):
    found = imported(tmp_path, GSM8K | {"dataset": "mine"}, remap={"Mine": "gsm8k"})
    assert found.verifiers == {"gsm8k": 1}
    assert found.grader["remap"] == {"Mine": "gsm8k"}
    with pytest.raises(GraderInvalid):
        imported(tmp_path, GSM8K, remap={"gsm8k": "nope"})


runner = CliRunner()


def test_the_command_writes_what_a_job_takes(tmp_path):
    path = written(tmp_path, *[GSM8K] * 5, VERL, IFEVAL)
    out = tmp_path / "out"
    done = runner.invoke(cli, ["import", "rlvr", str(path), "--out", str(out), "--valid", "2", "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["rows"] == {"train": 5, "valid": 2}
    assert told["verifiers"] == {"gsm8k": 5, "verl_gsm8k": 1, "ifeval": 1}
    grader = build_grader(parse_grader(json.loads((out / "grader.json").read_text())))
    for name, count in (("train", 5), ("valid", 2)):
        rows = read_rows(out / f"{name}.jsonl")
        assert len(rows) == count
        assert all(grader.grade(Sample(""), row.item).failure is None for row in rows)
    again = runner.invoke(cli, ["import", "rlvr", str(path), "--out", str(out)])
    assert isinstance(again.exception, CliError)
    assert "--force" in str(again.exception)
    assert runner.invoke(cli, ["import", "rlvr", str(path), "--out", str(out), "--force"]).exit_code == 0


QUALITY = {"messages": [USER], "dataset": "general-quality_ref", "ground_truth": "72"}
RUBRIC = {
    "messages": [USER],
    "dataset": "rubric",
    "ground_truth": json.dumps({"query": "?", "rubrics": [{"description": "Says 72.", "weight": 1}]}),
}


def test_rows_that_a_judge_scores_are_taken_with_a_judge_and_asked_of_nobody(tmp_path):
    found = imported(tmp_path, GSM8K, QUALITY, RUBRIC, judge="big")
    assert found.grader["judge"] == {"model": "big"}
    assert found.verifiers == {"gsm8k": 1, "general-quality_ref": 1, "rubric": 1}
    assert any("2 rows are scored by the judge, big" in note for note in found.told())
    without = {"ground_truth": ""}
    with pytest.raises(DatasetInvalid) as caught:
        imported(tmp_path, GSM8K, QUALITY | without, RUBRIC | without, judge="big")
    assert [fault.line for fault in caught.value.faults] == [2, 3]


HEALTHBENCH = {
    "prompt_id": "a-1",
    "prompt": [USER],
    "rubrics": [{"criterion": "Says 72.", "points": 5, "tags": ["axis:accuracy"]}],
    "example_tags": ["theme:maths"],
    "ideal_completions_data": None,
}
AS_REWARDS = {
    "question": "What is 40 + 32?",
    "reference_answer": "72",
    "rubric": [{"title": "Sum", "description": "Essential Criteria: Says 72.", "weight": 5}],
}


@pytest.mark.parametrize("published", [HEALTHBENCH, AS_REWARDS], ids=["healthbench", "rubrics-as-rewards"])
def test_rows_with_rubrics_become_rows_of_a_job_as_published(tmp_path, published):
    (row,) = imported(tmp_path, published, judge="big").rows
    assert row["messages"] == [USER]
    assert row["dataset"] == "rubric"
    assert row["ground_truth"] == (published.get("rubrics") or published["rubric"])
    kept = published.keys() - {"prompt", "question", "rubrics", "rubric"}
    assert {key: row[key] for key in kept} == {key: published[key] for key in kept}
    with pytest.raises(DatasetInvalid, match="--judge MODEL"):
        imported(tmp_path, published)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--remap", "ifeval"], "OLD=NEW"),
        (["--remap", "ifeval=nope"], "not known"),
        (["--valid", "1"], "leaves none"),
    ],
)
def test_bad_options_are_one_sentence(tmp_path, options, said):
    path = written(tmp_path, GSM8K)
    done = runner.invoke(cli, ["import", "rlvr", str(path), "--out", str(tmp_path / "out"), *options])
    assert isinstance(done.exception, CliError)
    assert said in str(done.exception)


def test_faults_are_told_by_line(tmp_path):
    path = written(tmp_path, GSM8K, GSM8K | {"dataset": "gsm9k"})
    done = runner.invoke(cli, ["import", "rlvr", str(path), "--out", str(tmp_path / "out")])
    assert "line 2: " in str(done.exception)
    assert not (tmp_path / "out").exists()
