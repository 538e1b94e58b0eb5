#!/usr/bin/env bash
# numba 0.68.1: with fastmath and cache=True the process that compiles a function gets other last bits than the next one, which
# reads the same machine code from the cache.
#
# A function that is called is a weak symbol in the machine code of each caller. In the process that compiles, calls reach the
# copy that was compiled by itself; in one that reads the cache they reach the caller's own, which was optimised once more, with
# the sums of `spread` below in another order. So a first run is not repeated by a second one, on the same machine and input.
#
# Output seen:
#   compiling, then reading: the same bits: False
#   reading, then reading: the same bits: True
#   without fastmath, compiling, then reading: the same bits: True
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numba==0.68.1 numpy==2.4.6
write() { # write NAME FASTMATH: a module whose machine code is kept beside it
    mkdir "$folder/$1"
    sed "s/FASTMATH/$2/" > "$folder/$1/sums.py" <<'EOF'
import numba
import numpy as np

jit = numba.njit(fastmath=FASTMATH, cache=True)


@jit
def mean(x):
    total = np.float32(0)
    for i in range(len(x)):
        total += x[i]
    return total / np.float32(len(x))


@jit
def spread(x, y):
    middle_x, middle_y = mean(x), mean(y)
    total = np.float32(0)
    for i in range(len(x)):
        for j in range(len(y)):
            total += (x[i] - middle_x) * (y[j] - middle_y) + np.float32(np.exp(x[i] - y[j]))
    return total / np.float32(len(x) * len(y))


@jit
def all_pairs(x):
    total = np.float32(0)
    for i in range(x.shape[0]):
        for j in range(x.shape[0]):
            total += spread(x[i], x[j])
    return total + spread(x[0], x[1, ::2].copy()) + spread(x[0, ::3].copy(), x[1])


numbers = np.random.default_rng(0).standard_normal((13, 57)).astype(np.float32)
print(float(all_pairs(numbers)).hex())
EOF
}
run() { "$folder/venv/bin/python" "$folder/$1/sums.py"; }
same() { if [ "$1" = "$2" ]; then echo True; else echo False; fi; }
write fast True
write exact False
first=$(run fast) second=$(run fast) third=$(run fast)
{
    echo "compiling, then reading: the same bits: $(same "$first" "$second")"
    echo "reading, then reading: the same bits: $(same "$second" "$third")"
    echo "without fastmath, compiling, then reading: the same bits: $(same "$(run exact)" "$(run exact)")"
} > "$folder/seen"
diff -u <(sed -n '/^# Output seen:/,/^set /s/^#   //p' "$0") "$folder/seen"
cat "$folder/seen"
