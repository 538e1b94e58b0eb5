"""Each instruction of IFEval, with answers that meet it and answers that do not."""

import time

import pytest

from graders.instructions.grader import MAX_TEXT
from graders.instructions.prose import sentences, words
from graders.instructions.registry import INSTRUCTIONS
from tests.graders.instructions.ifeval import ENGLISH, grade

P = "What is the capital of France?"

CASES = [
    # instruction, arguments, answers that meet it, answers that do not
    ("keywords:existence", {"keywords": ["cat", "C++"]}, ["Cats like c++."], ["cat", "C++", "c a t"]),
    (
        "keywords:frequency",
        {"keyword": "cat", "frequency": 2, "relation": "at least"},
        ["cat Cat", "concatenate cat"],
        ["cat", "dog"],
    ),
    (
        "keywords:frequency",
        {"keyword": "a.b", "frequency": 2, "relation": "less than"},
        ["a.b", "axb axb axb"],
        ["a.b a.b"],
    ),
    ("keywords:forbidden_words", {"forbidden_words": ["war", "c++"]}, ["warm", "c"], ["War!", "C++."]),
    (
        "keywords:letter_frequency",
        {"letter": "!", "let_frequency": 2, "let_relation": "at least"},
        ["a!!"],
        ["a!"],
    ),
    (
        "keywords:letter_frequency",
        {"letter": "E", "let_frequency": 2, "let_relation": "less than"},
        ["ex"],
        ["eE"],
    ),
    (
        "language:response_language",
        {"language": "de"},
        ["Das ist eine Antwort in deutscher Sprache."],
        [ENGLISH, "123", "Ceci est une réponse en français."],
    ),
    (
        "language:response_language",
        {"language": "it"},
        [
            "Nave nera, niente paura.",
            'Ieri sera ho letto "The Lord of the Rings" in giardino.',
            "I miei libri:\n* A Short History of Nearly Everything\n* Il nome della rosa",
            "Scrivi a [the name of your company] entro domani mattina.",
            "Per vederlo usa:\n```\nprint this line to the screen\n```",
        ],
        [
            "Nave nera, niente paura. (Black ship, no fear.)",
            "Here is the poem in Italian:\n\nNave nera, niente paura.",
            "Il gatto dorme sul divano. El ordenador funciona muy despacio hoy porque hace mucho calor.",
            "Il gatto dorme. Die Katze schläft auf dem alten Sofa.",
            'Nave nera.\n"Black ship, there is no fear."',
        ],
    ),
    (
        "language:response_language",
        {"language": "ja"},
        ["これは日本語のテストです。東京都千代田区永田町。", "私は iPhone を使います。"],
        [
            "これは日本語です。This is a test sentence.",
            "これは日本語です。한국어로 대답합니다 여러분.",
            "Sure, here is the answer: 東京は日本の首都です。",
        ],
    ),
    (
        "language:response_language",
        {"language": "ru"},
        ["Кошка сидела на ковре и смотрела на луну."],
        ["Котката седеше на килима и гледаше към луната."],
    ),
    (
        "length_constraints:number_sentences",
        {"num_sentences": 2, "relation": "at least"},
        ["One. Two.", "Is it? Yes!"],
        ["Dr. No paid 3.50 at x.com.", "One"],
    ),
    (
        "length_constraints:number_paragraphs",
        {"num_paragraphs": 2},
        ["a\n***\nb", "***\na\n***\nb\n***"],
        ["a", "a\n\nb", "a *** *** b", "a***b***c"],
    ),
    (
        "length_constraints:number_words",
        {"num_words": 3, "relation": "less than"},
        ["one two", "a, b!", "it's two", "a well-known"],
        ["one two three", "it's two, three"],
    ),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Hello"},
        [
            "a\n\nhello, you",
            "a\n\n'Hello' b",
            "\n\na\n\n\n\nhello",
            "a\n \nHello: b",
            "a\r\n\r\n**Hello** b",
            "a\n\n“Hello,” b",
            "a\n\nhello—b",
        ],
        ["hello\n\na", "a\n\nb\n\nhello", "a\nhello", "a", "\n\nhello\n\na", "a\n\nhello's b", "a\n\n?"],
    ),
    (
        "detectable_content:number_placeholders",
        {"num_placeholders": 2},
        ["[a] and [b]"],
        ["[a]", "[a\n] [b]"],
    ),
    (
        "detectable_content:postscript",
        {"postscript_marker": "P.P.S"},
        ["x\nP.P.S it", "p. p. s. it"],
        ["P.S. it", "x"],
    ),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, ["x\nP.S. it"], ["ps it"]),
    (
        "detectable_format:number_bullet_lists",
        {"num_bullets": 2},
        [
            "* a\n* b",
            "- a\n  * b",
            "**Title**\n* a\n- b",
            "* a\n* b\n\n---\nEnd",
            "* a\n* b\n*note*",
            "- a\n- b\n-5 °C",
            "+ a\n+ b",
            "* a\n* b\n* * *",
            "- a\n- b\n- - -",
            "*\ta\n* b",
            "* a\n```\n- x\n```\n* b",
            "* a\n* b\n*",
            "* a\n* b\n--option",
            "- **a**\n- *b*",
            "* [ ] a\n* [x] b",
        ],
        [
            "* a",
            "* a\n* b\n* c",
            "1. a\n2. b",
            "*a\n*b",
            "-a\n-b",
            "• a\n• b",
            "***\n***",
            "\\* a\n\\* b",
            "*\n*",
        ],
    ),
    ("detectable_format:constrained_response", {}, ["My answer is no."], ["No.", "my answer is no"]),
    (
        "detectable_format:number_highlighted_sections",
        {"num_highlights": 2},
        ["*a* *b*", "*a* and *b c*"],
        ["*a*", "**  ** x", "* a\n* b"],
    ),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "SECTION", "num_sections": 2},
        ["SECTION 1\na\nSECTION 2\nb"],
        ["SECTION 1\na", "Section 1 Section 2", "SECTION a SECTION b"],
    ),
    (
        "detectable_format:json_format",
        {},
        ['{"a": 1}', '```json\n{"a": 1}\n```', "[1]"],
        ["{a: 1}", 'Sure: {"a": 1}', '{"a": 1} bye', "NaN"],
    ),
    (
        "detectable_format:title",
        {},
        ["<<A title>>\nx"],
        ["<A>", "<<>>", "<<a\n>>", "<< >>", "<<a?>", ">>a<<"],
    ),
    (
        "combination:two_responses",
        {},
        ["a\n******\nb", "******a******b"],
        ["a", "a******a", "a******b******c", "a***b"],
    ),
    ("combination:repeat_prompt", {"prompt_to_repeat": P}, [f"{P} Paris."], ["Paris.", f"Sure! {P}"]),
    (
        "startend:end_checker",
        {"end_phrase": "Any questions?"},
        ["x. any questions?", '"x Any questions?"\n'],
        ["Any questions? No."],
    ),
    ("startend:quotation", {}, ['"a b"', ' "a"\n'], ['"', '"a', "'a'", '"a" b']),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": "at least"},
        ["A NASA thing", "GO WELL-KNOWN", "NASA's U.S. work"],
        ["Go NASA", "go", "DON'T", "Nasa's I"],
    ),
    (
        "change_case:english_capital",
        {},
        [ENGLISH.upper()],
        [ENGLISH, "DAS IST DEUTSCH UND NICHT ENGLISCH", "1"],
    ),
    (
        "change_case:english_lowercase",
        {},
        [ENGLISH.lower()],
        [ENGLISH, "das ist deutsch und nicht englisch", "1"],
    ),
    ("punctuation:no_comma", {}, ["a b; c"], ["a, b"]),
    (
        "copy:repeat_phrase",
        {"phrase": "Time flies when having fun", "small_n": 2},
        [
            "Time flies while having fun. Time goes when having fun!",
            "Time flies if having fun Time runs when having fun",
        ],
        [
            "Time flies when having fun. Time flies when having fun",
            "Time flies while having fun",
            "Time x y having fun. Time flies z having fun",
        ],
    ),
    ("copy:copy", {"prompt_to_repeat": P}, [P, P.upper()], [f"{P} x", "Paris"]),
    ("copy:copying_simple", {"prompt_to_repeat": P}, [f" {P}\n"], [f"{P} {P}"]),
    (
        "copy:copying_multiple",
        {"prompt_to_repeat": P, "N": 2},
        [f"{P}\n******\n{P}"],
        [P, f"{P}******{P}******{P}", f"{P}******Paris"],
    ),
    (
        "new:copy_span_idx",
        {"prompt_to_repeat": P, "n_start": 12, "n_end": 19},
        ["capital"],
        ["the capital", P],
    ),
    (
        "detectable_format:sentence_hyphens",
        {},
        ["One is here.-Two is there."],
        ["One is here. Two is there.", "One. - Two.", "One is here.-Two is there. Three."],
    ),
    ("detectable_format:square_brackets", {}, ["[a] [b]", "[a], [b]."], ["[a] b", "[a b]", "...", "[a]b"]),
    (
        "detectable_format:bigram_wrapping",
        {},
        ["<<I am>> <<at home>>", "<<I am>> home", "<<I am>>, <<at home>>."],
        ["I am", "<<I>> <<am>>", "x"],
    ),
    ("keywords:no_adjacent_consecutive", {}, ["a c", "b a"], ["a b", "x Bad Cat", '"a" (b)']),
    ("keywords:word_once", {"keyword": "cat"}, ["A cat."], ["cat cat", "dog"]),
    (
        "keywords:word_count_different_numbers",
        {"keyword": "cat", "frequency": 3, "relation": "less than"},
        ["cat cat"],
        ["cat cat cat"],
    ),
    ("keywords:exclude_word_harder", {"keyword": "cat"}, ["concatenate"], ["a cat sat", "cat", "Cat!"]),
    ("keywords:palindrome", {}, ["a level road", "Anna."], ["a b", "I", "11", "hello"]),
    (
        "keywords:keyword_specific_position",
        {"keyword": "cat", "n": 2, "m": 3},
        ["One. I see cat now.", "Dr. No is in. The big cat sat.", "One. I see Cat.", "Hm! Well, “yes,” cat."],
        ["I see cat.", "One. cat see I.", "One. I don't see a cat.", "One. I see concatenated."],
    ),
    (
        "keywords:start_end",
        {},
        ["Go now go", "go and Go", "“Go” and go.", "Don't say don’t!"],
        ["go", "go and gone.", "a b"],
    ),
    ("paragraphs:paragraphs", {}, ["a\n***\nb"], ["a", "a***b***c"]),
    (
        "paragraphs:paragraphs2",
        {},
        ["a\n\nb", "a\nc\n\nb\n\n", "a\n\n\n\nb", "\n\na\n \nb"],
        ["a", "a\nb", "a\n\nb\n\nc"],
    ),
    (
        "first_word:first_word_sent",
        {"first_word": "So"},
        ["So it is. so be it!", "So, we go. “So” they stop... So?"],
        ["So it is. It is so.", "Sort of."],
    ),
    (
        "first_word:first_word_answer",
        {"first_word": "so"},
        ["So it is.", "So, it is", "*So* be it"],
        ["It is so", "Some", "So's"],
    ),
    ("last_word:last_word_sent", {"last_word": "so"}, ["It is so. Is it So?"], ["It is so. It is.", "x"]),
    (
        "last_word:last_word_answer",
        {"last_word": "so"},
        ["A. It is So!", "It is *so*.", "It is “so.”"],
        ["It is so. Yes"],
    ),
    ("punctuation:punctuation_dot", {}, ["a!"], ["a."]),
    ("punctuation:punctuation_exclamation", {}, ["a."], ["a!"]),
    (
        "count:lowercase_counting",
        {"N": 2},
        ["A few words", "A B c", "I DON'T don't"],
        ["only lower case words", "naïve à la"],
    ),
    (
        "count:counting_composition",
        {"n_sent": 2, "n_words": 3},
        [
            "I go now. You don't go.\n***\nI go now. You don't go.\n***\nI go now. You, too, go!",
            "I go now. You go now. * * * I go now. You go now. * * * I go now. He is in.",
        ],
        ["I go. You go.", "I go. *** I go. *** I go.", "I go now. You go.***I go. You go.***I go. You go."],
    ),
    (
        "count:count_unique",
        {},
        ["One two three.", "a, b, c", "One two. Three four.", 'I said "no".'],
        ["one two one", "One one", "a b, A"],
    ),
    (
        "count:count_increment_word",
        {"keyword1": "cat", "keyword2": "dog"},
        ["cat dog dog"],
        ["cat dog", "cat cat dog dog"],
    ),
    ("letters:letter_counting", {"N": 3, "relation": "less than"}, ["a1 b"], ["abc", "a b c d"]),
    (
        "letters:letter_counting2",
        {"letter": "s", "let_frequency": 2, "let_relation": "at least"},
        ["Sos"],
        ["so"],
    ),
    ("tulu:verify_keywords", {"keyword_list": ["cat", "dog"]}, ["Cats and dogs"], ["cat"]),
    (
        "tulu:verify_keyword_frequency",
        {"word": "cat", "N": 2},
        ["cat, Cat!", "cat (cat)"],
        ["cat cats", "cat cat cat"],
    ),
    ("tulu:validate_forbidden_words", {"forbidden_words": ["war"]}, ["peace"], ["warm"]),
    ("tulu:verify_letter_frequency", {"letter": "e", "N": 1}, ["eE"], ["ee"]),
    (
        "tulu:validate_response_language",
        {"language": "en"},
        [ENGLISH],
        ["Das ist deutsch und nicht englisch."],
    ),
    ("tulu:verify_paragraph_count", {"N": 2}, ["a\n* * *\nb"], ["a", "a\n***\nb", "a * * * "]),
    (
        "tulu:validate_word_constraint",
        {"N": 10, "quantifier": "around"},
        ["x " * 9, "x " * 11, "x - " * 10],
        ["x " * 12, "x - " * 6],
    ),
    ("tulu:verify_sentence_constraint", {"N": 2, "quantifier": "at most"}, ["A b. C d."], ["A. B. C."]),
    (
        "tulu:validate_paragraphs",
        {"N": 2, "first_word": "So", "i": 2},
        ["a\n\nSo b", "\n\na\n\n\n\nSo, b"],
        ["So\n\na", "So b", "a\n\nSort of"],
    ),
    ("tulu:verify_postscript", {"postscript_marker": "P.S."}, ["a\nP.S. b"], ["a P.S.", "a"]),
    ("tulu:validate_placeholders", {"N": 2}, ["[a] [b]"], ["[a]"]),
    ("tulu:verify_bullet_points", {"N": 2}, ["* a\n- b", "* a\n* b\n\n---"], ["* a", "*a\n*b"]),
    ("tulu:validate_title", {}, ["<<a>>"], ["a"]),
    ("tulu:validate_choice", {"options": ["yes", "no"]}, ["oh yes"], ["maybe"]),
    ("tulu:validate_highlighted_sections", {"N": 2}, ["*a* *b*"], ["*a*"]),
    (
        "tulu:validate_sections",
        {"N": 2, "section_splitter": "Section"},
        ["section 1 a Section 2 b"],
        ["Section a"],
    ),
    ("tulu:validate_json_format", {}, ['{"a": 1}'], ['```\n{"a": 1}\n```']),
    ("tulu:validate_repeat_prompt", {"original_prompt": P}, [f"{P} x"], [f" x {P}"]),
    ("tulu:validate_two_responses", {}, ["a******b"], ["a"]),
    ("tulu:validate_uppercase", {}, ["ABC 1"], ["Abc"]),
    ("tulu:validate_lowercase", {}, ["abc 1"], ["Abc"]),
    ("tulu:validate_frequency_capital_words", {"N": 2, "quantifier": "at least"}, ["NASA ESA"], ["NASA Esa"]),
    ("tulu:validate_end", {"end_phrase": "Bye."}, ["x Bye."], ["Bye. x"]),
    ("tulu:validate_quotation", {}, ['"a"'], ["a"]),
    ("tulu:validate_no_commas", {}, ["a"], ["a,"]),
]


