"""Says in words whether a grader is fit to train against, with the reasons and what to do."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from graders.calibration.numbers import Estimate, Z
from graders.calibration.report import JudgeReport, Level, Measured, Remark

Word = Literal["fit to train against", "use with care", "do not use"]
WORDS: dict[Level, Word] = {"info": "fit to train against", "care": "use with care", "stop": "do not use"}

ENOUGH_LABELS = 20
"""Labelled answers below which an agreement says little: 16 of 20 is between 58 % and 92 %."""
AGREES, HARDLY_AGREES = 0.8, 0.6
"""Shares of answers on which grader and people agree, from which on that is good, and below which it is bad.
Two people judged alike in 81 % of the pairs of answers of MT-bench that had a winner (Zheng et al. 2023,
arXiv:2306.05685, table 5); 60 % of pass or fail is near what a coin does."""
ORDERS, HARDLY_ORDERS = 0.5, 0.3
"""Rank correlations with people, likewise: training needs the order of answers more than their scores. Judges
that were published as good had 0.51 on summaries (G-Eval, arXiv:2303.16634, table 1), and older metrics 0.2.
"""
NOISY, TOO_NOISY = 0.05, 0.2
"""Deviations between repeats, as shares of the range. Chosen, not measured: 0.2 is what answers to one prompt
often differ by themselves, so that half of what is learnt from would be luck."""
MOVED, MOVED_FAR = 0.05, 0.2
"""Mean changes by length, place or words to the judge, as shares of the range. Chosen, not measured: training
finds a twentieth that is always there, and a fifth is as much as answers often differ by.
"""
OBEYS = 0.5
"""Mean rise by one way of asking from which on that way alone is reason enough. Chosen, not measured."""
TEN_WAYS_Z = 2.58
"""Standard errors by which the best of ten ways has to rise: one-sided 5 % over ten."""
UNREAD, UNREAD_OFTEN = 0.02, 0.1
"""Shares of replies that cannot be read. Chosen, not measured: what is ungraded leaves the training, and
answers that confuse a judge are no random part of all."""
FAILS, FAILS_OFTEN = 0.02, 0.25
"""Shares of calls that bring no reply. Chosen, not measured: further tries mend one in fifty; with one in
four a job that makes five tries loses a grade in a thousand, and waits."""
SLOW = 1.0
"""Seconds a grade, as in the findings of a trial."""
STEP_GRADES = 64
"""Answers of a usual step of training, whose grades it waits for."""


class Verdict(NamedTuple):
    """Holds the verdict in words, and what speaks against a grader, the gravest first."""

    word: Word
    remarks: list[Remark]

    @property
    def is_fit(self) -> bool:
        """Tells whether nothing speaks against the grader."""
        return self.word == WORDS["info"]

    def as_dict(self) -> dict[str, Any]:
        """Returns the verdict as JSON has it."""
        return {"verdict": self.word, "remarks": [remark.as_dict() for remark in self.remarks]}


def verdict_of(measured: Measured) -> Verdict:
    """Returns the verdict on a grader that was measured."""
    order: tuple[Level, ...] = ("stop", "care", "info")
    remarks = sorted(_remarks(measured), key=lambda remark: order.index(remark.level))
    return Verdict(WORDS[remarks[0].level if remarks else "info"], remarks)


def remarks_on_judge(measured: Measured) -> list[Remark]:
    """Returns what speaks against a judge, whatever people say of its grades."""
    return [
        *_of_itself(measured),
        *(each for judge in measured.judges for each in _of_judge(measured, judge)),
    ]


def _remarks(measured: Measured) -> Iterator[Remark]:
    if measured.graded == 0:
        message = "Nothing could be graded."
        yield Remark("stop", "nothing_graded", message, "See the failures with `cherry graders run`.")
    if measured.not_asked and not measured.is_lost:
        message = f"{measured.not_asked} grades were not asked for, so that not all was measured."
        yield Remark("care", "cut_short", message, "Allow more with --calls and --seconds.")
    yield from _of_people(measured)
    yield from remarks_on_judge(measured)


def _of_people(measured: Measured) -> Iterator[Remark]:
    found = measured.agreement
    if measured.labelled == 0:
        message = "Nobody has compared it with people."
        yield Remark("care", "no_labels", message, "Have 20 answers or more scored: `cherry graders sheet`.")
    elif measured.labelled < ENOUGH_LABELS:
        message = f"Only {measured.labelled} answers have people's scores, which decides little."
        yield Remark("care", "few_labels", message, f"Have {ENOUGH_LABELS} or more scored.")
    if found is None:
        return
    agreed, order = found.share, found.correlation
    how = "pass or fail alike" if found.statistic == "pass_fail" else "score within one step of each other"
    said = f"Grader and people {how} on {_percent(agreed.value)} of the answers ({_interval(agreed)})"
    advice = "Say in the prompt what people look at, give examples of scores, or ask a stronger model."
    if agreed.value < HARDLY_AGREES or agreed.high < found.constant_share:
        yield Remark(
            "stop",
            "disagrees",
            f"{said}; always saying one and the same would reach {_percent(found.constant_share)}.",
            advice,
        )
    elif agreed.value < AGREES:
        yield Remark("care", "agrees_partly", f"{said}.", advice)
    if order is None:
        yield Remark(
            "stop",
            "no_order",
            "Its grades, or people's scores, are all the same: nothing is ordered.",
            "Look at what it is shown, with `cherry graders run`.",
        )
    elif order.value < HARDLY_ORDERS or order.low <= 0:
        message = f"It hardly orders answers as people do: rank correlation {_number(order)}."
        yield Remark("stop", "orders_otherwise", message, advice)
    elif order.value < ORDERS:
        message = f"It orders answers partly as people do: rank correlation {_number(order)}."
        yield Remark("care", "orders_partly", message, advice)


def _of_itself(measured: Measured) -> Iterator[Remark]:
    found, spent = measured.constancy, measured.spent
    if measured.is_lost:
        yield Remark(
            "stop", "lost", "It could not be reached, and was asked no more.", "Look after its server."
        )
    if found is not None and found.deviation > NOISY:
        message = (
            f"It disagrees with itself: asked again, it gives the same in {_percent(found.same.value)} of"
            f" {found.same.n} repeats, and a deviation of {_percent(found.deviation)} of the range."
        )
        advice = "Set a temperature of 0 in its sampling_params, or average several of them with `multi`."
        yield Remark(_level(found.deviation, TOO_NOISY), "noisy", message, advice)
    if measured.unparsable is not None and measured.unparsable.value > UNREAD:
        message = f"Its reply could not be read in {_percent(measured.unparsable.value)} of the grades."
        advice = "Ask a model or a server that can be held to a JSON schema, and give it room to finish."
        yield Remark(_level(measured.unparsable.value, UNREAD_OFTEN), "unparsable", message, advice)
    if measured.failed is not None and measured.failed.value > FAILS and not measured.is_lost:
        message = f"{_percent(measured.failed.value)} of the calls to its server brought no reply."
        advice = (
            "Lower its `concurrency` in CHERRY_JUDGES, or look after its server, before a job depends on it."
        )
        yield Remark(_level(measured.failed.value, FAILS_OFTEN), "failing", message, advice)
    if measured.judges and spent.seconds_a_grade is not None and spent.seconds_a_grade > SLOW:
        message = (
            f"A grade takes {spent.seconds_a_grade:.1f} s. A step of {STEP_GRADES} answers waits"
            f" {spent.seconds_a_grade * STEP_GRADES:.0f} s if they are graded one after another."
        )
        yield Remark("care", "slow", message, "Let it take more calls at once, or ask a smaller model.")


def _of_judge(measured: Measured, judge: JudgeReport) -> Iterator[Remark]:
    for code, found, moved, advice in (
        (
            "position",
            judge.position,
            "the place where an answer or criterion stands",
            "Average over orders: `permutations` of `rank`, or `calls: each` of `rubric`.",
        ),
        (
            "length",
            judge.length,
            "neutral words behind the answer, which add nothing",
            "Say in its prompt that length is worth nothing, and watch the lengths of answers in training.",
        ),
    ):
        if found is not None and found.is_beyond_luck and abs(found.value) > MOVED:
            message = f"{judge.called} is moved by {moved}: {_signed(found)} of its range."
            yield Remark(_level(abs(found.value), MOVED_FAR), code, message, advice)
    if judge.talk is not None:
        yield from _of_talk(measured, judge)


def _of_talk(measured: Measured, judge: JudgeReport) -> Iterator[Remark]:
    """Looks at the mean rise of all ways, and at the best way, which luck alone lifts if a judge is noisy."""
    assert judge.talk is not None, "the caller has looked"
    rise, (way, most) = judge.talk.rise, judge.talk.worst
    n_cases = max(1, rise.n // max(1, len(judge.talk.by_trick)))
    noise = (measured.constancy.deviation if measured.constancy else 0.0) / math.sqrt(n_cases)
    # all ways are compared with the same few grades, whose noise the interval over ways does not show
    is_real = rise.value > math.hypot(rise.value - rise.low, Z * noise)
    is_best_real = most > TEN_WAYS_Z * math.sqrt(2) * noise
    if not (is_real and rise.value > MOVED) and not (is_best_real and most > MOVED_FAR):
        return
    is_grave = (is_real and rise.value > MOVED_FAR) or (is_best_real and most > OBEYS)
    message = (
        f"{judge.called} is talked round: wrong answers that ask for a score get {_signed(rise)} of its"
        f" range; most by {way} ({most:+.0%})."
    )
    advice = "Show it the answer as data and say so, ask a stronger model, or check answers for such text."
    yield Remark("stop" if is_grave else "care", "gullible", message, advice)


def _level(value: float, grave: float) -> Level:
    return "stop" if value > grave else "care"


def _percent(value: float) -> str:
    return f"{value:.0%}"


def _interval(found: Estimate) -> str:
    return f"{found.low:.0%} to {found.high:.0%}"


def _number(found: Estimate) -> str:
    return f"{found.value:.2f} ({found.low:.2f} to {found.high:.2f})"


def _signed(found: Estimate) -> str:
    return f"{found.value:+.0%} ({found.low:+.0%} to {found.high:+.0%})"
