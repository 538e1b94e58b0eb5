"""The byte-level BPE tokenizer and its chat template."""

from collections.abc import Iterator
from random import Random
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from scripts.nano import data

VOCABULARY_SIZE = 1280
PAD, START, END, END_OF_TEXT = "<|pad|>", "<|im_start|>", "<|im_end|>", "<|endoftext|>"

# Only lower-case words take the space before them: "Kassel" is the same tokens after a space and after a
# quotation mark, which makes copying a name into JSON easy. Digits stand alone; runs of punctuation such as
# '": "' may become one token.
_SPLIT = Regex(r" ?\p{Ll}+|\p{Lu}\p{Ll}+|\p{Lu}+|\p{L}|\p{N}|[^\s\p{L}\p{N}]+(?: [^\s\p{L}\p{N}]+)*|\n+|\s+?")

CHAT_TEMPLATE = """\
{%- for message in messages %}
{{- '<|im_start|>' + message['role'] + '\\n' }}
{%- if message['content'] is string %}
{%- set text = message['content'] %}
{%- else %}
{%- set text = (message['content'] or []) | map(attribute='text') | join('') %}
{%- endif %}
{%- if message['role'] == 'assistant' %}
{%- generation %}
{{- text + '<|im_end|>' }}
{%- endgeneration %}
{{- '\\n' }}
{%- else %}
{{- text + '<|im_end|>\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""


def _texts(rng: Random, count: int) -> Iterator[str]:
    stream = data.conversations(rng, data.PHASES[1])
    for _ in range(count):
        for turn in next(stream):
            yield turn.prompt
            yield turn.answer
    yield from ("system", "user", "assistant", "developer", "tool")


def train_tokenizer(seed: int, conversations: int = 30_000) -> PreTrainedTokenizerFast:
    """Learn the merges from the training stream."""
    fast = learnt_tokenizer(_texts(Random(seed), conversations), VOCABULARY_SIZE, model_max_length=1024)
    fast.chat_template = CHAT_TEMPLATE
    return fast


def learnt_tokenizer(texts: Iterator[str], size: int, *, model_max_length: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with merges learnt from texts, and no template yet."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(_SPLIT, behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[PAD, START, END, END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    make: Any = PreTrainedTokenizerFast
    fast: PreTrainedTokenizerFast = make(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        model_max_length=model_max_length,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    return fast
