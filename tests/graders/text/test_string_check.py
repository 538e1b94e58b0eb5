import pytest

from graders import FailureKind, Sample, build_grader, parse_grader


def grader(operation, **changes):
    spec = {
        "type": "string_check",
        "name": "check",
        "input": "{{sample.output_text}}",
        "reference": "{{item.answer}}",
        "operation": operation,
    }
    return build_grader(parse_grader(spec | changes))


@pytest.mark.parametrize(
    ("operation", "output", "answer", "expected"),
    [
        pytest.param("eq", "42", "42", 1, id="eq-same"),
        pytest.param("eq", "42 ", "42", 0, id="eq-does-not-trim"),
        pytest.param("eq", "Paris", "paris", 0, id="eq-is-case-sensitive"),
        pytest.param("eq", "25", "5", 0, id="eq-25-against-5"),
        pytest.param("eq", "42", 42, 1, id="eq-number-as-json"),
        pytest.param("eq", "", "", 1, id="eq-both-empty"),
        pytest.param("eq", "", "42", 0, id="eq-empty-output"),
        pytest.param("eq", "Раris", "Paris", 0, id="eq-cyrillic-look-alike"),
        pytest.param("eq", "é", "e\u0301", 0, id="eq-composed-against-decomposed"),
        pytest.param("eq", "{{item.answer}}", "42", 0, id="eq-output-quotes-the-variable"),
        pytest.param("eq", "42\0", "42", 0, id="eq-nul"),
        pytest.param("eq", "42\u200b", "42", 0, id="eq-zero-width-space"),
        pytest.param("ne", "42", "42", 0, id="ne-same"),
        pytest.param("ne", "43", "42", 1, id="ne-different"),
        pytest.param("neq", "43", "42", 1, id="neq-is-ne"),
        pytest.param("like", "the answer is 42.", "42", 1, id="like-contains"),
        pytest.param("like", "25", "5", 1, id="like-25-contains-5"),
        pytest.param("like", "42", "the answer is 42", 0, id="like-is-one-way"),
        pytest.param("like", "Dog", "dog", 0, id="like-is-case-sensitive"),
        pytest.param("like", "anything", "", 1, id="like-empty-reference-is-always-found"),
        pytest.param("like", "not 42 but 7, or 8, or 9", "7", 1, id="like-pays-for-listing"),
        pytest.param("ilike", "a DOG!", "dog", 1, id="ilike"),
        pytest.param("ilike", "STRASSE", "straße", 1, id="ilike-folds-case"),
        pytest.param("ilike", "cat", "dog", 0, id="ilike-absent"),
    ],
)
def test_value(operation, output, answer, expected):
    assert grader(operation).grade(Sample(output), {"answer": answer}).value == expected


@pytest.mark.parametrize("operation", ["eq", "ne", "like", "ilike"])
@pytest.mark.parametrize(
    "output",
    [
        pytest.param("", id="empty"),
        pytest.param("x" * 1_000_000, id="huge"),
        pytest.param("<answer>" * 10_000 + "42", id="nested-tags"),
        pytest.param("\ud800", id="lone-surrogate"),
        pytest.param("{{item.secret}}{{7*7}}{0.__class__}%(a)s", id="injection"),
    ],
)
def test_hostile_output_gets_a_value(operation, output):
    assert grader(operation).grade(Sample(output), {"answer": "42"}).value in (0.0, 1.0)


def test_output_beyond_the_template_limit_is_a_named_failure():
    grade = grader("eq").grade(Sample("x" * 2_000_000), {"answer": "42"})
    assert grade.value is None
    assert grade.failure.kind is FailureKind.OTHER


def test_missing_item_field_is_an_invalid_variable_error_not_a_zero():
    grade = grader("eq").grade(Sample("42"), {})
    assert grade.value is None
    assert grade.failure.kind is FailureKind.INVALID_VARIABLE
    assert "item.answer" in grade.failure.message
    assert not grade.failure.kind.is_completions_fault


def test_output_that_is_not_json_is_a_sample_parse_error():
    grade = grader("eq", input="{{sample.output_json.x}}").grade(Sample("no"), {"answer": "42"})
    assert grade.failure.kind is FailureKind.SAMPLE_PARSE
    assert grade.failure.kind.is_completions_fault


def test_a_broken_row_is_blamed_before_a_broken_output():
    grade = grader("eq", input="{{sample.output_json.x}}").grade(Sample("no"), {})
    assert grade.failure.kind is FailureKind.INVALID_VARIABLE


def test_name_type_and_time_are_there():
    check = grader("eq")
    assert (check.name, check.type) == ("check", "string_check")
    assert check.grade(Sample("42"), {"answer": "42"}).seconds > 0
