"""Environments of the operator's, each in a real process: what it sees, what it says, how it goes wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from app.process import is_alive, wait_gone
from app.settings import Settings
from app.table_settings import EnvironmentEntry
from workers.environments.named.environment import STARTS, NamedEnvironment
from workers.environments.named.surroundings import hidden_paths
from workers.training.base.parts import Parts, ToolCall
from workers.training.episodes.environment import EpisodeLost, FollowedEpisode

FOREIGN = str(Path(__file__).with_name("foreign.py"))
ITEM: dict[str, Any] = {"messages": [{"role": "user", "content": "Guess!"}], "number": 4}
FUNCTION = {"type": "function", "function": {"name": "look_up"}}


def made(name: str = "Guess", args: Any = None, hidden: Any = (), **entry: Any) -> NamedEnvironment:
    described = EnvironmentEntry(load=f"{FOREIGN}:{name}", **entry)
    return NamedEnvironment("guess", described, args or {}, hidden)


@pytest.fixture(scope="module")
def guess() -> Iterator[NamedEnvironment]:
    """One process for what leaves it as it was."""
    environment = made(memory_mb=512)
    yield environment
    environment.close()


def said(environment: NamedEnvironment, answer: str, item: Any = ITEM) -> str:
    """Returns the reply to the first turn."""
    (message,) = environment.start(item, f"trace_{answer}").reply(Parts(answer=answer)).messages
    assert message["role"] == "user"
    return str(message["content"])


def test_it_replies_until_it_ends_the_episode_with_a_reward(guess: NamedEnvironment) -> None:
    episode, other = guess.start(ITEM, "trace_1"), guess.start({**ITEM, "number": 7}, "trace_2")
    assert isinstance(episode, FollowedEpisode)
    assert episode.reply(Parts(answer="3")).messages == [
        {"role": "user", "content": "Not 3, after 2 messages."}
    ]
    assert other.reply(Parts(answer="4")).messages == [
        {"role": "user", "content": "Not 4, after 2 messages."}
    ]
    over = episode.reply(Parts(answer="4", thoughts="Hm."))
    assert (over.is_over, over.reward) == (True, 1.0)
    assert [other.reply(Parts(answer="4")).is_over for _ in range(2)] == [False, True]


def test_ends_that_it_did_not_decide_are_judged_too(guess: NamedEnvironment) -> None:
    assert guess.start(ITEM, "a").end(Parts(answer="4"), is_cut=False).reward == 1.0
    assert guess.start(ITEM, "b").end(Parts(answer="4"), is_cut=True).reward == 0.5
    unread = guess.start(ITEM, "c")
    unread.reply(Parts(answer="3"))
    assert unread.end(None, is_cut=True).reward == 0.0
    assert guess.start(ITEM, "d").end(Parts(fault="no template"), is_cut=False).reward is None


def test_it_answers_calls_of_its_functions(guess: NamedEnvironment) -> None:
    calls = (ToolCall("look_up", {"key": "ä"}), ToolCall("invented", {}))
    episode = guess.start({**ITEM, "tools": [FUNCTION]}, "trace_1")
    first, second = episode.reply(Parts(answer="call", calls=calls)).results
    assert (first.output, first.is_error, first.is_known) == ('{"key": "ä"}', False, True)
    assert (json.loads(second.output)["error"]["code"], second.is_known) == ("unanswered", False)
    alone = guess.start(ITEM, "trace_2").reply(Parts(answer="4", calls=calls))
    assert (alone.is_over, alone.reward) == (True, 1.0)


def test_coroutines_are_awaited_and_halves_of_characters_cleaned(guess: NamedEnvironment) -> None:
    assert said(guess, "wait") == "another"
    assert said(guess, "half") == "half ?"


def test_it_sees_no_variable_of_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CHERRY_SECRET_KEY", "DATABASE_URL", "AWS_SECRET_ACCESS_KEY", "PYTHONPATH"):
        monkeypatch.setenv(name, "of-the-worker")
    environment = made(env={"SHOP_KEY": "for-the-shop"})
    seen = said(environment, "environ")
    environment.close()
    assert "for-the-shop" in seen
    names = ("CHERRY_", "DATABASE_URL", "AWS_", "PYTHONPATH", "of-the-worker")
    assert [name for name in names if name in seen] == []


def test_it_reads_neither_the_services_files_nor_other_processes(tmp_path: Path) -> None:
    settings = Settings(
        database_url="", broker_url="", data_dir=tmp_path / "data", storage_url=f"file://{tmp_path}/storage"
    )
    files = [tmp_path / "data" / "states" / "a", tmp_path / "storage" / "weights"]
    for file in files:
        file.parent.mkdir(parents=True)
        file.write_text("secret")
    (tmp_path / "other").write_text("open")
    environment = made(hidden=hidden_paths(settings))
    for path in (*files, f"/proc/{os.getpid()}/environ"):
        with pytest.raises(EpisodeLost, match="PermissionError"):
            said(environment, f"read {path}")
    assert said(environment, f"read {tmp_path / 'other'}") == "open"
    assert "Name:" in said(environment, "read /proc/self/status")
    environment.close()


WRONG = {
    "raise": "LookupError: no such word",
    "exit": "SystemExit: enough",
    "large": "its answer is larger than 1048576 bytes",
    "text": r"reply\(\) must return a list of messages",
    "system": "must reply with messages, each with the role 'user' or 'tool'",
    "parts": "must reply with messages",
    "call": "IndexError",
    "fill 2000000000": "MemoryError",
}


@pytest.mark.parametrize(("answer", "told"), WRONG.items(), ids=WRONG)
def test_what_goes_wrong_loses_one_episode(guess: NamedEnvironment, answer: str, told: str) -> None:
    beside = guess.start(ITEM, "trace_beside")
    with pytest.raises(EpisodeLost, match=f"The environment 'guess' .*{told}"):
        said(guess, answer)
    assert beside.reply(Parts(answer="4")).reward == 1.0


def test_a_reward_that_is_no_number_loses_the_episode(guess: NamedEnvironment) -> None:
    with pytest.raises(EpisodeLost, match="Out of range float"):
        guess.start(ITEM, "trace_1").end(Parts(answer="infinite"), is_cut=False)


def test_an_environment_may_give_no_reward() -> None:
    environment = made("Silent")
    episode = environment.start(ITEM, "trace_1")
    assert not episode.rewards
    over = episode.reply(Parts(answer="x"))
    assert (over.is_over, over.reward) == (True, None)
    environment.close()


def test_a_crash_loses_its_episodes_and_the_next_finds_a_new_process() -> None:
    environment = made()
    beside = environment.start(ITEM, "trace_beside")
    with pytest.raises(EpisodeLost, match="Its process ended with code 3"):
        said(environment, "crash")
    with pytest.raises(EpisodeLost, match="Its process ended with code 3"):
        beside.reply(Parts(answer="4"))
    assert said(environment, "1").startswith("Not 1")
    environment.close()


def test_garbage_ends_the_process() -> None:
    environment = made()
    with pytest.raises(EpisodeLost, match="does not keep to the protocol"):
        said(environment, "garbage")
    assert said(environment, "1").startswith("Not 1")
    environment.close()


def test_a_reply_that_hangs_is_lost_alone() -> None:
    environment = made(seconds=0.5)
    beside = environment.start(ITEM, "trace_beside")
    with pytest.raises(EpisodeLost, match=r"It did not answer within 0\.5 seconds"):
        said(environment, "hang")
    assert beside.reply(Parts(answer="4")).reward == 1.0
    environment.close()


def test_a_process_that_answers_nothing_more_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.environments.named.process.PING_SECONDS", 0.5)
    environment = made(seconds=0.5)
    with pytest.raises(EpisodeLost, match=r"did not answer within 0\.5 seconds"):
        said(environment, "block")
    beside = environment.start(ITEM, "trace_beside")
    assert beside.reply(Parts(answer="4")).reward == 1.0
    environment.close()


def test_one_that_cannot_be_loaded_is_tried_so_often_and_says_why() -> None:
    environment = NamedEnvironment("guess", EnvironmentEntry(load="no_such_module:Guess"), {})
    for _ in range(STARTS):
        with pytest.raises(EpisodeLost, match="No module named 'no_such_module'"):
            environment.start(ITEM, "trace_1")
    with pytest.raises(EpisodeLost, match=r"is not started again.*no_such_module"):
        environment.start(ITEM, "trace_1")


def test_a_python_that_is_not_there_is_told() -> None:
    environment = made(python="/no/such/python")
    with pytest.raises(EpisodeLost, match=r"code 127.*cannot run /no/such/python: .*No such file"):
        environment.start(ITEM, "trace_1")


def test_an_opening_that_is_not_the_rows_is_told(guess: NamedEnvironment) -> None:
    same = {**ITEM, "opening": {"messages": ITEM["messages"], "tools": []}}
    guess.start(same, "trace_1")
    for opening in (
        {"messages": [{"role": "user", "content": "Go!"}]},
        {"tools": [FUNCTION]},
        {"messages": 3},
    ):
        with pytest.raises(EpisodeLost, match=r"with other (messages|tools) than the row has"):
            guess.start({**ITEM, "opening": opening}, "trace_2")


def test_it_tells_rows_with_the_arguments_of_the_job() -> None:
    environment = NamedEnvironment(
        "guess", EnvironmentEntry(load=f"{FOREIGN}:Guess", args={"limit": 4}), {"limit": 9}
    )
    assert [row["number"] for row in environment.rows(0, 100)] == list(range(9))
    assert [row["number"] for row in environment.rows(0, 2)] == [0, 1]


def test_what_it_prints_is_logged_with_its_name() -> None:
    with capture_logs() as logs:
        environment = made()
        assert said(environment, "print hello") == "another"
        environment.close()
    told = [entry["said"] for entry in logs if entry["event"] == "environment_said"]
    assert told.count("hello") == 2
    assert {entry["environment"] for entry in logs} == {"guess"}


STARTER = """
import sys, time
from tests.workers.environments.test_named import ITEM, made, said
environment = made()
print(said(environment, "child"), environment._process._guard.pid, flush=True)
time.sleep(600)
"""


def test_nothing_is_left_where_the_training_process_is_killed() -> None:
    root = Path(__file__).parents[3]
    command = [sys.executable, "-c", STARTER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as training:
        assert training.stdout is not None
        pids = [int(pid) for pid in training.stdout.readline().split()]
        assert all(map(is_alive, pids))
        training.kill()
    assert all(wait_gone(pid, 20) for pid in pids)
