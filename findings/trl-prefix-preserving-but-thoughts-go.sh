#!/usr/bin/env bash
# trl 1.16.0: chat templates that is_chat_template_prefix_preserving calls True rewrite earlier turns.
#
# The function's description: earlier messages are rendered identically whatever follows. It tries one case, a tool's
# result behind a call. With a thought in the first answer and a second question behind it, these templates take the
# thought out of the first answer, so the text so far is no prefix of the longer one; seven of them are trl's own
# variants for training. What was sampled in turn 1 can't be found in the tokens of turn 2.
#
# Output seen:
#   diffusion_gemma True, but rewritten
#   diffusion_gemma_training True, but rewritten
#   gemma4_v5 True, but rewritten
#   glm4moe True, but rewritten
#   glm4moe_training True, but rewritten
#   gptoss True, but rewritten
#   gptoss_training True, but rewritten
#   lfm2_2_5 True, but rewritten
#   lfm2_2_5_v2 True, but rewritten
#   lfm2_2_5_vl True, but rewritten
#   nemotron_3_5_lightning True, but rewritten
#   nemotron_3_5_lightning_training True, but rewritten
#   nemotron_3_nano True, but rewritten
#   nemotron_3_nano_training True, but rewritten
#   nemotron_3_super True, but rewritten
#   nemotron_3_super_training True, but rewritten
#   nemotron_3_ultra True, but rewritten
#   nemotron_3_ultra_training True, but rewritten
#   qwen3_5_nothink True, but rewritten
#   qwen3_5_think True, but rewritten
#   qwen3_6 True, but rewritten
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.23.0 trl==1.16.0
"$folder/venv/bin/python" - > "$folder/seen" 2> "$folder/errors" <<'EOF' || { cat "$folder/errors"; exit 1; }
from pathlib import Path

import trl
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from trl.chat_template_utils import is_chat_template_prefix_preserving

vocabulary = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
letters = Tokenizer(models.BPE(vocabulary, []))
letters.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
letters.decoder = decoders.ByteLevel()
QUESTION = {"role": "user", "content": "first"}
ANSWER = {"role": "assistant", "content": "answer", "reasoning_content": "thought"}
MORE = {"role": "user", "content": "second"}

for file in sorted((Path(trl.__file__).parent / "chat_templates").glob("*.jinja")):
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=letters, bos_token="<s>", eos_token="</s>")
    tokenizer.chat_template = file.read_text()
    try:
        claimed = is_chat_template_prefix_preserving(tokenizer)
        one = tokenizer.apply_chat_template([QUESTION, ANSWER], tokenize=False)
        two = tokenizer.apply_chat_template([QUESTION, ANSWER, MORE], tokenize=False)
    except Exception:  # a template that takes no tools or wants parts: it makes no claim
        continue
    if claimed and "thought" in one and "thought" not in two:
        print(file.stem, f"{claimed}, but rewritten")
EOF
diff -u <(sed -n '/^# Output seen:/,/^set /s/^#   //p' "$0") "$folder/seen"
cat "$folder/seen"
