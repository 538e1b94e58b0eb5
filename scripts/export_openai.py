"""Writes what an OpenAI project holds into a folder, as JSONL: evals with runs and output items, stored
completions, fine-tuning jobs with events and checkpoints, and files.

    pip install --upgrade openai
    OPENAI_API_KEY=sk-... python export_openai.py [FOLDER]

It needs the package `openai` and nothing else, and it only reads. However it was broken off, it goes on where
it was when it is run again. It tells what it could not get: FOLDER/missing.jsonl has it, and the exit status
is 1.

    export.json         which service, when, how many of each
    evals.jsonl         with evals/EVAL/runs.jsonl and evals/EVAL/items/RUN.jsonl
    completions.jsonl   stored chat completions; messages.jsonl holds what each was asked
    jobs.jsonl          with jobs/JOB/events.jsonl and jobs/JOB/checkpoints.jsonl
    files.jsonl         with files/FILE, its bytes

Each line is an object as the client's `to_dict()` gives it. NAME.part is a list or a file that is not whole
yet. OpenAI gives out no weights of tuned models and no list of responses.
"""

from __future__ import annotations

import argparse
import email.utils
import hashlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import openai

FORMAT = 1
AREAS = ("evals", "completions", "jobs", "files")
"""What is exported, in this order: what OpenAI closes first comes first."""
KINDS = {
    "evals": "evals.jsonl",
    "runs": "evals/*/runs.jsonl",
    "output items": "evals/*/items/*.jsonl",
    "stored completions": "completions.jsonl",
    "messages of completions": "messages.jsonl",
    "jobs": "jobs.jsonl",
    "events": "jobs/*/events.jsonl",
    "checkpoints": "jobs/*/checkpoints.jsonl",
    "files": "files.jsonl",
}
PAGE = 100
"""Items of a page: the most that OpenAI's lists of evals, completions and jobs give."""
WORKERS = 8
"""Requests at a time: a choice of ours, to be quick and yet no burden. `--workers` is another."""
TRIES = 9
"""Calls of a service that is busy or silent, before a thing is left for the next run: about two minutes."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 60.0
"""Seconds. Pauses double, from what the official client begins with."""
LONGEST_WAIT = 600.0
"""Seconds. A service that asks for more patience than this is asked again by the next run."""
TIRED = 5
"""Things given up in a row, after which each next one is tried once: all that is left may be closed."""
TIMEOUT = 120.0
"""Seconds of silence that end a call. A page comes within seconds."""
TELL_EVERY = 10.0
ENDED = ("succeeded", "failed", "cancelled")
"""Statuses of a job that changes no more."""
REFUSED = (401, 403, 404, 410)
"""Statuses of things that may not be read, or are not there: a smaller page is no use."""
TOLD_PAUSE = 4.0
"""Seconds of a pause that is told: who waits for less wonders about nothing."""
SHOWN = 20
"""Missing things that are printed; the file has them all."""


class Stopped(Exception):
    """The export cannot go on. The text says why."""


class NotGot(Exception):
    """One thing could not be got; others may be."""

    def __init__(self, message: str, status: int | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class BrokenOff(Exception):
    """A connection ended in the middle of a file."""


# The service


class Service:
    """Calls of the service, made with patience."""

    def __init__(self, client: openai.OpenAI, tries: int) -> None:
        self.client, self.tries = client, tries
        self.stop = threading.Event()
        self.given_up = 0
        self.was_reached = False

    def ask(self, call: Callable[[], Any]) -> Any:
        """Makes a call, and again while the service is busy or out of reach. Raises `NotGot` or `Stopped`."""
        tries = self.tries if self.given_up < TIRED else 1
        for n in range(tries):
            if self.stop.is_set():
                raise Stopped("Stopped.")
            try:
                result = call()
            except openai.APIStatusError as problem:
                fault, pause = refusal(problem), asked_pause(problem)
            except (openai.APIConnectionError, BrokenOff) as problem:
                fault, pause = NotGot(f"The service is out of reach: {problem.__cause__ or problem}"), 0.0
            except (openai.APIError, ValueError, AttributeError) as problem:  # no JSON, or none of OpenAI's
                raise NotGot(f"The reply cannot be read: {problem}") from None
            else:
                self.given_up, self.was_reached = 0, True
                return result
            if pause is None:
                raise fault
            if pause > LONGEST_WAIT:
                raise NotGot(f"{fault} It may be asked again in {pause:.0f} s.", fault.status, fault.code)
            if n + 1 < tries:
                self.pause(pause or min(FIRST_PAUSE * 2**n, LONGEST_PAUSE), fault)
        self.given_up += 1
        if fault.status is None and (self.given_up >= TIRED or not self.was_reached):
            raise Stopped(f"{fault}")
        raise fault

    def pause(self, seconds: float, fault: NotGot) -> None:
        if seconds >= TOLD_PAUSE:
            say(f"  {fault} Again in {seconds:.0f} s.")
        self.stop.wait(seconds)

    def part(self, name: str) -> Any:
        """Returns a part of the client, such as `fine_tuning.jobs`. Raises `NotGot` if it has none."""
        found: Any = self.client
        for step in name.split("."):
            found = getattr(found, step, None)
        if not hasattr(found, "list"):
            hint = "pip install --upgrade openai"
            raise NotGot(f"openai {openai.__version__} is too old to list {name}: {hint}")
        return found

    def pages(self, call: Callable[..., Any], after: str | None = None) -> Iterator[list[dict[str, Any]]]:
        """Yields the items of a list behind one, page by page.

        Where large pages fail, the pages get the size that the service gives them by itself.
        """
        asked, limit = {after}, {"limit": PAGE}
        while True:
            try:
                page = self.page(partial(call, **limit), after)
            except NotGot as fault:
                if not limit or fault.status in REFUSED:
                    raise
                limit = {}
                continue
            yield [plain(item) for item in page.data if item is not None]
            if not page.has_next_page():
                if page.data and getattr(page, "has_more", None):
                    raise NotGot("The list has more, and no id to ask for it by.")
                return
            after = page.data[-1].id
            if after in asked:
                raise NotGot(f"The list comes to {after} again and again.")
            asked.add(after)

    def page(self, call: Callable[..., Any], after: str | None) -> Any:
        page = self.ask(call if after is None else partial(call, after=after))
        if not isinstance(getattr(page, "data", None), list):
            raise NotGot(f"The reply is no list: {str(page)[:200]}")
        return page

    def download(self, file_id: str, path: Path) -> None:
        """Writes the bytes of a file."""
        with self.client.files.with_streaming_response.content(file_id) as reply, path.open("wb") as file:
            for chunk in chunks_of(reply):
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())


def refusal(problem: openai.APIStatusError) -> NotGot:
    """Returns what a refusal says of one thing. Raises `Stopped` where it holds for all."""
    body = problem.body if isinstance(problem.body, dict) else {}
    message = str(body.get("message") or problem.message)[:500]
    if problem.code == "invalid_api_key":  # a 401 without it may mean a key that may read some things only
        raise Stopped(f"The service does not accept the key: {message}")
    return NotGot(message, problem.status_code, problem.code)


def asked_pause(problem: openai.APIStatusError) -> float | None:
    """Returns the seconds for which the service wants to be left alone: 0 if it does not say, None if asking
    again is no use."""
    headers, status = problem.response.headers, problem.status_code
    is_passing = status in (408, 409, 429) or status >= 500
    if not is_passing or problem.code == "insufficient_quota" or headers.get("x-should-retry") == "false":
        return None
    for name, unit in (("retry-after-ms", 1000), ("retry-after", 1)):
        try:
            return max(0.0, float(headers[name]) / unit)
        except (KeyError, ValueError):
            continue
    when = email.utils.parsedate_tz(headers.get("retry-after") or "")
    return max(0.0, email.utils.mktime_tz(when) - time.time()) if when else 0.0


def chunks_of(reply: Any) -> Iterator[bytes]:
    """Yields the bytes of a reply. Raises `BrokenOff`, whichever HTTP library the client has."""
    chunks = reply.iter_bytes()
    while True:
        try:
            chunk = next(chunks, None)
        except Exception as problem:
            raise BrokenOff(str(problem)) from problem
        if chunk is None:
            return
        yield chunk


# The folder


class Lines:
    """A list on disk. It is NAME once it is whole, and NAME.part until then."""

    def __init__(self, path: Path) -> None:
        self.path, self.part = path, part_of(path)
        self.old = path.with_name(path.name + ".old")
        self.seen: dict[str, None] = {}

    def is_whole(self) -> bool:
        return self.path.exists() and not self.part.exists()

    def begin(self, keep: bool) -> str | None:
        """Opens the part and returns the id of its last line. What is not to be kept there is put aside, for
        the service may have closed by now."""
        self.part.parent.mkdir(parents=True, exist_ok=True)
        drop_broken_line(self.part)
        if not keep and self.part.exists():
            append(self.old, read_lines(self.part))
            self.part.unlink()
        self.part.touch()
        self.seen = dict.fromkeys(map(key_of, read_lines(self.part)))
        return next(reversed(self.seen), None)

    def add(self, items: Iterable[dict[str, Any]]) -> None:
        """Writes the items that the part does not have yet."""
        new = {key: item for item in items if (key := key_of(item)) not in self.seen}
        append(self.part, new.values())
        self.seen |= dict.fromkeys(new)

    def finish(self) -> None:
        """Makes the list whole, and keeps of earlier ones what the service lists no longer."""
        self.add(self.known())
        with self.part.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(self.part, self.path)
        self.old.unlink(missing_ok=True)

    def known(self) -> Iterator[dict[str, Any]]:
        """Yields what is there, whole or not, each object once, as it was read last."""
        seen = set()
        for path in (self.part, self.old, self.path):
            for item in read_lines(path):
                if (key := key_of(item)) not in seen:
                    seen.add(key)
                    yield item


def plain(item: Any) -> dict[str, Any]:
    """Returns an object as it came over the wire."""
    return item if isinstance(item, dict) else item.to_dict(mode="python", warnings=False)


def key_of(item: dict[str, Any]) -> str:
    return str(item.get("id") or json.dumps(item, sort_keys=True, default=str))


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yields the objects of a JSONL file, none where there is no file. A line without its end is none."""
    if path.exists():
        with path.open("rb") as file:
            yield from (json.loads(line) for line in file if line.endswith(b"\n"))


