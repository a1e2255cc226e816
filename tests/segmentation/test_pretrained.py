"""Segmenters that others have trained: their weights, and what they find."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F
from torchvision.models import get_model

from faster_isnet.segmentation import pretrained_segmenter
from faster_isnet.segmentation.coco_classes import CocoSegmenter


@pytest.fixture
def no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine to which nothing was downloaded."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return tmp_path


def disc(height: int = 160, width: int = 200) -> tuple[Tensor, Tensor]:
    """A disc of another colour on noise, and its mask."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    inside = ((rows - 90) ** 2 + (columns - 120) ** 2 < 45**2).float()[None]
    noise = 0.35 + 0.05 * torch.randn(3, height, width)
    return (noise + inside * torch.tensor([0.5, 0.1, -0.2])[:, None, None]).clamp(0, 1), inside


def intersection_over_union(one: Tensor, other: Tensor) -> float:
    return float((one * other).sum() / ((one + other) > 0).sum())


class TestSalientObjects:
    def test_the_object_is_found_in_colour_and_grey(self, u2netp):
        segmenter = pretrained_segmenter("salient", weights=u2netp)
        image, inside = disc()
        for given in (image, image[:1]):
            mask = segmenter.mask(given)
            assert mask.shape == inside.shape
            assert intersection_over_union(mask, inside) > 0.9
        small = segmenter.mask(image, size=(80, 100))
        assert intersection_over_union(small, inside[:, ::2, ::2]) > 0.9

    @pytest.mark.parametrize("image", [torch.zeros(3, 60, 80), torch.full((1, 64, 64), 0.5)])
    def test_where_nothing_is_nothing_is_found(self, u2netp, image):
        segmenter = pretrained_segmenter("salient", weights=u2netp)
        assert segmenter.mask(image).sum() == 0

    def test_another_file_is_refused(self, tmp_path):
        path = tmp_path / "u2netp.onnx"
        path.write_bytes(b"something else")
        with pytest.raises(ValueError, match=r"is not the published u2netp.onnx: its md5 is .*"):
            pretrained_segmenter("salient", weights=path)

    @pytest.mark.parametrize(("network", "file"), [(None, "u2netp"), ("u2net", "u2net")])
    def test_nothing_is_downloaded_unless_asked_for(self, no_weights, network, file):
        with pytest.raises(FileNotFoundError, match=rf"{file}.onnx.*--download"):
            pretrained_segmenter("salient", network=network)
        assert not list(no_weights.rglob("*.onnx"))


