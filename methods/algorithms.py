"""The learning algorithms by name, and the numbers each one starts from. No torch here.

An algorithm is a choice of four things: what a completion is compared with (`Baseline`), how an update is
held near the policy before it (`Surrogate`), how token losses are averaged (`Aggregation`) and where the KL
penalty enters (`KlPlace`). `docs/algorithms/` has a page for each, with paper and equation.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

AlgorithmName = Literal["grpo", "dr_grpo", "dapo", "gspo", "cispo", "rloo", "reinforce_pp", "ppo"]
Baseline = Literal["group", "leave_one_out", "batch", "value"]
Surrogate = Literal["clip", "sequence_clip", "cispo"]
Aggregation = Literal["token", "sequence", "constant"]
KlPlace = Literal["loss", "reward"]


class Recipe(NamedTuple):
    """What an algorithm is made of.

    Attributes:
        baseline: what a completion's reward is compared with.
        surrogate: how far an update may go from the policy before it.
        kl: penalty as a term of the loss, or taken off the reward.
        defaults: values of TrainConfig's fields where a run names none.
    """

    baseline: Baseline
    surrogate: Surrogate
    kl: KlPlace
    defaults: dict[str, Any]


RECIPES: dict[AlgorithmName, Recipe] = {
    "grpo": Recipe("group", "clip", "loss", {}),
    "dr_grpo": Recipe(
        "group", "clip", "loss", {"aggregation": "constant", "scale_advantage": False, "clip_high": 0.2}
    ),
    "dapo": Recipe(
        "group",
        "clip",
        "loss",
        # The paper takes at most 1 off rewards of -1 and 1: half the range, here of a grader from 0 to 1.
        {
            "clip_high": 0.28,
            "beta": 0.0,
            "sampling_rounds": 3,
            "overlong_buffer": 0.2,
            "overlong_penalty": 0.5,
        },
    ),
    "gspo": Recipe(
        "group", "sequence_clip", "loss", {"aggregation": "sequence", "clip_low": 3e-4, "clip_high": 4e-4}
    ),
    "cispo": Recipe("group", "cispo", "loss", {"clip_low": 1.0, "clip_high": 4.0}),
    "rloo": Recipe(
        "leave_one_out",
        "clip",
        "reward",
        # The gradient of a completion's probability is a sum over its tokens; a constant only sets its size.
        {"aggregation": "constant", "scale_advantage": False, "clip_high": 0.2},
    ),
    "reinforce_pp": Recipe("batch", "clip", "reward", {"clip_high": 0.2}),
    "ppo": Recipe("value", "clip", "reward", {"clip_high": 0.2, "updates_per_step": 2}),
}
