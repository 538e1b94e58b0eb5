import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from graders import FailureKind, GraderInvalid, Sample, build_grader, parse_grader
from graders.math.extract import answers
from graders.math.process import Comparers, ComparisonSlow, comparers
from tests.shared_data import shared_rows

SPEC = {
    "type": "math",
    "name": "answer",
    "input": "{{sample.output_text}}",
    "reference": "{{item.answer}}",
}


def grade(output, answer, **changes):
    return build_grader(parse_grader(SPEC | changes)).grade(Sample(output), {"answer": answer})


@pytest.mark.parametrize(
    ("output", "answer"),
    [
        pytest.param("The total is 72.\n#### 72", "72", id="hash"),
        pytest.param("so 1,234 in all", "1234", id="thousands"),
        pytest.param(r"Hence $x = 3$, and \boxed{\frac{1}{2}}.", "0.5", id="boxed-fraction"),
        pytest.param(r"\boxed{\dfrac12}", r"\frac{1}{2}", id="short-fraction"),
        pytest.param(r"\boxed{\{2, 1\}}", r"\{1,2\}", id="set"),
        pytest.param(r"\boxed{x^2+2x+1}", "(x+1)^2", id="expanded"),
        pytest.param(r"\boxed{1{,}000}", "1000", id="latex-thousands"),
        pytest.param("The final answer is $\\sqrt{8}$. I hope it is correct.", "2\\sqrt{2}", id="minerva"),
        pytest.param("The answer is 42 apples.", "42", id="answer-with-a-unit"),
        pytest.param("**Answer:** 7", "7", id="bold"),
        pytest.param("It costs $5.", "5", id="price"),
        pytest.param("-3", "-3", id="negative"),
        pytest.param(r"\boxed{\$150}", "150", id="dollars"),
        pytest.param(r"\boxed{50\%}", "50%", id="percent"),
        pytest.param(r"\boxed{\text{Evelyn}}", r"\text{Evelyn}", id="name"),
        pytest.param(r"\boxed{72}", r"We add: 40 + 32. \boxed{72}", id="reference-is-a-solution"),
        pytest.param("72", "He has 48 + 24 = 72.\n#### 72", id="reference-of-gsm8k"),
        pytest.param("72", 72, id="reference-is-a-number"),
    ],
)
def test_right_answers_score_1(output, answer):
    result = grade(output, answer)
    assert (result.value, result.parts) == (1, {"parsed": 1, "equal": 1}), result


@pytest.mark.parametrize(
    ("output", "answer"),
    [
        pytest.param("25", "5", id="25-is-not-5"),
        pytest.param("5", "25", id="5-is-not-25"),
        pytest.param("0.5", "5", id="fraction-of-it"),
        pytest.param(r"\boxed{5, 25, 125}", "5", id="a-list-of-guesses"),
        pytest.param(r"\boxed{25 or 5}", "5", id="two-guesses"),
        pytest.param(r"\boxed{$5$ $25$}", "5", id="guesses-in-dollars"),
        pytest.param(r"\boxed{25} \boxed{5", "5", id="the-last-box-is-open"),
        pytest.param("5 5 5 5 #### 6", "5", id="hash-is-the-answer"),
        pytest.param(r"\boxed{y+1}", "x+1", id="another-variable"),
        pytest.param("1000000000000000000001", "1000000000000000000000", id="whole-numbers-exactly"),
        pytest.param("{{item.answer}}", "5", id="names-the-variable"),
    ],
)
def test_wrong_answers_score_0(output, answer):
    result = grade(output, answer)
    assert result.value == 0
    assert result.parts["equal"] == 0


@pytest.mark.parametrize(
    "output",
    [
        pytest.param("", id="empty"),
        pytest.param("I do not know.", id="prose"),
        pytest.param("\\boxed{}", id="empty-box"),
        pytest.param("\\boxed{" * 20_000, id="nested-boxes"),
        pytest.param("$" * 100_001, id="dollars"),
        pytest.param("\\(" * 50_000, id="brackets"),
        pytest.param("####" * 50_000, id="hashes"),
        pytest.param("9 km " * 20_000, id="quantities-on-end"),
        pytest.param("(" * 100_000 + "7", id="brackets-before-a-number"),
        pytest.param("the answer is " * 20_000, id="announced-for-ever"),
        pytest.param("<think>" * 50_000, id="tags"),
        pytest.param("1," * 100_000, id="commas"),
        pytest.param("9" * 300_000, id="a-huge-number"),
        pytest.param("\\boxed{" + "x" * 100_000 + "}", id="a-huge-box"),
        pytest.param("\ud800\0\u202e", id="odd-characters"),
    ],
)
def test_an_answer_that_is_not_there_scores_0_and_says_so(output):
    result = grade(output, "5")
    assert (result.value, result.parts["equal"]) == (0, 0)
    assert result.reason
    assert len(result.reason) < 300


