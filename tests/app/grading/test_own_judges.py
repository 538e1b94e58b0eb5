"""Graders that bring a judge of their own: what is sent there, and what never is."""

from __future__ import annotations

import gzip
from typing import Any

import pytest

from app.grading.judges import Judges
from graders import FailureKind, GraderInvalid, Sample
from tests.app.grading.judge_servers import KEY, Answered, grader_of, scored, settings_with
from tests.app.webhooks.receivers import Receiver, receiver


def users(server: Receiver, **settings: Any) -> Judges:
    """Loopback counts as public here."""
    return Judges(settings_with(outbound_allow="127.0.0.1", outbound_allow_http=True, **settings))


def at(server: Receiver, **spec: Any) -> dict[str, Any]:
    return {"base_url": f"http://127.0.0.1:{server.port}/v1", **spec}


def test_a_grader_may_bring_its_own_judge_which_is_sent_no_key() -> None:
    with receiver(lambda _: scored(0.5)) as server:
        judges = users(server, judge_keys={"main": {"key": KEY, "hosts": ["127.0.0.1"]}})
        assert grader_of(judges, **at(server)).grade(Sample("x"), {}).value == 0.5
        assert server.received[0].headers["authorization"] == "Bearer none"
        assert grader_of(judges, **at(server, api_key_name="main")).grade(Sample("x"), {}).value == 0.5
        assert server.received[1].headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param({"key": KEY}, id="no-host"),
        pytest.param({"key": KEY, "hosts": ["api.openai.com"]}, id="another-host"),
        pytest.param({"key": KEY, "hosts": ["127.0.0.1"], "projects": ["proj_b"]}, id="another-project"),
    ],
)
def test_a_key_goes_only_to_its_hosts_and_only_for_its_projects(entry: dict[str, Any]) -> None:
    with receiver(lambda _: scored(1)) as server:
        with pytest.raises(GraderInvalid) as caught:
            grader_of(users(server, judge_keys={"main": entry}), **at(server, api_key_name="main"))
        assert caught.value.param == "api_key_name"
        assert not server.received


def test_a_judge_at_a_private_address_is_refused_when_the_grader_is_built() -> None:
    with receiver(lambda _: scored(1)) as server:
        with pytest.raises(GraderInvalid) as caught:
            grader_of(Judges(settings_with(outbound_allow_http=True)), **at(server))
        assert not server.received
    assert caught.value.param == "base_url"


def test_a_judge_whose_name_leads_inside_the_network_is_not_called() -> None:
    with receiver(lambda _: scored(1)) as server:
        judges = Judges(settings_with(outbound_allow_http=True))
        named = {"base_url": at(server)["base_url"].replace("127.0.0.1", "localhost")}
        grade = grader_of(judges, **(at(server) | named)).grade(Sample("x"), {})
        assert not server.received
    assert grade.failure is not None
    assert grade.failure.kind is FailureKind.MODEL_SERVER
    assert "cannot be called" in grade.failure.message


@pytest.mark.parametrize(
    "url", ["http://judge.example/v1", "file:///etc/passwd", "https://me:pw@judge.example", "x"]
)
def test_an_address_that_can_never_be_called_is_refused_when_the_grader_is_built(url: str) -> None:
    with pytest.raises(GraderInvalid) as caught:
        grader_of(Judges(settings_with()), base_url=url)
    assert caught.value.param == "base_url"


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param((200, {}, b"[" + b"1," * 3_000_000), id="huge"),
        pytest.param((200, {"content-encoding": "gzip"}, gzip.compress(b"0" * 9_000_000)), id="bomb"),
        pytest.param((302, {"location": "http://169.254.169.254/latest"}, b""), id="redirect"),
    ],
)
def test_a_hostile_judge_of_a_user_gets_nothing(answer: Answered) -> None:
    with receiver(lambda _: answer) as server:
        grade = grader_of(users(server), **at(server)).grade(Sample("x"), {})
        assert len(server.received) == 1
    assert grade.failure is not None
    assert grade.failure.kind is FailureKind.MODEL_SERVER
