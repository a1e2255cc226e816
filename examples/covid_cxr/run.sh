#!/usr/bin/env bash
# From the folder of radiographs to the report:  run.sh DATA OUT
#
# DATA is described in README.md. OUT gets the tables, the segmenter, the lungs' masks, a folder for
# each classifier, and comparison/report.html. What has been finished is not made again.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
data=$(cd "$1" && pwd)
mkdir -p "$2"
out=$(cd "$2" && pwd)
# glibc gives memory back to the system after every step, and asks for it again: a tenth of the time.
export MALLOC_TRIM_THRESHOLD_=4000000000 MALLOC_MMAP_THRESHOLD_=4000000000

python "$here/prepare.py" "$data" "$out"

# Lungs: a U-Net learns them from the masks that radiologists drew, and draws the others.
if [ ! -e "$out/segmenter/segmenter.json" ]; then
  faster-isnet segment fit "$out/lungs.csv" --config "$here/segmenter.yaml" --out "$out/segmenter"
fi
if [ ! -e "$out/masks/masks.csv" ]; then
  faster-isnet segment predict "$out/segmenter" "$data/images" --out "$out/masks"
fi

for name in standard isnet selective stochastic; do
  if [ ! -e "$out/$name/test/metrics.json" ]; then
    faster-isnet fit --config "$here/base.yaml" --config "$here/$name.yaml" --out "$out/$name" \
      --data.source "$out/images.csv" --data.root "$data/images" --data.masks "$out/masks"
    faster-isnet test "$out/$name"
  fi
done

faster-isnet compare "$out/standard" "$out/isnet" "$out/selective" "$out/stochastic" --out "$out/comparison"
