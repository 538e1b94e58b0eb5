"""What a long job is held to, by results written by hand."""

from __future__ import annotations

import json

import pytest

from benchmarks.long_runs.comparison import compared_in, text_of
from benchmarks.long_runs.plan import LONG, SHORT, pairs
from benchmarks.stability.material import material_of


def result(run, worth, *, kl=0.2, canary=1.0):
    base = {"worth": [0.25] * 4, "canary": 1.0, "kl": 0.0}
    facts = {"best_step": 6, "steps": 12, "cpu_seconds": 1.0, "actions": [], "kl_target": 0.3}
    curve = [{"step": 6, "beta": 0.02}, {"step": 12, "beta": 0.5}]
    told = {"completions": 384, "full_step": 64, "curve": curve}
    model = worth and {"worth": worth, "canary": canary, "kl": kl}
    return {"id": run.id, **facts, **told, "models": {"base": base, "delivered": model}}


def compare(folder, short, long, **facts):
    path = folder / "long.jsonl"
    ours, theirs = pairs()[0]
    lines = [result(ours, short), result(theirs, long, **facts)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_a_pair_shares_all_but_the_epochs():
    seen = set()
    for short, long in pairs():
        assert (short.n_epochs, long.n_epochs) == (SHORT, LONG) == (20, 200)
        assert (short.data, short.seed, short.more) == (long.data, long.seed, long.more)
        assert dict(long.more)["early_stop"] is False
        assert material_of(short) == material_of(long)
        assert (len(material_of(long).train), len(material_of(long).test)) == (48, 48)
        seen |= {short.id, long.id}
    assert len(seen) == 2 * 4 * 3


@pytest.mark.parametrize(
    ("long", "facts", "faults"),
    [
        ([0.5, 0.75, 0.5, 0.75], {}, []),
        ([0.25, 0.75, 0.75, 0.5], {}, []),  # -0.0625 +- 0.12
        ([0.25, 0.5, 0.5, 0.5], {}, ["reward"]),  # -0.1875 +- 0.0625
        ([1.0] * 4, {"kl": 0.31}, ["KL"]),
        ([1.0] * 4, {"canary": 1.31}, ["canary"]),
        (None, {}, ["reward"]),  # the base is delivered
    ],
)
def test_a_long_job_is_held_to_the_short_one_its_target_and_its_memory(tmp_path, long, facts, faults):
    (pair,) = compared_in(compare(tmp_path, [0.5, 0.75, 0.5, 0.75], long, **facts))
    assert pair.faults == faults


def test_the_table_tells_what_was_missed_and_how_many_visits_were_made(tmp_path):
    text = text_of(compare(tmp_path, [0.5, 0.75, 0.5, 0.75], [0.25, 0.5, 0.5, 0.5]))
    assert "| 0.250 | 0.625 | 0.438 | -0.188 +- 0.062 | 0.200 (0.300) | +0.00 | 6 of 12 | 50% |" in text
    assert "| 0.5 | 1 | **reward** |" in text
    assert "Over all 1 pairs: -0.1875" in text


def test_half_a_pair_is_not_compared(tmp_path):
    path = compare(tmp_path, [0.5] * 4, [0.5] * 4)
    path.write_text(path.read_text().splitlines(keepends=True)[1])
    assert text_of(path) == "No pair is whole yet."
