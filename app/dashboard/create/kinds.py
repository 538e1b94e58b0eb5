"""Tells of each kind of grader what it asks, in a sentence, with an example that can be run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

ANSWER = "{{sample.output_text}}"
JUDGE = "a-model-that-judges"


class Kind(NamedTuple):
    """What a kind of grader is for.

    Attributes:
        sentence: what it asks, for somebody who has never seen it.
        grader: an example.
        item: a row that fits the example.
        sample: an answer to that row.
        needs: what it needs beside the row, where that is more.
    """

    sentence: str
    grader: Mapping[str, Any]
    item: Mapping[str, Any]
    sample: str
    needs: str = ""


def _comparing(kind: str, reference: str = "{{item.answer}}", **others: Any) -> dict[str, Any]:
    return {"type": kind, "input": ANSWER, "reference": reference, **others}


KINDS: Mapping[str, Kind] = {
    "string_check": Kind(
        "Is the answer the same text as the reference, or does it contain it? 1 or 0.",
        _comparing("string_check", operation="eq"),
        {"answer": "Paris"},
        "Paris",
    ),
    "text_similarity": Kind(
        "How alike are the answer and the reference, from 0 to 1? For summaries and rewording.",
        _comparing("text_similarity", evaluation_metric="rouge_l"),
        {"answer": "The cat sat on the mat."},
        "A cat sat on the mat.",
    ),
    "fields": Kind(
        "Takes a JSON answer apart and scores each field by its own rule: names, numbers, dates, lists.",
        {
            "type": "fields",
            "input": "{{sample.output_json}}",
            "reference": "{{item.reference}}",
            "fields": {
                "city": {"compare": "normalized"},
                "total": {"compare": "number", "abs_tolerance": 0.01},
                "languages": {"compare": "set"},
            },
        },
        {"reference": {"city": "Lisbon", "total": 12.5, "languages": ["Portuguese", "English"]}},
        '{"city": "lisbon", "total": "12.50", "languages": ["English"]}',
    ),
    "math": Kind(
        "Is the number or expression that the answer comes to the right one, however it is written?",
        _comparing("math"),
        {"answer": "1/2"},
        "Half of it is left, so the answer is \\boxed{0.5}.",
    ),
    "multi": Kind(
        "Puts several graders together by a formula over their names.",
        {
            "type": "multi",
            "graders": {
                "answer": {
                    "type": "string_check",
                    "input": "{{sample.output_json.city}}",
                    "reference": "{{item.city}}",
                    "operation": "eq",
                },
                "why": {
                    "type": "text_similarity",
                    "input": "{{sample.output_json.why}}",
                    "reference": "{{item.why}}",
                    "evaluation_metric": "fuzzy_match",
                },
            },
            "calculate_output": "0.7 * answer + 0.3 * why",
        },
        {"city": "Paris", "why": "It is the capital of France."},
        '{"city": "Paris", "why": "The capital of France"}',
    ),
    "python": Kind(
        "Runs a function of your own, grade(sample, item), in a sandbox without network or files.",
        {
            "type": "python",
            "source": (
                "def grade(sample, item):\n"
                '    text = sample["output_text"].strip()\n'
                '    return 1.0 if text == str(item["answer"]) else 0.0\n'
            ),
        },
        {"answer": 42},
        "42",
    ),
    "instructions": Kind(
        "Which share of instructions that can be checked does the answer follow, as in IFEval?",
        {
            "type": "instructions",
            "input": ANSWER,
            "instructions": [{"id": "punctuation:no_comma"}, {"id": "change_case:english_lowercase"}],
        },
        {},
        "all of this is in small letters and has no commas.",
    ),
    "code_tests": Kind(
        "Which share of the row's tests does the answer's Python pass, run in the sandbox?",
        {"type": "code_tests", "input": ANSWER, "tests": "{{item.tests}}"},
        {"tests": ["assert double(2) == 4", "assert double(0) == 0"]},
        "```python\ndef double(n):\n    return 2 * n\n```",
    ),
    "rlvr": Kind(
        "Scores published RLVR rows as they are: each row names its own verifier.",
        {"type": "rlvr"},
        {"dataset": "gsm8k", "ground_truth": "18"},
        "She sells 9 eggs for 2 dollars each. So the answer is 18.",
    ),
    "score_model": Kind(
        "Asks a model for a number, by instructions of your own.",
        {
            "type": "score_model",
            "model": JUDGE,
            "range": [0, 10],
            "input": [
                {
                    "role": "user",
                    "content": "Score from 0 to 10 how well this answers the question.\n\n"
                    "Question: {{item.question}}\nAnswer: {{sample.output_text}}",
                }
            ],
        },
        {"question": "Why is the sky blue?"},
        "Air scatters short wavelengths the most.",
        "a model that judges",
    ),
    "label_model": Kind(
        "Asks a model to choose one of your labels; the value is 1 if it is a passing one.",
        {
            "type": "label_model",
            "model": JUDGE,
            "labels": ["polite", "rude"],
            "passing_labels": ["polite"],
            "input": [{"role": "user", "content": "Is this polite or rude?\n\n{{sample.output_text}}"}],
        },
        {},
        "Thank you for asking. I will look into it today.",
        "a model that judges",
    ),
    "rubric": Kind(
        "Asks a model which of your criteria the answer meets; each has points.",
        {
            "type": "rubric",
            "model": JUDGE,
            "criteria": [
                {"criterion": "Names the capital.", "points": 5},
                {"criterion": "Is longer than two sentences.", "points": -2},
            ],
        },
        {"messages": [{"role": "user", "content": "What is the capital of France?"}]},
        "Paris.",
        "a model that judges",
    ),
    "rank": Kind(
        "Asks a model to compare the answers to one prompt with each other; needs no reference.",
        {"type": "rank", "model": JUDGE, "instruction": "The shorter and the clearer, the better."},
        {"messages": [{"role": "user", "content": "What is rain?"}]},
        "Water that falls from clouds.",
        "a model that judges, and several answers",
    ),
    "endpoint": Kind(
        "Asks a server of your own for the score, over HTTP.",
        {"type": "endpoint", "url": "https://example.com/grade"},
        {"answer": "42"},
        "42",
        "a server of yours that this service may reach",
    ),
    "environment": Kind(
        "Takes the reward that the environment of a job's episodes gives itself.",
        {"type": "environment"},
        {},
        "",
        "a job with an environment",
    ),
}
"""By type, the most used first."""
