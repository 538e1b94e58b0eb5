"""`cherry graders check --labels`: how far a grader can be trusted, measured on answers that people have
scored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from app.cli.given_files import read_object
from app.cli.given_graders import invalid, parse_here
from app.cli.output import CliError, console, errors, print_json, print_table

if TYPE_CHECKING:
    from graders import GraderSpec
    from graders.calibration.asking import Bounds, Tell
    from graders.calibration.cases import Case
    from graders.calibration.numbers import Estimate
    from graders.calibration.report import Measured, Remark
    from graders.calibration.verdict import Verdict
    from methods.labels.reading import Label

LABELS_SECONDS = 300.0
"""After this a check on labels begins nothing more, where nobody says otherwise."""
STYLES = {"stop": "red", "care": "yellow", "info": ""}
STATISTICS = {
    "pass_fail": "Pass or fail as people do",
    "within_one_step": "Within one step of people",
    "same_order": "Pairs ordered as people do",
}


@dataclass(frozen=True)
class Limits:
    """What a check may spend, and how people's scores are read."""

    seconds: float
    calls: int
    scale: tuple[float, float] | None


class Judged(NamedTuple):
    """What was found of a grader's judges: as JSON has it, and what speaks against them."""

    told: dict[str, Any]
    remarks: list[Remark]


def check_labels(path: Path, labels: Path, limits: Limits, *, as_json: bool) -> bool:
    """Measures a grader on scored answers and prints what was found; says whether it is fit to train against.

    Raises `CliError`.
    """
    from graders.calibration.asking import Bounds
    from graders.calibration.cases import with_wrong_ones_marked
    from graders.calibration.verdict import verdict_of

    spec = parse_here(read_object(path), path)
    scored = read(labels)
    _check_scale(limits.scale, scored)
    cases = with_wrong_ones_marked([_case(label) for label in scored])
    bounds = Bounds(seconds=limits.seconds, calls=limits.calls)
    measured = _measure(spec, cases, bounds, limits.scale, path, is_quiet=as_json)
    verdict = verdict_of(measured)
    cost = cost_of(measured)
    if as_json:
        print_json({**verdict.as_dict(), **measured.as_dict(), "price": cost})
    else:
        _print(measured, verdict, cost)
    return verdict.is_fit


def try_judges(
    spec: GraderSpec, path: Path, rows: list[dict[str, Any]], lines: list[int], *, as_json: bool
) -> Judged | None:
    """Tries the judges of a grader on rows that nobody has answered, and prints what was found, unless it is
    wanted as JSON. None of a grader that asks no judge.
    """
    from graders.calibration.asking import FEW
    from graders.calibration.cases import cases_of_rows
    from graders.calibration.verdict import remarks_on_judge
    from graders.preflight.trial import COSTLY_ROWS
    from graders.spec import judge_of, single_graders

    if all(judge_of(single) is None for single in single_graders(spec)):
        return None
    cases = cases_of_rows(spec, rows, lines, COSTLY_ROWS)
    measured = _measure(spec, cases, FEW, None, path, is_quiet=as_json)
    remarks, cost = remarks_on_judge(measured), cost_of(measured)
    if not as_json:
        _print_numbers(measured, cost)
        _say("Nobody has compared it with people: --labels does.")
        _print_remarks(remarks)
    told = {"remarks": [remark.as_dict() for remark in remarks], **measured.as_dict(), "price": cost}
    return Judged(told, remarks)


def read(labels: Path) -> list[Label]:
    """Reads scored answers. Raises `CliError`."""
    from methods.labels.reading import read_labels
    from methods.rows import DatasetInvalid

    try:
        return read_labels(labels)
    except DatasetInvalid as invalid:
        raise CliError(f"{labels} is invalid:\n{invalid}") from None


def cost_of(measured: Measured) -> dict[str, Any] | None:
    """Returns what the tokens of a measurement cost by the operator's prices; None where one has none."""
    from app.settings import get_settings

    prices, usage = get_settings().prices, measured.spent.usage
    if not usage or prices.unpriced(usage):
        return None
    spent = prices.cost(usage, 0.0)
    a_grade = spent / measured.spent.grades
    return {"currency": prices.currency, "spent": round(spent, 6), "a_grade": round(a_grade, 8)}


def _check_scale(scale: tuple[float, float] | None, labels: Sequence[Label]) -> None:
    """Checks that people's scores lie on the scale that was named. Raises `CliError`."""
    if scale is None:
        return
    low, high = scale
    if not low < high:
        raise CliError(f"--scale {low:g} {high:g}: the least score comes first, and is below the largest")
    beyond = [label for label in labels if not low <= label.score <= high]
    if beyond:
        first = beyond[0]
        said = f"the score {first.score:g} on line {first.line} lies outside of --scale {low:g} {high:g}"
        raise CliError(f"{said}, as {len(beyond)} of {len(labels)} scores do")


def _case(label: Label) -> Case:
    from graders.calibration.cases import Case

    return Case(label.line, label.item, label.answer, label.score)


