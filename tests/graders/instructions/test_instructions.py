import json

import pytest

from graders import FailureKind, GraderInvalid, Sample, build_grader, parse_grader
from graders.instructions.registry import bind
from tests.graders.instructions.ifeval import ENGLISH, grade
from tests.shared_data import shared_rows

GROUND_TRUTH = {
    "type": "instructions",
    "name": "ifeval",
    "input": "{{sample.output_text}}",
    "instructions": "{{item.ground_truth}}",
}


def labelled(answer, label, **changes):
    grader = build_grader(parse_grader(GROUND_TRUTH | changes))
    return grader.grade(Sample(answer), {"ground_truth": label})


def test_partial_credit_is_the_share_met():
    row = {
        "instruction_id_list": ["punctuation:no_comma", "startend:quotation", "keywords:word_once"],
        "kwargs": [{}, None, {"keyword": "cat"}],
    }
    result = grade('"a cat, a dog"', row)
    assert result.value == pytest.approx(2 / 3)
    assert result.parts == {"punctuation:no_comma": 0, "startend:quotation": 1, "keywords:word_once": 1}
    assert result.reason == "not met: punctuation:no_comma"
    assert grade('"a cat, a dog"', row, scoring="all").value == 0
    assert grade('"a cat"', row, scoring="all").value == 1


def test_an_id_that_stands_twice_has_the_share_as_its_part():
    row = {"instruction_id_list": ["keywords:word_once"] * 2, "kwargs": [{"keyword": "a"}, {"keyword": "b"}]}
    assert grade("a", row).parts == {"keywords:word_once": 0.5}


def test_loose_forgives_a_first_and_a_last_line_and_asterisks():
    row = {"instruction_id_list": ["startend:quotation"], "kwargs": [{}]}
    answer = 'Sure, here it is:\n"**quoted**"\nI hope this helps.'
    assert grade(answer, row).value == 0
    assert grade(answer, row, mode="loose").value == 1
    row = {"instruction_id_list": ["detectable_format:json_format"], "kwargs": [{}]}
    assert grade('**{"a": 1}**', row).value == 0
    assert grade('**{"a": 1}**', row, mode="loose").value == 1


