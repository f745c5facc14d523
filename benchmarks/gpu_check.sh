#!/usr/bin/env bash
# Everything that wants an NVIDIA GPU, in one command of about ten minutes: build (or take the
# libraries that are there), tests on the GPU, compute-sanitizer on small cases, every benchmark.
#
#   benchmarks/gpu_check.sh [OUT]        needs torch, triton, pytest and hypothesis; installs nothing
#
# The results are JSON files in OUT (default: build/gpu_check): copy those that are to stay into
# benchmarks/results/. A step that fails does not stop the ones behind it; the summary names it, and
# the exit status is the number of such steps.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [[ "$(realpath -m "${1:-build}")/" == */benchmarks/results/* ]]; then
  echo "gpu_check.sh: $1 holds published results; name another folder and copy what is to stay" >&2
  exit 2
fi
out=$(mkdir -p "${1:-build/gpu_check}" && cd "${1:-build/gpu_check}" && pwd)
tree=$PWD/build/gpu_tree
python=${PYTHON:-python3}
failed=()

step() {  # step NAME SECONDS COMMAND...
  local name=$1 seconds=$2
  shift 2
  echo "== $name"
  local began=$SECONDS
  timeout "$seconds" "$@" >"$out/$name.log" 2>&1
  local status=$?
  tail -n 6 "$out/$name.log"
  ((status)) && failed+=("$name (status $status, see $name.log)")
  echo "-- $name: $((SECONDS - began)) s, status $status"
}

build() {
  if [[ ! -f kernels/_C.so || ! -f kernels/_C_cuda.so ]]; then
    "$python" setup.py build_ext --inplace || return
  fi
  # The package as an installation would lay it out, so that none is needed.
  rm -rf "$tree" && mkdir -p "$tree" && cp -r msclr benchmarks tests csrc pyproject.toml "$tree" &&
    cp -r kernels "$tree/msclr/kernels" && cd "$tree" &&
    "$python" -c 'from msclr import kernels; print(kernels.backends())'
}

small_case() {  # run under compute-sanitizer: every operator and backend, forward and backward
  cat <<'PYTHON'
import torch
from msclr import kernels, layouts

support = kernels.graph_support(a := layouts.get("kinectv2_25").adjacency().cuda())
for backend in ("triton", "cuda"):
    if reason := kernels.backends()[backend]:
        print(backend, "not run:", reason)
        continue
    for dtype, channels in ((torch.bfloat16, (16, 24)), (torch.float32, (3, 5))):
        x = torch.randn(2, channels[0], 5, 25, device="cuda", dtype=dtype, requires_grad=True)
        w = torch.randn(3 * channels[1], channels[0], device="cuda", requires_grad=True)
        y = kernels.masked_graph_conv(x, w, None, a, support=support, backend=backend)
        y.float().sum().backward()
        torch.cuda.synchronize()
        print(backend, dtype, tuple(y.shape), bool(x.grad.isfinite().all()))

if not kernels.backends()["triton"]:
    for dtype in (torch.bfloat16, torch.float32):
        rows = torch.randn(4, 70, 40, device="cuda", dtype=dtype, requires_grad=True)
        views, keys, bank = rows[:3, :5], rows[3, :5], rows[3]
        mined = dict(teacher=0, top_k=2, positives="mined", backend="triton")
        out = kernels.info_nce(views, keys, bank, **mined)
        both = kernels.multi_view_info_nce(views, bank=bank, negatives="batch", backend="triton")
        (out.loss.sum() + out.distribution.sum() + both).backward()
        torch.cuda.synchronize()
        print("info_nce, multi_view_info_nce", dtype, bool(rows.grad.isfinite().all()))
    layout = layouts.get("kinectv2_25")
    clips, index = torch.randn(3, 2, 20, 25, 3, device="cuda"), torch.tensor([2, 0], device="cuda")
    tables = dict(flip=layout.flip.cuda(), parents=layout.parents.cuda(), stream="bone")
    draw = dict(seed=0, purpose=0, view="extreme", backend="triton")
    made = kernels.augment(clips, index, index, **tables, **draw)
    torch.cuda.synchronize()
    print("augment", tuple(made.shape), bool(made.isfinite().all()))
PYTHON
}

bench() {  # bench FILE SECONDS NAME OPTIONS...
  local file=$1 seconds=$2
  shift 2
  step "bench-$file" "$seconds" "$python" -m benchmarks "$@" --device cuda --out "$out/$file.json"
}

nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv | tee "$out/gpu.txt"
step build 150 bash -c "$(declare -f build); python=$python tree=$tree; build"
cd "$tree" || exit 1
export PYTHONPATH=$tree PYTHONUNBUFFERED=1

step tests 200 "$python" -m pytest tests/kernels tests/nn -q -n 8 -p no:cacheprovider
small_case >"$out/small_case.py"
step sanitizer 90 compute-sanitizer --tool memcheck --error-exitcode 1 "$python" "$out/small_case.py"
for backend in triton cuda; do
  for dtype in bfloat16 float32; do
    bench "graph_conv-cuda-$dtype-$backend" 45 graph_conv --dtype "$dtype" --backend "$backend" \
      --samples 256 --joints 25 42 --rounds 9
  done
done
bench graph_conv-cuda-bfloat16-compiled 90 graph_conv --dtype bfloat16 --samples 256 --joints 25 \
  --rounds 9 --compile
bench info_nce-cuda-bfloat16-triton 60 info_nce --dtype bfloat16 --backend triton \
  --sizes 128x32768 128x1048576 16384x32768 --dim 128 --rounds 9
bench multi_view-cuda-bfloat16-triton 90 multi_view --dtype bfloat16 --backend triton \
  --clips 1024 8192 65536 --rounds 5
bench data_batches-cuda-triton 45 data batches --backend triton
bench stgcn-cuda-bfloat16 45 stgcn --dtype bfloat16 --samples 64 --rounds 7

echo "== summary"
"$python" -m benchmarks.summary "$out"/*.json
printf 'failed: %s\n' "${failed[@]:-none}"
exit "${#failed[@]}"
