"""Reading a base model's folder: weights, tokenizer, end tokens, context. What the engine would get wrong
is refused.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, AutoTokenizer
from transformers.utils import logging as transformers_logging

from methods.model_files.folder import ModelFolderInvalid, check_folder
from methods.model_files.precision import QUANTISED, BasePrecision
from workers.training.base.errors import ModelInvalid, is_panic
from workers.training.model import attention
from workers.training.model.head import output_head
from workers.training.model.quantised import check_layers, quantise
from workers.training.model.shape import shape_of
from workers.training.model.stored_types import stored_types
from workers.training.rendering.ends import template_end_ids

CPU = torch.device("cpu")
LOADING = threading.Lock()
"""Is held while the library makes a model. It replaces methods of its own base class meanwhile, and two
threads that do so at once may leave them replaced: from then on every load lacks its tied weights.
"""
MISSING_NAMED = 5
"""Names of weights that are told of those that a folder lacks. Chosen, not measured."""
CPU_OUT_OF_MEMORY = "DefaultCPUAllocator"
"""What torch says for want of memory on a CPU, in an error that has no type of its own."""
MOST_SAID = 500
"""Characters of what a library says of a model that are told; some say every tensor. Chosen, not measured."""


@dataclass(frozen=True)
class BaseModel:
    """Holds an untouched model, ready to be trained.

    Attributes:
        end_ids: every token id that ends a completion.
        context: most tokens of prompt and completion together.
        device: where the run computes.
        compute_dtype: of its arithmetic; trained weights are in fp32 whatever it is.
        stored_dtype: of the weights on disk, which the delivered ones have too (stored_types.py).
    """

    folder: Path
    model: Any
    tokenizer: Any
    end_ids: tuple[int, ...]
    context: int
    device: torch.device
    compute_dtype: torch.dtype
    stored_dtype: torch.dtype

    @property
    def vocabulary(self) -> int:
        """Counts the tokens that the model has embedding rows for; its tokenizer may know more."""
        return int(self.model.get_input_embeddings().weight.shape[0])

    @property
    def rollout_model(self) -> Any:
        """Returns what is sampled from: nothing is trained of it."""
        return self.model


def load_base(
    folder: Path,
    device: torch.device = CPU,
    adapter: Literal["lora", "full"] = "lora",
    dtype: Literal["auto", "float32", "bfloat16"] = "auto",
    *,
    precision: BasePrecision = "auto",
    is_straight: bool = False,
) -> BaseModel:
    """Reads a model folder; nothing outside it is read and no code in it is run. Raises `ModelInvalid`.

    Weights that are trained are held in fp32, a frozen base in the dtype of the arithmetic, or as its
    `precision` says. With `is_straight` each weight goes to the device as it is read, so that the machine's
    memory never holds the model: several processes that load one would hold it several times.
    """
    dtype = "bfloat16" if precision == "bf16" else dtype
    held = "float32" if adapter == "full" or (dtype == "auto" and device.type == "cpu") else dtype
    place = device if is_straight and device.type != "cpu" else None
    tokenizer, model = _read(folder, "auto" if precision in QUANTISED else held, place)
    model.eval().requires_grad_(False)
    if precision in QUANTISED:
        quantise(model, precision, device, _beside_quantised(dtype, device), stored_types(folder))
    else:
        model = model.to(device)
    with faults_are_the_models(f"The model '{folder.name}' cannot compute"):
        _prepare(model, folder.name)
        stored = stored_types(folder).of_model
        return BaseModel(
            folder=folder,
            model=model,
            tokenizer=tokenizer,
            end_ids=end_ids(model.generation_config, tokenizer),
            context=shape_of(model.config, tokenizer).context,
            device=device,
            compute_dtype=model.dtype if adapter == "lora" else _arithmetic(dtype, device, stored),
            stored_dtype=stored,
        )


def check_can_quantise(folder: Path, precision: str) -> None:
    """Raises `ModelInvalid` where a model's layers cannot be quantised; its config alone is read."""
    with faults_are_the_models(f"The config.json of '{folder.name}' cannot be used"):
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        with LOADING, torch.device("meta"):
            model = auto_class(config).from_config(config)
    check_layers(model, precision)


