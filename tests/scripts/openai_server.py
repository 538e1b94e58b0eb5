"""A stand-in for OpenAI's service, as one project sees it: lists by pages, files, refusals, hanging calls."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.app.grading.judge_servers import Answered, answered, refused
from tests.app.webhooks.receivers import Received, receiver

GRADER = {
    "type": "string_check",
    "id": "same-1f",
    "name": "same",
    "input": "{{sample.output_text}}",
    "reference": "{{item.answer}}",
    "operation": "eq",
}
MOST = {"/files": 10_000}
"""The largest page of each list; 100 of all others."""
USUAL = 20
"""Items of a page whose size nobody asked for."""
NEWEST_FIRST = ("/fine_tuning/jobs", "/events", "/checkpoints", "/files")
"""The ends of the paths of lists that begin with the newest item, if no other order is asked for."""

Refusing = Callable[[Received], Answered | None]


@dataclass
class OpenAI:
    """What a project holds. Each list is in the order of its making."""

    lists: dict[str, list[dict[str, Any]]]
    contents: dict[str, bytes] = field(default_factory=dict)
    refuse: Refusing = lambda _: None
    """Answers a request in place of its rightful answer, or returns None."""
    asked: list[str] = field(default_factory=list)
    """Paths with queries, as they came."""
    hangs_at: str | None = None
    """A piece of a path with its query. A request that has it gets no answer until `go_on` is set."""
    reached: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)

    def answer(self, received: Received) -> Answered | None:
        path = received.path.removeprefix("/v1")
        self.asked.append(path)
        if self.hangs_at and self.hangs_at in path:
            self.reached.set()
            self.go_on.wait(30)
        refusal = self.refuse(received)
        return refusal if refusal is not None else self.rightful(urlsplit(path).path, path)

    def rightful(self, path: str, target: str) -> Answered:
        if path.endswith("/content"):
            content = self.contents.get(path.split("/")[2])
            if content is None:
                return refused(400, "Not allowed to download files of purpose: assistants")
            return 200, {"content-type": "application/octet-stream"}, content
        if path not in self.lists:
            return refused(404, f"Not found: {path}")
        query = {name: values[-1] for name, values in parse_qs(urlsplit(target).query).items()}
        return self.page(path, query)

    def page(self, path: str, query: dict[str, str]) -> Answered:
        items = list(self.lists[path])
        if query.get("order", "desc" if path.endswith(NEWEST_FIRST) else "asc") == "desc":
            items.reverse()
        limit = int(query.get("limit", USUAL))
        if limit > MOST.get(path, 100):
            return refused(400, "Invalid 'limit': too large.")
        if "after" in query:
            names = [item["id"] for item in items]
            if query["after"] not in names:
                return refused(404, f"No such object: {query['after']}")
            items = items[names.index(query["after"]) + 1 :]
        return answered(listed(items[:limit], len(items) > limit))

    def count(self, piece: str) -> int:
        return sum(piece in path for path in self.asked)


def listed(items: list[dict[str, Any]], has_more: bool = False) -> dict[str, Any]:
    ids = [item["id"] for item in items] or [""]
    ends = {"first_id": ids[0], "last_id": ids[-1]}
    return {"object": "list", "data": items, "has_more": has_more, **ends}


@contextmanager
def serving(project: OpenAI) -> Iterator[str]:
    """The URL of a service with this project."""
    with receiver(project.answer) as server:
        yield f"http://127.0.0.1:{server.port}/v1"
        project.go_on.set()


def a_project(*, n_items: int = 2, n_events: int = 2) -> OpenAI:
    """Two evals, one of them with a run; completions; a job; files, of which one is given out."""
    evals = [an_eval("eval_1", "Answers"), an_eval("eval_2", "Nothing yet")]
    items = [an_item(n) for n in range(n_items)]
    job = a_job("ftjob-1")
    lists = {
        "/evals": evals,
        "/evals/eval_1/runs": [a_run("evalrun_1", Counter(total=n_items, passed=n_items))],
        "/evals/eval_2/runs": [],
        "/evals/eval_1/runs/evalrun_1/output_items": items,
        "/chat/completions": [a_completion(n) for n in range(3)],
        **{f"/chat/completions/chatcmpl-{n}/messages": [a_message(n)] for n in range(3)},
        "/fine_tuning/jobs": [job],
        "/fine_tuning/jobs/ftjob-1/events": [an_event(n) for n in range(n_events)],
        "/fine_tuning/jobs/ftjob-1/checkpoints": [a_checkpoint(10), a_checkpoint(20)],
        "/files": [a_file("file-train", "fine-tune"), a_file("file-mine", "assistants")],
    }
    return OpenAI(lists, {"file-train": b'{"messages": []}\n'})


def an_eval(name: str, title: str) -> dict[str, Any]:
    schema = {"type": "object", "properties": {"item": {"type": "object"}}}
    return {
        "id": name,
        "object": "eval",
        "name": title,
        "created_at": 1_790_000_000,
        "metadata": {"team": "a"},
        "data_source_config": {"type": "custom", "schema": schema},
        "testing_criteria": [GRADER],
    }


def a_run(name: str, counts: Counter[str], eval_id: str = "eval_1") -> dict[str, Any]:
    result_counts = {key: counts[key] for key in ("total", "errored", "failed", "passed")}
    content = {"type": "input_text", "text": "{{item.question}}"}
    template = [{"type": "message", "role": "user", "content": content}]
    return {
        "id": name,
        "object": "eval.run",
        "eval_id": eval_id,
        "status": "completed",
        "model": "o4-mini-2025-04-16",
        "name": "first",
        "created_at": 1_790_000_001,
        "report_url": f"https://platform.openai.com/evaluations/{eval_id}",
        "result_counts": result_counts,
        "per_model_usage": [
            {
                "model_name": "o4-mini-2025-04-16",
                "invocation_count": counts["total"],
                "prompt_tokens": 10,
                "completion_tokens": 20,
                "total_tokens": 30,
                "cached_tokens": 0,
            }
        ],
        "per_testing_criteria_results": [
            {"testing_criteria": "same-1f", "passed": counts["passed"], "failed": counts["failed"]}
        ],
        "data_source": {
            "type": "completions",
            "model": "o4-mini-2025-04-16",
            "source": {"type": "file_id", "id": "file-train"},
            "input_messages": {"type": "template", "template": template},
        },
        "metadata": {},
        "error": {"code": "", "message": ""},
    }


def an_item(n: int, run_id: str = "evalrun_1") -> dict[str, Any]:
    usage = {"total_tokens": 3, "completion_tokens": 2, "prompt_tokens": 1, "cached_tokens": 0}
    sample = {
        "input": [{"role": "user", "content": f"What is {n} + 0?"}],
        "output": [{"role": "assistant", "content": str(n)}],
        "finish_reason": "stop",
        "model": "o4-mini-2025-04-16",
        "usage": usage,
        "error": {"code": "", "message": ""},
        "temperature": 1.0,
        "max_completion_tokens": 64,
        "top_p": 1.0,
        "seed": 42,
    }
    return {
        "id": f"outputitem_{n}",
        "object": "eval.run.output_item",
        "run_id": run_id,
        "eval_id": "eval_1",
        "created_at": 1_790_000_002,
        "status": "pass",
        "datasource_item_id": n,
        "datasource_item": {"question": f"What is {n} + 0?", "answer": str(n)},
        "results": [{"name": "same-1f", "type": "string_check", "score": 1.0, "passed": True}],
        "sample": sample,
    }


def a_completion(n: int) -> dict[str, Any]:
    message = {"role": "assistant", "content": f"answer {n} \ud83d", "refusal": None, "annotations": []}
    return {
        "id": f"chatcmpl-{n}",
        "object": "chat.completion",
        "created": 1_790_000_003,
        "model": "o4-mini-2025-04-16",
        "choices": [{"index": 0, "finish_reason": "stop", "logprobs": None, "message": message}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
        "metadata": {"of": "tests"},
    }


def a_message(n: int) -> dict[str, Any]:
    return {"id": f"chatcmpl-{n}-0", "role": "assistant", "content": f"question {n}", "refusal": None}


def a_job(name: str, **changed: Any) -> dict[str, Any]:
    grader = {key: value for key, value in GRADER.items() if key != "id"}
    reinforcement = {"grader": grader, "hyperparameters": {"n_epochs": 2, "reasoning_effort": "medium"}}
    job = {
        "object": "fine_tuning.job",
        "id": name,
        "created_at": 1_790_000_004,
        "finished_at": 1_790_000_900,
        "model": "o4-mini-2025-04-16",
        "fine_tuned_model": "ft:o4-mini-2025-04-16:org::AbCd1234",
        "organization_id": "org-1",
        "status": "succeeded",
        "training_file": "file-train",
        "validation_file": None,
        "result_files": [],
        "trained_tokens": 1000,
        "error": None,
        "seed": 7,
        "hyperparameters": {},
        "estimated_finish": None,
        "integrations": [],
        "method": {"type": "reinforcement", "reinforcement": reinforcement},
        "metadata": None,
        "user_provided_suffix": "sums",
    }
    return job | changed


def an_event(n: int) -> dict[str, Any]:
    return {
        "object": "fine_tuning.job.event",
        "id": f"ftevent-{n}",
        "created_at": 1_790_000_005,
        "level": "info",
        "message": f"Step {n}/120",
        "type": "metrics",
        "data": {"step": n, "train_mean_reward": 0.5},
    }


def a_checkpoint(step: int) -> dict[str, Any]:
    return {
        "object": "fine_tuning.job.checkpoint",
        "id": f"ftckpt_{step}",
        "created_at": 1_790_000_006,
        "fine_tuning_job_id": "ftjob-1",
        "fine_tuned_model_checkpoint": f"ft:o4-mini:org::Ab{step}:ckpt-step-{step}",
        "step_number": step,
        "metrics": {"step": step, "full_valid_mean_reward": 0.5},
    }


def a_file(name: str, purpose: str) -> dict[str, Any]:
    return {
        "id": name,
        "object": "file",
        "bytes": 17,
        "created_at": 1_790_000_000,
        "filename": "train.jsonl",
        "purpose": purpose,
        "status": "processed",
    }


def first(times: int, piece: str, refusal: Answered) -> Refusing:
    """Refuses the first requests whose path has that piece."""
    left = [times]

    def refuse(received: Received) -> Answered | None:
        if piece not in received.path or not left[0]:
            return None
        left[0] -= 1
        return refusal

    return refuse
