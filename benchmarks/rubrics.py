"""What rubric grades cost beside the calls that they make: `python -m benchmarks.rubrics`.

A judge that takes 50 ms a call runs as a process of its own. The same questions are asked of it by the bare
client, from as many threads, and by the grader, in turn: both meet the machine in the same state.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import openai

from app.grading.judges import Judges, TenantJudge
from graders import Grader, Sample, build_grader, parse_grader
from graders.services import Judge, Question, Reply, Services
from graders.types import FailureKind, GradeFailed
from tests.app.grading.judge_servers import settings_with
from tests.judging.process import RunningJudge, running_judge

GRADES = 320
CONCURRENCY = 64
CALL_MS = 50.0
ROUNDS = 9
GRADES_BAR = 1000
"""Grades a minute that must be reached."""
OVERHEAD_BAR = 0.10
"""Share of the calls' own time that grading may take beside them."""
WORDS = ("dog", "play", "tree", "sun", "river", "stone", "bird", "moon")
ITEM = {"messages": [{"role": "user", "content": f"Write a story with {', '.join(WORDS)}."}]}
CRITERIA = [{"criterion": f'Has the word "{word}".', "points": 1 + at} for at, word in enumerate(WORDS)]
STORY = "Once upon a time a dog went out to play by the river until the moon came up. " * 8


class Way(NamedTuple):
    """One way to ask for verdicts."""

    calls: str
    grades: int


WAYS = (Way("one", GRADES), Way("each", CONCURRENCY))


class _Recording:
    """Notes what a grader asks."""

    def __init__(self) -> None:
        self.asked: list[Question] = []

    def check(self, *_: Any) -> None:
        pass

    def ask(self, question: Question) -> Reply:
        self.asked.append(question)
        raise GradeFailed(FailureKind.MODEL_SERVER, "It only notes.")


def grader_of(judge: Judge, calls: str) -> Grader:
    spec = {"type": "rubric", "name": "words", "model": "judge", "criteria": CRITERIA, "calls": calls}
    return build_grader(parse_grader(spec), Services(judge=judge))


def samples(round_: str, n: int) -> list[Sample]:
    """Answers that nobody has judged yet."""
    return [Sample(f"{STORY}The end of {round_}, {number}.") for number in range(n)]


def asked(calls: str, answers: Sequence[Sample]) -> list[Question]:
    """What a grader asks of answers."""
    recording = _Recording()
    for answer in answers:
        grader_of(recording, calls).grade(answer, ITEM)
    return recording.asked


def spent(call: Callable[[Any], object], given: Sequence[Any]) -> tuple[float, float]:
    """Seconds on the clock, and of this process's processor time."""
    with ThreadPoolExecutor(CONCURRENCY) as threads:
        started, before = time.perf_counter(), time.process_time()
        list(threads.map(call, given))
        return time.perf_counter() - started, time.process_time() - before


def bare(client: openai.OpenAI, question: Question) -> None:
    """One call, and nothing of its reply but the text."""
    schema = {"name": question.schema_name, "schema": question.schema, "strict": True}
    body = {"response_format": {"type": "json_schema", "json_schema": schema}}
    messages: Any = list(question.messages)
    reply = client.chat.completions.create(model="judge", messages=messages, extra_body=body)
    assert reply.choices[0].message.content


class Measured(NamedTuple):
    """Medians over rounds: seconds of the grades, of as many calls, and how much longer the grades took."""

    grades: float
    calls: float
    over: float
    over_cpu: float


def measure(judge: RunningJudge, way: Way) -> Measured:
    """Measures rounds of calls and of grades that make as many, in turn, of which the first opens
    connections."""
    place = {"base_url": judge.base_url, "concurrency": CONCURRENCY}
    grader = grader_of(TenantJudge(Judges(settings_with(judges={"judge": place})), "bench"), way.calls)
    client = openai.OpenAI(base_url=judge.base_url, api_key="none", max_retries=0)

    def grade(answer: Sample) -> None:
        assert grader.grade(answer, ITEM).value is not None

    rounds = []
    for number in range(ROUNDS + 1):
        questions = asked(way.calls, samples(f"calls {number}", way.grades))
        answers = samples(f"grades {number}", way.grades)
        of_calls = spent(lambda question: bare(client, question), questions)
        of_grades = spent(grade, answers)
        rounds.append((of_grades[0], of_calls[0], of_grades[0] / of_calls[0], of_grades[1] / of_calls[1]))
    client.close()
    grades, calls, over, over_cpu = (statistics.median(column) for column in zip(*rounds[1:], strict=True))
    return Measured(grades, calls, over - 1, over_cpu - 1)


def rubrics() -> bool:
    """Prints the table. Returns whether the bars are met."""
    print(f"\nRubric grades, {len(CRITERIA)} criteria, {CONCURRENCY} at a time, {CALL_MS:.0f} ms a call\n")
    print("| calls | grades a minute | calls a second | bare calls a second | over the calls | in CPU time |")
    print("| --- | --- | --- | --- | --- | --- |")
    holds = True
    for way in WAYS:
        with running_judge("exact", delay_ms=CALL_MS, keep_alive=True) as judge:
            found = measure(judge, way)
        n_calls = way.grades * (len(CRITERIA) if way.calls == "each" else 1)
        a_minute = 60 * way.grades / found.grades
        speeds = f"{a_minute:,.0f} | {n_calls / found.grades:,.0f} | {n_calls / found.calls:,.0f}"
        print(f"| {way.calls} | {speeds} | {found.over:+.1%} | {found.over_cpu:+.1%} |", flush=True)
        holds &= a_minute >= GRADES_BAR and found.over <= OVERHEAD_BAR
    return holds


if __name__ == "__main__":
    raise SystemExit(0 if rubrics() else 1)
