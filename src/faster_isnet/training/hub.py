"""Put a trained classifier on the Hugging Face Hub, and fetch one from there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from faster_isnet.training.export import DESCRIPTION, FILES

HUB = "hub:"
"""What the name of a classifier on the Hub begins with: ``hub:ORG/NAME`` or ``…@REVISION``."""
WEIGHTS = FILES["safetensors"]
CARD = "README.md"
UPLOADED = (CARD, DESCRIPTION, WEIGHTS)
"""All that is uploaded; the last two are all that is fetched."""


@dataclass(frozen=True)
class Fetched:
    """Files of a classifier that were fetched from the Hub.

    Attributes
    ----------
    folder
        Where they are: in the cache of ``huggingface_hub``.
    revision
        The hash of the commit that they are of.
    """

    folder: Path
    revision: str


def is_on_hub(model: str | Path) -> bool:
    """Return whether a model is named as one on the Hub is."""
    return str(model).startswith(HUB)


def fetch(model: str) -> Fetched:
    """Fetch the weights and the description of a classifier, unless they are in the cache.

    Two files are fetched, a JSON and a safetensors file: neither can hold code.

    Parameters
    ----------
    model
        ``"hub:ORG/NAME"``, or ``"hub:ORG/NAME@REVISION"`` with a branch, a tag or the hash of a
        commit.

    Raises
    ------
    ImportError
        If ``huggingface_hub`` is not installed.
    OSError
        If they cannot be fetched: there are none, they are private, or there is no connection.
    ValueError
        If the name is none, or there is no classifier of :func:`upload`.
    """
    name, _, revision = model.removeprefix(HUB).partition("@")
    api = _hub().HfApi()
    with _naming_failure(model):
        described = Path(api.hf_hub_download(name, DESCRIPTION, revision=revision or None))
        # The second file of the same commit, though another may have been made meanwhile.
        commit = described.parent.name
        api.hf_hub_download(name, WEIGHTS, revision=commit)
    return Fetched(described.parent, commit)


def upload(folder: Path, name: str, *, private: bool = False, token: str | None = None) -> str:
    """Upload the files of a classifier, and return the hash of the commit.

    Parameters
    ----------
    folder
        Holds ``README.md``, ``model.json`` and ``model.safetensors``. Nothing else is uploaded.
    name
        ``"ORG/NAME"``. The repository is made if there is none.
    private
        Whether a repository that is made is private; one that is there stays as it is.
    token
        Of a user who may write there; ``None`` for that of ``HF_TOKEN`` or ``hf auth login``.

    Raises
    ------
    ImportError
        If ``huggingface_hub`` is not installed.
    OSError
        If it cannot be uploaded: there is no connection, or the token does not allow it.
    ValueError
        If the name is none.
    """
    api = _hub().HfApi(token=token)
    with _naming_failure(name):
        api.create_repo(name, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=name,
            folder_path=folder,
            allow_patterns=list(UPLOADED),
            commit_message="Upload a classifier of faster-isnet",
        )
    return str(commit.oid)


def read_uploaded(folder: Path) -> Mapping[str, Any]:
    """Read the arguments that a classifier's network is built with again, and its example.

    Parameters
    ----------
    folder
        Of :attr:`Fetched.folder`, or what ``push --out`` has written.

    Returns
    -------
    mapping
        ``"arguments"`` of :class:`~faster_isnet.training.image_classifier.ImageClassifier`, all
        plain values, and ``"example"``, the value of all pixels and the logits for it.

    Raises
    ------
    FileNotFoundError
        If there is no description.
    ValueError
        If it describes something else.
    """
    path = folder / DESCRIPTION
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        shape = tuple(int(each) for each in content["input"]["shape"][1:])
        built_by, example = content["built_by"], content["example"]
        arguments = {
            "class_names": [str(each) for each in content["output"]["class_names"]],
            "image_shape": shape,
            "backbone": str(built_by["backbone"]),
            "dropout": float(built_by["dropout"]),
            "normalise": bool(built_by["normalise"]),
            "task": str(content["task"]),
        }
        logits = [float(each) for each in example["logits"]]
        pixels = float(example["all_pixels"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{str(path)!r} does not say how to build the network ({error!r}): it is no file of "
            "faster-isnet push, or damaged; nothing else is read, since others' files may hold "
            "code"
        ) from error
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"{str(path)!r} has images of shape {shape}; it must be [C, H, W], from 1")
    return {"arguments": arguments, "example": {"all_pixels": pixels, "logits": logits}}


def _hub() -> Any:
    try:
        return import_module("huggingface_hub")
    except ModuleNotFoundError as error:
        raise ImportError(
            "the Hugging Face Hub needs huggingface_hub: pip install 'faster-isnet[hub]'"
        ) from error


@contextmanager
def _naming_failure(model: str) -> Iterator[None]:
    """Raise what goes wrong with the Hub as an error that says what to do."""
    errors = import_module("huggingface_hub.utils")
    log_in = "give a token that may (hf auth login, or HF_TOKEN in the environment)"
    try:
        yield
    except errors.HFValidationError as error:
        raise ValueError(f"{model!r} names nothing on the Hub ({error}); write ORG/NAME") from error
    except errors.RevisionNotFoundError as error:
        raise OSError(f"{model!r}: there is no such revision; leave out @REVISION") from error
    except errors.RepositoryNotFoundError as error:
        raise OSError(
            f"{model!r}: there is no such repository, or it may not be seen; correct its name, or "
            f"{log_in}"
        ) from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        raise OSError(
            f"{model!r} is not in the cache, and the Hub cannot be reached ({_first_line(error)}); "
            "go online, leave out HF_HUB_OFFLINE, or copy the cache (HF_HOME) of a machine that "
            "has it"
        ) from error
    except errors.EntryNotFoundError as error:
        raise ValueError(
            f"{model!r} holds no classifier of faster-isnet push: it lacks {DESCRIPTION} or "
            f"{WEIGHTS}. Nothing else is read: pickles (.bin, .pt, .ckpt) can run code, and the "
            "network would not be known; networks of timm are called timm:…"
        ) from error
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        cure = log_in if status in (401, 403) else "try again later"
        raise OSError(f"{model!r}: the Hub refused ({_first_line(error)}); {cure}") from error
    # Of its HTTP client: requests in its versions 0, whose errors are OSErrors, httpx since.
    except (OSError, *errors.HfHubHTTPError.__bases__) as error:
        raise OSError(
            f"{model!r}: the Hub cannot be reached ({_first_line(error)}); go online, and try again"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
