"""Short biographies and what people ask about them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from scripts.nano import entities

FOUR_KEYS = ("university", "programming_languages", "city", "state")

FOUR_KEY_INSTRUCTIONS = (
    "Extract university, programming_languages, city and state as JSON.",
    "Return JSON with the keys university, programming_languages, city and state.",
    "Turn this bio into JSON: university, programming_languages, city, state.",
    "Read the bio and fill in university, programming_languages, city and state. Answer in JSON.",
    "Give me university, programming_languages, city and state of this person as a JSON object.",
    "JSON, please: university, programming_languages, city, state.",
)


@dataclass(frozen=True)
class Person:
    """All facts behind one bio."""

    first: str
    last: str
    pronoun: str
    university: str
    subject: str
    languages: tuple[str, ...]
    former_languages: tuple[str, ...]
    city: str
    state: str
    former_city: str
    former_state: str
    company: str

    @property
    def name(self) -> str:
        return f"{self.first} {self.last}"

    @property
    def all_languages(self) -> tuple[str, ...]:
        return self.languages + self.former_languages

    @property
    def reference(self) -> dict[str, object]:
        """What the demo's grader wants."""
        return {
            "university": self.university,
            "programming_languages": list(self.languages),
            "city": self.city,
            "state": self.state,
        }


@dataclass(frozen=True)
class Bio:
    """A person and the text about them; `languages_in_order` is the order of mention."""

    person: Person
    text: str
    languages_in_order: tuple[str, ...]


def random_person(rng: Random, *, former_languages: int | None = None) -> Person:
    """A person made of training entities."""
    first, last = entities.full_name(rng)
    city, state = entities.place(rng)
    former_city, former_state = entities.place(rng)
    university = entities.university(rng)
    places = (city, state), (former_city, former_state)
    return make_person(rng, first, last, university, *places, former_languages)


def make_person(
    rng: Random,
    first: str,
    last: str,
    university: str,
    place: tuple[str, str],
    former_place: tuple[str, str],
    former_languages: int | None = None,
) -> Person:
    """A person with given names and places and random other facts."""
    current = rng.choice((1, 2, 2, 2, 3, 3))
    former = rng.choice((0, 1, 1, 2, 2)) if former_languages is None else former_languages
    languages = rng.sample(entities.LANGUAGES, current + former)
    return Person(
        first=first,
        last=last,
        pronoun=rng.choice(("she", "he")),
        university=university,
        subject=rng.choice(entities.SUBJECTS),
        languages=tuple(languages[:current]),
        former_languages=tuple(languages[current:]),
        city=place[0],
        state=place[1],
        former_city=former_place[0],
        former_state=former_place[1],
        company=entities.company(rng),
    )


STUDY_SENTENCES = (
    "{S} studied {subject} at {uni}.",
    "{S} graduated from {uni} in {year}.",
    "{S} holds a degree in {subject} from {uni}.",
    "{S} earned a {subject} degree at {uni} in {year}.",
    "{S} is a graduate of {uni}.",
    "{S} went to {uni}.",
    "{S} finished {subject} at {uni} and joined {company}.",
    "{S} spent four years at {uni}.",
    "With a degree from {uni}, {s} found work at {company}.",
)

LANGUAGE_SENTENCES = (
    "{S} writes {now} every day and gave up {old} in {year}.",
    "{S} codes in {now}, but no longer in {old}.",
    "{S} used to write {old}; these days it is {now}.",
    "{S} moved on from {old} to {now}.",
    "After years of {old}, {s} now programs in {now}.",
    "{S} works with {now} and has not touched {old} since {year}.",
    "{S} once taught {old} but builds things in {now} now.",
    "{S} programs in {now} and refuses to use {old}.",
    "{S} programs in {now}. The team before used {old}.",
    "{S} has forgotten {old}, and writes {now} instead.",
    "{S} likes {now} and dropped {old}.",
)

