"""Lines that use a download, in transformers, vLLM, Ollama and llama.cpp, for cards, API and command."""

from __future__ import annotations

import re
import shlex
from typing import Literal, NamedTuple

from methods.model_files.precision import QUANTISATION, QUANTISED

Format = Literal["adapter", "merged", "gguf"]
FORMATS: tuple[Format, ...] = ("adapter", "merged", "gguf")
FOLDER = "FOLDER"
"""Stands for the place where a download was unpacked."""
HERE = f"`{FOLDER}` is the folder that holds this file."
AT_SERVICE = (
    "`adapter_config.json` names the folder in which the base lay at the service. Elsewhere load it from"
    " `base/`, as above."
)
WITHIN = "`adapter_config.json` names it as `base`: AutoPeftModel finds it from within this folder."
"""Sentences of model cards, which another place of the files makes others."""
GGUF = "model-*.gguf"
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM 0.32 takes as `--max-lora-rank`."""
GENERATE = """\
prompt = tokenizer.apply_chat_template(
    [{{"role": "user", "content": "Hello!"}}],
    add_generation_prompt=True, return_tensors="pt", return_dict=True,
)
reply = model.generate(**prompt, {options})
print(tokenizer.decode(reply[0, prompt["input_ids"].shape[1]:], skip_special_tokens=True))"""
MERGED = """\
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained({folder!r})
model = AutoModelForCausalLM.from_pretrained({folder!r})
"""
ADAPTER = """\
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig{imports}

tokenizer = AutoTokenizer.from_pretrained({folder!r})
{quantised}base = AutoModelForCausalLM.from_pretrained({base})
model = PeftModel.from_pretrained(base, {folder!r})
decoding = GenerationConfig.from_pretrained({folder!r}, max_new_tokens=200)
"""
QUANTISED_BASE = "quantised = BitsAndBytesConfig.from_dict(json.load(open({path!r})))\n"
"""A line before the base of an adapter is loaded that was trained beside a quantised one."""


class Use(NamedTuple):
    """What lines that use a download depend on.

    Attributes:
        name: what the model is called.
        hub: the id of an adapter's base on the hub; None where the base lies in the download.
        rank: of the adapter.
        own_template: the chat template is another than the base's.
        precision: of the base that an adapter was trained beside, as `base_precision` names it.
    """

    format: Format
    name: str
    hub: str | None = None
    revision: str | None = None
    rank: int = 0
    own_template: bool = False
    precision: str = "auto"


def short_name(name: str) -> str:
    """Returns a model's name as file systems and every server take it."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-.").lower() or "model"


def lines(use: Use, folder: str = FOLDER, gguf: str = GGUF) -> dict[str, str]:
    """Returns the lines by program. `folder` is where the download was unpacked, `gguf` its model's file."""
    if use.format == "gguf":
        return {"llama.cpp": _llama_cpp(folder, gguf), "ollama": _ollama(use, folder)}
    found = {"transformers": _transformers(use, folder)}
    if use.precision not in QUANTISED:  # beside another base the adapter is another model
        found["vllm"] = _vllm(use, folder)
    return {**found, "ollama, llama.cpp": f"cherry models download {shlex.quote(use.name)} --format gguf"}


def _transformers(use: Use, folder: str) -> str:
    if use.format == "merged":
        return MERGED.format(folder=folder) + GENERATE.format(options="max_new_tokens=200")
    base = repr(f"{folder}/base" if use.hub is None else use.hub)
    if use.hub is not None and use.revision is not None:
        base += f", revision={use.revision!r}"
    quantised = imports = ""
    if use.precision in QUANTISED:
        base += ", quantization_config=quantised"
        quantised, imports = QUANTISED_BASE.format(path=f"{folder}/{QUANTISATION}"), ", BitsAndBytesConfig"
    lines = ADAPTER.format(folder=folder, base=base, quantised=quantised, imports=imports)
    return (
        ("import json\n\n" if quantised else "")
        + lines
        + GENERATE.format(options="generation_config=decoding")
    )


def _vllm(use: Use, folder: str) -> str:
    place, name = shlex.quote(folder), shlex.quote(short_name(use.name))
    if use.format == "merged":
        return f"vllm serve {place} --served-model-name {name}"
    words = ["vllm serve", shlex.quote(f"{folder}/base" if use.hub is None else use.hub)]
    if use.hub is not None and use.revision is not None:
        words.append(f"--revision {shlex.quote(use.revision)}")
    if use.own_template:
        words.append(f"--chat-template {shlex.quote(f'{folder}/chat_template.jinja')}")
    rank = next((each for each in RANKS if each >= use.rank), use.rank)
    words.append(f"--generation-config {place} --enable-lora --max-lora-rank {rank}")
    return " ".join([*words, f"--lora-modules {name}={place}"])


def _llama_cpp(folder: str, gguf: str) -> str:
    # A name with a star is the shell's to complete.
    return f"llama-server -m {shlex.quote(folder)}/{gguf} --jinja"


def _ollama(use: Use, folder: str) -> str:
    name = shlex.quote(short_name(use.name))
    return f"cd {shlex.quote(folder)} && ollama create {name} -f Modelfile && ollama run {name}"
