"""What calls for an early probe, how long it has to last, and how often it calls."""

from methods import metrics as names
from workers.training.trust import symptoms
from workers.training.trust.symptoms import Symptoms

SOUND = {
    symptoms.PARSE_ERRORS: 0.1,
    symptoms.TRUNCATED: 0.2,
    symptoms.LENGTH: 20.0,
    names.ENTROPY_MEAN: 1.0,
    names.NO_SPREAD_SHARE: 0.5,
    names.SAMPLER_MISMATCH: 1e-6,
    names.KL_REFERENCE: 0.3,
    names.GRAD_NORM: 1.0,
}


def calls(values, *, steps=12, sound=6):
    """The steps after `sound` sound ones that call, each with how many sentences."""
    found = Symptoms()
    for step in range(1, sound + 1):
        assert found.after(step, SOUND, 1.0) is None
    told = {step: found.after(sound + step, SOUND | values, 1.0) for step in range(1, steps + 1)}
    return {step: len(said) for step, said in told.items() if said is not None}


def test_a_sound_run_calls_for_nothing():
    assert calls({}) == {}
    assert calls(dict.fromkeys(SOUND, 0.0) | {names.ENTROPY_MEAN: 1.0, symptoms.LENGTH: 20.0}) == {}


def test_slow_symptoms_have_to_last_and_call_once():
    for name, value in (
        (symptoms.PARSE_ERRORS, 0.3),
        (symptoms.TRUNCATED, 0.4),
        (symptoms.LENGTH, 41.0),
        (symptoms.LENGTH, 9.0),
        (names.ENTROPY_MEAN, 0.09),
        (names.ENTROPY_MEAN, 2.1),
    ):
        assert calls({name: value}) == {symptoms.STEPS_IN_A_ROW: 1}, name
    assert calls({names.NO_SPREAD_SHARE: 1.0}) == {symptoms.STEPS_WITHOUT_SPREAD: 1}


def test_jumps_call_at_once():
    assert calls({names.GRAD_NORM: 11.0}) == {1: 1}
    assert calls({names.SAMPLER_MISMATCH: 0.06}) == {1: 1}


def test_the_batchs_kl_calls_again_and_again_but_is_told_once():
    assert calls({names.KL_REFERENCE: 1.1}) == {1: 1, 6: 0, 11: 0}


def test_what_comes_soon_after_a_probe_waits_for_the_next_one():
    found = Symptoms()
    found.after(1, SOUND, 1.0)
    assert len(found.after(2, SOUND | {names.SAMPLER_MISMATCH: 0.06}, 1.0)) == 1
    later = [found.after(step, SOUND | {symptoms.LENGTH: 50.0}, 1.0) for step in range(3, 9)]
    assert [said and len(said) for said in later] == [None] * 4 + [1, None]


def test_steps_without_numbers_are_no_symptom():
    found = Symptoms()
    assert [found.after(step, {}, 1.0) for step in range(1, 20)] == [None] * 19