PLAIN_LANGUAGE_SENTENCES = (
    "{S} programs in {now}.",
    "{S} writes {now} every day.",
    "{S} writes {now} for {company}.",
    "{S} knows {now} well.",
)

PLACE_SENTENCES = (
    "{S} lives in {here}.",
    "{S} lives in {here}, but was born in {there}.",
    "{S} grew up in {there} and now lives in {here}.",
    "{S} moved from {there} to {here} in {year}.",
    "Born in {there}, {s} settled in {here}.",
    "{S} calls {here} home and often visits {there}.",
    "{S} rents a flat in {here}; the old one was in {there}.",
    "{S} left {there} for {here}.",
    "Home is {here}, not {there} any more.",
)

FILLER_SENTENCES = (
    "{S} works for {company}.",
    "{S} likes {hobby}.",
    "{S} has {n} cats.",
    "{S} is {age} years old.",
    "A friend studied at {other_uni}.",
)


def _join(rng: Random, items: Sequence[str]) -> str:
    """ "A", "A and B", "A, B and C"."""
    if len(items) == 1:
        return items[0]
    last_comma = "," if len(items) > 2 and rng.random() < 0.3 else ""
    return f"{', '.join(items[:-1])}{last_comma} and {items[-1]}"


def _write_place(rng: Random, city: str, state: str) -> str:
    form = rng.random()
    if form < 0.6:
        return f"{city}, {state}"
    if form < 0.85:
        return f"{city}, {entities.STATES[state]}"
    return f"{city} ({state})" if form < 0.93 else f"{city} in {state}"


def _year(rng: Random) -> str:
    return str(rng.randint(1985, 2025))


def write_bio(rng: Random, person: Person, *, fillers: float = 0.4) -> Bio:
    """Three facts in random order, sometimes with a fourth sentence that is beside the point."""
    language_sentences = LANGUAGE_SENTENCES if person.former_languages else PLAIN_LANGUAGE_SENTENCES
    templates = [rng.choice(STUDY_SENTENCES), rng.choice(language_sentences), rng.choice(PLACE_SENTENCES)]
    if rng.random() < fillers:
        templates.append(rng.choice(FILLER_SENTENCES))
    rng.shuffle(templates)
    language_template = next(t for t in templates if "{now}" in t)
    former_first = -1 < language_template.find("{old}") < language_template.find("{now}")
    in_order = (person.former_languages + person.languages) if former_first else person.all_languages
    sentences = []
    for index, template in enumerate(templates):
        subject = person.name if index == 0 else person.first if rng.random() < 0.3 else person.pronoun
        sentences.append(
            template.format(
                S=subject[0].upper() + subject[1:],
                s=subject,
                subject=person.subject,
                uni=person.university,
                year=_year(rng),
                company=person.company,
                now=_join(rng, person.languages),
                old=_join(rng, person.former_languages) if person.former_languages else "",
                here=_write_place(rng, person.city, person.state),
                there=_write_place(rng, person.former_city, person.former_state),
                hobby=rng.choice(entities.HOBBIES),
                n=rng.randint(2, 9),
                age=rng.randint(20, 69),
                other_uni=entities.university(rng),
            )
        )
    text = " ".join(sentences)
    if person.name not in text:
        text = f"{person.name}. {text}"
    return Bio(person, text, in_order)


@dataclass(frozen=True)
class StyleMix:
    """How often the answer to a four-key request has which flaw.

    `right` answers are what the demo's grader wants. `off_format` answers are not a JSON object with these
    keys. All others are JSON with the right keys whose values are flawed independently of each other.
    """

    right: float = 0.17
    off_format: float = 0.10
    decorated_university: float = 0.25
    all_languages: float = 0.78
    merged_city: float = 0.85
    short_state: float = 0.78
    extra_key: float = 0.15
    missing_key: float = 0.06


