"""The engine of the sampler: one thread that samples for everybody who asks, a step of each base in turn.

Weights are read on another thread, so that nobody who is served waits for a model that is not there yet.
"""

from __future__ import annotations

import gc
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import structlog

from app.errors import ApiError, ServerError, TooManyRequests, Unavailable
from app.settings import Settings
from workers.devices.sampler_part import give_back, idle_seconds
from workers.serving.counts import Counts, Rate
from workers.serving.requests import ModelFiles, Request
from workers.serving.tickets import Ticket

if TYPE_CHECKING:
    from workers.serving.lane import Lane
    from workers.serving.library import Library
    from workers.serving.loaded import LoadedBase
    from workers.training.model.adapter_rows import Adapter

log = structlog.get_logger(__name__)

TURN_SECONDS = 5.0
"""How long a base serves at least before another that needs its place gets it. Chosen, not measured."""
LOST = "The sampler failed; its log says why."

Pause = Callable[[float], float]
"""The seconds that a step took -> the seconds to rest after it."""


class Engine:
    """Samples for many requests at once. `submit` and `Ticket.cancel` may be called from any thread."""

    def __init__(self, library: Library, settings: Settings, pause: Pause = lambda _: 0.0) -> None:
        self._library = library
        self._settings = settings
        self._bases = settings.sampler_models
        self._adapters = settings.sampler_adapters
        self._rows = settings.sampler_rows
        self._cache_bytes = settings.sampler_cache_mb << 20
        self._most_waiting = settings.sampler_waiting
        self._most_per_key = settings.sampler_waiting_per_key
        self._pause = pause
        self.counts = Counts()
        self._rate = Rate()
        self._lanes: dict[ModelFiles, Lane] = {}
        self._alone: set[ModelFiles] = set()
        """Tuned models whose adapter cannot be applied beside their base."""
        self._wanted_adapters: set[ModelFiles] = set()
        self._changed = threading.Condition()
        self._inbox: deque[Callable[[], None]] = deque()
        self._waiting: dict[str, int] = {}
        self._is_closed = False
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="load")
        self._thread = threading.Thread(target=self._work, name="sample", daemon=True)
        self._thread.start()

    @property
    def bases(self) -> list[str]:
        """Returns the names of the bases in memory."""
        return [lane.files.name for lane in list(self._lanes.values()) if lane.base is not None]

    @property
    def adapters(self) -> list[str]:
        """Returns the names of the tuned models whose adapters are in memory."""
        bases = [lane.base for lane in list(self._lanes.values()) if lane.base is not None]
        return [files.name for base in bases for files in base.adapters]

    def submit(self, request: Request) -> Ticket:
        """Lets a request wait for its turn; what becomes of it, its listener is told.

        Raises `TooManyRequests` if its key has too many that wait, `Unavailable` if too many wait in all.
        """
        ticket = Ticket(request, self.counts, self._cancel)
        with self._changed:
            self._check_room(request.key)
            self._waiting[request.key] = self._waiting.get(request.key, 0) + 1
            self.counts.waiting += 1
            self._inbox.append(lambda: self._enter(ticket))
            self._changed.notify()
        return ticket

    def _check_room(self, key: str) -> None:
        own = self._waiting.get(key, 0)
        if own >= self._most_per_key:
            after = self._rate.seconds_for(own)
            raise TooManyRequests(
                f"{own} of your requests wait already, which is the most. Try again in {after} s.",
                headers={"retry-after": str(after)},
            )
        if self.counts.waiting >= self._most_waiting:
            after = self._rate.seconds_for(self.counts.waiting)
            raise Unavailable(
                f"{self.counts.waiting} requests wait for the sampler already. Try again in {after} s.",
                headers={"retry-after": str(after)},
            )

    def close(self) -> None:
        """Ends the engine's threads; whoever is under way is told nothing more."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join()
        self._loader.shutdown(cancel_futures=True)

    def _cancel(self, ticket: Ticket) -> None:
        with self._changed:
            if ticket.is_over:
                return
            ticket.is_over = True
            self.counts.cancelled += 1
            self._inbox.append(lambda: self._drop(ticket))
            self._changed.notify()

    # What follows runs on the engine's thread.

    def _work(self) -> None:
        with self._changed:
            while not self._inbox and not self._is_closed:
                self._changed.wait()
            if self._is_closed:
                return
        import torch  # an idle sampler has none of it in memory

        with torch.inference_mode():
            while not self._is_closed:
                start = time.perf_counter()
                if not self._turn():
                    continue
                seconds = time.perf_counter() - start
                self.counts.steps += 1
                self.counts.step_seconds += seconds
                if (rest := self._pause(seconds)) > 0:
                    time.sleep(rest)

    def _turn(self) -> bool:
        """Steps each base once; says whether there was anything to step. Without, it waits for something."""
        has_stepped = False
        try:
            self._take_in()
            lanes = list(self._lanes.values())
            for lane in lanes:
                if lane.queue:
                    lane.admit()
                has_stepped |= lane.step()
            self._give_back_idle(lanes)
            self._settle_places(lanes)
            self.counts.running = sum(lane.rows for lane in lanes)
        except Exception:  # the thread must go on
            log.exception("engine_failed")
            self._fail_everybody()
        if not has_stepped:
            with self._changed:
                if not self._inbox and not self._is_closed:
                    self._changed.wait(self._patience())
        return has_stepped

    def _patience(self) -> float | None:
        """Returns how long nothing need be done, if nothing happens; None for ever."""
        if any(lane.queue for lane in self._lanes.values()):
            return 0.05
        ends = [lane.used + self._idle(lane.base) for lane in self._lanes.values() if lane.base is not None]
        first = min(ends, default=math.inf)
        return None if first == math.inf else max(0.05, first - time.monotonic())

    def _idle(self, base: LoadedBase) -> float:
        return idle_seconds(self._settings, base.model.device)

    def _give_back_idle(self, lanes: list[Lane]) -> None:
        """Lets go of bases that nobody has asked for long; the next request loads them again."""
        for lane in lanes:
            is_used = lane.queue or lane.is_under_way
            if lane.base is None or is_used or time.monotonic() - lane.used < self._idle(lane.base):
                continue
            lane.base = None
            give_back()
            log.info("model_given_back", model=lane.files.name)

    def _take_in(self) -> None:
        while self._inbox:
            self._inbox.popleft()()

    def _enter(self, ticket: Ticket) -> None:
        if ticket.is_over:
            self._stopped_waiting(ticket)
            return
        lane = self._lane_for(ticket.request.model)
        ticket.leave = lane.drop
        lane.queue.put(ticket)

    def _lane_for(self, model: ModelFiles) -> Lane:
        from workers.serving.lane import Lane

        files = model.adapter_of if model.adapter_of and model not in self._alone else _alone(model)
        if files not in self._lanes:
            self._lanes[files] = Lane(files, self._want_adapter, self._stopped_waiting)
        return self._lanes[files]

    def _drop(self, ticket: Ticket) -> None:
        if ticket.leave is not None:
            ticket.leave(ticket)

    def _stopped_waiting(self, ticket: Ticket) -> None:
        with self._changed:
            if not ticket.is_waiting:
                return
            ticket.is_waiting = False
            key = ticket.request.key
            self._waiting[key] -= 1
            if not self._waiting[key]:
                del self._waiting[key]
            self.counts.waiting -= 1
            self._rate.note()

    def _settle_places(self, lanes: list[Lane]) -> None:
        """Gives bases that are waited for a place in memory, and takes it from those that are not."""
        wanting = [lane for lane in lanes if lane.queue and lane.base is None and not lane.is_loading]
        for lane in wanting:
            held = [each for each in lanes if each.base is not None or each.is_loading]
            if len(held) < self._bases or self._make_place(held):
                lane.is_loading = True
                self._loader.submit(self._load, lane)
        for lane in lanes:
            if not wanting:
                lane.is_leaving = False
            if lane.base is None and not lane.queue and not lane.is_loading:
                del self._lanes[lane.files]

    def _make_place(self, held: list[Lane]) -> bool:
        """Lets go of the base that was not used for longest, if one is idle; else one takes in nobody new."""
        idle = [each for each in held if each.base is not None and not each.is_under_way]
        idle = [each for each in idle if not each.queue or each.is_leaving]
        if idle:
            least = min(idle, key=lambda each: each.used)
            least.base, least.is_leaving = None, False
            log.info("model_forgotten", model=least.files.name)
            gc.collect()
            return True
        longest = min(
            (each for each in held if each.base is not None), key=lambda each: each.since, default=None
        )
        if longest is not None and time.monotonic() - longest.since > TURN_SECONDS:
            longest.is_leaving = True
        return False

    def _want_adapter(self, lane: Lane, model: ModelFiles) -> None:
        """Lets an adapter be read, unless it is being read; it needs room for it."""
        assert lane.base is not None
        if model not in self._wanted_adapters and lane.base.can_put():
            self._wanted_adapters.add(model)
            self._loader.submit(self._load_adapter, lane, model)

    def _fail_everybody(self) -> None:
        for lane in self._lanes.values():
            lane.fail_all(ServerError(LOST))
        self._lanes.clear()

    # What follows runs on the loader's thread; what it has found it hands over.

    def _hand_over(self, what: Callable[[], None]) -> None:
        with self._changed:
            self._inbox.append(what)
            self._changed.notify()

    def _load(self, lane: Lane) -> None:
        from workers.serving.loaded import Limits, LoadedBase

        try:
            limits = Limits(self._adapters, self._rows, self._cache_bytes)
            base = LoadedBase(self._library.load(lane.files), limits, self.counts)
        except Exception as problem:
            error = _told(problem)
            self._hand_over(lambda: self._not_loaded(lane, error))
        else:
            self._hand_over(lambda: self._loaded(lane, base))

    def _loaded(self, lane: Lane, base: LoadedBase) -> None:
        lane.base, lane.is_loading = base, False
        lane.since = lane.used = time.monotonic()

    def _not_loaded(self, lane: Lane, error: ApiError) -> None:
        lane.is_loading = False
        lane.fail_waiting(error)

    def _load_adapter(self, lane: Lane, model: ModelFiles) -> None:
        from workers.training.model.adapter_files import NotSeparable

        base = lane.base
        try:
            adapter = None if base is None else self._library.load_adapter(model, base.base)
        except NotSeparable as reason:
            log.info("adapter_not_shared", model=model.name, reason=str(reason))
            self._hand_over(lambda: self._serve_alone(lane, model))
        except Exception as problem:
            error = _told(problem)
            self._hand_over(lambda: self._no_adapter(lane, model, error))
        else:
            self._hand_over(lambda: self._adapter_loaded(lane, model, base, adapter))

    # These are handed over, and run on the engine's thread.

    def _adapter_loaded(
        self, lane: Lane, model: ModelFiles, base: LoadedBase | None, adapter: Adapter | None
    ) -> None:
        self._wanted_adapters.discard(model)
        if adapter is not None and base is lane.base and lane.base is not None and lane.base.can_put():
            lane.base.put(model, adapter)

    def _no_adapter(self, lane: Lane, model: ModelFiles, error: ApiError) -> None:
        self._wanted_adapters.discard(model)
        lane.fail_waiting(error, model)

    def _serve_alone(self, lane: Lane, model: ModelFiles) -> None:
        """Lets those who wait for a tuned model wait for it as a model of its own."""
        self._wanted_adapters.discard(model)
        self._alone.add(model)
        for ticket in [each for each in lane.queue if each.request.model == model]:
            lane.queue.remove(ticket)
            self._enter(ticket)


def _alone(model: ModelFiles) -> ModelFiles:
    return ModelFiles(model.name, model.folder, model.storage_key)


def _told(problem: Exception) -> ApiError:
    """Returns what is told of a model that could not be loaded; what nobody foresaw is logged."""
    if isinstance(problem, ApiError):
        return problem
    log.error("model_not_loaded", exc_info=problem)
    return ServerError(LOST)
