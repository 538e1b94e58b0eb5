"""The demo rows are unknown to cherry-nano, and the shipped model is what its documentation says."""

import json
import re
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import pytest

pytest.importorskip("torch")

from graders import Sample, build_grader, parse_grader
from scripts.nano import data, entities, examples
from scripts.nano.bios import CALIBRATED_MIX, RIGHT_ONLY, four_key_answer, random_person, write_bio
from scripts.nano.packing import ROW_TOKENS, Encoder, encoded_conversations, make_batch, packed_rows
from scripts.nano.scoring import score

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "workers" / "models" / "cherry_nano"
PEOPLE = ROOT / "examples" / "people"
RECIPE_SEED = 7

HELD_OUT = [
    *entities.HELD_OUT_SURNAMES,
    *(city for city, _ in entities.HELD_OUT_CITIES),
    *entities.HELD_OUT_UNIVERSITIES,
]


def read_rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (PEOPLE / f"{name}.jsonl").read_text().splitlines()]


def load_tokenizer() -> Any:
    transformers = pytest.importorskip("transformers")
    return transformers.AutoTokenizer.from_pretrained(MODEL)


@pytest.mark.parametrize("phase", data.PHASES, ids=lambda phase: phase.name)
def test_training_never_mentions_a_held_out_name(phase: data.Phase) -> None:
    pattern = re.compile(rf"\b({'|'.join(map(re.escape, HELD_OUT))})\b", re.IGNORECASE)
    stream = data.conversations(Random(f"{RECIPE_SEED}/{phase.name}"), phase)
    for turns in islice(stream, 5_000):
        for turn in turns:
            assert not pattern.search(f"{turn.prompt}\n{turn.answer}")


def test_held_out_lists_share_nothing_with_the_training_lists() -> None:
    assert not set(entities.HELD_OUT_SURNAMES) & set(entities.SURNAMES)
    assert not set(entities.HELD_OUT_UNIVERSITIES) & set(entities.UNIVERSITIES)
    assert not {city for city, _ in entities.HELD_OUT_CITIES} & {city for city, _ in entities.CITIES}


@pytest.mark.parametrize(
    ("name", "pool", "count"), [("train", examples.TRAIN_POOL, 48), ("valid", examples.VALID_POOL, 24)]
)
def test_demo_rows_are_made_of_held_out_names(name: str, pool: examples.Pool, count: int) -> None:
    rows = read_rows(name)
    assert len(rows) == count
    for row in rows:
        text, reference = row["messages"][0]["content"], row["reference"]
        assert reference["university"] in pool.universities
        assert reference["university"] in text
        assert (reference["city"], reference["state"]) in pool.cities
        assert reference["city"] in text
        assert any(surname in text for surname in pool.surnames)
        assert all(language in text for language in reference["programming_languages"])


def test_the_demo_splits_share_no_name() -> None:
    train, valid = examples.TRAIN_POOL, examples.VALID_POOL
    assert not set(train.surnames) & set(valid.surnames)
    assert not set(train.cities) & set(valid.cities)
    assert not set(train.universities) & set(valid.universities)


def test_demo_rows_come_from_the_recipe(tmp_path: Path) -> None:
    examples.main(["--out", str(tmp_path)])
    for name in ("train.jsonl", "valid.jsonl", "grader.json"):
        assert (tmp_path / name).read_text() == (PEOPLE / name).read_text()


def test_the_stream_repeats_with_its_seed() -> None:
    first, second = (list(islice(data.conversations(Random("a"), data.PHASES[1]), 50)) for _ in range(2))
    assert first == second


def test_the_wanted_style_is_within_range_but_no_habit() -> None:
    rng = Random(1)
    scores = []
    for _ in range(2_000):
        bio = write_bio(rng, random_person(rng, former_languages=rng.choice((1, 2, 2))))
        answer = four_key_answer(rng, bio, CALIBRATED_MIX)
        scores.append(score(answer, four_key_answer(rng, bio, RIGHT_ONLY)))
    assert 0.10 < sum(s == 1.0 for s in scores) / len(scores) < 0.25
    assert 0.40 < sum(scores) / len(scores) < 0.60


