"""The model card of a download: README.md, as the hub reads it, from what the run card tells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from app.cards.markdown import plain
from app.checkpoints.models import Checkpoint
from app.exports.base import IN_DOWNLOAD, Base
from app.exports.use import AT_SERVICE, GGUF, HERE, WITHIN, Format, Use, lines
from methods.model_files.licence import LICENCE, OTHER
from methods.model_files.precision import QUANTISATION, QUANTISED

README = "README.md"
LIBRARIES: Mapping[Format, str] = {"adapter": "peft", "merged": "transformers", "gguf": "gguf"}
RELATIONS: Mapping[Format, str] = {"adapter": "adapter", "merged": "finetune", "gguf": "quantized"}
"""What the hub calls how a model comes from its base."""
TITLES = {"transformers": "transformers", "vllm": "vLLM", "ollama": "Ollama", "llama.cpp": "llama.cpp"}


class Told(NamedTuple):
    """What a model card tells.

    Attributes:
        name: the model's own.
        card: the job's run card, signed or not.
        dtype: of the weights in this form.
    """

    name: str
    use: Use
    card: Mapping[str, Any]
    checkpoint: Checkpoint
    base: Base | None
    dtype: str | None
    gguf: str = GGUF


def readme(told: Told) -> str:
    """Returns the text. No text of users is markup in it."""
    blocks = [_front_matter(told), _head(told), _use(told), _form(told), _measured(told), _made_of(told)]
    return "\n\n".join("\n".join(block) for block in blocks) + "\n"


def _front_matter(told: Told) -> Iterator[str]:
    form = told.use.format
    yield "---"
    if told.base is not None and told.base.root_hub is not None:
        yield f"base_model: {told.base.root_hub}"
        yield f"base_model_relation: {RELATIONS[form]}"
    if told.base is not None and told.base.licence is not None:
        yield from _licence(told.base.licence)
    yield f"library_name: {LIBRARIES[form]}"
    yield "pipeline_tag: text-generation"
    yield "tags:"
    method = told.card["job"]["method"]
    for tag in ("cherry", method, *(["lora"] if form == "adapter" else [])):
        yield f"- {tag}"
    yield "---"


def _licence(licence: str) -> Iterator[str]:
    if not LICENCE.fullmatch(licence) or licence == OTHER:
        yield "license: other"
        return
    yield f"license: {licence}"


def _head(told: Told) -> Iterator[str]:
    job = told.card["job"]
    yield f"# {plain(told.name)}"
    yield ""
    yield f"{_what(told)} It was trained by the method {plain(job['method'])} from {plain(job['model'])}."
    yield ""
    yield f"**{plain(told.card['verdict']['sentence'])}**"
    if told.card["delivered"] and told.card["delivered"]["checkpoint_id"] != told.checkpoint.id:
        yield ""
        yield f"This is the checkpoint of step {told.checkpoint.step}, which the job did not deliver."


def _what(told: Told) -> str:
    return {
        "adapter": "This is a LoRA adapter.",
        "merged": "This is a complete model.",
        "gguf": "This is a complete model as GGUF.",
    }[told.use.format]


def _use(told: Told) -> Iterator[str]:
    yield "## Use it"
    yield ""
    yield HERE
    for program, text in lines(told.use, gguf=told.gguf).items():
        yield ""
        yield f"{TITLES.get(program, program)}:"
        yield ""
        yield f"```{'python' if program == 'transformers' else 'sh'}"
        yield text
        yield "```"


def _form(told: Told) -> Iterator[str]:
    yield "## What it holds"
    yield ""
    if told.use.format == "adapter":
        yield from _of_adapter(told)
    yield f"- The weights are {plain(told.dtype)}." if told.dtype else "- Its config names no dtype."
    if told.use.format == "merged":
        yield f"- {_load(told.checkpoint.trust or {})}"
    if told.use.format != "gguf":
        yield (
            "- `generation_config.json` samples as training did: from the whole distribution. Every token"
            " that ended an answer in training is an end token."
        )
    yield "- `manifest.json` has the SHA-256 of every other file."


def _of_adapter(told: Told) -> Iterator[str]:
    base = told.base
    if base is None:
        return
    if told.use.precision in QUANTISED:
        yield (
            f"- It was trained beside its base in {told.use.precision}, quantised as `{QUANTISATION}` says;"
            " beside the base as it is stored it is another model. format=merged is what was measured."
        )
    if base.hub is not None:
        revision = f", revision {plain(base.revision)}" if base.revision else ""
        yield f"- Its base is {plain(base.hub)} on the hub{revision}."
        return
    yield f"- Its base, {plain(base.name)}, has no public name and is in `{IN_DOWNLOAD}/`."
    yield f"- {WITHIN if base.added is None else AT_SERVICE}"


def _load(trust: Mapping[str, Any]) -> str:
    if "load_difference" not in trust:
        return "How far a load in that dtype is from what was validated was not measured of this checkpoint."
    return (
        f"Loaded by `transformers` in {plain(trust['load_dtype'])}, a token's log-probability differs from"
        f" what was validated by up to {trust['load_difference']:.2g} nats, and the KL is"
        f" {trust['load_kl']:.2g} nats per token ({plain(trust['load_tokens'])} tokens of text)."
    )


def _measured(told: Told) -> Iterator[str]:
    row = told.checkpoint
    yield "## Measured"
    yield ""
    yield "| what | value |"
    yield "|---|---|"
    yield f"| step | {row.step} |"
    yield f"| KL to what training started from, nats per token | {_with_error(row.kl, row.kl_stderr)} |"
    if row.valid_reward is not None:
        yield f"| reward on the validation rows | {_with_error(row.valid_reward, row.valid_reward_stderr)} |"
    if row.advantage_over_base is not None:
        yield f"| reward over the base | {_with_error(row.advantage_over_base, row.advantage_stderr)} |"
    if (p := (row.trust or {}).get("p")) is not None:
        yield f'| adjusted p of "no better than the base" | {p:.2g} |'


def _with_error(value: float, error: float | None) -> str:
    return f"{value:.4g}" if error is None else f"{value:.4g} ± {error:.2g} (standard error)"


def _made_of(told: Told) -> Iterator[str]:
    card = told.card
    yield "## Made of"
    yield ""
    yield "| part | name | sha256 |"
    yield "|---|---|---|"
    for name, file in card["data"].items():
        yield f"| {name.replace('_', ' ')} | {plain(file['name'])} | {plain(file['sha256'])} |"
    if grader := card["grader"]:
        spec = grader["spec"]
        yield f"| grader | {plain(spec.get('name'))} ({plain(spec['type'])}) | {plain(grader['sha256'])} |"
    if base := card["base_model"]:
        yield f"| base model | {plain(base['name'])} | {plain(base['sha256'])} |"
    licence = None if told.base is None else told.base.licence
    yield ""
    yield f"Licence of the base: {plain(licence) if licence else 'not known'}."
    yield "The run card, `card.json` and `card.md`, has all of it once the job is over."
