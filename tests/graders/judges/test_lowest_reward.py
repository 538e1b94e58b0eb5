"""An answer that a judge cannot be shown is worth no more than the worst that it can be given."""

import pytest

from graders import FailureKind, Sample, build_grader, parse_grader
from graders.services import Reply, Services

JUDGE = {
    "type": "score_model",
    "model": "m",
    "input": [{"role": "user", "content": "{{sample.output_json.city}}"}],
}


class Displeased:
    """A judge that gives every city the least that it can."""

    def check(self, target, sampling, media):
        """Takes everything."""

    def ask(self, question):
        return Reply('{"steps": [], "result": -1e6}')


@pytest.mark.parametrize(
    ("bounds", "worst", "unparseable"),
    [([-5, 5], -5, -5), ([-5, -1], -5, -5), ([0, 1], 0, 0), ([1, 2], 1, 0)],
)
def test_what_does_not_parse_gets_the_smaller_of_0_and_the_lower_end(bounds, worst, unparseable):
    grader = build_grader(parse_grader({**JUDGE, "range": bounds}), Services(judge=Displeased()))
    assert grader.grade(Sample('{"city": "Pisa"}'), {}).reward == worst
    grade = grader.grade(Sample("Pisa"), {})
    assert grade.value is None
    assert grade.failure.kind is FailureKind.SAMPLE_PARSE
    assert grade.reward == unparseable
