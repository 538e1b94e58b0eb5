#!/usr/bin/env bash
# The first run of Cherry on a GPU: two calls, from the root of the tree, on a GPU machine without network.
#
#   scripts/gpu/gpu_check.sh 1     at most 4 minutes: is it right?
#   scripts/gpu/gpu_check.sh 2     at most 6 minutes: is it fast?
#
# The second does not need the first. What is missing there is brought as wheels (scripts/gpu/wheels.sh):
#   python3 -m pip install -q --no-index --no-deps --no-compile --target .site .whl/*.whl; export PYTHONPATH=.site
# Everything is printed as it goes and kept in the folder OUT, a file for each part. PARTS="decode varlen" runs
# those alone. A rehearsal without a GPU: DEVICE=cpu SLOWER=10, where parts run one after another and jobs are
# half as long.
#
# Which part answers what (docs/scaling.md has the same as a table):
#   versions        torch 2.11 and transformers 5.17 are there, and which GPU
#   tests           the project's tests for a GPU: graphs sample what single kernels do, bf16, a failed capture
#   jobs            a job of each kind runs through: LoRA and full, fp32 and bf16, ppo, one step ahead, a grammar
#   resume          a killed run goes on; same_bits: how far two runs of a seed, and a resumed one, are the same
#   decode          a decode step's Triton operations give what the library's modules do
#   varlen          attention without masks gives what tiles with masks do, and how fast both are
#   deep_models     models of 24 to 80 layers in bf16 are let onto the fast path
#   one_process     NCCL and FSDP2 in a world of one
#   failed_capture  a capture that fails leaves stream and allocator as they were
#   out_of_memory   a pass that does not fit is made in halves, with the same weights in the end
#   quantised       bases in 4 and 8 bits: products, KL 0 at the start, sampler and trainer agree
#   same_twice      deterministic: true gives the same bits twice
#   timed           decode at 64 rows against the memory limit (bars: 3 times for 7B, 5 times for 0.5B), updates,
#                   and peaks of memory with and without gradient checkpointing
#   beside_trl      a LoRA step of a 0.5B model against TRL with transformers' generate (bar: 4 times as fast)
#   serving         the sampler answers alone and beside others
#
# Limits in seconds, added up where parts run one after another; the longest where they run side by side:
#   1: versions 15; jobs, tests and the run to be killed 90; resume, decode, varlen, deep_models, one_process and
#      failed_capture 55; same_bits 10; out_of_memory 25; quantised and same_twice 40: together 235 of 240
#   2: timed 200, beside_trl 115, serving 35: together 350 of 360
# Whatever the parts take, none goes on beyond the end of its call.
set -u
STAGE=${1:?1 or 2}
DEVICE=${DEVICE:-cuda}
PY=${PY:-python3}
OUT=${OUT:-gpu_out}
SLOWER=${SLOWER:-1} # a factor for all limits, for a rehearsal on a busy machine
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
mkdir -p "$OUT"
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false
export HF_HUB_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1 OMP_NUM_THREADS=${OMP_NUM_THREADS:-2}
SUMMARY="$OUT/summary$STAGE.txt"
: > "$SUMMARY"
BEGAN=$SECONDS
case $STAGE in 1) MINUTES=4 ;; 2) MINUTES=6 ;; *) echo "The stage is 1 or 2, not $STAGE." >&2; exit 2 ;; esac
END=$((BEGAN + 60 * MINUTES * SLOWER))

ROWS=48 # six steps
[ "$DEVICE" = cuda ] || ROWS=24
head -n "$ROWS" examples/people/train.jsonl > "$WORK/train.jsonl"
head -n "$((ROWS / 4))" examples/people/valid.jsonl > "$WORK/valid.jsonl"

say() { echo "$*" | tee -a "$SUMMARY"; }

wanted() { [ -z "${PARTS:-}" ] || [[ " $PARTS " == *" $1 "* ]]; }

part() { # part NAME SECONDS COMMAND...: runs under a limit, prints as it goes, and leaves a line in the summary
    local name=$1 limit=$(($2 * SLOWER)) from=$SECONDS status
    shift 2
    wanted "$name" || return 0
    [ "$limit" -lt $((END - SECONDS - 2)) ] || limit=$((END - SECONDS - 2))
    if [ "$limit" -le 0 ]; then
        say "$(printf '%-18s not run: no time is left' "$name")"
        return 0
    fi
    echo "=== $name"
    timeout -k 2 "$limit" "$@" 2>&1 | tee "$OUT/$name.txt"
    status=${PIPESTATUS[0]}
    say "$(printf '%-18s status %-3s %3ss (at %ss)' "$name" "$status" "$((SECONDS - from))" "$((SECONDS - BEGAN))")"
}

BESIDE=()
beside() { # beside NAME SECONDS COMMAND...: a part side by side with others, which is printed when it has ended
    part "$@" > "$WORK/$1.part" 2>&1 &
    BESIDE+=("$!:$1")
    [ "$DEVICE" = cuda ] || together
}

together() { # waits for the parts that run side by side
    local one
    for one in "${BESIDE[@]}"; do
        wait "${one%%:*}"
        tail -n 25 "$WORK/${one#*:}.part"
    done
    BESIDE=()
}