def test_scores_agree_with_the_demo_grader() -> None:
    grader = build_grader(parse_grader(json.loads((PEOPLE / "grader.json").read_text())))
    rng = Random(2)
    for _ in range(200):
        bio = write_bio(rng, random_person(rng))
        answer = four_key_answer(rng, bio, CALIBRATED_MIX)
        grade = grader.grade(Sample(output_text=answer), {"reference": bio.person.reference})
        right = json.dumps(bio.person.reference)
        assert (grade.value or 0.0) == pytest.approx(score(answer, right)), (answer, right)


def test_demo_rows_are_short() -> None:
    tokenizer = load_tokenizer()
    for row in read_rows("train") + read_rows("valid"):
        prompt = tokenizer.apply_chat_template(row["messages"], tokenize=False, add_generation_prompt=True)
        assert len(tokenizer(prompt)["input_ids"]) <= 125
        assert len(tokenizer(json.dumps(row["reference"]))["input_ids"]) <= 70


@pytest.mark.parametrize("text", ["", " a  b\t\n\n c ", "日本語 é 🙂", '{"a": ["C++", 12.50]}', "\x00\x7f"])
def test_any_text_survives_the_tokenizer(text: str) -> None:
    tokenizer = load_tokenizer()
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_training_sees_the_tokens_of_the_chat_template() -> None:
    tokenizer = load_tokenizer()
    encode = Encoder(tokenizer, prompt_weight=0.0)
    rng = Random(3)
    for turns in islice(data.conversations(rng, data.PHASES[1]), 200):
        messages = data.messages(rng, turns)
        encoded = encode(messages)
        rendered = tokenizer.apply_chat_template(messages, tokenize=False)
        assert encoded.ids == tokenizer(rendered)["input_ids"]
        spoken = [token for token, weight in zip(encoded.ids, encoded.weights, strict=True) if weight]
        assert tokenizer.decode(spoken) == "".join(turn.answer + "<|im_end|>" for turn in turns)


def test_packed_conversations_do_not_see_each_other() -> None:
    tokenizer = load_tokenizer()
    rows = packed_rows(encoded_conversations(Random(4), data.PHASES[1], Encoder(tokenizer, 0.0)))
    batch = make_batch(list(islice(rows, 4)), tokenizer.pad_token_id)
    assert batch.ids.shape == (4, ROW_TOKENS)
    row, later, earlier = batch.attention_mask[:, 0].nonzero(as_tuple=True)
    assert bool((later >= earlier).all())
    assert bool((batch.document[row, later] == batch.document[row, earlier]).all())
    assert float((batch.document == 0).float().mean()) < 0.15


def test_the_shipped_model_is_small_and_loads_plainly() -> None:
    transformers = pytest.importorskip("transformers")
    assert sum(path.stat().st_size for path in MODEL.iterdir()) <= 12_000_000
    model = transformers.AutoModelForCausalLM.from_pretrained(MODEL)
    tokenizer = load_tokenizer()
    assert 3_000_000 < model.num_parameters() < 6_000_000
    assert tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.pad_token_id not in model.generation_config.eos_token_id
    assert tokenizer.eos_token_id in model.generation_config.eos_token_id


@pytest.mark.slow
def test_the_demo_starts_half_right_and_can_be_learnt() -> None:
    torch = pytest.importorskip("torch")
    from scripts.nano.evaluate import demo_questions, evaluate, load

    torch.manual_seed(0)
    model, tokenizer = load(MODEL)
    result = evaluate(model, tokenizer, demo_questions(PEOPLE / "valid.jsonl"))
    assert 0.35 < result.greedy < 0.6
    assert 0.4 < result.sampled < 0.6
    assert result.best > 0.75
