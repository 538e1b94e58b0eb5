#!/usr/bin/env bash
# trl 1.16.0's response templates of Nemotron 3 and DeepSeek R1 distills give thoughts that were cut off as the answer.
#
# Both families open the thoughts in the prompt. A completion that ends at its token limit before they are closed has no answer:
# Qwen3.5's template gives it as reasoning. With the other two, parse_response of transformers 5.23.0 gives all of it as content,
# so that a grader pays for what was only thought, for instance where the right number comes up on the way.
#
# Output seen:
#   qwen3_5_think: reasoning 'Maybe 12, let me', content None
#   nemotron_3_nano: reasoning None, content 'Maybe 12, let me'
#   deepseek_r1_distill: reasoning None, content 'Maybe 12, let me'
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.23.0 trl==1.16.0
"$folder/venv/bin/python" - > "$folder/seen" 2> "$folder/errors" <<'EOF' || { tail -20 "$folder/errors"; exit 1; }
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from trl import chat_template_utils as templates


def tokenizer_of(family):
    """Returns a tokenizer of single bytes with a family's chat template and trl's response template for it."""
    letters = {byte: i for i, byte in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    inner = Tokenizer(models.BPE(vocab=letters, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    outer = PreTrainedTokenizerFast(tokenizer_object=inner)
    outer.chat_template = getattr(templates, family + "_chat_template")
    return templates.add_response_schema(outer)


asked = [{"role": "user", "content": "3 * 4?"}]
for family in ("qwen3_5_think", "nemotron_3_nano", "deepseek_r1_distill"):
    tokenizer = tokenizer_of(family)
    prompt = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    assert prompt.endswith("<think>\n")
    message = tokenizer.parse_response("Maybe 12, let me", prefix=prompt)
    print(f"{family}: reasoning {message.get('reasoning_content')!r}, content {message.get('content')!r}")
EOF
diff -u <(sed -n '/^# Output seen:/,/^set /s/^#   //p' "$0") "$folder/seen"
cat "$folder/seen"
