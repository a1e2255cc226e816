"""What is pushed to the Hub is fetched as the same network, and nothing else goes or comes."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from faster_isnet.cli import main
from faster_isnet.commands.network_loading import NetworkOptions, load_model
from faster_isnet.commands.pushing import _method
from faster_isnet.evaluation.audit import Audit
from faster_isnet.evaluation.saved_evaluation import SavedEvaluation
from faster_isnet.methods import method_names
from faster_isnet.models.weight_files import weights_hash
from faster_isnet.training.hub import UPLOADED
from faster_isnet.training.image_classifier import ImageClassifier
from hub_server import COMMIT, Hub, hub
from marked_shapes import quiet_trainer
from toy_runs import fit, write_images

NAME = "org/shapes"
TOKEN = ("--token", "hf_secret")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    write_images(folder / "images")
    fit(folder / "images", folder / "run", "--method", "standard", "--model.dropout", "0.1")
    assert (
        main(["test", str(folder / "run"), "--resamples", "20", "--examples", "0", "--worst", "0"])
        == 0
    )
    return folder / "run"


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hub(tmp_path, monkeypatch) as each:
        yield each


def pushed(run: Path, *more: str) -> int:
    return main(["push", str(run), NAME, *TOKEN, *more])


def test_a_pushed_classifier_is_fetched_as_the_same_network(
    run: Path, served: Hub, capsys: pytest.CaptureFixture[str]
):
    assert pushed(run, "--private", "--license", "cc-by-4.0", "--trained_on", "60 squares") == 0
    assert f"hub:{NAME}@{COMMIT}" in capsys.readouterr().out
    assert set(served.files[NAME]) == set(UPLOADED)
    assert served.private == {NAME}
    served.private.clear()
    here = ImageClassifier.load_deployed(run / "checkpoints" / "best.ckpt")
    there = ImageClassifier.load_deployed(f"hub:{NAME}")
    assert weights_hash(here.deployed) == weights_hash(there.deployed)
    assert (here.class_names, here.image_shape) == (there.class_names, there.image_shape)
    bundle = load_model(f"hub:{NAME}@{COMMIT}")
    assert (bundle.revision, bundle.architecture) == (COMMIT, "convnet")
    with pytest.raises(ValueError, match="--classes 3"):
        load_model(f"hub:{NAME}", NetworkOptions(classes=3))


def test_no_path_and_no_token_is_uploaded_and_the_card_says_what_it_is(run: Path, served: Hub):
    assert pushed(run, "--license", "mit") == 0
    everything = b"".join(served.files[NAME].values())
    for secret in (str(run), str(run.parent), str(Path.home()), "hf_secret", ".png"):
        assert secret.encode() not in everything, secret
    card = served.files[NAME]["README.md"].decode()
    for told in ("license: mit", "bright, dark, striped", "Trained by: Standard", "Accuracy"):
        assert told in card
    assert "A clean heatmap is no proof" in card


def test_a_checkpoint_that_names_no_method_is_said_to(tmp_path: Path):
    torch.save({"state_dict": {}}, tmp_path / "of_0_1.ckpt")
    assert _method(tmp_path / "of_0_1.ckpt") == "a method that the checkpoint does not name"


def test_commands_take_it_and_keep_the_revision(run: Path, served: Hub, tmp_path: Path):
    assert pushed(run) == 0
    images, masks = (str(run.parent / each) for each in ("images", "masks"))
    name = f"hub:{NAME}"
    options = [
        "--source",
        images,
        "--masks",
        masks,
        "--resamples",
        "20",
        "--examples",
        "0",
        "--worst",
        "0",
    ]
    assert main(["test", name, *options, "--out", str(tmp_path / "test")]) == 0
    saved = SavedEvaluation.load(tmp_path / "test")
    assert (saved.revision, saved.checkpoint, saved.name) == (COMMIT, name, "shapes")
    assert saved.details["revision"] == COMMIT
    words = ["audit", name, f"{images}/dark", "--masks", f"{masks}/dark", "--resamples", "20"]
    assert main([*words, "--pictures", "0", "--out", str(tmp_path / "audit")]) == 0
    assert Audit.load(tmp_path / "audit").model.revision == COMMIT
    words = ["export", name, "--formats", "safetensors", "--out", str(tmp_path / "exported")]
    assert main(words) == 0


def test_without_upload_the_files_are_written(run: Path, served: Hub, tmp_path: Path):
    assert pushed(run, "--out", str(tmp_path / "pushed")) == 0
    assert {each.name for each in (tmp_path / "pushed").iterdir()} == set(UPLOADED)
    assert not served.requests
    loaded = ImageClassifier.load_uploaded(tmp_path / "pushed")
    assert loaded.class_names == ["bright", "dark", "striped"]


def test_nothing_is_asked_of_the_hub_without_its_prefix(run: Path, served: Hub):
    load_model(str(run))
    with pytest.raises((ValueError, OSError)):
        load_model(NAME)
    assert not served.requests


def test_files_that_can_hold_code_are_not_fetched(served: Hub):
    served.files[NAME] = {"pytorch_model.bin": pickle.dumps(print), "config.json": b"{}"}
    with pytest.raises(ValueError, match=r"lacks model\.json.*pickles"):
        load_model(f"hub:{NAME}")
    assert not [each for each in served.requests if "pytorch_model" in each]


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit('code ran')",))


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("model.safetensors", pickle.dumps(Bomb()), "no weights in safetensors of convnet"),
        ("model.json", b'{"recipe": {"class_path": "os.system"}}', "how to build the network"),
        ("model.json", b"no json", "how to build the network"),
        ({"built_by": {"backbone": "os.system"}}, b"", "backbone"),
        ({"example": {"logits": [7.0, 7.0, 7.0]}}, b"", "built otherwise here"),
    ],
)
def test_a_repository_that_holds_something_else_is_refused(
    run: Path,
    served: Hub,
    file: str | dict[str, dict[str, object]],
    content: bytes,
    message: str,
):
    assert pushed(run) == 0
    files = served.files[NAME]
    if isinstance(file, str):
        files[file] = content
    else:
        described = json.loads(files["model.json"])
        for key, changes in file.items():
            described[key] |= changes
        files["model.json"] = json.dumps(described).encode()
    with pytest.raises(ValueError, match=message):
        load_model(f"hub:{NAME}")


def test_what_cannot_be_fetched_says_what_to_do(
    run: Path, served: Hub, monkeypatch: pytest.MonkeyPatch
):
    assert pushed(run, "--private") == 0
    with pytest.raises(OSError, match=r"may not be seen.*hf auth login"):
        load_model(f"hub:{NAME}")
    served.private.clear()
    with pytest.raises(OSError, match="no such revision"):
        load_model(f"hub:{NAME}@of-nobody")
    with pytest.raises(ValueError, match="write ORG/NAME"):
        load_model("hub:a/b/c")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(OSError, match=r"not in the cache.*HF_HUB_OFFLINE"):
        load_model(f"hub:{NAME}")


def test_a_fetched_classifier_is_used_without_a_connection(
    run: Path, served: Hub, monkeypatch: pytest.MonkeyPatch
):
    assert pushed(run) == 0
    load_model(f"hub:{NAME}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert load_model(f"hub:{NAME}").revision == COMMIT


def test_a_network_that_cannot_be_built_again_is_not_pushed(tmp_path: Path):
    lit = ImageClassifier(["a", "b"], (3, 32, 32), "convnet", method=method_names()["ham"]())
    trainer = quiet_trainer(1)
    trainer.strategy.connect(lit)
    trainer.save_checkpoint(tmp_path / "ham.ckpt")
    with pytest.raises(ValueError, match="HAMNetwork of convnet is no backbone by its name"):
        lit.built_by()


def test_without_a_token_it_says_so(run: Path, served: Hub, capsys: pytest.CaptureFixture[str]):
    assert main(["push", str(run), NAME]) == 2
    assert "hf auth login" in capsys.readouterr().err


def test_without_a_connection_it_says_so(
    run: Path, served: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert pushed(run) == 2
    assert "cannot be reached" in capsys.readouterr().err


def test_networks_are_the_same_for_images(run: Path, served: Hub):
    assert pushed(run) == 0
    image = torch.rand(2, 3, 24, 24)
    here, there = (load_model(each).network for each in (str(run), f"hub:{NAME}"))
    with torch.no_grad():
        assert torch.equal(here(image), there(image))
