#!/usr/bin/env bash
# Audits of three classifiers of butterflies, with two kinds of masks:
#   run.sh IMAGES STANDARD RECIPE U2NETP OUT
#
# README.md says what these are. What has been finished is not made again.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
images=$(realpath "$1"); standard=$(realpath "$2"); recipe=$(realpath "$3"); u2netp=$(realpath "$4")
mkdir -p "$5"
cd "$5"
if [ ! -e masks ]; then python "$here/striped.py" "$images" .; fi
imagenet=(--mean 0.485 0.456 0.406 --std 0.229 0.224 0.225 --class_names imagenet)

audit() {  # NAME MODEL IMAGES OPTIONS…
  for masks in drawn salient; do
    out="$1-$masks"
    if [ -e "$out/audit.json" ]; then continue; fi
    given=(--masks masks)
    if [ "$masks" = salient ]; then given=(--with salient --mask_weights "$u2netp"); fi
    PYTHONPATH="$here:${PYTHONPATH:-}" faster-isnet audit "$2" "$3" "${given[@]}" --name "$1, $masks masks" --out "$out" "${@:4}"
  done
}
audit imagenet lite0:build plain "${imagenet[@]}"
audit standard "$standard" striped
audit recipe "$recipe" striped

for masks in drawn salient; do
  faster-isnet compare {imagenet,standard,recipe}-$masks --out "$masks"
done
faster-isnet compare {imagenet,standard,recipe}-{drawn,salient} --out both
