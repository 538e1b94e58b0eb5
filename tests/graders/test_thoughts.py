"""Thoughts are no part of the answer, whichever grader looks and however a family of models marks them."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graders import FailureKind, GraderInvalid, Sample, build_grader, dump_grader, parse_grader
from graders.services import Reply, Services
from graders.template import sample_variables
from graders.thoughts import FAMILIES, WRAPPERS, answer_of
from tests.graders.unsafe_sandbox import UnsafeSandbox

DOCS = Path(__file__).parents[2] / "docs" / "graders.md"
TEXT = {"input": "{{sample.output_text}}", "reference": "{{item.answer}}"}
GPT_OSS = "<|channel|>analysis<|message|>12<|end|><|start|>assistant<|channel|>final<|message|>13<|return|>"
SOLUTION = "<|begin_of_thought|>12<|end_of_thought|>\n\n<|begin_of_solution|>\n13\n<|end_of_solution|>"
MUSE = " to=self<|message|>12<|eom|><|start|>assistant to=user<|message|>13<|eot|>"


@pytest.mark.parametrize("family", FAMILIES, ids="".join)
def test_every_family_marks_its_thoughts_in_its_own_way(family):
    opened, closed = family
    assert answer_of(f"{opened}\n12\n{closed}\n\n13") == "13"
    assert answer_of(f"12{closed}13") == "13", "the prompt opened it"
    assert answer_of(f"{opened}12, let me check") == ""
    assert answer_of(f"{opened}12{closed}") == ""
    assert answer_of(f"Well. {opened}12{closed} 13") == "13"
    assert answer_of(f"{opened}12{closed}13", "none") == f"{opened}12{closed}13"
    assert opened in DOCS.read_text()
    assert closed in DOCS.read_text()


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        pytest.param("13", "13", id="none"),
        pytest.param(" 13\n", " 13\n", id="spaces-stay-without-thoughts"),
        pytest.param("a < b [1] <b>c</b> x▷", "a < b [1] <b>c</b> x▷", id="other-marks"),
        pytest.param("<THINK>12</Think>13", "13", id="case"),
        pytest.param("<think >12</think >13", "13", id="space-within"),
        pytest.param("<think>1</think>2<think>3</think>4", "4", id="twice"),
        pytest.param("<think>12</think>13<think>or 12", "", id="reopened"),
        pytest.param("<think>a </thinking> 12", "", id="closed-by-another"),
        pytest.param("<think>a <think>b</think>13", "13", id="opened-twice"),
        pytest.param("<think>a</think>b</think>13", "13", id="closed-twice"),
        pytest.param("<think>[THINK]</think>13", "13", id="another-within"),
        pytest.param("12</think>\n\n    return 13\n", "    return 13\n", id="indented-code"),
        pytest.param("12</think>\r\n 13", " 13", id="carriage-return"),
        pytest.param("<think>\n\n</think>\n\n13", "13", id="thinking-off"),
        pytest.param(GPT_OSS, "13", id="gpt-oss"),
        pytest.param(GPT_OSS.split("<|end|>")[0], "", id="gpt-oss-cut"),
        pytest.param(
            '<|channel|>final <|constrain|>json<|message|>{"a": 1}<|return|>', '{"a": 1}', id="json"
        ),
        pytest.param("analysisSo 12.assistantfinal13", "13", id="gpt-oss-without-special-tokens"),
        pytest.param("analysis of 12", "analysis of 12", id="the-word-analysis"),
        pytest.param(SOLUTION, "13", id="solution"),
        pytest.param("<think>12</think>\n<response>\n13\n</response>\n", "13", id="response"),
        pytest.param("<response>13</response>", "<response>13</response>", id="response-without-thoughts"),
        pytest.param(MUSE, "13", id="muse"),
        pytest.param("<|channel>thought\n12<channel|>13", "13", id="gemma"),
    ],
)
def test_the_answer_is_what_follows_the_last_thought(text, answer):
    assert answer_of(text) == answer


def test_the_page_lists_what_answers_are_wrapped_in():
    assert all(mark in DOCS.read_text() for pair in WRAPPERS for mark in pair)


@given(st.text(alphabet=st.characters(exclude_characters="<[◁")))
def test_a_text_without_tags_stays_as_it_is(text):
    assert answer_of(text) is text or text.lstrip().startswith("analysis")


@given(
    st.lists(st.sampled_from([*sum(FAMILIES, ()), "<", "[", "12", " ", "\n", "<|message|>", "to=self"])),
    st.text(alphabet="abc13 "),
)
def test_what_follows_a_closed_thought_is_the_answer(before, answer):
    text = "".join(before) + "<think></think>"
    if answer_of(text + "x") == "x":  # else an earlier thought is still open
        assert answer_of(text + "x" + answer) == "x" + answer
    assert answer_of(text + answer) in ("", answer.lstrip(" "))


class Asked:
    """A judge and a grading server that give 1 to a text that holds 13 and not 12."""

    def check(self, *_):
        """Takes everything."""

    def ask(self, question):
        return Reply(json.dumps({"steps": [], "result": self._score(question.messages)}))

    def post(self, request):
        return {"score": self._score(request.body["sample"])}

    @staticmethod
    def _score(seen):
        text = json.dumps(seen)
        return float("13" in text and "12" not in text)


JUDGED = {"model": "judge", "input": [{"role": "user", "content": "{{sample.choices[0].message.content}}"}]}
SEES = "def grade(sample, item):\n    return float('13' in str(sample) and '12' not in str(sample))\n"
KINDS = {
    "string_check": ({"type": "string_check", "operation": "eq", **TEXT}, "13"),
    "text_similarity": ({"type": "text_similarity", "evaluation_metric": "rouge_1", **TEXT}, "13"),
    "python": ({"type": "python", "source": SEES}, "13"),
    "score_model": ({"type": "score_model", **JUDGED}, "13"),
    "endpoint": ({"type": "endpoint", "url": "https://grader.example"}, "13"),
    "math": ({"type": "math", **TEXT}, "13"),
    "rlvr": ({"type": "rlvr"}, "13"),
    "fields": ({"type": "fields", **TEXT, "reference": "{{item.object}}"}, '{"a": 13}'),
    "instructions": (
        {
            "type": "instructions",
            "input": "{{sample.output_text}}",
            "instructions": [{"id": "keywords:forbidden_words", "kwargs": {"forbidden_words": ["12"]}}],
        },
        "13",
    ),
    "code_tests": (
        {"type": "code_tests", "input": "{{sample.output_text}}", "tests": '["assert f() == 13"]'},
        "```python\ndef f(): return 13\n```",
    ),
    "json": (
        {"type": "string_check", "operation": "eq", **TEXT, "input": "{{sample.output_json.a}}"},
        '{"a": "13"}',
    ),
}
THOUGHT = '12 ```python\ndef f(): return 12\n``` {"a": 12}'
ITEM = {"answer": "13", "object": {"a": 13}, "dataset": "gsm8k", "ground_truth": "13"}


@pytest.fixture
def reward(tmp_path):
    asked = Asked()
    services = Services(sandbox=UnsafeSandbox(tmp_path), judge=asked, endpoint=asked)

    def reward(spec, text):
        grade = build_grader(parse_grader(spec), services).grade(Sample(text), ITEM)
        if grade.failure is not None:
            assert grade.failure.kind is FailureKind.SAMPLE_PARSE
        return grade.value or 0.0

    return reward


def formula(kind, **setting):
    return {"type": "multi", "graders": {"one": KINDS[kind][0]}, "calculate_output": "one", **setting}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_grades_the_answer_alone(reward, kind):
    spec, answer = KINDS[kind]
    for graded in (spec, formula(kind)):
        assert reward(graded, answer) == 1
        assert reward(graded, f"<think>{THOUGHT}</think>\n\n{answer}") == 1
        assert reward(graded, f"<think>{answer}</think>{THOUGHT}") < 1
        assert reward(graded, f"<think>{answer}") == 0
        assert reward({**graded, "thoughts": ["<<", ">>"]}, "<<" + THOUGHT + ">>" + answer) == 1


@pytest.mark.parametrize("kind", sorted(KINDS.keys() - {"math", "rlvr", "code_tests", "text_similarity"}))
def test_whoevers_answers_hold_such_tags_turns_it_off(reward, kind):
    spec, answer = KINDS[kind]
    text = f"<think>{THOUGHT}</think>{answer}"
    assert reward({**spec, "thoughts": "none"}, text) < 1
    assert reward({**spec, "thoughts": ["<<", ">>"]}, text) < 1
    assert reward(formula(kind, thoughts="none"), text) < 1


def test_a_subgrader_may_have_a_setting_of_its_own(reward):
    whole = {**KINDS["string_check"][0], "thoughts": "none", "reference": "<think>12</think>13"}
    both = formula("math") | {"calculate_output": "(one + two) / 2"}
    both["graders"] = {"one": KINDS["math"][0], "two": whole}
    assert reward(both, "<think>12</think>13") == 1
    assert reward({**both, "thoughts": ["<<", ">>"]}, "<think>12</think>13<<12>>") == 0
    assert reward(both, "13") == 0.5


@pytest.mark.parametrize(
    ("setting", "param", "code"),
    [
        pytest.param("some", "thoughts", "invalid_value", id="word"),
        pytest.param(["<a>"], "thoughts", "invalid_value", id="one"),
        pytest.param(["<a>", "<a>"], "thoughts", "invalid_value", id="the-same"),
        pytest.param(["<a>", ""], "thoughts[1]", "string_below_min_length", id="empty"),
        pytest.param(["<a>", 1], "thoughts[1]", "invalid_type", id="number"),
        pytest.param(True, "thoughts", "invalid_type", id="true"),
    ],
)
def test_a_setting_that_means_nothing_is_refused_by_name(setting, param, code):
    for spec, at in ((KINDS["math"][0], param), (formula("math"), param)):
        with pytest.raises(GraderInvalid) as caught:
            parse_grader({**spec, "thoughts": setting})
        assert (caught.value.param, caught.value.code) == (at, code)


def test_the_setting_is_echoed_only_where_it_was_given():
    spec = {**KINDS["math"][0], "name": "m"}
    assert dump_grader(parse_grader(spec)) == spec
    spec["thoughts"] = ["<a>", "</a>"]
    assert dump_grader(parse_grader(spec)) == spec


MANY = 200_000
HOSTILE = {
    "angles": "<" * MANY,
    "opened": "<think>" * MANY,
    "closed": "</think>" * MANY,
    "long-names": ("<" + "a" * 24) * 20_000,
    "analysis": "analysis" + "assistantfina" * MANY,
    "spaces": "</think>" + " " * MANY,
    "lines": "</think>" + "\n" * MANY,
    "header": "<|eom|>" + "a" * MANY,
    "wrapped": "</think><response>" + " " * MANY + "x",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_texts_cost_linear_time(name):
    started = time.thread_time()
    answer_of(HOSTILE[name])
    assert time.thread_time() - started < 3


def check(fields):
    return build_grader(parse_grader({"type": "string_check", "name": "a", "operation": "eq", **fields}))


WHOLE = "<think>12</think><r>1</r>13"
TAKEN_APART = Sample("<r>1</r>13", output_thoughts="12", raw_text=WHOLE)


@pytest.mark.parametrize(
    ("thoughts", "answer"),
    [("auto", "<r>1</r>13"), ("none", WHOLE), (["<r>", "</r>"], "13")],
    ids=["auto", "none", "tags of its own"],
)
def test_what_the_template_took_apart_is_not_taken_apart_again(thoughts, answer):
    grader = check({"thoughts": thoughts, **TEXT})
    assert grader.grade(TAKEN_APART, {"answer": answer}).value == 1.0


def test_tags_of_a_users_own_data_count_where_the_template_found_no_thoughts():
    untold = Sample("<reasoning>12</reasoning>13", raw_text="<reasoning>12</reasoning>13")
    grader = check(TEXT)
    assert grader.grade(untold, {"answer": "13"}).value == 1.0


@pytest.mark.parametrize(
    ("sample", "thoughts"),
    [
        (TAKEN_APART, "12"),
        (Sample("<think>12</think>13"), ""),
        (Sample("13"), ""),
    ],
    ids=["by the template", "by tags", "none"],
)
def test_graders_can_read_the_thoughts(sample, thoughts):
    shown = "{{sample.output_thoughts}}|{{sample.output_reasoning_summary}}"
    grader = check({**TEXT, "input": shown})
    assert grader.grade(sample, {"answer": f"{thoughts}|null"}).value == 1.0


def test_code_gets_thoughts_and_summary():
    told = sample_variables(TAKEN_APART)
    assert (told["output_thoughts"], told["output_reasoning_summary"]) == ("12", None)
    assert sample_variables(Sample("13"))["output_thoughts"] is None
