#!/usr/bin/env bash
# On a machine with a GPU, in under 8 minutes: do all Triton kernels give what their reference forms give, and how fast
# are we? Installs nothing.
#
# benchmarks/gpu.sh                    # or PYTHON=.venv/bin/python benchmarks/gpu.sh
# benchmarks/gpu.sh --batch 32         # arguments of run.py, here for a GPU with little memory
#
# Writes goals_cuda.csv and gpu_tests.txt to $OUT, by default benchmarks/results. What is done, the tests and rows of
# run.py, is kept there in gpu_done with a checksum of the sources; another call goes on with the rest.
# POINTMIX_GPU_SECONDS is the time for one call, 460 by default. Exits with 1 if a kernel is wrong, 3 if the tests of
# the kernels or a row are not done, 2 if this machine cannot run them.
set -u -o pipefail
cd "$(dirname "$0")/.."
limit="${POINTMIX_GPU_SECONDS:-460}"
folder="${OUT:-benchmarks/results}"
python="${PYTHON:-python3}"
rows=(share clustering literal quarter single pointmlp tenth dense points memory kept cloud compiled)
tests=(tests/ops/clustering/triton tests/ops/neighbors tests/ops/sampling
    tests/nn/mixers/test_context_packed.py tests/conformance/test_kernels.py)

refuse() {
    echo "error: $1" >&2
    exit 2
}

command -v "$python" >/dev/null || refuse "there is no $python; name a Python with PYTHON=..."
missing="$("$python" -c '
from importlib.util import find_spec
needed = "torch torchvision triton timm jaxtyping safetensors huggingface_hub numpy rich pytest".split()
print(*(name for name in needed if find_spec(name) is None))')" || refuse "$python does not run"
[ -z "$missing" ] || refuse "$python lacks $missing; this script installs nothing"
name="$("$python" -c 'import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else "")')"
[ -n "$name" ] || refuse "torch of $python sees no GPU; TRITON_INTERPRET=1 pytest -k triton tries the kernels on a CPU"
mkdir -p "$folder" || refuse "no folder $folder"

unset TRITON_INTERPRET
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
sum="$(find pointmix benchmarks tests -name '*.py' -print0 | sort -z | xargs -0 cat | cksum | cut -d ' ' -f 1)"
kept="$folder/gpu_done"
[ "$(head -n 1 "$kept" 2>/dev/null)" = "$sum on $name" ] || echo "$sum on $name" >"$kept"
finished() { tail -n +2 "$kept" | grep -qx "$1"; }
left() { echo $((limit - SECONDS)); }
status=0 open=""

echo "$name, $limit s"
if ! finished tests; then
    at_once=()
    "$python" -c 'import xdist' 2>/dev/null && at_once=(-n 8)
    half=$(($(left) / 2))
    timeout --kill-after=5 "$half" "$python" -m pytest -q --maxfail 20 "${at_once[@]}" -p no:cacheprovider \
        "${tests[@]}" -k "triton or packed or test_kernels" 2>&1 | tee "$folder/gpu_tests.txt"
    case "$?" in
    0) echo tests >>"$kept" ;;
    124 | 137) open="tests (stopped after $half s)" ;;
    *) status=1 ;;
    esac
fi
for row in "${rows[@]}"; do
    finished "$row" && continue
    if [ "$(left)" -lt 20 ]; then
        open="$open $row"
        continue
    fi
    some=()
    [ "$row" = compiled ] && some=(--models coc_tiny)
    if timeout --kill-after=5 "$(($(left) - 10))" "$python" benchmarks/run.py --device cuda --seconds 0.5 --rows "$row" \
        "${some[@]}" --csv "$folder/goals_cuda.csv" "$@" >"$folder/gpu_row.txt" 2>&1; then
        echo "$row" >>"$kept"
        echo "$row: done after $SECONDS s"
    else
        open="$open $row"
        echo "$row: not done after $SECONDS s"
        tail -n 5 "$folder/gpu_row.txt"
    fi
done
rm -f "$folder/gpu_row.txt"
[ ! -f "$folder/goals_cuda.csv" ] || "$python" benchmarks/run.py --device cuda --show --csv "$folder/goals_cuda.csv"
[ "$status" = 0 ] || echo "KERNELS ARE WRONG, or their tests do not run: see $folder/gpu_tests.txt" >&2
if [ -n "$open" ]; then
    echo "not done: $open; call again to go on" >&2
    [ "$status" != 0 ] || status=3
fi
exit "$status"
