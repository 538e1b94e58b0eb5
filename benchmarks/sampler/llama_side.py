"""llama.cpp's side, in an environment of its own: `python llama_side.py FILE`.

It speaks as `lines.py` has it. It samples at temperature 1 with llama.cpp's own sampler; a completion never
ends before its last token. `how` is "one by one"; "batched", where each sequence has a stream of keys and
values; or "batched, one stream" for all. `{"logits": [ids]}` is answered by the logits behind a prompt.
"""

from __future__ import annotations

import ctypes
import json
import sys
import time
from collections.abc import Sequence
from typing import Any

import llama_cpp as llama

N_BATCH, THREADS = 2048, 1
CONTEXT = 128
"""Tokens of a sequence that a context has room for: 12 of the prompt, 100 new ones."""

_silent = llama.llama_log_callback(lambda *_: None)


class Side:
    def __init__(self, file: str) -> None:
        llama.llama_log_set(_silent, ctypes.c_void_p())
        llama.llama_backend_init()
        params = llama.llama_model_default_params()
        self._model = llama.llama_model_load_from_file(file.encode(), params)
        self._vocabulary = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(self._model))
        self._contexts: dict[tuple[int, bool], Any] = {}
        self._batch = llama.llama_batch_init(N_BATCH, 0, 1)
        self._sampler = llama.llama_sampler_chain_init(llama.llama_sampler_chain_default_params())
        llama.llama_sampler_chain_add(self._sampler, llama.llama_sampler_init_dist(1))

    def sample(self, prompts: Sequence[Sequence[int]], tokens: int, how: str) -> list[list[int]]:
        """Returns the sampled tokens of each prompt."""
        if how == "one by one":
            return [found for prompt in prompts for found in self._together([prompt], tokens, unified=False)]
        return self._together(prompts, tokens, unified=how == "batched, one stream")

    def logits(self, prompt: Sequence[int]) -> list[float]:
        """Returns the logits behind a prompt."""
        context = self._context(1, unified=False)
        self._fill([(token, at, 0) for at, token in enumerate(prompt)])
        _check(llama.llama_decode(context, self._batch))
        return list(llama.llama_get_logits_ith(context, len(prompt) - 1)[: self._vocabulary])

    def _context(self, sequences: int, *, unified: bool) -> Any:
        key = sequences, unified
        if key not in self._contexts:
            params = llama.llama_context_default_params()
            params.n_ctx, params.n_batch, params.n_ubatch = CONTEXT * sequences, N_BATCH, 512
            params.n_seq_max, params.kv_unified = sequences, unified
            params.n_threads = params.n_threads_batch = THREADS
            self._contexts[key] = llama.llama_init_from_model(self._model, params)
        context = self._contexts[key]
        llama.llama_memory_clear(llama.llama_get_memory(context), False)
        return context

    def _fill(self, entries: Sequence[tuple[int, int, int]]) -> None:
        """Puts (token, position, sequence) in the batch; asks for logits of the last of each sequence."""
        batch = self._batch
        batch.n_tokens = len(entries)
        for i, (token, at, sequence) in enumerate(entries):
            batch.token[i], batch.pos[i] = token, at
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, sequence
            batch.logits[i] = i + 1 == len(entries) or entries[i + 1][2] != sequence

    def _together(self, prompts: Sequence[Sequence[int]], tokens: int, *, unified: bool) -> list[list[int]]:
        context, n = self._context(len(prompts), unified=unified), len(prompts)
        self._fill(
            [(token, at, i) for i, prompt in enumerate(prompts) for at, token in enumerate(prompt)],
        )
        _check(llama.llama_decode(context, self._batch))
        ends, last = [], -1
        for prompt in prompts:
            last += len(prompt)
            ends.append(last)
        found = [[llama.llama_sampler_sample(self._sampler, context, end)] for end in ends]
        batch = self._batch
        batch.n_tokens = n
        for i, prompt in enumerate(prompts):
            batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = len(prompt) - 1, 1, i, True
        for _ in range(tokens - 1):
            for i in range(n):
                batch.token[i] = found[i][-1]
                batch.pos[i] += 1
            _check(llama.llama_decode(context, batch))
            for i in range(n):
                found[i].append(llama.llama_sampler_sample(self._sampler, context, i))
        return found


def _check(status: int) -> None:
    if status:
        raise RuntimeError(f"llama_decode answered {status}.")


def main() -> None:
    side = Side(sys.argv[1])
    info = llama.llama_print_system_info().decode().strip()
    print(json.dumps({"llama-cpp-python": llama.__version__, "system": info}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        if "logits" in asked:
            print(json.dumps({"logits": side.logits(asked["logits"])}), flush=True)
            continue
        cpu, wall = time.process_time(), time.perf_counter()
        found = side.sample(asked["prompts"], asked["tokens"], asked["how"])
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        print(json.dumps({"tokens": sum(map(len, found)), "cpu": cpu, "wall": wall}), flush=True)


if __name__ == "__main__":
    main()
