"""The adaptive beta: by hand, and against a run in miniature whose KL follows from beta."""

import math

import pytest

from tests.workers.training.support import make_config
from workers.training.trust.kl_control import LEAST_TARGET, MOST_BETA, KlController


def config_of(**changes):
    return make_config("m", **{"beta": 0.02, "kl_target": 0.4, **changes})


def after(config, *kls, entropy=1.0):
    controller = KlController()
    for kl in kls:
        controller.after(kl, entropy, config)
    return controller


def test_by_hand():
    controller = after(config_of(), 0.8)
    assert controller.slow == pytest.approx(1.02)  # 1 + 0.1 x 0.2, the error clipped
    assert controller.fast == pytest.approx(4.0**3)  # four times half the target
    controller.after(0.42, 1.0, config_of())
    assert controller.slow == pytest.approx(1.02 * (1 + 0.1 * 0.05))
    assert controller.fast == pytest.approx(2.1**3)


@pytest.mark.parametrize(
    ("changes", "kls"),
    [
        pytest.param({}, (0.1, 0.2, 0.0), id="below half the target"),
        pytest.param({"kl_target": 0.0}, (5.0, 9.0), id="no target"),
        pytest.param({"beta": 0.0}, (5.0, 9.0), id="beta 0"),
        pytest.param({}, (None, math.nan, math.inf), id="nothing measured"),
    ],
)
def test_beta_stays_as_it_is(changes, kls):
    assert after(config_of(**changes), *kls).scale == 1.0


def test_the_target_is_the_lower_of_nats_and_share_of_the_bases_entropy():
    assert after(config_of(kl_target_share=0.2), 0.0, entropy=1.5).target(config_of(kl_target_share=0.2)) == (
        pytest.approx(0.3)
    )
    assert (
        after(config_of(kl_target_share=0.2), 0.0, entropy=3.0).target(config_of(kl_target_share=0.2)) == 0.4
    )
    assert after(config_of(kl_target_share=0.2), 0.0, entropy=0.1).target(config_of(kl_target_share=0.2)) == (
        LEAST_TARGET
    )
    share_alone = config_of(kl_target=0.0, kl_target_share=0.2)
    controller = KlController()
    assert controller.target(share_alone) == 0.0  # the base's entropy is not known yet
    controller.after(0.0, 1.5, share_alone)
    controller.after(0.0, 0.1, share_alone)  # only the first one is the base's
    assert controller.target(share_alone) == pytest.approx(0.3)


def test_beta_is_never_more_than_a_run_may_ask_for():
    config = config_of(beta=0.5)
    controller = after(config, *[50.0] * 200)
    assert controller.slow <= MOST_BETA / config.beta


def run(config, steps, pull=0.05, noise=lambda step: 1.0):
    """KL by step of a policy that is pulled away by its reward and back by beta, as a spring."""
    controller, kl, found = KlController(), 0.0, []
    for step in range(steps):
        controller.after(kl * noise(step), 1.0, config)
        kl = max(0.0, kl + pull - min(1.0, config.beta * controller.scale) * kl)
        found.append(kl)
    return found


def test_a_short_run_is_held_near_its_target_and_a_long_one_at_it():
    free = run(config_of(kl_target=0.0), 40)
    held = run(config_of(), 40)
    assert free[-1] > 1.3
    assert max(held) < 0.4
    settled = run(config_of(), 2000, pull=0.1)[-1000:]
    assert max(settled) - min(settled) < 0.01  # it does not swing
    assert settled[-1] == pytest.approx(0.4, rel=0.05)


def test_a_noisy_measurement_does_not_make_it_swing():
    noisy = run(config_of(), 2000, noise=lambda step: 1.2 if step % 2 else 0.8)
    assert max(noisy[-500:]) < 0.5
    assert min(noisy[-500:]) > 0.33