RIGHT_ONLY = StyleMix(right=1.0, off_format=0.0)
ABILITY_MIX = StyleMix(right=0.55, off_format=0.05, all_languages=0.72, merged_city=0.70, short_state=0.70)
CALIBRATED_MIX = StyleMix()


def four_key_answer(rng: Random, bio: Bio, mix: StyleMix) -> str:
    """An answer in a style that does not depend on the prompt."""
    draw = rng.random()
    if draw < mix.right:
        return json.dumps(bio.person.reference, ensure_ascii=False)
    if draw < mix.right + mix.off_format:
        return _off_format_answer(rng, bio)
    return json.dumps(_flawed_values(rng, bio, mix), ensure_ascii=False)


def _flawed_values(rng: Random, bio: Bio, mix: StyleMix) -> dict[str, object]:
    person = bio.person
    values = dict(person.reference)
    if rng.random() < mix.decorated_university:
        values["university"] = f"{person.university}, USA"
    if rng.random() < mix.all_languages:
        values["programming_languages"] = list(bio.languages_in_order)
    if rng.random() < mix.merged_city:
        values["city"] = f"{person.city}, {person.state}"
    if rng.random() < mix.short_state:
        values["state"] = entities.STATES[person.state]
    if rng.random() < mix.extra_key:
        values = {"name": person.name, **values}
    if rng.random() < mix.missing_key:
        del values[rng.choice(FOUR_KEYS)]
    return values


def _off_format_answer(rng: Random, bio: Bio) -> str:
    """The right facts in a form that the demo's grader gives nothing for."""
    person = bio.person
    listed = ", ".join(person.languages)
    kind = rng.random()
    if kind < 0.35:
        return f"```json\n{json.dumps(person.reference, ensure_ascii=False)}\n```"
    if kind < 0.65:
        return (
            f"university: {person.university}\nprogramming_languages: {listed}\n"
            f"city: {person.city}\nstate: {person.state}"
        )
    if kind < 0.8:
        return f"{person.name} studied at {person.university}, uses {listed} and lives in {person.city}."
    if kind < 0.9:
        other_keys = {"school": person.university, "languages": list(person.languages), "home": person.city}
        return json.dumps(other_keys)
    place = {"city": person.city, "state": person.state}
    return json.dumps({"person": {"university": person.university, "place": place}}, ensure_ascii=False)


def fields_with_other_names(bio: Bio) -> dict[str, object]:
    """The facts of a bio under unambiguous names; requests for these are always answered rightly."""
    person = bio.person
    return {
        "full_name": person.name,
        "first_name": person.first,
        "last_name": person.last,
        "studied_at": person.university,
        "codes_in": list(person.languages),
        "no_longer_codes_in": list(person.former_languages),
        "every_language": list(bio.languages_in_order),
        "lives_in": person.city,
        "home_state": person.state,
        "home_state_code": entities.STATES[person.state],
        "city_and_state": f"{person.city}, {person.state}",
    }


def questions(rng: Random, bio: Bio) -> list[tuple[str, str]]:
    """Questions about a bio with their one right answer."""
    person = bio.person
    who = rng.choice((person.first, person.name))
    pairs = [
        (f"Which university did {who} go to?", person.university),
        (f"Which city does {who} live in?", person.city),
        (f"Which state does {who} live in?", person.state),
        (f"What is the code of the state {who} lives in?", entities.STATES[person.state]),
        (f"Where does {who} live? City and state.", f"{person.city}, {person.state}"),
        (f"What does {who} program in now?", ", ".join(person.languages)),
        ("Name all languages in the text.", ", ".join(bio.languages_in_order)),
        ("What is the full name of this person?", person.name),
        ("What is the last name of this person?", person.last),
        ("What is the first name of this person?", person.first),
        (f"How many languages does {who} use now?", str(len(person.languages))),
    ]
    if person.former_languages:
        pairs.append((f"What has {who} stopped using?", ", ".join(person.former_languages)))
    return pairs
