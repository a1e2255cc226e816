"""faster-isnet audit, of classifiers of every kind, as a user calls it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from browser import needs_browser, start_browser
from faster_isnet.cli import main
from faster_isnet.commands import auditing
from faster_isnet.evaluation.audit import Audit, ReferenceFindings
from faster_isnet.evaluation.intervals import Score
from faster_isnet.reporting import audit_text
from faster_isnet.training.export import export
from html_page import Page
from toy_images import CLASSES, SIZE, Reader, toy_dataset

CODE = """
from toy_images import Reader

def reads_background():
    return Reader(False)

def reads_foreground():
    return Reader(True)

def no_network():
    return 3
"""
QUICK = ["--resamples", "50", "--pictures", "2", "--accelerator", "cpu"]
NETWORK = ["--size", str(SIZE), "--class_names", "names.txt"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with images, their masks, and a module that builds networks."""
    toy_dataset(tmp_path / "images", per_class=8)
    mask = tmp_path / "images" / "mask.png"
    (tmp_path / "masks").mkdir()
    for image in list((tmp_path / "images").glob("[0-9]*.png")):
        (tmp_path / "masks" / image.name).write_bytes(mask.read_bytes())
    mask.unlink()
    (tmp_path / "own_networks_of_mine.py").write_text(CODE)
    (tmp_path / "names.txt").write_text("\n".join(CLASSES) + "\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def audit(model: str, *more: str, out: str = "audit", status: int = 0) -> dict[str, Any]:
    """Audit on the toy images, and return what ``audit.json`` holds."""
    images = ["images", "--masks", "masks", "--out", out]
    assert main(["audit", model, *images, *QUICK, *more]) == status
    content: dict[str, Any] = json.loads(Path(out, "audit.json").read_text())
    return content


def flat(content: Any, path: str = "") -> dict[str, Any]:
    """Return all values by where they are."""
    if not isinstance(content, dict):
        return {path: content}
    return {k: v for key, each in content.items() for k, v in flat(each, f"{path}/{key}").items()}


def test_a_network_from_code_is_audited(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = audit("own_networks_of_mine:reads_background", *NETWORK)
    said = capsys.readouterr().out
    assert "100.0 % (78.2 to 100.0)" not in said  # there are no groups: 24 images
    assert (
        "own_networks_of_mine:reads_background: 100.0 % (85.8 to 100.0) of 24 predictions change "
        "when only the background does." in said
    )
    assert "More than 20.0 % change: the classifier depends on the background." in said
    compared = "For comparison: 0.0 % (0.0 to 14.2) change when the whole image is enlarged by 10%"
    assert f"{compared} instead" in said
    assert "pixels in [0, 1], as they are" in found["model"]["preprocessing"]
    assert found["findings"]["relevance"]["share"]["value"] == pytest.approx(1)
    assert {each["name"] for each in found["findings"]["classes"]} == set(CLASSES)
    out = folder / "audit"
    assert not (out / "unfinished").exists()
    assert len(pd.read_csv(out / "images.csv")) == 24
    card = (out / "model-card.md").read_text()
    assert card.startswith("## Dependence on the background")
    assert "100.0 % (85.8 to 100.0)" in card
    assert compared in card
    page = Page((out / "report.html").read_text())
    assert "100.0 % (85.8 to 100.0) of 24 predictions change" in page.text
    assert page.text.index(compared) < page.text.index("What other backgrounds do")
    assert "none, but enlarged" in page.text
    assert "What could not be judged" in page.text
    assert len(page.all("img")) == 1 + 2 * 3
    assert all(each["src"].startswith("data:") for each in page.all("img"))


def test_what_is_written_follows_the_schema_and_is_read_again(folder: Path) -> None:
    content = audit("own_networks_of_mine:reads_foreground", *NETWORK)
    resource = files("faster_isnet.evaluation.audit").joinpath("audit.schema.json")
    schema = json.loads(resource.read_text("utf-8"))
    jsonschema.validate(content, schema)
    for part in content:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({k: v for k, v in content.items() if k != part}, schema)
    loaded = Audit.load("audit")
    assert loaded.findings.verdict(0.5) == "below"
    before = (folder / "audit" / "audit.json").read_text()
    loaded.save()
    assert (folder / "audit" / "audit.json").read_text() == before
    for damage in ("{}", "not json", json.dumps({**content, "counts": 3})):
        (folder / "audit" / "audit.json").write_text(damage)
        with pytest.raises(ValueError, match=r"no audit of this version .* make it anew"):
            Audit.load("audit")
    with pytest.raises(FileNotFoundError, match="faster-isnet audit"):
        Audit.load("nowhere")


SECOND = ["--second_opinion", "[grad-cam, integrated-gradients]"]


def test_a_second_opinion_is_on_the_page_and_in_the_results(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = audit("own_networks_of_mine:reads_background", *NETWORK, *SECOND)
    said = capsys.readouterr().out
    resource = files("faster_isnet.evaluation.audit").joinpath("audit.schema.json")
    jsonschema.validate(content, json.loads(resource.read_text("utf-8")))
    lrp, cam, gradients = content["second_opinion"]["methods"]
    assert (lrp["share"], gradients["share"]) == pytest.approx((1, 1), abs=1e-4)
    assert content["second_opinion"]["result"] == "agree"
    assert lrp["area"] == pytest.approx(1 - 16 / 144)
    assert "that has several places" in cam["why_not"][0]  # a linear network
    pictures = folder / "audit" / "pictures"
    assert len(list(pictures.glob("*-integrated-gradients.png"))) == 2
    assert not list(pictures.glob("*-grad-cam.png"))
    page = Page((folder / "audit" / "report.html").read_text())
    for text in (page.text, said, (folder / "audit" / "model-card.md").read_text()):
        assert "On the mean the methods agree. LRP and Integrated gradients: more in the" in text
        assert "Grad-CAM could not be given: no layer is known" in text
    assert "None of these methods is proof, and neither is their agreement" in page.text
    assert len(page.all("img")) == 1 + 2 * 4
    assert all(len(image["alt"]) > 10 for image in page.all("img"))
    loaded = Audit.load("audit")
    before = (folder / "audit" / "audit.json").read_text()
    loaded.save()
    assert (folder / "audit" / "audit.json").read_text() == before
    first = loaded.pictures[0]
    shares = zip(first.opinions, (0.0, 1.0, 1.0), strict=True)
    apart = [replace(each, background_share=share) for each, share in shares]
    contradicted = replace(loaded, pictures=[replace(first, opinions=apart)])
    assert first.image in audit_text.summary(contradicted)
    card = audit_text.model_card(contradicted)  # which others read
    assert "On 1 of 1 images" in card
    assert first.image not in card


def test_an_unknown_second_opinion_is_refused_before_anything_is_run(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["own_networks_of_mine:reads_background", "images", "--masks", "masks", *NETWORK]
    assert main(["audit", *arguments, "--second_opinion", "[grad-cams]"]) == 2
    assert "grad-cam" in capsys.readouterr().err
    assert not (folder / "audit").exists()


def test_onnx_and_torchscript_give_what_needs_no_gradients(folder: Path) -> None:
    whole = audit("own_networks_of_mine:reads_background", *NETWORK)
    export(Reader(False), "exported", (3, SIZE, SIZE), ["onnx"], CLASSES)
    with torch.no_grad():
        traced = torch.jit.trace(Reader(False).eval(), torch.zeros(1, 3, SIZE, SIZE))
    traced.save("traced.pt")
    for model, options in (("exported/model.onnx", []), ("traced.pt", NETWORK)):
        found = audit(model, *options, out=f"of {Path(model).name}")
        assert found["findings"]["relevance"] is None
        assert found["explained"] is None
        assert any("has no gradients" in each for each in found["not_judged"])
        for part in ("backgrounds", "reference", "unchanged_without_foreground", "area", "images"):
            expected = pytest.approx(flat(whole["findings"][part]), abs=1e-5)
            assert flat(found["findings"][part]) == expected, part
        for change, each in found["findings"]["mask_changes"].items():
            assert each["changed"] == whole["findings"]["mask_changes"][change]["changed"]
        assert not list(Path(f"of {Path(model).name}", "pictures").glob("*heatmap*"))


def test_runs_of_ours_are_audited(images: Path, run: Path, tmp_path: Path) -> None:
    out = tmp_path / "audit"
    arguments = ["audit", str(run), str(images), "--masks", str(images.with_name("masks"))]
    assert main([*arguments, "--out", str(out), *QUICK]) == 0
    found = json.loads((out / "audit.json").read_text())
    assert found["counts"]["without_mask"] > 0
    assert any("have no mask" in each for each in found["not_judged"])
    assert found["name"] == run.name


def test_more_changes_than_allowed_have_a_status_of_their_own(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failing = ["--fail_above", "0.5"]
    found = audit("own_networks_of_mine:reads_background", *NETWORK, *failing, status=3)
    assert found["verdict"] == {"limit": 0.5, "result": "above"}
    assert "that change is above --fail_above 50.0 %" in capsys.readouterr().out
    audit("own_networks_of_mine:reads_foreground", *NETWORK, *failing)
    assert main(["audit", "resnet18", "images", "--fail_above", "1.5"]) == 2
    assert "fail_above" in capsys.readouterr().err


def test_audits_are_put_side_by_side(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for reads in ("background", "foreground"):
        audit(f"own_networks_of_mine:reads_{reads}", *NETWORK, "--name", reads, out=reads)
    capsys.readouterr()
    assert main(["compare", "background", "foreground", "--out", "both"]) == 0
    said = capsys.readouterr().out
    assert "background: 100.0 %" in said
    assert "foreground: 0.0 %" in said
    page = Page((folder / "both" / "report.html").read_text())
    for word in ("background: 100.0 %", "foreground: 0.0 %", "depends on the background"):
        assert word in page.text
    assert page.text.index("no strong dependence found") < page.text.index("What other backgrounds")
    assert len(page.all("h1")) == 1
    assert main(["compare", "background", "background", "--out", "both"]) == 2
    assert "2 audits are called 'background'" in capsys.readouterr().err


def test_audits_of_before_there_was_a_comparison_are_read(folder: Path) -> None:
    audit("own_networks_of_mine:reads_background", *NETWORK, "--name", "new", out="new")
    content = audit("own_networks_of_mine:reads_background", *NETWORK, "--name", "old", out="old")
    del content["findings"]["reference"]
    resource = files("faster_isnet.evaluation.audit").joinpath("audit.schema.json")
    jsonschema.validate(content, json.loads(resource.read_text("utf-8")))
    (folder / "old" / "audit.json").write_text(json.dumps(content))
    assert main(["compare", "old", "new", "--out", "both"]) == 0
    text = Page((folder / "both" / "report.html").read_text()).text
    assert "was not measured by the version that made this audit" in text
    assert "For comparison: 0.0 %" in text


def test_what_the_comparison_says(folder: Path) -> None:
    audit("own_networks_of_mine:reads_background", *NETWORK)
    loaded = Audit.load("audit")

    def said(low: float, value: float, high: float) -> str:
        found = ReferenceFindings(Score(0.5, 0.4, 0.6), Score(value, low, high))
        return audit_text.reference(
            replace(loaded, findings=replace(loaded.findings, reference=found))
        )

    assert said(0.1, 0.2, 0.3).endswith("The background changes 20.0 points more (10.0 to 30.0).")
    assert said(-0.1, 0.1, 0.3).endswith("more than that cannot be told.")
    assert said(-0.3, -0.2, -0.1).endswith(
        "20.0 points more than with another background: they are unstable anyway."
    )


def test_the_page_can_be_read_without_seeing_and_loads_nothing(folder: Path) -> None:
    audit("own_networks_of_mine:reads_background", *NETWORK, "--name", "<b>mine</b>")
    html = (folder / "audit" / "report.html").read_text()
    assert html.count("<script") == 1
    assert "<b>mine</b>" not in html
    page = Page(html)
    assert len(page.all("h1")) == 1
    assert len(page.all("caption")) == len(page.all("table"))
    assert all(th["scope"] in ("col", "row") for th in page.all("th"))
    assert all(len(image["alt"]) > 10 for image in page.all("img"))
    assert not {"iframe", "object", "embed", "base"} & {tag for tag, _ in page.elements}
    assert all(each.get("src", "data:").startswith("data:") for _, each in page.elements)


@pytest.mark.slow
@needs_browser
def test_the_page_works_in_a_browser(folder: Path) -> None:
    audit("own_networks_of_mine:reads_background", *NETWORK)
    browser = start_browser()
    try:
        browser.get((folder / "audit" / "report.html").as_uri())
        assert browser.get_log("browser") == []
        head = browser.find_element("css selector", "#backgrounds ~ .scroll th button")
        head.click()
        cell = "#backgrounds ~ .scroll thead th"
        assert browser.find_element("css selector", cell).get_attribute("aria-sort") == "ascending"
        browser.set_window_size(500, 900)
        overflow = browser.execute_script(
            "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        assert overflow <= 0
    finally:
        browser.quit()


def test_a_table_names_masks_groups_and_attributes(folder: Path) -> None:
    rows = [
        f"images/{i}.png,masks/{i}.png,patient {i // 4},{'old' if i < 12 else 'new'} scanner"
        for i in range(24)
    ]
    (folder / "table.csv").write_text("image,mask,group,attribute\n" + "\n".join(rows) + "\n")
    model = ["own_networks_of_mine:reads_background", "table.csv", *NETWORK]
    assert main(["audit", *model, *QUICK]) == 0
    found = json.loads((folder / "audit" / "audit.json").read_text())["findings"]
    assert found["groups"] == 6
    assert [each["name"] for each in found["attributes"]] == ["new scanner", "old scanner"]


def test_masks_are_drawn_once_and_counted(folder: Path, u2netp: Path) -> None:
    for image in list((folder / "images").glob("*.png"))[3:]:
        image.unlink()
    rng = np.random.default_rng(0)
    for number in range(3):
        pixels = rng.integers(0, 60, (64, 64))
        pixels[20:44, 16:40] = 220
        Image.fromarray(pixels.astype(np.uint8)).save(folder / "images" / f"new-{number}.png")
    arguments = ["own_networks_of_mine:reads_background", "images", *NETWORK, *QUICK]
    drawing = ["--with", "salient", "--mask_weights", str(u2netp)]
    assert main(["audit", *arguments, *drawing]) == 0
    found = json.loads((folder / "audit" / "audit.json").read_text())
    assert found["masks"]["source"] == "drawn by 'salient'"
    assert found["masks"]["implausible"] <= 3  # of the toy images, which show nothing
    assert found["findings"]["images"] >= 3
    drawn = {path: path.stat().st_mtime_ns for path in (folder / "audit" / "masks").glob("*.png")}
    assert main(["audit", *arguments, *drawing]) == 0
    assert drawn == {path: path.stat().st_mtime_ns for path in drawn}
    assert (folder / "audit" / "masks" / "review.html").is_file()


def test_masks_within_the_folder_of_images_are_no_images(folder: Path) -> None:
    shutil.move(folder / "masks", folder / "images" / "masks")
    arguments = ["own_networks_of_mine:reads_background", "images", "--masks", "images/masks"]
    assert main(["audit", *arguments, *NETWORK, *QUICK]) == 0
    found = json.loads((folder / "audit" / "audit.json").read_text())
    assert found["counts"] == {"given": 24, "without_mask": 0, "unreadable": 0}


def test_what_cannot_be_explained_is_audited_without_heatmaps(folder: Path) -> None:
    (folder / "pooling_network.py").write_text(
        "from torch import nn\nfrom toy_images import SIZE\ndef build():\n"
        "    return nn.Sequential(nn.Softmax(1), nn.Flatten(), nn.Linear(3 * SIZE**2, 3))\n"
    )
    found = audit("pooling_network:build", *NETWORK)
    assert found["findings"]["relevance"] is None
    assert any("LRP cannot explain Sequential: " in each for each in found["not_judged"])


def test_nothing_stale_is_gone_on_with(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [f"images/{i}.png,masks/{i}.png,patient {i // 4}" for i in range(24)]
    table = folder / "table.csv"
    table.write_text("image,mask,group\n" + "\n".join(rows) + "\n")
    arguments = ["own_networks_of_mine:reads_background", "table.csv", *NETWORK, *QUICK]

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(auditing, "audit_findings", stop)
        assert main(["audit", *arguments]) == 130
    kept = list((folder / "audit" / "unfinished").glob("*.parquet"))
    assert len(kept) == 2
    table.write_text(table.read_text().replace("patient 5", "patient 4"))
    assert main(["audit", *arguments]) == 0
    found = json.loads((folder / "audit" / "audit.json").read_text())["findings"]
    assert found["groups"] == 5


def test_images_are_cropped_with_their_masks(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    corner = np.zeros((SIZE, SIZE), np.uint8)
    corner[:2, :2] = 255
    for number in (3, 5):
        Image.fromarray(corner).save(folder / "masks" / f"{number}.png")
    crop = ["--crop_mode", "center", "--crop_pct", "0.5", "--interpolation", "bicubic"]
    found = audit("own_networks_of_mine:reads_background", *NETWORK, *crop)
    words = (
        f"resized to a shorter side of {2 * SIZE} pixels (bicubic), of which the middle {SIZE} x "
        f"{SIZE} are kept"
    )
    assert f"Images become: RGB, {words}" in capsys.readouterr().out
    assert words in found["model"]["preprocessing"]
    assert words in Page((folder / "audit" / "report.html").read_text()).text
    assert found["counts"]["without_mask"] == 2  # cut off
    assert any(
        each.startswith("2 of 24 images, which have no mask") for each in found["not_judged"]
    )
    assert found["findings"]["area"]["value"] == pytest.approx(1 - (8 / SIZE) ** 2)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(auditing, "audit_findings", stop)
    kept = []
    for part in ("0.5", "0.6"):
        crop[3] = part
        arguments = ["own_networks_of_mine:reads_background", "images", "--masks", "masks"]
        assert main(["audit", *arguments, *NETWORK, *QUICK, *crop]) == 130
        (table,) = (folder / "audit" / "unfinished").glob("images-*.parquet")
        kept.append(pd.read_parquet(table)["background area"].mean())
    assert kept[0] < kept[1]  # nothing is gone on with that was cropped in another way


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["own_networks_of_mine:reads_background", "images"], "name masks"),
        (["resnet18", "images", "--crop_pct", "1.5"], "crop_pct"),
        (["resnet18", "images", "--crop_mode", "border"], "crop_mode"),
        (["own_networks_of_mine:missing", "images"], "has no function 'missing'"),
        (["no_such_module_here:build", "images"], "cannot be imported"),
        (["own_networks_of_mine:no_network", "images"], "must return a torch.nn.Module"),
        (["missing.onnx", "images"], "there is no file 'missing.onnx'"),
        (["resnet81", "images"], "resnet18"),
        (["own_networks_of_mine:reads_background", "nowhere"], "there is no folder 'nowhere'"),
        (
            ["own_networks_of_mine:reads_background", "images", "--class_names", "imagenet"],
            "there are 1000 class names, but the network has 3 classes",
        ),
        (
            ["own_networks_of_mine:reads_background", "images", "--mean", "0.5"],
            "give both, one for each channel, or none",
        ),
        (
            [
                "own_networks_of_mine:reads_background",
                "images",
                "--mean",
                "0",
                "0",
                "--std",
                "1",
                "1",
            ],
            "2 values",
        ),
        (["names.txt", "images"], "names.txt"),
        (
            ["own_networks_of_mine:reads_background", "images", "--with", "salient"],
            "name their file (--mask_weights FILE)",
        ),
        (
            ["own_networks_of_mine:reads_background", "images", "--with", "run"],
            "--mask_weights FOLDER",
        ),
    ],
)
def test_what_is_wrong_is_named(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(folder / "nothing was downloaded"))
    assert main(["audit", "--size", str(SIZE), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (folder / "audit" / "audit.json").exists()


def test_nothing_is_said_of_a_run_that_it_knows_itself(
    run: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", str(run), str(images), "--mean", "0.5", "--std", "0.5"]) == 2
    assert "--mean [0.5] is for networks of others" in capsys.readouterr().err


def test_what_has_no_gradients_is_neither_explained_nor_exported(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export(Reader(False), "exported", (3, SIZE, SIZE), ["onnx"], CLASSES)
    for command in (
        ["explain", "exported/model.onnx", "images"],
        ["export", "exported/model.onnx"],
    ):
        assert main(command) == 2
        assert "model.onnx, which is ONNX, cannot be explained by LRP" in capsys.readouterr().err


def test_a_network_with_one_logit_has_two_classes(folder: Path) -> None:
    (folder / "yes_or_no.py").write_text(
        "import torch\nfrom torch import nn\nfrom toy_images import SIZE\n"
        "def build():\n    torch.manual_seed(0)\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE**2, 1))\n"
    )
    (folder / "names.txt").write_text("no\nyes\n")
    found = audit("yes_or_no:build", *NETWORK)
    assert found["model"]["classes"] == 2
    assert {each["name"] for each in found["findings"]["classes"]} <= {"no", "yes"}
    few = ["explain", "yes_or_no:build", "images", *NETWORK, "--target", "all"]
    assert main([*few, "--formats", "npy"]) == 0
    rows = pd.read_csv("explanations/explanations.csv")
    assert list(rows["class"]) == ["no", "yes"] * 24
    assert main(["export", "yes_or_no:build", *NETWORK, "--formats", "onnx"]) == 0
    again = audit("exported/model.onnx", out="of onnx")
    assert (
        again["findings"]["backgrounds"]["noise"]["changed"]
        == (found["findings"]["backgrounds"]["noise"]["changed"])
    )
