"""Open ONNX files with onnxruntime, an optional dependency."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import torch

_CUDA, _CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


def onnx_session(path: Path, on_gpu: bool = False) -> Any:
    """Open a file, to be run with as many threads as torch uses.

    Parameters
    ----------
    path
        The file.
    on_gpu
        Whether to run on a GPU if onnxruntime knows one.

    Returns
    -------
    onnxruntime.InferenceSession
        Whose ``run`` returns arrays.

    Raises
    ------
    ImportError
        If onnxruntime is not installed.
    ValueError
        If the file cannot be run.
    """
    try:
        runtime = import_module("onnxruntime")
    except ImportError as error:
        raise ImportError(
            f"ONNX files need onnxruntime: pip install 'faster-isnet[onnx]' ({error})"
        ) from error
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    wanted = (_CUDA, _CPU) if on_gpu else (_CPU,)
    there = runtime.get_available_providers()
    try:
        return runtime.InferenceSession(
            str(path), options, [each for each in wanted if each in there]
        )
    except Exception as error:  # onnxruntime's, which have no common type
        raise ValueError(f"{str(path)!r} is no ONNX file that can be run: {error}") from error
