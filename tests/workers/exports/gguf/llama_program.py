"""Asks llama.cpp of a file, in its own environment: `python llama_program.py FILE [ADAPTER]`, JSON on stdin.

`{"logits": [ids]}` is answered by the logits behind each token, `{"greedy": [[ids], ...], "tokens": n}` by
what follows each prompt up to a token that ends an answer. Keys and values are kept in fp32.
"""

from __future__ import annotations

import json
import sys

import llama_cpp as llama
import numpy as np

F32 = 0
asked = json.load(sys.stdin)
how = {"lora_path": sys.argv[2]} if len(sys.argv) > 2 else {}
model = llama.Llama(
    sys.argv[1],
    n_ctx=512,
    n_threads=1,
    logits_all="logits" in asked,
    type_k=F32,
    type_v=F32,
    verbose=False,
    **how,
)
vocabulary = llama.llama_model_get_vocab(model.model)


def greedy(prompt: list[int]) -> list[int]:
    found: list[int] = []
    model.reset()
    for token in model.generate(prompt, temp=0.0, repeat_penalty=1.0):
        if llama.llama_vocab_is_eog(vocabulary, token) or len(found) == asked["tokens"]:
            break
        found.append(token)
    return found


if "logits" in asked:
    model.eval(asked["logits"])
    print(json.dumps(np.array(model.scores[: model.n_tokens]).tolist()))
else:
    print(json.dumps([greedy(prompt) for prompt in asked["greedy"]]))
