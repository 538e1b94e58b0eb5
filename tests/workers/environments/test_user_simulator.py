"""Users whom a judge model plays, as a real local server: what it is shown, what ends, what it costs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from app.grading.judges import TenantJudge
from app.grading.outages import Outages, PatientJudge
from graders.services import Target
from graders.template import Template
from graders.types import FailureKind, TokenUsage
from tests.app.grading.judge_servers import Answering, answered, asked, in_turn, judges_at, refused, said
from tests.app.webhooks.receivers import Received, receiver
from workers.environments.tool import Context, Output
from workers.environments.tools import ToolEnvironment
from workers.environments.user_simulator import NOTHING, OPENING, UserSimulator
from workers.training.base.parts import Parts, ToolCall
from workers.training.episodes.environment import EpisodeLost, Reply

STOP = "###STOP###"
ITEM: dict[str, Any] = {
    "messages": [
        {"role": "developer", "content": "You sell shoes."},
        {"role": "user", "content": [{"type": "text", "text": "Hello"}]},
        {"role": "assistant", "content": "Which size?"},
        {"role": "user", "content": "A large one"},
    ],
    "tools": [{"type": "function", "function": {"name": "look_up"}}],
    "wish": "red shoes",
}
COST = TokenUsage(100, 10, calls=1)


class LookUp:
    keeps_state = False

    def call(self, _call: ToolCall, _call_id: str, _context: Context) -> Output:
        return Output("42")


def simulator(server: Any, *, has_tools: bool = False, **entry: Any) -> UserSimulator:
    return UserSimulator(
        Target("judge"),
        Template.parse("You want {{item.wish}}."),
        {"temperature": 0.5},
        STOP,
        TenantJudge(judges_at(server, **entry), "proj_a"),
        ToolEnvironment({"look_up": LookUp()} if has_tools else {}),
    )


def replies(
    answer: Answering, *turns: Parts, item: Any = ITEM, **options: Any
) -> tuple[list[Reply], list[Received]]:
    with receiver(answer) as server:
        episode = simulator(server, **options).start(item, "trace_1")
        return [episode.reply(turn) for turn in turns], server.received


def of_user(text: str) -> Reply:
    return Reply(messages=[{"role": "user", "content": text}], usage={"judge": COST})


OVER = Reply(usage={"judge": COST})


def test_the_model_sees_the_conversation_from_the_other_side_and_no_thoughts() -> None:
    answer = in_turn(said("<think>I want red.</think>\n Red ones "), said("Bye ###STOP###"))
    first = Parts(answer="Any colour?", thoughts="secret thoughts")
    found, received = replies(answer, first, Parts(answer="Here they are."))
    assert found == [of_user("Red ones"), OVER]
    call = asked(received[1])
    system, *talk = call["messages"]
    assert system["role"] == "system"
    assert system["content"].startswith("You want red shoes.\n\n")
    assert STOP in system["content"]
    assert talk == [
        {"role": "user", "content": OPENING},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "Which size?"},
        {"role": "assistant", "content": "A large one"},
        {"role": "user", "content": "Any colour?"},
        {"role": "assistant", "content": "Red ones"},
        {"role": "user", "content": "Here they are."},
    ]
    assert call["temperature"] == 0.5
    assert "response_format" not in call
    assert "secret" not in str(call)
    assert "You sell shoes" not in str(call)


@pytest.mark.parametrize("text", ["", "  \n", STOP, f"Thanks! {STOP}", "<think>done</think>", None])
def test_a_reply_with_the_stop_text_or_nothing_ends_the_episode(text: str | None) -> None:
    found, _ = replies(in_turn(said(text)), Parts(answer="Bye."))
    assert found == [OVER]
    assert found[0].is_over


FAILING = {
    "away": (refused(500, "down"), {}),
    "an unknown model": (refused(404, "no such model"), {}),
    "no message": (answered({"choices": []}), {}),
    "a refusal": (said(None, refusal="I will not"), {"judge": COST}),
    "a reply that was cut": (said("I wan", finish_reason="length"), {"judge": COST}),
}


@pytest.mark.parametrize(("answer", "usage"), FAILING.values(), ids=FAILING)
def test_a_model_that_fails_loses_the_episode_and_costs_what_it_cost(answer: Any, usage: Any) -> None:
    with receiver(lambda _: answer) as server:
        episode = simulator(server, retries=0).start(ITEM, "trace_1")
        with pytest.raises(EpisodeLost, match="The user simulator failed") as lost:
            episode.reply(Parts(answer="hi"))
    assert lost.value.usage == usage
    assert lost.value.kind is FailureKind.USER_SIMULATOR


def test_a_server_that_fails_once_is_asked_again() -> None:
    found, received = replies(in_turn(refused(503, "busy"), said("Red")), Parts(answer="Colour?"))
    assert found == [of_user("Red")]
    assert len(received) == 2


def test_the_same_conversation_is_asked_once_and_counted_once() -> None:
    with receiver(lambda _: said("Red")) as server:
        made = simulator(server)
        found = [made.start(ITEM, f"trace_{n}").reply(Parts(answer="Colour?")) for n in range(3)]
        assert len(server.received) == 1
    assert [one.messages for one in found] == [of_user("Red").messages] * 3
    assert [one.usage["judge"].calls for one in found] == [1, 0, 0]


def test_calls_are_answered_by_tools_and_what_was_said_beside_them_is_heard() -> None:
    call = ToolCall("look_up", {"key": "a"})
    turns = Parts(answer="I look.", calls=(call,)), Parts(answer="It is 42.")
    found, received = replies(in_turn(said("Thanks")), *turns, has_tools=True)
    assert [result.output for result in found[0].results] == ["42"]
    assert found[0].usage == {}
    assert found[1] == of_user("Thanks")
    (only,) = received
    assert asked(only)["messages"][-1] == {"role": "user", "content": "I look.\n\nIt is 42."}


def test_calls_of_a_job_without_tools_end_the_episode_unasked() -> None:
    found, received = replies(in_turn(said("Red")), Parts(calls=(ToolCall("look_up", {}),)))
    assert found == [Reply()]
    assert received == []


def test_an_empty_answer_is_told_and_halves_of_characters_are_not_sent() -> None:
    _, received = replies(in_turn(said("Red")), Parts(answer="  "), Parts(answer="x\udfff"))
    assert asked(received[0])["messages"][-1] == {"role": "user", "content": NOTHING}
    assert asked(received[1])["messages"][-1] == {"role": "user", "content": "x?"}


def test_a_row_that_lacks_what_the_user_is_told_loses_the_episode() -> None:
    with (
        receiver(lambda _: said("Red")) as server,
        pytest.raises(EpisodeLost, match=r"no 'item\.wish'"),
    ):
        simulator(server).start({"messages": ITEM["messages"]}, "trace_1")


def test_a_model_that_was_waited_for_in_vain_is_named() -> None:
    with receiver(lambda _: refused(503, "Later.")) as server:
        user = simulator(server, retries=0)
        patient = PatientJudge(user.judge, Outages(0.2, again=0.05))
        with pytest.raises(EpisodeLost) as lost:
            replace(user, judge=patient).start(ITEM, "trace_1").reply(Parts(answer="Good."))
    assert lost.value.waited_for.startswith("The judge 'judge' has answered nothing for")
