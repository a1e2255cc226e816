# For machines without a network. Where there is one, with the Python version below, write the wheels:
#
#   pip wheel --wheel-dir wheelhouse '.[dicom,onnx,segment,timm]'
#   docker build --tag faster-isnet .
#
# and take the image along (docker save, docker load). Nothing but the base image is fetched when it is built,
# and nothing when it runs:
#
#   docker run --rm --gpus all -v "$PWD:/data" faster-isnet audit run images.csv --out audit
FROM python:3.12-slim
RUN --mount=type=bind,source=wheelhouse,target=/wheelhouse \
    pip install --no-index --find-links /wheelhouse 'faster-isnet[dicom,onnx,segment,timm]'
WORKDIR /data
ENTRYPOINT ["faster-isnet"]
