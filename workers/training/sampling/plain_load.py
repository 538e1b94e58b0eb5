"""How far a delivered model, loaded by plain `transformers` as others load it, is from what was validated."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import AutoConfig

from workers.training.base.errors import ModelInvalid
from workers.training.base.types import ScoredText
from workers.training.model.base_model import LOADING, auto_class, faults_are_the_models
from workers.training.sampling.scored_texts import read_scored

log = logging.getLogger(__name__)


class Loaded(NamedTuple):
    """Says how a model answers that is loaded in the dtype of its weights.

    Attributes:
        load_dtype: that its arithmetic has then.
        load_difference: the largest of a token's log-probability beside what the trainer has noted, in nats.
        load_kl: the mean KL of it to the same weights in the arithmetic of the training, nats per token.
        load_tokens: compared.
    """

    load_dtype: str
    load_difference: float
    load_kl: float
    load_tokens: int


def check_loaded(folder: Path, compute: torch.dtype, device: torch.device) -> Loaded | None:
    """Loads the merged model of a checkpoint as `transformers` does by itself, and compares its predictions.

    `compute` is the dtype in which it was validated. Returns None where the trainer has noted no texts, or
    the model cannot be loaded beside what is there.
    """
    texts = read_scored(folder)
    if not texts:
        return None
    try:
        with faults_are_the_models(f"The model of {folder.name} cannot be loaded"):
            validated = _predictions(_load(folder / "model", compute, device), texts)
            model = _load(folder / "model", "auto", device)
            found = _predictions(model, texts)
    except (ModelInvalid, torch.OutOfMemoryError, MemoryError) as problem:
        log.warning("load_not_checked", extra={"problem": str(problem)})
        return None
    kls = [_kl(was, now) for was, now in zip(validated, found, strict=True)]
    off = [_difference(text, now) for text, now in zip(texts, found, strict=True)]
    kl, difference = torch.cat(kls).mean().item(), max(off)
    if not (math.isfinite(kl) and math.isfinite(difference)):
        log.warning("load_not_finite", extra={"folder": folder.name})
        return None
    return Loaded(str(model.dtype).removeprefix("torch."), difference, max(kl, 0.0), sum(map(len, kls)))


def _load(folder: Path, dtype: torch.dtype | str, device: torch.device) -> Any:
    offline: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False, "use_safetensors": True}
    found = auto_class(AutoConfig.from_pretrained(folder, local_files_only=True))
    with LOADING:
        model = found.from_pretrained(folder, dtype=dtype, **offline)
    return model.to(device).eval()


@torch.inference_mode()
def _predictions(model: Any, texts: Sequence[ScoredText]) -> list[Tensor]:
    """Returns the log-probabilities of each text's next tokens, (tokens, vocabulary), in fp32 on the CPU."""
    return [
        model(torch.tensor([text.tokens[:-1]], device=model.device)).logits[0].float().log_softmax(-1).cpu()
        for text in texts
    ]


def _kl(validated: Tensor, loaded: Tensor) -> Tensor:
    """Returns the exact KL of each prediction over the whole vocabulary, in nats."""
    return (validated.exp() * (validated - loaded)).nan_to_num(nan=0.0, posinf=math.inf).sum(-1)


def _difference(text: ScoredText, loaded: Tensor) -> float:
    own = loaded.gather(1, torch.tensor(text.tokens[1:])[:, None])[:, 0]
    return float((own - torch.tensor(text.logprobs)).abs().max())
