"""transformers' side: `python -m benchmarks.sampler.stock_side MODEL_FOLDER`.

`how` is "generate", a static batch, or "continuous", its continuous batching.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, GenerationConfig

import workers.training  # noqa: F401  # switches telemetry and network off
from benchmarks.sampler.lines import answer

CACHE_BLOCKS, BLOCK, STEP_TOKENS = 512, 32, 1024
"""Of continuous batching: room for 64 sequences of 112 tokens, and their prompts in one step."""


class Side:
    def __init__(self, folder: str) -> None:
        auto: Any = AutoModelForCausalLM
        self._model = auto.from_pretrained(folder, dtype=torch.float32).eval()

    def sample(self, prompts: Sequence[Sequence[int]], tokens: int, how: str) -> Mapping[str, Any]:
        config: Any = GenerationConfig(  # type: ignore[no-untyped-call]
            max_new_tokens=tokens, do_sample=True, top_k=0, top_p=1.0, pad_token_id=0, eos_token_id=-1
        )
        return (
            self._continuous(prompts, config)
            if how == "continuous"
            else self._static(prompts, config, tokens)
        )

    @torch.inference_mode()
    def _static(self, prompts: Sequence[Sequence[int]], config: Any, tokens: int) -> Mapping[str, Any]:
        config.eos_token_id = None
        config.min_new_tokens = tokens
        ids = torch.tensor(prompts)
        found = self._model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)
        return {"tokens": found[:, ids.shape[1] :].numel()}

    def _continuous(self, prompts: Sequence[Sequence[int]], config: Any) -> Mapping[str, Any]:
        from transformers import ContinuousBatchingConfig

        sizes = ContinuousBatchingConfig(
            num_blocks=CACHE_BLOCKS, page_size=BLOCK, max_batch_tokens=STEP_TOKENS
        )
        found = self._model.generate_batch(
            inputs=[list(prompt) for prompt in prompts],
            generation_config=config,
            continuous_batching_config=sizes,
            progress_bar=False,
        )
        return {"tokens": sum(len(each.generated_tokens) for each in found.values())}


def main() -> None:
    torch.set_num_threads(1)
    answer(Side(sys.argv[1]).sample, {"transformers": transformers.__version__})


if __name__ == "__main__":
    main()
