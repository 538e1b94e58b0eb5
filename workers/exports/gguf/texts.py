"""The thousand texts by which a tokenizer is compared, of what split rules differ in; always the same."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

NUMBER = 1_000
SEED = 18
_COMMON = """
the of and to in is you that it he was for on are as with his they at be this have from or one had by
word but not what all were we when your can said there use an each which she do how their if will up
other about out many then them these so some her would make like him into time has look two more write go
see number no way could people my than first water been call who oil its now find long down day did get
come made may part
"""
WORDS = _COMMON.split()
OTHER_SCRIPTS = (
    "Größe straße naïve façade Ångström žluťoučký kůň łódź İstanbul ığdır",
    "Съешь ещё этих мягких французских булок",
    "Ξεσκεπάζω τὴν ψυχοφθόρα βδελυγμία",
    "いろはにほへと ちりぬるを カタカナ ﾊﾝｶｸ 漢字かな交じり文",
    "天地玄黃宇宙洪荒 简体中文测试，标点。",
    "키스의 고유조건은 입술끼리 만나야 하고",
    "نص حكيم له سر قاطع وذو شأن عظيم",
    "דג סקרן שט בים מאוכזב",
    "ऋषियों को सताने वाले दुष्ट राक्षसों के राजा",
    "ให้ทำงานหนักไปทุกวัน",
    "என்னுடைய பெயர் தமிழ்",
    "Ἀρχιμήδης ǅ ǈ ʰ ﬁ ﬂ Ⅷ ² ½ ٣ ५ Ⅻ",
    "👍🏽 👩‍👩‍👧 🇩🇪 ❤️ ☃ ∑ √ ≤ € £ ¥ © ™ … — “quoted” «x» ‹y› „z“",
    "e\u0301 n\u0303 A\u030a u\u0308 a\u0323\u0302 \u200b \u200d \ufeff \u00a0 \u2003 \u3000 \u0085 \u2028",
)
CODE = (
    "def f(x, *args, **kw):\n\treturn x[::-1] if x != None else {}\n",
    "for (int i = 0; i < n; ++i) { a[i] += b[i] << 2; } // note\r\n",
    "SELECT `name`, COUNT(*) FROM t WHERE a >= 10 AND b <> 'x' GROUP BY 1;",
    '<div class="a b"><p>It\'s &amp; that</p></div>\n\n\n',
    '{"name": "Ada", "age": 36, "tags": ["x", "y"], "empty": [], "nested": {"k": null}}',
    "https://example.org/a/b?q=1&r=%20#frag user.name+tag@mail.example.com",
    "$ ls -la ~/x | grep '^d' > /dev/null 2>&1 && echo \"$?\"\n",
    "\\frac{a}{b} + x^{2}_{i} \\leq \\sqrt{3}",
    "XMLHttpRequest IDs iOS camelCase snake_case SCREAMING_CASE kebab-case v1.2.3-rc4 USAs PhDs HTMLs",
    "    if a:\n        b()\n\n    else:\n\t\tc()\n   \n",
)
QUOTES = ("'", "’", "`", '"', "''")
TAILS = ("s", "t", "re", "ve", "m", "ll", "d", "S", "T", "RE", "Ve", "LL", "dog", "x")
SPACES: tuple[str, ...] = (
    *(" " * n for n in (1, 2, 3, 4, 7)),
    "\t",
    "\n",
    "\n\n",
    "\n\n\n",
    "\r\n",
    " \n",
    "\n ",
    "\t ",
    "\u00a0",
)
MARKS: tuple[str, ...] = (
    *"!?.,;:-_/\\|@#$%^&*()[]{}<>=+~`'\"",
    "...",
    "--",
    "->",
    "!=",
    "://",
    '": "',
    '", "',
    "/\n",
    "!\n",
)
RANGES = (
    *((0x20, 0x7E), (0xA0, 0x24F), (0x370, 0x5FF), (0x900, 0xE7F), (0x2000, 0x2BFF), (0x3000, 0x9FFF)),
    *((0xAC00, 0xD7A3), (0xF900, 0xFFFD), (0x1F300, 0x1FAFF)),
)
"""Characters of which texts are made: letters of most scripts, signs, pictures."""
LONGEST_RUN = 300
"""Tokens of a text that is made of random tokens."""


def texts_for(tokenizer: Any) -> list[str]:
    """Returns the texts, with the special tokens and the vocabulary of a tokenizer in some of them."""
    rng = random.Random(SEED)
    makers: Sequence[Callable[[], str]] = (
        lambda: _prose(rng),
        lambda: _prose(rng),
        lambda: _numbers(rng),
        lambda: _contractions(rng),
        lambda: _mixed(rng),
        lambda: _of_pieces(rng, [*OTHER_SCRIPTS, *CODE]),
        lambda: _of_characters(rng),
        lambda: _of_tokens(rng, tokenizer),
        lambda: _with_added(rng, tokenizer),
        lambda: _chat(rng, tokenizer),
    )
    fixed = ["", " ", "\n", "a", *OTHER_SCRIPTS, *CODE]
    made = [makers[i % len(makers)]() for i in range(NUMBER - len(fixed))]
    return [text.encode("utf-8", "replace").decode() for text in (*fixed, *made)]


def _prose(rng: random.Random) -> str:
    words = [rng.choice(WORDS) for _ in range(rng.randint(1, 40))]
    shaped = [rng.choice((word, word, word, word.capitalize(), word.upper())) for word in words]
    begin, between = rng.choice(("", " ", "\n")), rng.choice((" ", " ", "  ", ", ", "\n"))
    return begin + between.join(shaped) + rng.choice(MARKS)


def _numbers(rng: random.Random) -> str:
    numbers = ["".join(rng.choices("0123456789", k=rng.randint(1, 12))) for _ in range(rng.randint(1, 8))]
    return rng.choice((" ", ",", ".", "-", " + ", "\n", "a", ": ")).join(numbers)


def _contractions(rng: random.Random) -> str:
    parts = [rng.choice(WORDS) + rng.choice(QUOTES) + rng.choice(TAILS) for _ in range(rng.randint(1, 10))]
    return rng.choice((" ", "\n", "")).join(parts)


def _mixed(rng: random.Random) -> str:
    def piece() -> str:
        return rng.choice(
            (rng.choice(WORDS), rng.choice(MARKS), rng.choice(SPACES), str(rng.randint(0, 99999)))
        )

    return "".join(piece() for _ in range(rng.randint(1, 40)))


def _of_pieces(rng: random.Random, texts: Sequence[str]) -> str:
    cut = []
    for _ in range(rng.randint(1, 4)):
        text = rng.choice(texts)
        begin = rng.randrange(len(text))
        cut.append(text[begin : begin + rng.randint(1, 40)])
    return rng.choice(SPACES).join(cut)


def _of_characters(rng: random.Random) -> str:
    return "".join(chr(rng.randint(*rng.choice(RANGES))) for _ in range(rng.randint(1, 30)))


def _of_tokens(rng: random.Random, tokenizer: Any) -> str:
    special = set(tokenizer.all_special_ids)
    ids = [rng.randrange(len(tokenizer)) for _ in range(rng.randint(1, LONGEST_RUN))]
    text: str = tokenizer.decode([i for i in ids if i not in special], clean_up_tokenization_spaces=False)
    return text.replace("\ufffd", "")


def _with_added(rng: random.Random, tokenizer: Any) -> str:
    added = [token.content for token in tokenizer.added_tokens_decoder.values()] or [""]
    parts = [rng.choice(("", " ", "\n", "x", " y ")) + rng.choice(added) for _ in range(rng.randint(1, 6))]
    return "".join(parts) + rng.choice(("", " ", "\n", " end", "End"))


def _chat(rng: random.Random, tokenizer: Any) -> str:
    turns: list[Mapping[str, str]] = []
    for _ in range(rng.randint(1, 2)):
        turns += [{"role": "user", "content": _prose(rng)}, {"role": "assistant", "content": _mixed(rng)}]
    try:
        text = tokenizer.apply_chat_template(turns[:-1], tokenize=False, add_generation_prompt=True)
    except Exception:  # a template is a program and may refuse any conversation
        return _mixed(rng)
    return str(text)
