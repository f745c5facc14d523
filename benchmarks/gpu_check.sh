#!/usr/bin/env bash
# Everything that wants an NVIDIA GPU, in two commands for a machine that is there for minutes:
#
#   benchmarks/gpu_check.sh first  [--dry-run] [OUT]    200 s: what runs, what qualifies, how fast
#   benchmarks/gpu_check.sh second [--dry-run] [OUT]    390 s: tests, sanitizers, sweeps, compilers
#
# Each makes OUT/CALL.jsonl, to which rows are appended as they are measured, and OUT/CALL.tar.gz
# with all logs and files, packed again after each step, so a run that is cut off loses one step at
# the most. OUT is build/gpu_check by default. A step that fails or takes too long does not stop
# those behind it; the exit status is their number. Needs torch, triton, pytest with xdist and
# timeout, and the two libraries built (kernels/_C.so, _C_cuda.so); it installs nothing.
# --dry-run goes through every line on a CPU, in tiny sizes.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2
call=${1:-} dry='' out=build/gpu_check
for argument in "${@:2}"; do
  if [[ $argument == --dry-run ]]; then dry=--dry-run; else out=$argument; fi
done
if [[ $call != first && $call != second ]]; then
  echo "gpu_check.sh: the first argument must be first or second, got '$call'" >&2
  exit 2
fi
if [[ "$(realpath -m "$out")/" == */benchmarks/results/* ]]; then
  echo "gpu_check.sh: $out holds published results; name another folder and copy what is to stay" >&2
  exit 2
fi
out=$(mkdir -p "$out" && cd "$out" && pwd) || exit 2
python=${PYTHON:-python3}
files=$(mktemp -d)
trap 'rm -rf "$files"' EXIT
tree=$files/.tree
rows=$out/$call.jsonl
: >"$rows"
failed=()

pack() {  # all that there is so far, in one file that is whole at any time
  tar --exclude=./.tree -czf "$out/$call.tar.gz.new" -C "$files" . &&
    mv "$out/$call.tar.gz.new" "$out/$call.tar.gz"
}

step() {  # step NAME SECONDS COMMAND...
  local name=$1 seconds=$(($2 * slack)) began=$SECONDS
  shift 2
  echo "== $name"
  timeout --kill-after=5 "$seconds" "$@" >"$files/$name.log" 2>&1
  local status=$?
  tail -n 4 "$files/$name.log"
  ((status)) && failed+=("$name (status $status)")
  echo "-- $name: $((SECONDS - began)) s, status $status"
  printf '{"step": "%s", "status": %d, "seconds": %d, "limit": %d}\n' \
    "$name" "$status" $((SECONDS - began)) "$seconds" >>"$rows"
  pack
}

measured() {  # measured NAME SECONDS: a step of benchmarks/gpu
  step "$1" "$2" "$python" -m benchmarks.gpu "$1" --out "$rows" $dry
}

sanitized() {  # sanitized TOOL SECONDS: every operator once, under compute-sanitizer
  local watch=(compute-sanitizer --tool "$1" --error-exitcode 1)
  [[ $dry ]] && watch=(env)
  step "$1" "$2" env PYTORCH_NO_CUDA_MEMORY_CACHING=1 "${watch[@]}" \
    "$python" -m benchmarks.gpu small --out "$rows" $dry
}

compared() {  # compared FILE SECONDS NAME OPTIONS...: a benchmark with torch.compile's contestants
  local compile=(--device cuda --compile)
  [[ $dry ]] && compile=(--device cpu)
  step "$1" "$2" "$python" -m benchmarks "${@:3}" "${compile[@]}" --out "$files/$1.json"
}

# The package as an installation would lay it out, so that none is needed.
mkdir "$tree" && cp -r msclr benchmarks tests csrc pyproject.toml "$tree" &&
  rm -rf "$tree/msclr/kernels" && cp -r kernels "$tree/msclr/kernels" && cd "$tree" || exit 2
export PYTHONPATH=$tree PYTHONUNBUFFERED=1 XDG_CACHE_HOME=$files/cache

if [[ $dry ]]; then
  slack=10 doctor=(info) gpu=(echo "no GPU") compiler=(echo "no compiler")
  tests=(tests/test_progress.py -n 1)
  graph_conv=(--dtype float32 --samples 1 --joints 25 --rounds 2)
  info_nce=(--dtype float32 --sizes 2x64 --dim 16 --rounds 2)
else
  slack=1 doctor=(doctor --json --device cuda) gpu=(nvidia-smi) compiler=(nvcc --version)
  tests=(tests/kernels tests/nn tests/training -n 12 --timeout 60)
  graph_conv=(--dtype bfloat16 --samples 256 --joints 25 --rounds 7)
  info_nce=(--dtype bfloat16 --sizes 128x32768 --dim 128 --rounds 7)
fi

if [[ $call == first ]]; then
  step gpu 5 "${gpu[@]}"
  step compiler 5 "${compiler[@]}"
  measured machine 25
  step qualification 60 "$python" -m msclr "${doctor[@]}"
  measured operators 55
  measured training 50
else
  step tests 130 "$python" -m pytest "${tests[@]}" -q -p no:cacheprovider \
    -k "not compiles and not keep_to" --junitxml "$files/tests.xml"
  sanitized memcheck 60
  sanitized racecheck 60
  measured sweep 80
  compared graph_conv 30 graph_conv "${graph_conv[@]}"
  compared info_nce 30 info_nce "${info_nce[@]}"
fi

printf 'failed: %s\n' "${failed[@]:-none}"
exit "${#failed[@]}"