BY_ID = {case[0]: case[1] for case in CASES}


@pytest.mark.parametrize(
    ("name", "arguments", "good", "bad"), CASES, ids=[f"{case[0]}-{i}" for i, case in enumerate(CASES)]
)
def test_answers_that_follow_an_instruction_and_answers_that_do_not(name, arguments, good, bad):
    for answers, expected in ((good, 1), (bad, 0)):
        for answer in answers:
            result = grade(answer, {"instruction_id_list": [name], "kwargs": [arguments]})
            assert (result.value, result.parts) == (expected, {name: expected}), answer


def test_every_instruction_has_answers_above():
    assert BY_ID.keys() == INSTRUCTIONS.keys()
    assert len(INSTRUCTIONS) == 25 + 29 + 25


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_an_empty_answer_meets_nothing(name):
    for answer in ("", " \n\t"):
        assert grade(answer, {"instruction_id_list": [name], "kwargs": [BY_ID[name]]}).value == 0


HOSTILE = [
    pytest.param("[" * MAX_TEXT, id="brackets"),
    pytest.param("<<" * MAX_TEXT, id="angles"),
    pytest.param("*" * MAX_TEXT, id="stars"),
    pytest.param("* " * MAX_TEXT, id="spaced-stars"),
    pytest.param("\n" * MAX_TEXT + "x", id="lines"),
    pytest.param(" " * (MAX_TEXT - 1) + "x", id="spaces"),
    pytest.param("." * MAX_TEXT, id="dots"),
    pytest.param("a." * MAX_TEXT, id="initials"),
    pytest.param("Dr. " * MAX_TEXT, id="titles"),
    pytest.param("p." * MAX_TEXT, id="postscripts"),
    pytest.param('"' * MAX_TEXT, id="quotes"),
    pytest.param("Section " * MAX_TEXT, id="sections"),
    pytest.param("x" * 1_000_000, id="one-word"),
    pytest.param("<think>" * 100_000, id="tags"),
    pytest.param("Time flies " * 50_000, id="phrases"),
    pytest.param("{" * 100_000, id="json"),
    pytest.param("\ud800\0\u202eé\u0301漢" * 5_000, id="unicode"),
    pytest.param("ǅ İ ß ŉ " * 10_000, id="odd-cases"),
]


