"""Where KL target and guard meet the run: they are told of each step, and what follows is carried out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from methods import metrics as names
from methods.train_config import TrainConfig
from workers.training.base.errors import NonFinite
from workers.training.base.recorder import Recorder
from workers.training.base.types import Action, Group
from workers.training.keeper import Keeper
from workers.training.trust.guard import Guard, Seen, kl_limit
from workers.training.trust.judge_talk import talking_shares
from workers.training.trust.kl_control import MOST_BETA
from workers.training.trust.symptoms import MOST_MISMATCH
from workers.training.update import UpdateStats

NON_FINITE_LIMIT = 3
"""Updates skipped in a row, because loss or gradient was not finite, that fail the run. Chosen, not
measured.
"""


class Watch:
    """Watches one run. Its calls are collective."""

    def __init__(self, keeper: Keeper, config: TrainConfig, recorder: Recorder) -> None:
        self._keeper = keeper
        self._config = config
        self._recorder = recorder
        self._calls: list[str] = []

    @property
    def guard(self) -> Guard:
        """The guard of the run."""
        return self._keeper.progress.guard

    def heard(self, step: int, groups: Sequence[Group]) -> dict[str, float]:
        """Returns the share of a step's completions that speak to the judge, and warns where it has risen.

        Nothing where the grader asks no judge.
        """
        if not self._config.asks_judge:
            return {}
        shares = talking_shares(groups)
        warning = self._keeper.progress.judge_talk.after(step, shares, self._keeper.total_steps)
        if warning is not None and self._config.guard != "off":
            self._recorder.note("warn", warning)
        return {names.JUDGE_TALK: fmean(shares)} if shares else {}

    def config_now(self) -> TrainConfig:
        """Returns the run's config with the beta of its next update, and the range that rewards have had."""
        progress = self._keeper.progress
        config = progress.rewards_seen.config_now(self._config)
        scale = progress.controller.scale * progress.guard.beta_scale
        if scale == 1:
            return config
        return config.model_copy(update={"beta": min(MOST_BETA, scale * config.beta)})

    def updated(self, step: int, stats: UpdateStats) -> None:
        """Takes in what an update measured; its KL decides the beta of the next one.

        Notes a skipped update, and raises `NonFinite` after too many in a row, unless the guard acts on them:
        it does where some update was made before.
        """
        values, progress = stats.values, self._keeper.progress
        progress.controller.after(
            values.get(names.KL_REFERENCE), values.get(names.ENTROPY_MEAN), self._config
        )
        self._check_mismatch(step, values.get(names.SAMPLER_MISMATCH, 0.0))
        if stats.is_finite:
            progress.non_finite_in_a_row = 0
            return
        progress.non_finite_in_a_row += 1
        is_guarded = self._config.guard == "act"
        if progress.non_finite_in_a_row >= NON_FINITE_LIMIT and not (is_guarded and self.guard.has_updated):
            raise NonFinite(
                f"Loss or gradient was not finite {NON_FINITE_LIMIT} steps in a row, last at step {step}."
                " A lower learning rate may help."
            )
        if not is_guarded:  # whose action says it
            message = f"Step {step}: loss or gradient was not finite; the update was skipped."
            self._recorder.note("warn", message)

    def _check_mismatch(self, step: int, gap: float) -> None:
        progress = self._keeper.progress
        if gap > MOST_MISMATCH and not progress.is_mismatch_noted:
            progress.is_mismatch_noted = True
            self._recorder.note(
                "warn",
                f"Step {step}: sampler and trainer differ by {gap:.3f} nats per token for the same weights,"
                f" more than {MOST_MISMATCH}. Updates are corrected for it, which adds noise. If dtype"
                " float32 does not make the gap small, the engine does not compute this model correctly.",
            )

    @property
    def limit(self) -> float:
        """The KL at which the guard acts, in nats per token."""
        return kl_limit(self._config, self._keeper.progress.controller.base_entropy)

    def is_called(self, step: int, values: Mapping[str, float]) -> bool:
        """Takes in the metrics of a step; says whether the KL is to be measured now."""
        if self._config.guard == "off":
            return False
        calls = self.guard.early_probe(step, values, self.limit)
        self._calls = calls or []
        return calls is not None

    def decide(
        self,
        step: int,
        values: Mapping[str, float],
        rows: Sequence[float | None] | None,
        *,
        is_last: bool = False,
    ) -> tuple[Action | None, dict[str, float]]:
        """Returns what is to be done after a step, if anything, and the guard's metrics.

        `rows` are the rewards of an evaluation, by row; None of a step without one. `is_last` says that the
        run ends with this step in any case.
        """
        if self._config.guard == "off":
            return None, {}
        is_finite = self._keeper.progress.non_finite_in_a_row == 0
        kl = values.get(names.KL_PROBE_MEAN)
        total_steps = step if is_last else self._keeper.total_steps
        canary = values.get(names.CANARY_OVER_BASE)
        seen = Seen(step, total_steps, self.limit, is_finite, kl, rows, canary)
        action = self.guard.after(seen, self._config)
        measured = {
            names.GUARD_ACTIONS: float(self.guard.actions),
            names.GUARD_ROLLBACKS: float(self.guard.rollbacks),
            names.GUARD_LR_SCALE: self.guard.lr_scale,
        }
        return action, measured if kl is None else {**measured, names.GUARD_KL_LIMIT: seen.limit}

    def tell(self, step: int, values: Mapping[str, float], action: Action | None) -> None:
        """Tells what called for an early measurement, and what is done."""
        if self._calls:
            found = values.get(names.KL_PROBE_MEAN)
            measured = "" if found is None else f" The KL to the start was therefore measured: {found:.3g}."
            message = (
                f"Step {step}: {'; '.join(self._calls)}.{measured} The guard acts above {self.limit:.3g}."
            )
            self._recorder.note("warn", message)
            self._calls = []
        if action is not None:
            self._recorder.action(action)

    def carry_out(self, step: int, action: Action | None) -> bool:
        """Goes back to the last good state, or keeps this one if good; says whether the run went back."""
        if self._keeper.good is None:
            return False
        if action is not None and action.kind == "roll_back":
            self._keeper.good.put_back(step)
            return True
        if self.guard.good_step == step:
            self._keeper.good.take(step)
        return False
