#!/usr/bin/env bash
# The first run of Cherry on a GPU: two calls, from the root of the tree, on a GPU machine without network.
#
#   scripts/gpu/gpu_check.sh 1     at most 4 minutes: libraries, tests, a job for each method, resume, NCCL, captures
#   scripts/gpu/gpu_check.sh 2     at most 6 minutes: decode and update timed, beside TRL, memory, the sampler
#
# The second does not need the first. What is missing there is brought as wheels (scripts/gpu/wheels.sh):
#   python3 -m pip install -q --no-index --no-deps --no-compile --target .site .whl/*.whl; export PYTHONPATH=.site
# Everything is printed as it goes and kept in the folder OUT. A rehearsal without a GPU: DEVICE=cpu.
set -u
STAGE=${1:?1 or 2}
DEVICE=${DEVICE:-cuda}
PY=${PY:-python3}
OUT=${OUT:-gpu_out}
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
mkdir -p "$OUT"
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false
export HF_HUB_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1 OMP_NUM_THREADS=${OMP_NUM_THREADS:-2}
LOG="$OUT/stage$STAGE.txt" SUMMARY="$OUT/summary$STAGE.txt"
: > "$LOG"
: > "$SUMMARY"
SLOWER=${SLOWER:-1} # a factor for the limits of a rehearsal on a busy machine
BEGAN=$SECONDS

say() { echo "$*" | tee -a "$SUMMARY"; }

part() { # part NAME SECONDS COMMAND...: runs under a limit, prints as it goes, and leaves a line in the summary
    local name=$1 limit=$(($2 * SLOWER)) from=$SECONDS status
    shift 2
    echo "=== $name" | tee -a "$LOG"
    timeout -k 5 "$limit" "$@" 2>&1 | tee -a "$LOG" | tail -n 40
    status=${PIPESTATUS[0]}
    say "$(printf '%-24s status %-3s %3ss (at %ss)' "$name" "$status" "$((SECONDS - from))" "$((SECONDS - BEGAN))")"
}

check() { local name=$1 limit=$2; shift 2; part "$name" "$limit" "$PY" -m "scripts.gpu.checks.$name" "$@"; }

run_file() { # run_file NAME LINE...: a file for workers.train on the example about people
    local name=$1
    shift
    {
        echo "train = \"$PWD/examples/people/train.jsonl\""
        echo "valid = \"$PWD/examples/people/valid.jsonl\""
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

train() { timeout -k 5 $((130 * SLOWER)) "$PY" -m workers.train "$WORK/$1.toml"; }

jobs_by_method() { # all at once: they are small
    local lora='learning_rate = 5e-4' full='learning_rate = 5e-5' half='dtype = "bfloat16"' name status
    local -A running=()
    run_file lora32 "$lora" 'dtype = "float32"'
    run_file lora32again "$lora" 'dtype = "float32"'
    run_file lora16 "$lora" "$half"
    run_file full16 "$full" "$half" 'adapter = "full"'
    run_file checkpointing16 "$lora" "$half" 'gradient_checkpointing = true'
    run_file ppo16 "$lora" "$half" 'algorithm = "ppo"'
    run_file ahead16 "$lora" "$half" 'async_steps = 1'
    run_file json16 "$lora" "$half" 'response_format = {type = "json_object"}'
    for name in ${JOBS:-lora32 lora32again lora16 full16 checkpointing16 ppo16 ahead16 json16}; do
        train "$name" > "$WORK/$name.log" 2>&1 &
        running[$name]=$!
    done
    for name in "${!running[@]}"; do
        wait "${running[$name]}"
        status=$?
        { echo "=== job $name"; tail -n 25 "$WORK/$name.log"; } >> "$LOG"
        [ "$status" = 0 ] || tail -n 8 "$WORK/$name.log"
        say "$(printf 'job %-20s status %-3s (at %ss)' "$name" "$status" "$((SECONDS - BEGAN))")"
    done
}

killed_and_resumed() { # after two steps it is killed, and then goes on: is it the run that was not killed?
    local victim
    run_file resumed 'learning_rate = 5e-4' 'dtype = "float32"'
    "$PY" -m workers.train "$WORK/resumed.toml" > "$WORK/resumed.log" 2>&1 &
    victim=$!
    for _ in $(seq $((160 * SLOWER))); do
        [ "$(wc -l 2> /dev/null < "$WORK/resumed/metrics.jsonl")" -ge 3 ] 2> /dev/null && break
        kill -0 "$victim" 2> /dev/null || break
        sleep 0.25
    done
    kill -9 "$victim" 2> /dev/null
    wait "$victim" 2> /dev/null
    part resume 70 "$PY" -m workers.train "$WORK/resumed.toml"
}

if [ "$STAGE" = 1 ]; then
    { nvidia-smi; nvidia-smi topo -m; } > "$OUT/machine.txt" 2>&1
    check versions 60
    # the project's own tests for a GPU; without the root's conftest, which wants a database
    [ "$DEVICE" = cuda ] && part tests 90 "$PY" -m pytest -q --noconftest -p tests.workers.training.conftest \
        -W default -p no:cacheprovider -m gpu tests/workers/training/test_gpu.py tests/workers/training/base/test_distributed.py
    jobs_by_method
    killed_and_resumed
    check same_bits 30 "$WORK" lora32 lora32again resumed
    check deep_models 40 "$DEVICE"
    check one_process 45 "$DEVICE" "$WORK"
    check failed_capture 30 "$DEVICE"
    grep -h -i -E "decode_not_captured|not supported|warn|fall" "$WORK"/*.log > "$OUT/warnings.txt" 2> /dev/null
    cp "$WORK/lora16/metrics.jsonl" "$OUT/lora16_metrics.jsonl" 2> /dev/null
fi

if [ "$STAGE" = 2 ]; then
    MODEL=qwen0.5b DTYPE=bfloat16 PAIRS=3
    [ "$DEVICE" = cpu ] && MODEL=qwen2m DTYPE=float32 PAIRS=1
    check timed 200 "$DEVICE" "$MODEL" "$OUT/timed.jsonl" "$WORK"
    part beside_trl 120 "$PY" -m benchmarks.engine --device "$DEVICE" --dtype "$DTYPE" --threads "$OMP_NUM_THREADS" \
        --models "$MODEL" --adapters lora --workloads w2 --pairs "$PAIRS" --json "$OUT/bench.json"
    check serving 40 "$DEVICE" "$WORK"
fi
say "stage $STAGE: $((SECONDS - BEGAN))s"
! grep -q -v -E 'status 0 |^stage' "$SUMMARY"
