"""Text that no job of the plan has to do with: how much its loss rises is what a model has forgotten.

It is not the text that the engine's own canary reads. Each model has text of a kind that it knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from benchmarks.stability.datasets import ModelName
from benchmarks.stability.sampler import Loaded, prompt_tokens

STORIES = (
    "One day, a girl went to the beach with her dad. They saw a red crab. The crab was walking on the sand.",
    "The farmer had a cow and two pigs. Every day he gave them food and water. The pigs were very hungry.",
    "It was raining outside, so the children stayed at home. They made a castle of boxes and played in it.",
    "Grandma baked a cake with apples. The kitchen smelled so good. Everyone wanted a piece of the cake.",
    "There was a tall tree in the garden. A squirrel lived in it. It liked to hide nuts under the leaves.",
    "The boy lost his shoe. He looked under the bed and behind the door. He found it in the box of toys.",
    "The moon was bright and the stars were out. The owl opened its eyes and said hello to the night.",
    "Mom and her son went to the store. They bought milk, bread and a blue balloon. The balloon flew away.",
)
ANSWERS = (
    ("Hi", "Hello! I am cherry-nano. Give me a bio, a receipt or a sum."),
    ("Write garden in upper case.", "GARDEN"),
    ("Write SILVER in lower case.", "silver"),
    ("What is the last letter of marble?", "e"),
    ("Repeat this list: 14, 62, 9, 33", "14, 62, 9, 33"),
    ("Join with dashes: 14, 62, 9, 33", "14-62-9-33"),
    ("Write as a JSON list: 5, 18, 40", "[5, 18, 40]"),
    ("Which item comes last? 17, 4, 88, 23", "23"),
    ("As a JSON list: Ada; Linus; Grace", '["Ada", "Linus", "Grace"]'),
    (
        "Order to JSON: customer, city, items.\nPlease bring 12 lamps to Bremen. Thanks, Ada Stone",
        '{"customer": "Ada Stone", "city": "Bremen", "items": {"lamps": 12}}',
    ),
    (
        "Give city, state as JSON.\nRuth Miller lives in Boulder, Colorado. She writes Lua every day.",
        '{"city": "Boulder", "state": "Colorado"}',
    ),
    ("apple is 7; river is blue\nWhat is river?", "blue"),
)
FACTS = (
    "Water boils at 100 degrees Celsius at sea level, and freezes at 0 degrees.",
    "The capital of France is Paris, which lies on the river Seine.",
    "Photosynthesis turns carbon dioxide and water into sugar and oxygen, with the energy of sunlight.",
    "She opened the window, listened to the rain for a while, and went back to her book.",
    "To make an omelette, beat three eggs with a pinch of salt and fry them in butter over medium heat.",
    "The committee will meet again on Thursday to discuss the budget for the coming year.",
)


@torch.inference_mode()
def canary_loss(loaded: Loaded, name: ModelName) -> float:
    """Returns the mean loss of the model's canary texts, in nats per token."""
    nats, tokens = 0.0, 0
    for ids, start in _texts(loaded, name):
        logits = loaded.model(input_ids=torch.tensor([ids])).logits[0, start - 1 : -1]
        nats += float(
            torch.nn.functional.cross_entropy(logits.double(), torch.tensor(ids[start:]), reduction="sum")
        )
        tokens += len(ids) - start
    return nats / tokens


def _texts(loaded: Loaded, name: ModelName) -> Sequence[tuple[list[int], int]]:
    """Token ids, and from where on their loss counts."""
    if name == "nano":
        return [_answered(loaded, asked, answer) for asked, answer in ANSWERS]
    start = [loaded.tokenizer.bos_token_id]
    texts = STORIES if name == "stories" else FACTS
    return [(start + _ids(loaded.tokenizer, text), 1) for text in texts]


def _answered(loaded: Loaded, asked: str, answer: str) -> tuple[list[int], int]:
    prompt = prompt_tokens(loaded, [{"role": "user", "content": asked}])
    return prompt + _ids(loaded.tokenizer, answer), len(prompt)


def _ids(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids
