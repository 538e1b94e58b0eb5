"""Where the guard meets the run: it is told of each step, and what it decides is carried out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from methods import metrics as names
from methods.train_config import TrainConfig
from workers.training.base.recorder import Recorder
from workers.training.base.types import Action
from workers.training.keeper import Keeper
from workers.training.trust.guard import Guard, Seen, kl_limit
from workers.training.trust.kl_control import MOST_BETA


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

    def config_now(self) -> TrainConfig:
        """Returns the run's config with the beta of its next update."""
        progress = self._keeper.progress
        scale = progress.controller.scale * progress.guard.beta_scale
        if scale == 1:
            return self._config
        return self._config.model_copy(update={"beta": min(MOST_BETA, scale * self._config.beta)})

    def updated(self, values: Mapping[str, float]) -> None:
        """Takes in what an update measured, for the beta of the next one."""
        kl, entropy = values.get(names.KL_REFERENCE), values.get(names.ENTROPY_MEAN)
        self._keeper.progress.controller.after(kl, entropy, self._config)

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
        self, step: int, values: Mapping[str, float], rows: Sequence[float | None] | None
    ) -> tuple[Action | None, dict[str, float]]:
        """Returns what is to be done after a step, if anything, and the guard's metrics.

        `rows` are the rewards of an evaluation, by row; None of a step without one.
        """
        if self._config.guard == "off":
            return None, {}
        is_finite = self._keeper.progress.non_finite_in_a_row == 0
        kl = values.get(names.KL_PROBE_MEAN)
        seen = Seen(step, self._keeper.total_steps, self.limit, is_finite, kl, rows)
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


def leaves_checkpoint(action: Action | None) -> bool:
    """Says whether a checkpoint is kept: not of weights that the guard gives up."""
    return action is None or not action.is_done or action.kind not in {"roll_back", "stop"}