@pytest.mark.parametrize("answer", ["", "???", "{", "no idea at all {", "x" * 5000])
@pytest.mark.parametrize("output", ["", "5", r"\boxed{x}"])
def test_a_reference_that_does_not_parse_is_the_datas_fault(output, answer):
    result = grade(output, answer)
    assert result.value is None
    assert result.failure.kind is FailureKind.INVALID_VARIABLE


def test_a_missing_reference_is_the_datas_fault():
    grader = build_grader(parse_grader(SPEC))
    assert grader.grade(Sample("5"), {}).failure.kind is FailureKind.INVALID_VARIABLE


@pytest.mark.parametrize("bomb", ["9^{9^{9^{9^{9}}}}", "\\left(" * 300])
def test_an_answer_that_takes_for_ever_is_killed_and_wrong_and_the_next_one_is_graded(bomb):
    slow = grade("\\boxed{" + bomb + "}" if bomb.startswith("9") else "$" + bomb + "$", "x+5", time_limit=1.0)
    assert slow.value == 0
    assert grade(r"\boxed{5+x}", "x+5").value == 1


def test_a_reference_that_takes_for_ever_is_the_datas_fault():
    result = grade("5", "9^{9^{9^{9^{9}}}}", time_limit=1.0)
    assert result.failure.kind is FailureKind.INVALID_VARIABLE


@pytest.mark.parametrize("place", ["answer", "reference"])
@pytest.mark.parametrize(
    "code",
    [
        "__import__('os').mkdir('{path}')",
        "1+__import__('os').mkdir('{path}')",
        "exec('import os; os.mkdir(\"{path}\")')",
        "\\operatorname{{eval}}(__import__('os').mkdir('{path}'))",
        "open('{path}','w')",
        "().__class__.__base__.__subclasses__()",
    ],
)
def test_no_text_is_run_as_code(tmp_path, place, code):
    text = code.format(path=tmp_path / "made")
    answers_with = rf"\boxed{{{text}}}" if place == "answer" else r"\boxed{x}"
    assert grade(answers_with, "x" if place == "answer" else text).value in (0, None)
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_dies_is_replaced():
    pool = Comparers()
    request = {"reference": "x", "answer": "x", "decimals": 6, "strict": True}
    assert pool.compare(request, 30)["equal"]
    os.kill(pool.idle[0].child.pid, signal.SIGKILL)
    with pytest.raises(ComparisonSlow):
        pool.compare(request, 30)
    assert pool.compare(request, 30)["equal"]
    [process] = pool.idle
    pool.close()
    assert process.child.poll() is not None


def test_threads_share_the_processes():
    grader = build_grader(parse_grader(SPEC))

    def value(n):
        return grader.grade(Sample(rf"\boxed{{\frac{{{n}}}{{2}}}}"), {"answer": f"{n}/2"}).value

    with ThreadPoolExecutor(3) as threads:
        assert list(threads.map(value, range(1, 60, 2))) == [1] * 30
    assert len(comparers().idle) <= 4


def test_the_order_of_extraction_and_any_candidate():
    text = r"\boxed{3} and the answer is 5"
    assert grade(text, "5").value == 0
    assert grade(text, "5", extract=["answer", "boxed"]).value == 1
    assert grade(text, "5", any_candidate=True).value == 1
    assert grade("It is 7.", "7", extract=["boxed"]).value == 0
    assert list(answers("#### 5\nafter", ["hash", "number", "boxed"])) == ["5", "5"]


def test_options_of_strictness():
    assert grade(r"\boxed{y+1}", "x+1", strict=False).value == 1
    assert grade(r"\boxed{0.333}", "1/3", decimals=6).value == 0
    assert grade(r"\boxed{0.333}", "1/3", decimals=3).value == 1
    assert grade("0.3334", "0.3333", decimals=3).value == 1
    assert grade("0.3334", "0.3333", decimals=6).value == 0


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"extract": []}, "extract"),
        ({"extract": ["guess"]}, "extract[0]"),
        ({"decimals": -1}, "decimals"),
        ({"time_limit": 0}, "time_limit"),
        ({"refrence": "x"}, "refrence"),
    ],
)
def test_bad_options_are_refused_by_name(changes, param):
    with pytest.raises(GraderInvalid) as caught:
        parse_grader(SPEC | changes)
    assert caught.value.param == param


@pytest.mark.parametrize("data", ["gsm8k-train-500", "svamp-200"])
def test_real_rows_score_their_own_answers(data):
    grader = build_grader(parse_grader(SPEC))
    for row in shared_rows(f"data/{data}")[:100]:
        right = f"So it is.\n#### {row['answer']}"
        assert grader.grade(Sample(right), row).value == 1
        assert grader.grade(Sample(right + "7"), row).value == 0