def append(path: Path, items: Iterable[dict[str, Any]]) -> None:
    """Adds lines to a file, as ASCII: half of a surrogate pair, which JSON may hold, is no UTF-8."""
    text = "".join(json.dumps(item, default=str) + "\n" for item in items)
    with path.open("ab") as file:
        file.write(text.encode("ascii"))


def drop_broken_line(path: Path) -> None:
    """Cuts off what follows the last whole line: a kill may have come in the middle of one."""
    if path.exists():
        with path.open("rb+") as file:
            file.truncate(sum(len(line) for line in file if line.endswith(b"\n")))


def part_of(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def place(identifier: str) -> str:
    """Returns an id as a file's name, which no system refuses and which leads out of no folder."""
    return quote(identifier, safe="").replace(".", "%2E")


def count_lines(folder: Path) -> dict[str, int]:
    """Returns how many of each kind the folder holds, lists that are not whole included."""
    counts = dict.fromkeys(KINDS, 0)
    for kind, pattern in KINDS.items():
        parts = [path for path in folder.glob(f"{pattern}.part") if not path.with_suffix("").exists()]
        for path in [*folder.glob(pattern), *parts]:
            with path.open("rb") as file:
                counts[kind] += sum(line.endswith(b"\n") for line in file)
    return counts


# The export


class Listing(NamedTuple):
    """A list of the service: its name for people, its file, and the call that gets a page of it."""

    what: str
    path: str
    call: Callable[..., Any]
    oldest_first: bool = True
    """A list that shows the newest first may have grown at its head: broken off, it is read anew."""


class Export:
    """One run of the exporter: gets what the folder does not have yet, and notes what it cannot get."""

    def __init__(self, service: Service, folder: Path, workers: int = WORKERS, refresh: bool = False) -> None:
        self.service, self.client = service, service.client
        self.folder, self.refresh = folder, refresh
        self.pool = ThreadPoolExecutor(workers)
        self.lock = threading.Lock()
        self.missing: list[dict[str, Any]] = []
        (folder / "missing.jsonl").unlink(missing_ok=True)

    def evals(self) -> None:
        """Gets the evals, the runs of each, and the output items of each run."""
        api = self.service.part("evals")

        def runs(eval_id: str) -> Listing:
            path = f"evals/{place(eval_id)}/runs.jsonl"
            return Listing(f"runs of {eval_id}", path, partial(api.runs.list, eval_id, order="asc"))

        def items(eval_id: str, run_id: str) -> Listing:
            path = f"evals/{place(eval_id)}/items/{place(run_id)}.jsonl"
            call = partial(api.runs.output_items.list, run_id, eval_id=eval_id, order="asc")
            return Listing(f"output items of {run_id}", path, call)

        evals = Listing("evals", "evals.jsonl", partial(api.list, order="asc"))
        self.walk_all("Evals", [evals])
        lists = {eval_id: runs(eval_id) for eval_id in self.ids(evals)}
        self.walk_all("Runs of evals", [*lists.values()])
        found = [items(eval_id, run) for eval_id, listing in lists.items() for run in self.ids(listing)]
        self.walk_all("Output items of runs", found)

    def completions(self) -> None:
        """Gets the stored chat completions, and the messages that each was asked."""
        api = self.service.part("chat.completions")
        completions = Listing("stored completions", "completions.jsonl", partial(api.list, order="asc"))
        self.walk_all("Stored completions", [completions])
        path = self.folder / "messages.jsonl"
        drop_broken_line(path)
        there = {line["completion_id"] for line in read_lines(path)}
        wanted = [name for name in self.ids(completions) if name not in there]
        self.all("Messages of completions", {f"messages of {c}": partial(self.messages, c) for c in wanted})

    def messages(self, completion_id: str) -> None:
        """Writes the messages of one completion, as one line."""
        call = partial(self.client.chat.completions.messages.list, completion_id, order="asc")
        found = [item for page in self.service.pages(call) for item in page]
        with self.lock:
            append(self.folder / "messages.jsonl", [{"completion_id": completion_id, "messages": found}])

    def jobs(self) -> None:
        """Gets the fine-tuning jobs, and the events and checkpoints of each."""
        api = self.service.part("fine_tuning.jobs")
        jobs = Listing("jobs", "jobs.jsonl", api.list, oldest_first=False)
        self.walk_all("Fine-tuning jobs", [jobs])
        calls = (("events", api.list_events), ("checkpoints", api.checkpoints.list))
        below = [
            Listing(f"{name} of {job}", f"jobs/{place(job)}/{name}.jsonl", partial(call, job), False)
            for job in self.ids(jobs)
            for name, call in calls
        ]
        self.walk_all("Events and checkpoints of jobs", below)

    def files(self) -> None:
        """Gets the list of files, and the bytes of each."""
        files = Listing("files", "files.jsonl", partial(self.client.files.list, order="asc"))
        self.walk_all("Files", [files])
        wanted = {f"content of {name}": partial(self.content, name) for name in self.ids(files)}
        self.all("Contents of files", wanted)

    def content(self, file_id: str) -> None:
        """Gets the bytes of one file, which never change."""
        path = self.folder / "files" / place(file_id)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            self.service.ask(partial(self.service.download, file_id, part_of(path)))
            os.replace(part_of(path), path)

    def walk_all(self, what: str, listings: Sequence[Listing]) -> None:
        self.all(what, {listing.what: partial(self.walk, listing) for listing in listings})

    def walk(self, listing: Listing) -> None:
        """Reads a list to its end, from where an earlier run was broken off."""
        lines = Lines(self.folder / listing.path)
        if lines.is_whole() and not self.refresh:
            return
        last = lines.begin(keep=listing.oldest_first)
        if last is None or not self.goes_on(listing, lines, last):
            for items in self.service.pages(listing.call):
                lines.add(items)
        lines.finish()

    def goes_on(self, listing: Listing, lines: Lines, last: str) -> bool:
        """Reads what follows the last item that is there, and tells whether anything did. Nothing follows an
        item that is gone since: the list is to be read from its beginning then."""
        n_before = len(lines.seen)
        try:
            for items in self.service.pages(listing.call, last):
                lines.add(items)
        except NotGot as fault:
            if fault.status not in (400, 404):
                raise
            return False
        return len(lines.seen) > n_before

    def ids(self, listing: Listing) -> list[str]:
        return [item["id"] for item in Lines(self.folder / listing.path).known() if item.get("id")]

    def all(self, what: str, work: Mapping[str, Callable[[], None]]) -> None:
        """Does the work, several things at a time, and says how far it is."""
        if work:
            say(f"{what} ..." if len(work) == 1 else f"{what}: {len(work)} ...")
        left = {self.pool.submit(self.attempt, name, one) for name, one in work.items()}
        told = time.monotonic()
        while left:
            done, left = wait(left, timeout=1.0, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
            if left and time.monotonic() - told > TELL_EVERY:
                told = time.monotonic()
                say(f"  {len(work) - len(left)} of {len(work)}")

    def attempt(self, what: str, work: Callable[[], None]) -> None:
        """Does one thing, or notes why it could not be got. A full disk ends all."""
        try:
            work()
        except NotGot as fault:
            self.miss(what, fault)
        except (Stopped, OSError):
            raise
        except Exception as fault:  # odd data of one thing must not cost the others
            self.miss(what, NotGot(f"{type(fault).__name__}: {fault}"))

    def miss(self, what: str, fault: NotGot) -> None:
        entry = {"what": what, "status": fault.status, "code": fault.code, "message": str(fault)}
        with self.lock:
            self.missing.append(entry)
            append(self.folder / "missing.jsonl", [entry])

    def end(self) -> None:
        """Lets no call begin any more."""
        self.service.stop.set()
        self.pool.shutdown(wait=False, cancel_futures=True)


# The command


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0 when all was got, 1 when something is missing, 2 when the export could not begin."""
    options = parser().parse_args(arguments)
    try:
        client = openai.OpenAI(base_url=options.base_url, max_retries=0, timeout=TIMEOUT)
        about = begin(options.folder, client, options.other_key)
    except (openai.OpenAIError, Stopped, OSError) as problem:
        say(f"{problem}")
        return 2
    export = Export(Service(client, options.tries), options.folder, options.workers, options.refresh)
    try:
        for area in sorted(set(options.only), key=AREAS.index):
            export.attempt(area, getattr(export, area))
    except (Stopped, OSError) as problem:
        export.end()
        say(f"{problem}\nThe export is not whole. Run the same command again: it goes on from here.")
        return 1
    except KeyboardInterrupt:
        export.end()
        say("Stopped. Run the same command again: it goes on from here.")
        os._exit(130)  # calls that are under way would hold the process up, and every line on disk is whole
    return report(export, about)


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("folder", type=Path, nargs="?", default=Path("openai-export"))
    found.add_argument("--only", nargs="+", choices=AREAS, default=AREAS, help="what to get (all of it)")
    found.add_argument("--refresh", action="store_true", help="read lists that are whole already again")
    found.add_argument("--workers", type=int, default=WORKERS, help="requests at a time (%(default)s)")
    found.add_argument("--tries", type=int, default=TRIES, help="calls of a busy service (%(default)s)")
    found.add_argument("--base-url", help="another service with OpenAI's API, as OPENAI_BASE_URL")
    found.add_argument(
        "--other-key", action="store_true", help="go on in a folder that was begun with another key"
    )
    return found


def begin(folder: Path, client: openai.OpenAI, other_key: bool) -> dict[str, Any]:
    """Makes the folder, and keeps two projects from being mixed in one. Raises `Stopped`."""
    owner = "|".join(map(str, (client.base_url, client.api_key, client.organization, client.project)))
    mark = hashlib.sha256(owner.encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / "export.json"
    earlier = json.loads(path.read_text("utf-8")) if path.exists() else {}
    if earlier.get("owner", mark) != mark and not other_key:
        raise Stopped(
            f"{folder} holds an export that was begun with another key, project or address. Name another"
            " folder; or add --other-key if the project is the same."
        )
    about = {"format": FORMAT, "service": str(client.base_url), "owner": mark, "client": openai.__version__}
    about |= {"started_at": int(time.time()), "finished_at": None}
    write_json(path, about)
    return about


def report(export: Export, about: dict[str, Any]) -> int:
    """Says what the folder holds and what it lacks."""
    counts, missing, folder = count_lines(export.folder), export.missing, export.folder
    ended = {"finished_at": int(time.time()), "counts": counts, "missing": len(missing)}
    write_json(folder / "export.json", about | ended)
    for kind, count in counts.items():
        say(f"{count:>9,}  {kind}")
    running = [job["id"] for job in Lines(folder / "jobs.jsonl").known() if job.get("status") not in ENDED]
    if running:
        say(f"Not over yet: {', '.join(running)}. Run it with --refresh when they are.")
    if not missing:
        say(f"All of it is in {folder}.")
        return 0
    say(f"{len(missing)} could not be got ({folder / 'missing.jsonl'}); the same command tries them again:")
    for entry in missing[:SHOWN]:
        status = f"{entry['status']} " if entry["status"] else ""
        say(f"  {entry['what']}: {status}{entry['message']}")
    return 1


def write_json(path: Path, value: dict[str, Any]) -> None:
    part_of(path).write_text(json.dumps(value, indent=2) + "\n", "utf-8")
    os.replace(part_of(path), path)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
