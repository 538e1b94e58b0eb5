"""What a preflight has found, as it grows, and the sentence that it comes to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

from app.storable import clean
from workers.jobs.doubts import Doubt
from workers.jobs.job_data import JobInvalid

Severity = Literal["error", "warn", "info"]
"""`error`: the job would fail with it. `warn`: it is likely not what was meant. `info`: worth knowing."""

MAX_LINES = 100
"""Lines of a file that a finding lists; its message says how many there are. Chosen, not measured."""
WEAK_SIGNAL = 0.1
"""Share of groups with spread below which a job is told that it is unlikely to learn. Chosen, not measured:
nine tenths of the sampling would be in vain, as in the advice after a run."""


class Finding(NamedTuple):
    """Something to know before a job is started."""

    code: str
    severity: Severity
    message: str
    param: str | None = None
    lines: Sequence[int] = ()

    def as_dict(self) -> dict[str, Any]:
        """Returns the finding as JSON has it."""
        return {
            "code": self.code,
            "severity": self.severity,
            "message": clean(self.message),
            "param": self.param,
            "lines": sorted(set(self.lines))[:MAX_LINES],
        }


class Report:
    """Collects findings and numbers. It can go on from what another worker has stored."""

    def __init__(self, stored: dict[str, Any] | None = None) -> None:
        self._values: dict[str, Any] = {"verdict": "", "findings": []} | (stored or {})

    def add(self, *findings: Finding) -> None:
        """Takes findings in."""
        self._values["findings"] = [*self._values["findings"], *(one.as_dict() for one in findings)]

    def refuse(self, fault: JobInvalid) -> None:
        """Takes in a fault for which the job would fail."""
        self.add(Finding(fault.code, "error", fault.message, fault.param, fault.lines))

    def doubt(self, doubts: Iterable[Doubt]) -> None:
        """Takes in what a job would be warned of."""
        self.add(*(Finding(one.code, "warn", one.message, one.param, one.lines) for one in doubts))

    def set(self, name: str, values: dict[str, Any]) -> None:
        """Takes in a part of the numbers."""
        self._values[name] = values

    @property
    def has_errors(self) -> bool:
        """Tells whether the job would fail."""
        return any(one["severity"] == "error" for one in self._values["findings"])

    def as_dict(self) -> dict[str, Any]:
        """Returns the report as JSON has it, the gravest findings first."""
        order = ("error", "warn", "info")
        findings = sorted(self._values["findings"], key=lambda one: order.index(one["severity"]))
        return {**self._values, "findings": findings, "verdict": clean(self._verdict(findings))}

    def _verdict(self, findings: Sequence[dict[str, Any]]) -> str:
        """Returns what it all comes to, in plain words."""
        errors = [one for one in findings if one["severity"] == "error"]
        warnings = sum(one["severity"] == "warn" for one in findings)
        told = f" There {'are' if warnings > 1 else 'is'} {counted(warnings, 'warning')}." if warnings else ""
        if errors:
            first = errors[0]["message"].splitlines()[0]
            return f"This job would fail: {counted(len(errors), 'fault')}, the first: {first}{told}"
        base, job = self._values.get("base"), self._values.get("job")
        if base is None:
            return f"The files are in order; nothing was sampled from the base.{told}"
        signal = base["expected_signal"]
        steps = (
            f" It takes about {counted(job['steps'], 'step')} and {duration(job['seconds'])}." if job else ""
        )
        if signal < WEAK_SIGNAL:
            return (
                f"This job is unlikely to learn: only {signal:.0%} of its groups of answers would have"
                f" different rewards.{steps}{told}"
            )
        return (
            f"This job can run and has something to learn from: {signal:.0%} of its groups of answers would"
            f" have different rewards.{steps}{told}"
        )


def counted(number: int, thing: str) -> str:
    """Returns "1 step" or "24 steps"."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """Returns a rough time in words."""
    for size, unit in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
        if seconds >= 1.5 * size:
            return counted(round(seconds / size), unit)
    return counted(max(1, round(seconds)), "second")