def test_what_was_thought_can_be_left_out():
    row = {"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
    assert grade("<think>well, so</think>Yes", row, thoughts="none").value == 0
    assert grade("<think>well, so</think>Yes", row).value == 1
    assert grade("<think>well, so</think>Yes", row, strip_thinking=True).value == 1
    assert grade("<think>well so</think>", row, strip_thinking=True).value == 0


def test_a_request_that_is_to_be_repeated_may_be_in_its_own_language():
    request = "Write one line about the sea. Answer in Italian only."
    row = {
        "instruction_id_list": ["combination:repeat_prompt", "language:response_language"],
        "kwargs": [{"prompt_to_repeat": request}, {"language": "it"}],
    }
    assert grade(f"{request}\n\nIl mare è calmo questa sera.", row).value == 1
    assert grade(f"{request}\n\nThe sea is calm this evening.", row).value == 0.5
    assert grade("Il mare è calmo questa sera.", row).value == 0.5


LABEL = {"instruction_id": ["keywords:existence"], "kwargs": [{"keywords": ["x"]}]}


@pytest.mark.parametrize(
    "label",
    [
        pytest.param(str([LABEL]), id="python-literal"),
        pytest.param(json.dumps([LABEL]), id="json"),
        pytest.param([LABEL], id="list"),
        pytest.param(LABEL, id="object"),
        pytest.param([json.dumps(LABEL)], id="json-in-a-list"),
        pytest.param(str([json.dumps(LABEL)]), id="json-in-a-literal"),
        pytest.param(
            str([{"instruction_id": ["punctuation:no_comma"], "kwargs": [None]}]), id="null-arguments"
        ),
        pytest.param({"instruction_id": ["punctuation:no_comma"]}, id="no-arguments"),
        pytest.param(
            json.dumps({"func_name": "verify_keywords", "keyword_list": ["x"], "N": None}), id="tulu"
        ),
    ],
)
def test_every_form_of_published_labels_is_read(label):
    assert labelled("x", label).value == 1
    assert labelled("y, z", label).value == 0


@pytest.mark.parametrize(
    ("label", "named"),
    [
        pytest.param({"instruction_id": ["new:no_such"], "kwargs": [{}]}, "new:no_such", id="unknown-id"),
        pytest.param({"func_name": "verify_nothing"}, "tulu:verify_nothing", id="unknown-function"),
        pytest.param({"instruction_id": ["keywords:existence"], "kwargs": [{}]}, "keywords", id="missing"),
        pytest.param({"instruction_id": ["punctuation:no_comma"], "kwargs": [{"x": 1}]}, "x", id="strange"),
        pytest.param(
            {"instruction_id": ["keywords:word_once"], "kwargs": [{"keyword": 5}]}, "keyword", id="kind"
        ),
        pytest.param(
            {
                "instruction_id": ["length_constraints:number_words"],
                "kwargs": [{"num_words": 1.5, "relation": "at least"}],
            },
            "num_words",
            id="half-a-word",
        ),
        pytest.param(
            {
                "instruction_id": ["length_constraints:number_words"],
                "kwargs": [{"num_words": 5, "relation": "about"}],
            },
            "relation",
            id="relation",
        ),
        pytest.param(
            {"instruction_id": ["language:response_language"], "kwargs": [{"language": "xx"}]},
            "language",
            id="lang",
        ),
        pytest.param({"instruction_id": ["punctuation:no_comma"], "kwargs": []}, "list of 1", id="too-few"),
        pytest.param({"instruction_id": [], "kwargs": []}, "ids", id="none"),
        pytest.param({"instruction_id": "punctuation:no_comma", "kwargs": [{}]}, "literal", id="a-text"),
        pytest.param("__import__('os').system('x')", "literal", id="code"),
        pytest.param("[" * 100_000, "longer", id="huge"),
        pytest.param("[" * 9_000, "literal", id="deep"),
        pytest.param(5, "object", id="number"),
        pytest.param([LABEL, LABEL], "object", id="two-labels"),
    ],
)
@pytest.mark.parametrize("answer", ["", "x"])
def test_instructions_that_cannot_be_read_are_the_datas_fault_by_name(label, named, answer):
    result = labelled(answer, label)
    assert result.value is None
    assert result.failure.kind is FailureKind.INVALID_VARIABLE
    assert named in result.failure.message


def test_instructions_of_the_grader_itself_are_checked_when_it_is_read():
    fixed = [{"id": "punctuation:no_comma"}, {"id": "keywords:word_once", "kwargs": {"keyword": "cat"}}]
    spec = {key: value for key, value in GROUND_TRUTH.items() if key != "instructions"}
    grader = build_grader(parse_grader(spec | {"instructions": fixed}))
    assert grader.grade(Sample("a cat"), {}).value == 1
    for wrong, param in (
        ([{"id": "punctuation:no_coma"}], "instructions[0].id"),
        ([{"id": "keywords:word_once"}], "instructions[0].kwargs"),
        ([], "instructions"),
    ):
        with pytest.raises(GraderInvalid) as caught:
            parse_grader(spec | {"instructions": wrong})
        assert caught.value.param == param


def test_every_row_of_ifeval_is_read():
    rows = shared_rows("data/ifeval-200")
    assert len(rows) == 200
    seen = set()
    for row in rows:
        result = grade(ENGLISH, row)
        assert 0 <= result.value <= 1
        assert set(result.parts) == set(row["instruction_id_list"])
        seen |= result.parts.keys()
        for name, arguments in zip(row["instruction_id_list"], row["kwargs"], strict=True):
            bind(name, arguments)
    assert len(seen) == 25
