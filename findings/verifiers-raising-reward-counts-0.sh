#!/usr/bin/env bash
# verifiers 0.1.14: a reward function that raises counts as 0, and the rollout is no error.
#
# `Rubric` catches what a reward function raises, writes a log line and takes 0.0. A judge that is away or a bug in the function
# so trains the policy as if its answers were wrong: the output has a reward and `error` is None. The other functions of the
# rubric still count, so that the sum is just smaller.
#
# Output seen:
#   reward: 0.25 error: None
#   metrics: {'judged': 0.0, 'length': 0.25}
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  verifiers==0.1.14
"$folder/venv/bin/python" - > "$folder/seen" 2> "$folder/errors" <<'EOP' || { cat "$folder/errors"; exit 1; }
import asyncio
import time

import verifiers as vf
from datasets import Dataset
from verifiers.clients import Client
from verifiers.types import Response, ResponseMessage


def judged(completion, answer):
    raise ConnectionError("the judge is away")


def length(completion):
    return 0.25


class Says(Client):
    """Answers "red" to everything."""

    async def get_response(self, prompt, model, sampling_args, tools=None, **known):
        message = ResponseMessage(content="red", finish_reason="stop", is_truncated=False)
        return Response(id="1", created=int(time.time()), model=model, message=message)

    def setup_client(self, config):
        return config

    async def close(self):
        pass

    async def unused(self, *_, **__):
        raise NotImplementedError

    to_native_tool = to_native_prompt = get_native_response = unused
    raise_from_native_response = from_native_response = unused


environment = vf.SingleTurnEnv(
    dataset=Dataset.from_list([{"question": "Which word?", "answer": "red"}]),
    rubric=vf.Rubric(funcs=[judged, length]),
)
row = environment.get_dataset()[0]
output = asyncio.run(environment.run_rollout(row, Says(None), "policy", {}))
print("reward:", output["reward"], "error:", output["error"])
print("metrics:", {name: output["metrics"][name] for name in ("judged", "length")})
EOP
diff -u <(sed -n '/^# Output seen:/,/^set /s/^#   //p' "$0") "$folder/seen"
cat "$folder/seen"