def _measure(
    spec: GraderSpec,
    cases: list[Case],
    bounds: Bounds,
    scale: tuple[float, float] | None,
    path: Path,
    *,
    is_quiet: bool,
) -> Measured:
    from app.grading.limits import grade_limits
    from app.grading.services import grader_services
    from app.settings import get_settings
    from graders import GraderInvalid
    from graders.calibration.measuring import measure
    from graders.intervals import Interval

    bounds = replace(bounds, concurrency=grade_limits(spec, get_settings()).concurrency)
    ends = None if scale is None else Interval(*scale)
    try:
        with _progress(is_quiet=is_quiet) as tell:
            return measure(spec, grader_services(remembers=False), cases, bounds, scale=ends, tell=tell)
    except GraderInvalid as fault:
        raise invalid(path, fault) from None


@contextmanager
def _progress(*, is_quiet: bool) -> Iterator[Tell]:
    """Yields what shows how many grades are there, on standard error; nothing where that is no terminal."""
    from rich.progress import Progress

    with Progress(console=errors, transient=True, disable=is_quiet) as bar:
        task = bar.add_task("Grades")
        yield lambda done, planned: bar.update(task, completed=done, total=planned)


def _print(measured: Measured, verdict: Verdict, cost: dict[str, Any] | None) -> None:
    _print_numbers(measured, cost)
    if measured.not_asked:
        _say(
            f"{measured.not_asked} grades were not asked for: time or calls were used up, or nobody answered."
        )
    _say(f"Verdict: {verdict.word}.", STYLES[verdict.remarks[0].level] if verdict.remarks else "green")
    _print_remarks(verdict.remarks)


def _print_numbers(measured: Measured, cost: dict[str, Any] | None) -> None:
    rows = [{"what": what, "found": found} for what, found in _numbers(measured, cost)]
    print_table({"what": "Measure", "found": "Found"}, rows, empty="Nothing was measured.")
    for what, reason in _left_out(measured):
        _say(f"Not measured: {what}. {reason}")


def _print_remarks(remarks: Sequence[Remark]) -> None:
    for remark in remarks:
        _say(f"- {remark.message} {remark.advice}", STYLES[remark.level])


def _numbers(measured: Measured, cost: dict[str, Any] | None) -> Iterator[tuple[str, str]]:
    yield "Answers graded", f"{measured.graded} of {measured.cases}"
    if (agreed := measured.agreement) is not None:
        scale = f"; their scale: {agreed.scale.low:g} to {agreed.scale.high:g}" if agreed.scale else ""
        constant = f"; one and the same answer would reach {agreed.constant_share:.0%}"
        yield STATISTICS[agreed.statistic], f"{_share(agreed.share)}{constant}{scale}"
        if (order := agreed.correlation) is not None:
            yield "Rank correlation with people", f"{order.value:.2f} ({order.low:.2f} to {order.high:.2f})"
    if (again := measured.constancy) is not None:
        deviation = f"; deviation {again.deviation:.1%} of the range"
        yield "The same when asked again", f"{_share(again.same)}{deviation}"
    for judge in measured.judges:
        of = f" ({judge.name})" if judge.name else ""
        for what, found in (
            ("First place against last", judge.position),
            ("Neutral words added", judge.length),
        ):
            if found is not None:
                yield f"{what}{of}", _change(found)
        if judge.talk is not None:
            way, most = judge.talk.worst
            yield f"Words to the judge{of}", f"{_change(judge.talk.rise)}; most by {way}: {most:+.1%}"
    if measured.unparsable is not None:
        yield "Replies that cannot be read", _share(measured.unparsable)
    if measured.failed is not None:
        yield "Calls without a reply", _share(measured.failed)
    yield from _spent(measured, cost)


def _spent(measured: Measured, cost: dict[str, Any] | None) -> Iterator[tuple[str, str]]:
    spent = measured.spent
    if spent.seconds_a_grade is not None:
        yield "Seconds a grade", f"{spent.seconds_a_grade:.3g}"
    if not spent.usage:
        return
    tokens = sum(usage.total_tokens for usage in spent.usage.values())
    money = "no price is set for it (CHERRY_PRICES)"
    if cost is not None:
        money = f"{cost['a_grade']:.3g} {cost['currency']} a grade, {cost['spent']:.3g} for this check"
    yield (
        "Calls and tokens",
        f"{spent.calls} calls, {tokens / max(1, spent.grades):.0f} tokens a grade; {money}",
    )


def _left_out(measured: Measured) -> Iterator[tuple[str, str]]:
    yield from measured.left_out.items()
    for judge in measured.judges:
        for what, reason in judge.left_out.items():
            yield f"{what} ({judge.name})" if judge.name else what, reason


def _share(found: Estimate) -> str:
    return f"{found.value:.0%} ({found.low:.0%} to {found.high:.0%}, n = {found.n})"


def _change(found: Estimate) -> str:
    return f"{found.value:+.1%} of the range ({found.low:+.1%} to {found.high:+.1%}, n = {found.n})"


def _say(text: str, style: str = "") -> None:
    console.print(text, markup=False, soft_wrap=True, style=style)
