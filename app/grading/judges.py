"""Holds all judges that may be asked: those of the settings, and those that graders name by their address."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from app.grading.cache import ReplyCache, key_of
from app.grading.judge import Judge
from app.grading.openai_calls import OpenAIServer
from app.grading.own_models import OwnModel, own_model, own_names
from app.grading.paces import Pace
from app.models import service as models
from app.outbound import TargetRefused, check_url, rules_of
from app.settings import Settings
from app.table_settings import ANY_MODEL, JudgeEntry, KeyEntry, entry_for, known_names
from graders import strict_json
from graders.services import Question, Reply, Target
from graders.strict_json import StrictJsonError
from graders.types import GraderInvalid, TokenUsage

MAX_JUDGES = 256
"""So many servers that graders have named are kept with their connections; then they are made anew."""


class Judges:
    """The judges of this process, for all tenants. Safe to use from threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._rules = rules_of(settings)
        self._cache = ReplyCache[Reply](settings.judge_cache_bytes)
        self._made: dict[tuple[str, ...], Judge] = {}
        self._lock = threading.Lock()

    def check(self, tenant: str, target: Target, sampling: Mapping[str, Any], media: frozenset[str]) -> None:
        """Raises `GraderInvalid` where a question could not be asked. It asks nobody."""
        if target.base_url is not None:
            self._check_users(tenant, target, target.base_url)
            return
        entry = self._entry(tenant, target)
        for name in _refused(entry, sampling):
            kind = "reasons" if entry.reasoning else "does not reason"
            message = f"The model '{target.model}' {kind} and does not take '{name}'; leave it out."
            raise GraderInvalid(message, param=f"sampling_params.{name}", code="unsupported_parameter")
        if missing := sorted(media - entry.media):
            message = (
                f"The judge '{target.model}' takes no {' and no '.join(missing)} (CHERRY_JUDGES, 'media')."
            )
            raise GraderInvalid(message, param="input")

    def ask(self, tenant: str, question: Question, *, anew: bool = False) -> Reply:
        """Returns a reply: one that is known, unless it is to be asked `anew`.

        Raises `GradeFailed`, and `GraderInvalid` as `check` does.
        """
        judge = self._judge(tenant, question.target)
        if anew or not judge.entry.cache:
            return judge.ask(question)
        target = question.target
        of_judge = [target.base_url, target.api_key_name, target.model, judge.entry.model]
        key = key_of(tenant, of_judge, list(question.messages), question.schema, dict(question.sampling))
        reply, was_known = self._cache.get_or_ask(key, lambda: judge.ask(question), _size(question))
        return replace(reply, usage=TokenUsage(known=1)) if was_known else reply

    def answerer(self, tenant: str, target: Target) -> tuple[JudgeEntry, OpenAIServer]:
        """Returns a server that is to answer as a model in its own right, with how it is called.

        Raises `GraderInvalid`.
        """
        entry = JudgeEntry(base_url=target.base_url) if target.base_url else self._entry(tenant, target)
        return entry, self._server(tenant, target, entry, f"The model '{target.model}'")

    def _judge(self, tenant: str, target: Target) -> Judge:
        if target.base_url is None:
            entry = self._entry(tenant, target)
            is_own = isinstance(entry, OwnModel)
            place: tuple[str, ...] = (tenant, "", target.model, "own") if is_own else (target.model,)
        else:
            entry = JudgeEntry(base_url=target.base_url, media=frozenset({"image", "audio"}))
            place = (tenant, target.base_url, target.api_key_name or "")
        with self._lock:
            if place not in self._made:
                if len(self._made) >= MAX_JUDGES:
                    del self._made[next(iter(self._made))]
                self._made[place] = self._make(tenant, target, entry)
            return self._made[place]

    def _make(self, tenant: str, target: Target, entry: JudgeEntry) -> Judge:
        return Judge(entry, self._server(tenant, target, entry, f"The judge '{target.model}'"))

    def _server(self, tenant: str, target: Target, entry: JudgeEntry, where: str) -> OpenAIServer:
        if target.base_url is None:
            key, rules = self._key(entry), None
        else:
            key, rules = self._check_users(tenant, target, target.base_url), self._rules
        return OpenAIServer(
            entry.base_url,
            key,
            where=where,
            concurrency=entry.concurrency,
            timeout=entry.timeout,
            retries=entry.retries,
            rules=rules,
            pace=self._pace(target, entry),
        )

    def _pace(self, target: Target, entry: JudgeEntry) -> Pace | None:
        """Returns the limit of calls a minute of a judge of the settings; those of "*" share one."""
        if entry.calls_per_minute is None:
            return None
        name = target.model if target.model in self._settings.judges else ANY_MODEL
        return Pace(name, entry.calls_per_minute)

    def _entry(self, tenant: str, target: Target) -> JudgeEntry:
        """Returns the judge of that name in the settings, the project's own model, or the judge of all
        names."""
        judges = self._settings.judges
        if target.model not in judges and (own := own_model(self._settings, tenant, target.model)):
            return own
        if entry := entry_for(judges, target.model):
            return entry
        known = [*known_names(judges), *own_names(self._settings, tenant)]
        there_are = (
            f"Known are: {models.listed(known)}."
            if known
            else "None is known (the operator sets CHERRY_JUDGES)."
        )
        message = (
            f"There is no judge '{target.model}'. {there_are} {models.BY_ALIAS} Or give a"
            " 'base_url' of your own."
        )
        raise GraderInvalid(message, param="model", code="unsupported_grader")

    def _key(self, entry: JudgeEntry) -> str:
        """Returns the operator's key for a judge of the settings, which were checked to name one that is
        there."""
        if isinstance(entry, OwnModel):
            return self._settings.sampler_token.get_secret_value()
        return read_key(self._settings.judge_keys[entry.key]) if entry.key else ""

    def _check_users(self, tenant: str, target: Target, base_url: str) -> str:
        """Returns the key to send to an address that a grader names, or none if it names none."""
        try:
            check_url(base_url, self._rules)
        except TargetRefused as refused:
            raise GraderInvalid(str(refused), param="base_url") from None
        if target.api_key_name is None:
            return ""
        entry = self._settings.judge_keys.get(target.api_key_name)
        is_allowed = entry is not None and (entry.projects is None or tenant in entry.projects)
        if entry is None or not is_allowed or urlsplit(base_url).hostname not in entry.hosts:
            message = (
                f"There is no key '{target.api_key_name}' for this project and the host of 'base_url'. (The "
                "operator sets CHERRY_JUDGE_KEYS, with the hosts that each key may be sent to.)"
            )
            raise GraderInvalid(message, param="api_key_name")
        return read_key(entry)


