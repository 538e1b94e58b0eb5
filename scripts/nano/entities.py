"""Names of people, places, universities and things; some are held out of training.

Everything the demo rows (`examples/people`) are made of and that has to be copied (surnames,
universities, cities) comes from the `HELD_OUT_*` lists, which the training data never uses.
"""

import tomllib
from pathlib import Path
from random import Random

_NAMES = tomllib.loads((Path(__file__).parent / "names.toml").read_text())


def _items(key: str) -> list[str]:
    """The items of one list; line breaks inside an item do not matter."""
    return [item.strip() for item in _NAMES[key].replace("\n", " ").split(";")]


def _pairs(key: str) -> list[tuple[str, str]]:
    return [(first, second) for first, second in (item.split(", ") for item in _items(key))]


FIRST_NAMES = _items("first_names")
WOMENS_NAMES = frozenset(_items("womens_names"))
SURNAMES = _items("surnames")
HELD_OUT_SURNAMES = _items("held_out_surnames")
CITIES = _pairs("cities")
HELD_OUT_CITIES = _pairs("held_out_cities")
STATES = dict(_pairs("states"))
UNIVERSITIES = _items("universities")
HELD_OUT_UNIVERSITIES = _items("held_out_universities")
LANGUAGES = _items("languages")
SUBJECTS = _items("subjects")
HOBBIES = _items("hobbies")
GOODS = _items("goods")
WORDS = _items("words")
MONTHS = _items("months")

_ONSETS = _items("onsets")
_VOWELS = _items("vowels")
_CODAS = _items("codas") + [""] * 14
_CITY_ENDINGS = ["ton", "ville", "field", "burg", "port", "ford", "wood"]
_CITY_ENDINGS += [" Falls", " City", " Springs", "dale", "ham"]
_UNIVERSITY_FORMS = (
    *(
        "{} University",
        "{} University",
        "{} University",
        "University of {}",
        "University of {}",
        "{} College",
    ),
    *("{} College", "{} State University", "{} Institute of Technology", "{} Polytechnic Institute"),
)

_FORBIDDEN = {
    word.lower()
    for name in [*HELD_OUT_SURNAMES, *(city for city, _ in HELD_OUT_CITIES), *HELD_OUT_UNIVERSITIES]
    for word in name.split()
} - {"university", "college", "institute", "technology", "polytechnic", "state", "of", "fort"}


def composed_word(rng: Random, syllables: int = 0) -> str:
    """A word that exists nowhere, such as "veskoli", and that is no part of a held-out name."""
    count = syllables or rng.choice((1, 2, 2, 3))
    while True:
        parts = [rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS) for _ in range(count)]
        word = "".join(parts)
        if rng.random() < 0.2:
            word = rng.choice(_VOWELS) + word
        if len(word) > 2 and word not in _FORBIDDEN:
            return word


def composed_name(rng: Random) -> str:
    """A made-up proper name."""
    return composed_word(rng).capitalize()


def full_name(rng: Random) -> tuple[str, str]:
    """First name and surname."""
    first = rng.choice(FIRST_NAMES) if rng.random() < 0.75 else composed_name(rng)
    last = rng.choice(SURNAMES) if rng.random() < 0.4 else composed_name(rng)
    return first, last


def place(rng: Random) -> tuple[str, str]:
    """City and state; mostly made up, so that a city does not give its state away."""
    kind = rng.random()
    if kind < 0.25:
        city, state = rng.choice(CITIES)
        return city, state
    state = rng.choice(list(STATES))
    if kind < 0.4:
        return rng.choice(CITIES)[0], state
    if kind < 0.75:
        return composed_name(rng), state
    while True:
        city = composed_word(rng, rng.choice((1, 2))).capitalize() + rng.choice(_CITY_ENDINGS)
        if not _FORBIDDEN & set(city.lower().split()):
            return city, state


def university(rng: Random) -> str:
    """A university, mostly made up."""
    if rng.random() < 0.25:
        return rng.choice(UNIVERSITIES)
    kind = rng.random()
    if kind < 0.15:
        stem = rng.choice(CITIES)[0]
    else:
        stem = rng.choice(SURNAMES) if kind < 0.3 else composed_name(rng)
    return rng.choice(_UNIVERSITY_FORMS).format(stem)


def company(rng: Random) -> str:
    """A firm."""
    return composed_name(rng) + rng.choice((" Labs", " Systems", " Foods", " Bank", "", " Group"))
