#!/usr/bin/env bash
# Everything that docs/performance.md says of a GPU, on one NVIDIA GPU in under nine minutes:
#
#     bash benchmarks/gpu.sh DATA [TORCH_PYTHON]
#
# DATA: folder of Multi30k's raw files (.gz). TORCH_PYTHON: an interpreter with PyTorch for CUDA and
# transformers; without it benchmarks/peers/.venv-torch, or PyTorch is skipped. PYTHON: the project's own.
# Results also go to benchmarks/scratch/gpu/.
set -euo pipefail
data=$(realpath "${1:?usage: bash benchmarks/gpu.sh DATA [TORCH_PYTHON]}")
torch=${2:+$(realpath --no-symlinks "$2")}
cd "$(dirname "$0")/.."
torch=${torch:-benchmarks/peers/.venv-torch/bin/python}
python=${PYTHON:-python}
out=benchmarks/scratch/gpu
mkdir -p "$out"
common=(--device gpu --torch_python "$torch" --rounds 2 --scratch "$out")

"$python" benchmarks/attention.py | tee "$out/attention.txt"
"$python" benchmarks/compare.py train --data "$data" --size big --target_tokens 32768 --steps 30 --warmup 8 \
  "${common[@]}" --json "$out/train.json" > /dev/null
"$python" -m transformer train --config benchmarks/recipes/small.py --workdir "$out/small" \
  --config.data.root="$data" --config.model.dtype=bfloat16 \
  --config.run.num_steps=1500 --config.run.eval_every=1500 --config.run.eval_lines=0 --config.run.best_metric=nll
"$python" benchmarks/compare.py decode --model "$out/small" --beam_sizes 4 "${common[@]}" \
  --json "$out/decode.json" > /dev/null
cat "$out/attention.txt"
"$python" benchmarks/compare.py show "$out/train.json" "$out/decode.json"
