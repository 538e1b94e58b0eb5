#!/usr/bin/env bash
# trl 1.16.0: the assistant masks of some training templates begin before what the model writes.
#
# assistant_only_loss takes the loss where the template says {% generation %}. In four families the mask covers the turn's
# header too, which the generation prompt writes at inference and the model never samples; GLM's begins with the newline
# of the header and an empty thought, Qwen2.5's with the newline. Gemma's and Qwen's go one newline past the end
# token. Llama 3's is what one expects: the answer and its end token.
#
# Output seen:
#   deepseek_r1_distill_training '<｜Assistant｜>answer<｜end▁of▁sentence｜>'
#   deepseekv3_training '<｜Assistant｜>answer<｜end▁of▁sentence｜>'
#   gemma3_training 'answer<end_of_turn>\n'
#   glm4moe_training '\n<think></think>\nanswer<|user|>'
#   gptoss_training '<|start|>assistant<|channel|>final<|message|>answer<|return|>'
#   llama3_training 'answer<|eot_id|>'
#   muse_glimmer_training '<|start|>assistant to=user<|message|>answer<|eot|>'
#   qwen2_5_training '\nanswer<|im_end|>\n'
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

vocabulary = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
letters = Tokenizer(models.BPE(vocabulary, []))
letters.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
letters.decoder = decoders.ByteLevel()
SEEN = "deepseek_r1_distill deepseekv3 gemma3 glm4moe gptoss llama3 muse_glimmer qwen2_5".split()
MESSAGES = [{"role": "user", "content": "question"}, {"role": "assistant", "content": "answer"}]

for name in SEEN:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=letters)
    tokenizer.bos_token = "" if name == "gemma3" else "<s>"
    file = Path(trl.__file__).parent / "chat_templates" / f"{name}_training.jinja"
    tokenizer.chat_template = file.read_text()
    told = tokenizer.apply_chat_template(MESSAGES, return_dict=True, return_assistant_tokens_mask=True)
    masked = [i for i, is_answer in zip(told["input_ids"], told["assistant_masks"], strict=True) if is_answer]
    print(file.stem, repr(tokenizer.decode(masked)))
EOF
diff -u <(sed -n '/^# Output seen:/,/^set /s/^#   //p' "$0") "$folder/seen"
cat "$folder/seen"