check() { echo "$PY -m scripts.gpu.checks.$1"; }

run_file() { # run_file NAME LINE...: a file for workers.train on the example about people
    local name=$1
    shift
    {
        echo "train = \"$WORK/train.jsonl\""
        echo "valid = \"$WORK/valid.jsonl\""
        echo "grader = \"$PWD/examples/people/grader.json\""
        echo "output = \"$WORK/$name\""
        echo "[config]"
        echo "model = \"cherry-nano\""
        echo "model_path = \"$PWD/workers/models/cherry_nano\""
        printf '%s\n' 'seed = 1' 'n_epochs = 1' 'prompts_per_step = 8' 'group_size = 8' 'max_completion_tokens = 96'
        printf '%s\n' 'beta = 0.02' 'eval_interval = 3' 'save_state_every = 1' "device = \"$DEVICE\""
        printf '%s\n' "$@"
    } > "$WORK/$name.toml"
}

train() { echo "$PY -m workers.train $WORK/$1.toml"; }

job() { # job NAME LINE...: a part that trains
    run_file "$@"
    beside "$1" 90 $(train "$1")
}

jobs_of_each_kind() { # they are small, so a GPU has room for all at once
    local lora='learning_rate = 5e-4' full='learning_rate = 5e-5' half='dtype = "bfloat16"'
    job lora32 "$lora" 'dtype = "float32"'
    job lora32again "$lora" 'dtype = "float32"'
    job lora16 "$lora" "$half"
    job full16 "$full" "$half" 'adapter = "full"'
    job checkpointing16 "$lora" "$half" 'gradient_checkpointing = true'
    job ppo16 "$lora" "$half" 'algorithm = "ppo"'
    job ahead16 "$lora" "$half" 'async_steps = 1'
    job json16 "$lora" "$half" 'response_format = {type = "json_object"}'
}

killed() { # trains until two steps are saved, and kills that
    local victim
    "$PY" -m workers.train "$WORK/resumed.toml" > "$OUT/killed.txt" 2>&1 &
    victim=$!
    for _ in $(seq $((340 * SLOWER))); do
        [ "$(wc -l 2> /dev/null < "$WORK/resumed/metrics.jsonl")" -ge 3 ] 2> /dev/null && break
        kill -0 "$victim" 2> /dev/null || break
        sleep 0.25
    done
    kill -9 "$victim" 2> /dev/null
    wait "$victim" 2> /dev/null
}

if [ "$STAGE" = 1 ]; then
    { nvidia-smi; nvidia-smi topo -m; } > "$OUT/machine.txt" 2>&1
    part versions 15 $(check versions)
    run_file resumed 'learning_rate = 5e-4' 'dtype = "float32"'
    if wanted resume; then
        killed &
        KILLED=$!
    fi
    # the project's own tests for a GPU; without the root's conftest, which wants a database
    [ "$DEVICE" = cuda ] && beside tests 90 "$PY" -m pytest -q --noconftest -p tests.workers.training.conftest \
        -W default -p no:cacheprovider -m gpu tests/workers/training/test_gpu.py tests/workers/training/base/test_distributed.py
    jobs_of_each_kind
    together
    [ -n "${KILLED:-}" ] && wait "$KILLED"
    beside resume 55 $(train resumed)
    beside decode 55 $(check decode) "$DEVICE" "$WORK"
    beside varlen 55 $(check varlen) "$DEVICE"
    beside deep_models 55 $(check deep_models) "$DEVICE"
    beside one_process 55 $(check one_process) "$DEVICE" "$WORK"
    beside failed_capture 55 $(check failed_capture) "$DEVICE"
    together
    part same_bits 10 $(check same_bits) "$WORK" lora32 lora32again resumed
    part out_of_memory 25 $(check out_of_memory) "$DEVICE" "$WORK" # alone: it takes all of the memory
    beside quantised 40 $(check quantised) "$DEVICE" "$WORK"
    beside same_twice 40 $(check same_twice) "$DEVICE" "$WORK"
    together
    grep -h -i -E "decode_|attention_by|softmax_without|not supported|warn|fall" "$OUT"/*.txt > "$OUT/warnings" 2> /dev/null
    cp "$WORK/lora16/metrics.jsonl" "$OUT/lora16_metrics.jsonl" 2> /dev/null
fi

if [ "$STAGE" = 2 ]; then
    MODEL=qwen0.5b DTYPE=bfloat16 PAIRS=3
    [ "$DEVICE" = cpu ] && MODEL=qwen2m DTYPE=float32 PAIRS=1
    part timed 200 $(check timed) "$DEVICE" "$MODEL" "$OUT/timed.jsonl" "$WORK"
    part beside_trl 115 "$PY" -m benchmarks.engine --device "$DEVICE" --dtype "$DTYPE" --threads "$OMP_NUM_THREADS" \
        --models "$MODEL" --adapters lora --workloads w2 --pairs "$PAIRS" --json "$OUT/bench.json"
    part serving 35 $(check serving) "$DEVICE" "$WORK"
fi
say "stage $STAGE: $((SECONDS - BEGAN))s"
! grep -q -v -E 'status 0 |^stage' "$SUMMARY"