def _read(folder: Path, dtype: str, place: torch.device | None = None) -> tuple[Any, Any]:
    """Returns tokenizer and model of a folder whose files hold what they say.

    Each weight is moved to `place` as it is read, if one is given.
    """
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        check_folder(folder)
    except ModelFolderInvalid as problem:
        raise ModelInvalid(f"The model folder '{folder.name}' cannot be used: {problem}.") from None
    offline: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    how = {
        "dtype": dtype,
        "use_safetensors": True,
        "attn_implementation": "eager",
        "output_loading_info": True,
        "device_map": None if place is None else {"": place},
    }
    with faults_are_the_models(f"The model folder '{folder.name}' cannot be loaded"):
        tokenizer = AutoTokenizer.from_pretrained(folder, **offline)
        config = AutoConfig.from_pretrained(folder, **offline)
        with LOADING:
            loaded: Any = auto_class(config).from_pretrained(folder, config=config, **how, **offline)
    model, found = loaded
    if tokenizer.chat_template is None:
        raise ModelInvalid(f"The model '{folder.name}' has no chat template.")
    if missing := sorted(found["missing_keys"]):  # transformers has filled them with random numbers
        named = ", ".join(missing[:MISSING_NAMED])
        raise ModelInvalid(f"The model folder '{folder.name}' lacks {len(missing)} weights: {named}.")
    return tokenizer, model


def auto_class(config: Any) -> Any:
    """Returns the class that loads a model: of a multimodal one with all its parts, if need be."""
    if type(config) in AutoModelForCausalLM._model_mapping:
        return AutoModelForCausalLM
    if type(config) in AutoModelForImageTextToText._model_mapping:
        return AutoModelForImageTextToText
    raise ModelInvalid(f"'{config.model_type}' is no causal language model.")


@contextmanager
def faults_are_the_models(what: str) -> Iterator[None]:
    """Blames the model's files for whatever a library raises over them: they may hold any values.

    A device that fails and too little memory are no faults of theirs.
    """
    try:
        yield
    except (MemoryError, torch.AcceleratorError, torch.OutOfMemoryError, ModelInvalid):
        raise
    except BaseException as error:
        is_of_a_library = isinstance(error, Exception) or is_panic(error)
        if not is_of_a_library or CPU_OUT_OF_MEMORY in str(error):
            raise
        raise ModelInvalid(f"{what}: {type(error).__name__}: {str(error)[:MOST_SAID]}") from error


def _prepare(model: Any, name: str) -> None:
    """Chooses the model's attention and finds its head. Raises `ModelInvalid` where either is not right."""
    try:
        attention.adopt(model)
        output_head(model)
    except ModelInvalid as problem:
        raise ModelInvalid(f"The model '{name}' is not supported: {problem}") from None


def compute_dtype(
    folder: Path,
    device: torch.device,
    adapter: Literal["lora", "full"],
    dtype: Literal["auto", "float32", "bfloat16"],
    precision: BasePrecision = "auto",
) -> torch.dtype:
    """Returns the dtype of the arithmetic of a model that `load_base` would load, without loading it."""
    if precision != "auto":
        return torch.bfloat16 if precision == "bf16" else _beside_quantised(dtype, device)
    stored = stored_types(folder).of_model
    if adapter == "lora" and dtype == "auto" and device.type != "cpu":
        return stored
    return _arithmetic(dtype, device, stored)


def _arithmetic(
    dtype: Literal["auto", "float32", "bfloat16"], device: torch.device, stored: torch.dtype
) -> torch.dtype:
    """Returns the dtype of the arithmetic.

    For "auto", what is stored in half precision is trained in bf16 on a GPU; fp16 would need a loss scale.
    """
    if dtype != "auto":
        return torch.float32 if dtype == "float32" else torch.bfloat16
    return torch.bfloat16 if device.type == "cuda" and stored.itemsize == 2 else torch.float32


def _beside_quantised(dtype: Literal["auto", "float32", "bfloat16"], device: torch.device) -> torch.dtype:
    """Returns the dtype of the arithmetic with quantised weights: for "auto" bf16 on a GPU, fp32 on a CPU."""
    return _arithmetic(dtype, device, torch.bfloat16)


def end_ids(generation_config: Any, tokenizer: Any) -> tuple[int, ...]:
    """Returns all ids that end a completion: generation config's, tokenizer's, and the chat template's.

    They differ in practice: a model may end its texts with a token that its tokenizer does not call `eos`,
    and a chat model ends a completion with the token that its template puts after one. Where a template ends
    calls of tools with another token, that one counts too.
    """
    configured = generation_config.eos_token_id
    ids = set(configured if isinstance(configured, list) else [configured])
    ids |= {tokenizer.eos_token_id, *template_end_ids(tokenizer)}
    return tuple(sorted(ids - {None}))
