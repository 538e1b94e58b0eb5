"""Whether a run ends, or pauses, before its last step, and what its owner is told of that."""

from __future__ import annotations

from workers.training.trust.budgets import SpentBudget
from workers.training.trust.early_stop import Level

EARLY_STOP, GUARD = "early_stop", "guard"
"""How a run has ended that was level, or that its guard gave up; without a budget: the budget's name."""


def level_in_words(step: int, total_steps: int, level: Level, seconds: float, *, is_solved: bool) -> str:
    """Says why a run that is level ends, and what that saves. `seconds` is what its steps took."""
    left = total_steps - step
    saved = seconds / max(step, 1) * left
    solved = "Every training prompt is solved, and the" if is_solved else "The"
    return (
        f"Step {step}: training ends here, {_steps(left)} early (early_stop). {solved} last"
        f" {level.evaluations} evaluations were level: mean {level.mean:.3g}, trend {level.trend:+.2g}"
        f" over all of them. That saves about {_time(saved)}."
    )


def budget_in_words(step: int, total_steps: int, budget: SpentBudget, *, pauses: bool) -> str:
    """Says that a budget is used up, and what comes of it."""
    if pauses:
        what = "The job pauses (on_budget: pause); resuming it grants every budget once more."
        return f"Step {step}: {budget}. {what}"
    left = _steps(total_steps - step)
    what = f"Training ends here, {left} early, and delivers what has proved better so far"
    return f"Step {step}: {budget}. {what} (on_budget: finish)."


def _steps(number: int) -> str:
    return "1 step" if number == 1 else f"{number:,} steps"


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"