def read_key(entry: KeyEntry) -> str:
    try:
        return entry.read()
    except OSError as error:
        message = f"The file of a judge's key cannot be read: {error.strerror} (CHERRY_JUDGE_KEYS)."
        raise GraderInvalid(message, param="model", code="unsupported_grader") from None


class TenantJudge:
    """What one tenant's graders see of the judges; `remembers` says whether a reply that is known will do."""

    def __init__(self, judges: Judges, tenant: str, *, remembers: bool = True) -> None:
        self._judges = judges
        self._tenant = tenant
        self._anew = not remembers

    def check(self, target: Target, sampling: Mapping[str, Any], media: frozenset[str]) -> None:
        self._judges.check(self._tenant, target, sampling, media)

    def ask(self, question: Question) -> Reply:
        return self._judges.ask(self._tenant, question, anew=self._anew)


def _refused(entry: JudgeEntry, sampling: Mapping[str, Any]) -> list[str]:
    """Returns the parameters that such a model does not take, as far as the settings say what it is."""
    if entry.reasoning is None:
        return []
    names = ("temperature", "top_p") if entry.reasoning else ("reasoning_effort",)
    return [name for name in names if name in sampling]


def _size(question: Question) -> Any:
    """Returns what sizes a reply in bytes: only a whole one is kept, the judge may do better another time."""

    schema = question.schema

    def size(reply: Reply) -> int | None:
        if schema is None:
            return len(reply.text) * 2 if reply.text.strip() else None
        try:
            content = strict_json.loads(reply.text)
        except StrictJsonError:
            return None
        is_whole = isinstance(content, dict) and all(key in content for key in schema["required"])
        return len(reply.text) * 2 if is_whole else None

    return size