@pytest.mark.parametrize("answer", HOSTILE)
def test_hostile_answers_are_checked_soon(answer):
    row = {"instruction_id_list": list(BY_ID), "kwargs": list(BY_ID.values())}
    started = time.thread_time()
    result = grade(answer, row)
    assert time.thread_time() - started < 10
    assert 0 <= result.value < 0.9
    assert len(result.reason) < 1_000


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("Mr. Smith went. He paid 3.50 at example.com. Ok?", 3),
        ("J. R. R. Tolkien wrote it.", 1),
        ("Wait... what?! Yes!", 3),
        ("He lives in the U.S. He likes it.", 2),
        ("It costs approx. five, e.g. at Inc. prices.", 1),
        ("One line\nof two lines", 1),
        ("1. Take it. 2. Leave it.", 2),
        ("a. Take it.\n**2.** Leave it.", 2),
        ('She said "No!" and left. Then "Why?"', 3),
        ("", 0),
        ("...", 1),
    ],
)
def test_sentences(text, count):
    assert len(sentences(text)) == count


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Well, \u201cyes,\u201d it's well-known!", ["Well", "yes", "it's", "well-known"]),
        ("__Bold__ *note* snake_case ____ -- \u2014", ["Bold", "note", "snake_case"]),
        ("It costs 3.50, or 1,000.", ["It", "costs", "3.50", "or", "1,000"]),
        ("The U.S. and A.I. end.Next", ["The", "U.S.", "and", "A.I.", "end", "Next"]),
        (
            "\u0939\u093f\u0928\u094d\u0926\u0940 cafe\u0301",
            ["\u0939\u093f\u0928\u094d\u0926\u0940", "cafe\u0301"],
        ),
        ("", []),
    ],
)
def test_words(text, found):
    assert list(words(text)) == found