class TestCoco:
    NETWORK = "lraspp_mobilenet_v3_large"

    @pytest.fixture(scope="class")
    @classmethod
    def weights(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        torch.manual_seed(0)
        network = get_model(cls.NETWORK, weights=None, weights_backbone=None, num_classes=21)
        # Larger than random ones are, so that probabilities differ from place to place.
        for name in ("low_classifier", "high_classifier"):
            getattr(network.classifier, name).weight.data *= 300
        path = tmp_path_factory.mktemp("weights") / "weights.pt"
        torch.save(network.state_dict(), path)
        return path

    def find(self, weights: Path, classes: str, image: Tensor) -> Tensor:
        segmenter = pretrained_segmenter(f"coco:{classes}", self.NETWORK, weights)
        return segmenter.probabilities(image)

    def test_probabilities_are_those_of_torchvision_summed_over_the_classes(self, weights):
        image = torch.rand(3, 120, 90)
        network = get_model(self.NETWORK, weights=None, weights_backbone=None, num_classes=21)
        network.load_state_dict(torch.load(weights, weights_only=True))
        mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[:, :, None, None]
        larger = F.interpolate(image[None], size=(693, 520), mode="bilinear", antialias=True)
        with torch.no_grad():
            expected = network.eval()((larger - mean) / std)["out"].softmax(1)
        expected = F.interpolate(expected, (120, 90), mode="bilinear", antialias=True)[0]
        dog, cat = self.find(weights, "dog", image), self.find(weights, "cat", image)
        assert torch.allclose(dog[0], expected[12], atol=1e-3)
        assert dog.max() - dog.min() > 0.005
        assert torch.allclose(self.find(weights, "dog, cat", image), dog + cat, atol=1e-5)

    def test_grey_images_have_three_times_their_channel(self, weights):
        image = torch.rand(1, 60, 60)
        colour = image.expand(3, 60, 60)
        assert torch.equal(self.find(weights, "dog", image), self.find(weights, "dog", colour))

    @pytest.mark.parametrize(
        ("classes", "network", "expected"),
        [
            ("unicorn", None, "unknown class 'unicorn'"),
            ("zebra", NETWORK, "unknown class 'zebra'"),
            ("__background__", NETWORK, "unknown class '__background__'"),
            ("dog", "resnet18", "unknown network 'resnet18'"),
        ],
    )
    def test_unknown_names_are_named(self, no_weights, classes, network, expected):
        with pytest.raises(ValueError, match=expected):
            pretrained_segmenter(f"coco:{classes}", network)

    @pytest.mark.parametrize(
        ("classes", "file"), [("dog", "deeplabv3_mobilenet_v3_large"), ("dog,zebra", "maskrcnn")]
    )
    def test_a_network_that_knows_the_classes_is_chosen(self, no_weights, classes, file):
        with pytest.raises(FileNotFoundError, match=rf"'{file}[^ ]*\.pth' are not on this machine"):
            pretrained_segmenter(f"coco:{classes}")

    @pytest.mark.slow
    def test_instances_of_the_classes_are_joined(self, tmp_path):
        name, dog = "maskrcnn_resnet50_fpn_v2", 18
        network = get_model(name, weights=None, weights_backbone=None, num_classes=91)
        network.roi_heads.box_predictor.cls_score.bias.data[dog] = 20
        network.roi_heads.mask_predictor.mask_fcn_logits.bias.data[dog] = 20
        torch.save(network.state_dict(), tmp_path / "weights.pt")
        image = torch.rand(3, 64, 96)
        found = {
            each: CocoSegmenter(each, name, tmp_path / "weights.pt").probabilities(image)
            for each in (("dog",), ("cat",), ("cat", "dog"))
        }
        assert found["dog",].shape == (1, 64, 96)
        assert found["dog",].max() > 0.9
        assert found["cat",].max() == 0
        assert torch.equal(found["cat", "dog"], found["dog",])


@pytest.mark.parametrize("name", ["salience", "coco", "coco:", "salient:dog"])
def test_an_unknown_segmenter_is_named(name):
    with pytest.raises(ValueError, match=f"there is no segmenter '{name}'; choose salient, coco:"):
        pretrained_segmenter(name)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "--weights FOLDER"),
        ({"download": True}, "has a network of its own"),
        ({"weights": "x", "download": True}, "leave out one: --weights or --download"),
        ({"weights": "x", "network": "u2netp"}, "has a network of its own"),
        ({"weights": "x"}, "there is no 'x/segmenter.json'"),
    ],
)
def test_one_that_was_trained_here_has_a_folder_and_nothing_else(options, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        pretrained_segmenter("run", **options)


class TestPrompt:
    @pytest.fixture(scope="class")
    @classmethod
    def weights(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """A small CLIPSeg with random weights, whose tokens are letters."""
        transformers = pytest.importorskip("transformers")
        torch.manual_seed(0)
        letters = [chr(number) for number in range(ord("a"), ord("z") + 1)]
        tokens = [
            *letters,
            *(f"{each}</w>" for each in letters),
            "<|startoftext|>",
            "<|endoftext|>",
        ]
        vocabulary = {token: number for number, token in enumerate(tokens)}
        size = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
        ends = {
            "bos_token_id": len(tokens) - 2,
            "eos_token_id": len(tokens) - 1,
            "pad_token_id": len(tokens) - 1,
        }
        config = transformers.CLIPSegConfig(
            text_config={**size, **ends, "num_hidden_layers": 1, "vocab_size": len(tokens)},
            vision_config={**size, "num_hidden_layers": 2, "image_size": 32, "patch_size": 8},
            projection_dim=8,
            reduce_dim=8,
            decoder_num_attention_heads=2,
            decoder_intermediate_size=16,
            extract_layers=[0, 1],
            conditional_layer=0,
        )
        network = transformers.CLIPSegForImageSegmentation(config)
        for parameter in network.parameters():  # larger, so that texts and places differ
            parameter.data.normal_(0, 0.5)
        network.decoder.film_add.weight.data *= 5
        prepared = transformers.ViTImageProcessor(size={"height": 32, "width": 32})
        tokenizer = transformers.CLIPTokenizer(vocab=vocabulary, merges=[])
        folder = tmp_path_factory.mktemp("clipseg")
        network.save_pretrained(folder)
        transformers.CLIPSegProcessor(prepared, tokenizer).save_pretrained(folder)
        return folder

    def test_what_any_text_describes_is_found_in_colour_and_grey(self, weights):
        image = torch.rand(3, 40, 50, generator=torch.Generator().manual_seed(0))
        one, other, both = (
            pretrained_segmenter(f"prompt:{text}", weights=weights).probabilities(image, (32, 32))
            for text in ("lungs", "a heart", "lungs, a heart")
        )
        assert (one - other).abs().max() > 1e-4
        assert torch.allclose(both, torch.maximum(one, other), atol=1e-5)
        segmenter = pretrained_segmenter("prompt:lungs", weights=weights)
        assert segmenter.probabilities(image[:1]).shape == (1, 40, 50)

    def test_values_are_normalised_once(self, weights):
        """Pixels in [0, 1] are not divided by 255 again."""
        dark, bright = torch.zeros(3, 32, 32), torch.ones(3, 32, 32)
        segmenter = pretrained_segmenter("prompt:lungs", weights=weights)
        assert not torch.allclose(
            segmenter.probabilities(dark), segmenter.probabilities(bright), atol=1e-2
        )

    @pytest.mark.parametrize("download", [False, True])
    def test_nothing_is_downloaded_unless_asked_for(self, monkeypatch, download):
        transformers = pytest.importorskip("transformers")
        asked = {}

        def not_there(source, **options):
            asked.update(options, source=source)
            raise OSError("it is not there")

        network = transformers.CLIPSegForImageSegmentation
        monkeypatch.setattr(network, "from_pretrained", not_there)
        message = "it is not there" if download else r"clipseg-rd64-refined.*--download"
        with pytest.raises(OSError, match=message):
            pretrained_segmenter("prompt:lungs", download=download)
        assert asked["local_files_only"] is not download
        assert asked["source"] == "CIDAS/clipseg-rd64-refined"
        assert len(asked["revision"]) == 40

    def test_what_is_no_clipseg_is_refused(self, weights, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"no config\.json in"):
            pretrained_segmenter("prompt:lungs", weights=tmp_path)

        for name in ("config.json", "model.safetensors"):
            shutil.copy(weights / name, tmp_path)
        tensors = load_file(weights / "model.safetensors")
        kept = {name: value for name, value in tensors.items() if "film_add" not in name}
        save_file(kept, tmp_path / "model.safetensors", {"format": "pt"})
        with pytest.raises(ValueError, match=r"lacks 2 weights of a CLIPSeg, such as .*film_add"):
            pretrained_segmenter("prompt:lungs", weights=tmp_path)
        config = (tmp_path / "config.json").read_text().replace('"clipseg"', '"bert"')
        (tmp_path / "config.json").write_text(config)
        with pytest.raises(ValueError, match="of the type 'bert', not a CLIPSeg"):
            pretrained_segmenter("prompt:lungs", weights=tmp_path)

    def test_a_prompt_must_say_something_and_be_short(self, weights):
        with pytest.raises(ValueError, match=r"has 102 tokens of 77; shorten it"):
            pretrained_segmenter(f"prompt:{'a' * 100}", weights=weights)
        with pytest.raises(ValueError, match="leave out one"):
            pretrained_segmenter("prompt:lungs", network="one/of-the-hub", weights=weights)
        with pytest.raises(ValueError, match="A prompt is empty"):
            pretrained_segmenter("prompt:lungs,", weights=weights)
