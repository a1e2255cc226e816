#!/usr/bin/env bash
# From radiographs, butterflies and blood cells to the page that compares methods:  run.sh DATA OUT
#
# README.md says what DATA holds. What has been finished is not made again.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
data=$(cd "$1" && pwd)
mkdir -p "$2"
cd "$2"

# Lungs: a U-Net learns them from the masks that radiologists drew, and draws the others.
python "$here/../covid_cxr/prepare.py" "$data/covid-cxr" lungs
if [ ! -e lungs/segmenter/segmenter.json ]; then
  faster-isnet segment fit lungs/lungs.csv --config "$here/../covid_cxr/segmenter.yaml" \
    --out lungs/segmenter
fi
if [ ! -e lungs/masks/masks.csv ]; then
  faster-isnet segment predict lungs/segmenter "$data/covid-cxr/images" --out lungs/masks
fi
if [ ! -e images/radiographs.csv ]; then
  python "$here/prepare.py" "$data" images --lungs lungs/masks
fi
faster-isnet study "$here/images.yaml" --out study --processes 2 --threads 1
