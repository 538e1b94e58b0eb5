"""Tuned models beside their base: each row goes through its own adapter, as its merged model would."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from sqlalchemy.orm import Session

from app.cards import service as cards
from app.errors import NotFound, ServerError
from app.settings import Settings
from app.storage import get_storage
from tests.factories import make_job, make_model, make_tenant, make_tuned_model
from tests.tiny_model import make_tiny_model
from tests.workers.serving.engines import Served, serving
from tests.workers.serving.test_engine import FAMILIES, assert_same, expected, family_folder, prompts
from tests.workers.training.conftest import moved
from tests.workers.training.support import make_config
from workers.jobs.provenance import base_facts
from workers.serving.library import Library
from workers.serving.requests import ModelFiles
from workers.training.folders import publish
from workers.training.model.base_model import load_base
from workers.training.model.policy import Policy


class Tuned(NamedTuple):
    """A model tuned by an adapter: its name, and the folder of the merged one."""

    name: str
    merged: Path
    key: str


class Shop:
    """A project with a base model and models tuned from it."""

    def __init__(self, db: Session, base: Path, tmp_path: Path) -> None:
        self.db = db
        self.base = base
        self.project = make_tenant(db).project_id
        self._tmp_path = tmp_path
        make_model(db, "base", base)
        db.commit()

    def tune(self, seed: int, *, facts: dict[str, Any] | None = None, **config: Any) -> Tuned:
        job = make_job(self.db, self.project, model="base")
        model = make_tuned_model(self.db, job, f"ft:base:acme::{seed:08}")
        made_of = {"base_model": base_facts("base", self.base)} if facts is None else facts
        cards.note_facts(self.db, job.id, {"attempt": 1}, made_of)
        self.db.commit()
        policy = Policy.load(make_config(self.base, seed=seed, **config))
        folder = self._tmp_path / f"checkpoint-{seed}"

        def write(partial: Path) -> None:
            policy.save_model(partial / "model")
            policy.save_adapter(partial / "adapter")

        if policy.adapter is not None:
            moved(policy)
        publish(folder, write, {})
        get_storage().publish_folder(folder, str(model.storage_key))
        stored = get_storage().local_path(f"{model.storage_key}/model/config.json")
        assert stored is not None
        return Tuned(model.name, stored.parent, str(model.storage_key))


@pytest.fixture
def shop(db: Session, tmp_path: Path) -> Shop:
    return Shop(db, make_tiny_model(tmp_path / "base", scale=0.3, context=400), tmp_path)


@pytest.fixture
def served(settings: Settings, tmp_path: Path) -> Iterator[Served]:
    library = Library(settings.model_copy(update={"sampler_device": "cpu", "trainer_threads": 1}))
    with serving(tmp_path / "served", library, sampler_models=2, sampler_adapters=2) as made:
        yield made


def find(served: Served, shop: Shop, name: str) -> ModelFiles:
    return served.library.find(shop.project, name)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # PEFT's, of transformers
@pytest.mark.parametrize("way", ["compiled", "lean"])
def test_rows_of_several_models_go_in_one_batch(
    way: str, db: Session, served: Served, tmp_path: Path
) -> None:
    shop = Shop(db, family_folder(tmp_path / "base", **FAMILIES[way]), tmp_path)
    folders = {"base": shop.base} | {t.name: t.merged for t in (shop.tune(1), shop.tune(2))}
    asked = prompts(9, 40, 22, 14, 7, 30)
    names = [*folders] * 2
    told = [
        served.ask(find(served, shop, name), prompt, seed=i, max_tokens=25, samples=2)[1]
        for i, (name, prompt) in enumerate(zip(names, asked, strict=True))
    ]
    alone = {name: load_base(folder) for name, folder in folders.items()}
    for i, (name, listener) in enumerate(zip(names, told, strict=True)):
        assert_same(listener.wait(), expected(alone[name], asked[i], i, max_tokens=25, samples=2))
    assert served.engine.bases == ["base"]
    assert sorted(served.engine.adapters) == sorted(names[1:3])
    assert len({tuple(listener.ids()) for listener in told}) == 6


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_adapters_make_room_for_each_other(shop: Shop, served: Served) -> None:
    tuned = [shop.tune(seed) for seed in range(4)]
    (prompt,) = prompts(30)
    for each in [*tuned, *tuned]:
        found = served.sample(find(served, shop, each.name), prompt, seed=3)
        assert_same(found, expected(load_base(each.merged), prompt, 3))
        assert len(served.engine.adapters) <= 2
    told = [served.ask(find(served, shop, each.name), prompt, seed=3, max_tokens=50)[1] for each in tuned]
    assert len({tuple(listener.wait().ids()) for listener in told}) == 4
    assert served.engine.bases == ["base"]


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_what_one_model_has_read_is_not_taken_for_anothers(shop: Shop, served: Served) -> None:
    tuned = shop.tune(1)
    (prompt,) = prompts(60)
    for name, folder in [("base", shop.base), (tuned.name, tuned.merged), ("base", shop.base)]:
        found = served.sample(find(served, shop, name), prompt, seed=3)
        assert_same(found, expected(load_base(folder), prompt, 3))
    assert found.started is not None
    assert found.started.cached_tokens == 59


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("case", ["another base", "full"])
def test_a_model_that_cannot_share_its_base_is_loaded_whole(case: str, shop: Shop, served: Served) -> None:
    other = {"base_model": {"files": {"model.safetensors": "0" * 64}}}
    tuned = shop.tune(1, adapter="full") if case == "full" else shop.tune(1, facts=other)
    (prompt,) = prompts(20)
    served.sample(find(served, shop, "base"), prompt)
    found = served.sample(find(served, shop, tuned.name), prompt, seed=3)
    assert_same(found, expected(load_base(tuned.merged), prompt, 3))
    assert (sorted(served.engine.bases), served.engine.adapters) == (sorted(["base", tuned.name]), [])


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_an_adapter_that_is_gone_or_damaged_is_named(shop: Shop, served: Served) -> None:
    gone, damaged = shop.tune(1), shop.tune(2)
    files = {each.name: find(served, shop, each.name) for each in (gone, damaged)}
    get_storage().delete_prefix(gone.key)
    with pytest.raises(NotFound, match="are gone"):
        served.sample(files[gone.name], [1, 2])
    file = damaged.merged.parent / "adapter" / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(ServerError, match="has changed since"):
        served.sample(files[damaged.name], [1, 2])
    assert served.sample(find(served, shop, "base"), [1, 2]).ids()


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_nobody_waits_for_ever_for_an_adapter(shop: Shop, served: Served) -> None:
    """Two places, and two models that are always asked for: a third gets its turn."""
    busy, late = [shop.tune(1), shop.tune(2)], shop.tune(3)
    over = threading.Event()

    def keep_asking(name: str) -> None:
        files = find(served, shop, name)
        told = [served.ask(files, [1, 2], max_tokens=40, key=name)[1] for _ in range(3)]
        while not over.is_set():
            told.pop(0).wait()
            told.append(served.ask(files, [1, 2], max_tokens=40, key=name)[1])

    threads = [threading.Thread(target=keep_asking, args=(each.name,)) for each in busy]
    for thread in threads:
        thread.start()
    try:
        found = served.sample(find(served, shop, late.name), [1, 2, 3], seed=3)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert_same(found, expected(load_base(late.merged), [1, 2, 3], 3))


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_who_is_held_back_for_somebody_that_left_goes_on(shop: Shop, served: Served) -> None:
    busy, late = [shop.tune(1), shop.tune(2)], shop.tune(3)
    running = [served.ask(find(served, shop, each.name), [1, 2], max_tokens=350)[1] for each in busy]
    for listener in running:
        assert listener.first.wait(60)
    gone, _ = served.ask(find(served, shop, late.name), [1, 2], key="late")
    gone.cancel()
    for each in busy:
        assert served.sample(find(served, shop, each.name), [1, 2])
    for listener in running:
        listener.wait()
