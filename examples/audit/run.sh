#!/usr/bin/env bash
# Audits of three classifiers of butterflies, with two kinds of masks:
#   run.sh IMAGES STANDARD RECIPE U2NETP BUTTERFLIES OUT
#
# README.md says what these are. What has been finished is not made again.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
images=$(realpath "$1"); standard=$(realpath "$2"); recipe=$(realpath "$3"); u2netp=$(realpath "$4"); butterflies=$(realpath "$5")
mkdir -p "$6"
cd "$6"
if [ ! -e masks ]; then python "$here/striped.py" "$images" .; fi
if [ ! -e photographs ]; then python "$here/photographs.py" "$butterflies" .; fi
imagenet=(--mean 0.5 --std 0.5 --class_names imagenet)

audit() {  # NAME MODEL IMAGES MASKS OPTIONS…
  for masks in drawn salient; do
    out="$1-$masks"
    if [ -e "$out/audit.json" ]; then continue; fi
    given=(--masks "$4")
    if [ "$masks" = salient ]; then given=(--with salient --mask_weights "$u2netp"); fi
    PYTHONPATH="$here:${PYTHONPATH:-}" faster-isnet audit "$2" "$3" "${given[@]}" --name "$1, $masks masks" --out "$out" "${@:5}"
  done
}
audit imagenet lite0:build photographs photograph-masks "${imagenet[@]}"
audit standard "$standard" striped masks
audit recipe "$recipe" striped masks

for masks in drawn salient; do
  faster-isnet compare {imagenet,standard,recipe}-$masks --out "$masks"
done
faster-isnet compare {imagenet,standard,recipe}-{drawn,salient} --out both
