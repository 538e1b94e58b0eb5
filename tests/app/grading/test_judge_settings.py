"""What an operator says of judges, and what follows from it for a training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from app.grading.cache import ENTRY_BYTES, ReplyCache, key_of
from app.grading.headers import MASK, masked, opened, sealed
from app.grading.limits import grade_limits
from graders import GraderInvalid, parse_grader
from tests.app.grading.judge_servers import settings_with

PLACE = {"base_url": "http://judge/v1"}
JUDGED = {"type": "score_model", "model": "judge", "input": [{"role": "user", "content": "x"}]}
CHECK = {"type": "string_check", "operation": "eq", "input": "a", "reference": "b"}
ENDPOINT = {"type": "endpoint", "url": "https://e.example"}


def multi(**graders: Any) -> dict[str, Any]:
    return {"type": "multi", "graders": graders, "calculate_output": " + ".join(graders)}


def rubric(calls: str, criteria: Any = None) -> dict[str, Any]:
    three = [{"criterion": f"has {letter}", "points": 1} for letter in "abc"]
    return {"type": "rubric", "model": "judge", "calls": calls, "criteria": criteria or three}


def test_judges_and_keys_may_stand_in_files(tmp_path: Path) -> None:
    (tmp_path / "judges.json").write_text(json.dumps({"judge": {**PLACE, "key": "main"}}))
    (tmp_path / "secret").write_text("sk-from-a-file\n")
    keys = {"main": {"key_file": str(tmp_path / "secret")}}
    settings = settings_with(judges=str(tmp_path / "judges.json"), judge_keys=json.dumps(keys))
    assert settings.judges["judge"].base_url == "http://judge/v1"
    assert settings.judge_keys["main"].read() == "sk-from-a-file"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"judges": {"j": {**PLACE, "key": "nope"}}}, "'nope' is not in CHERRY_JUDGE_KEYS"),
        ({"judges": {"j": {**PLACE, "api_key": "sk-1"}}}, "api_key"),
        ({"judges": "/nowhere/judges.json"}, "neither JSON nor a file"),
        ({"judges": "{"}, "judges"),
        ({"judge_keys": {"k": {}}}, "give either key or key_file"),
    ],
)
def test_settings_that_cannot_work_are_refused_at_the_start(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        settings_with(**values)


def test_settings_do_not_show_keys() -> None:
    assert "sk-shown" not in repr(settings_with(judge_keys={"main": {"key": "sk-shown"}}))


@pytest.mark.parametrize(
    ("grader", "expected"),
    [
        pytest.param(CHECK, (8, 210.0), id="asks-nobody"),
        pytest.param(JUDGED, (20, 290.0), id="judge"),
        pytest.param({**JUDGED, "base_url": "https://j.example/v1"}, (32, 540.0), id="own-judge"),
        pytest.param(ENDPOINT, (32, 840.0), id="endpoint"),
        pytest.param({**ENDPOINT, "rate_limit": 0.1}, (6, 840.0), id="slow-rate"),
        pytest.param(rubric("one"), (20, 290.0), id="rubric"),
        pytest.param(rubric("each"), (6, 290.0), id="rubric-of-three-calls"),
        pytest.param(rubric("each", criteria="{{item.rubrics}}"), (2, 740.0), id="rubric-of-rows"),
        pytest.param({"type": "rlvr", "judge": {"model": "judge"}}, (20, 440.0), id="rlvr-with-a-judge"),
        pytest.param(multi(a=JUDGED, b=JUDGED, c=ENDPOINT, d=CHECK), (20, 1090.0), id="multi"),
    ],
)
def test_number_and_time_of_gradings_follow_the_grader(
    grader: dict[str, Any], expected: tuple[int, float]
) -> None:
    settings = settings_with(judges={"judge": {**PLACE, "concurrency": 10, "timeout": 20}})
    assert grade_limits(parse_grader(grader), settings) == expected


HEADED = {**ENDPOINT, "headers": {"X-Key": "secret-1", "X-Other": "sealed"}}
SEALING = settings_with(secret_key="k" * 32)


@pytest.mark.parametrize(
    "grader",
    [HEADED, multi(a=HEADED, b=CHECK), {"type": "multi", "graders": HEADED, "calculate_output": "x"}, CHECK],
    ids=["alone", "in-multi", "bare-in-multi", "none"],
)
def test_headers_are_sealed_opened_again_and_masked(grader: dict[str, Any]) -> None:
    kept = sealed(grader, "proj_a", SEALING)
    assert "secret-1" not in json.dumps(kept)
    assert opened(kept, "proj_a", SEALING) == grader
    shown = json.dumps(masked(kept))
    assert shown.count(MASK) == 2 * json.dumps(grader).count("secret-1")
    if kept != grader:
        with pytest.raises(GraderInvalid):
            opened(kept, "proj_b", SEALING)


def test_headers_are_refused_where_nothing_can_be_sealed() -> None:
    with pytest.raises(GraderInvalid, match="CHERRY_SECRET_KEY") as caught:
        sealed(HEADED, "proj_a", settings_with(secret_key=""))
    assert caught.value.param == "headers"


def test_the_cache_is_bounded_and_forgets_what_was_used_least() -> None:
    cache = ReplyCache[str](3 * (ENTRY_BYTES + 10))
    asked = []

    def ask(name: str) -> str:
        def really() -> str:
            asked.append(name)
            return name

        return cache.get_or_ask(key_of("tenant", name), really, lambda _: 10)[0]

    for name in "abcabda":  # d makes room by c, which was used least
        assert ask(name) == name
    assert asked == ["a", "b", "c", "d"]
    ask("c")
    assert asked[-1] == "c"


def test_a_failure_is_not_remembered() -> None:
    cache = ReplyCache[str](10_000)

    def fail() -> str:
        raise RuntimeError("down")

    with pytest.raises(RuntimeError):
        cache.get_or_ask(b"k", fail, len)
    assert cache.get_or_ask(b"k", lambda: "up", len) == ("up", False)
    assert cache.get_or_ask(b"k", lambda: "other", len) == ("up", True)
