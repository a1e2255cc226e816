from __future__ import annotations

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from pycocotools import mask as coco
from scipy.ndimage import binary_dilation, binary_erosion

from faster_isnet.common.checks import NO_MASK
from faster_isnet.data.masks import Boxes, Foreground, Segments, grow, read_mask, shrink

quick = settings(max_examples=30)
small_masks = hnp.arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12)))


def tensor(mask: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(mask.astype(np.float32))[None]


class TestFiles:
    @quick
    @given(mask=small_masks, high=st.sampled_from([1, 2, 100, 128, 255, 2**15, 2**16 - 1]))
    def test_foreground_values_of_any_type(self, tmp_path_factory, mask, high):
        path = tmp_path_factory.mktemp("mask") / "mask.png"
        dtype = np.uint8 if high < 256 else np.uint16
        Image.fromarray(mask.astype(dtype) * dtype(high)).save(path)
        read = read_mask(path)
        assert read.dtype == torch.float32
        assert torch.equal(read, tensor(mask))

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.float32])
    def test_one_value_besides_0_is_foreground_in_every_type(self, tmp_path, dtype):
        for value in (2, 100, 255):
            tifffile.imwrite(tmp_path / "a.tif", np.array([[0, value]], dtype=dtype))
            assert read_mask(tmp_path / "a.tif").tolist() == [[[0, 1]]]

    @pytest.mark.parametrize("values", [[0, 1, 2, 3], [0, 127, 128], [0, 1, 255], [1, 2]])
    def test_several_values_are_refused_or_chosen_from(self, tmp_path, values):
        path = tmp_path / "a.png"
        Image.fromarray(np.array([values], dtype=np.uint8)).save(path)
        listed = ", ".join(map(str, values))
        cures = rf"mask_foreground: \[{values[-1]}\].*mask_threshold: {values[-1] / 2:g}"
        with pytest.raises(ValueError, match=rf"a.png' holds the values {listed}, .*{cures}"):
            read_mask(path)
        chosen = read_mask(path, Foreground(values=(values[-1],)))[0, 0].tolist()
        assert chosen == [float(value == values[-1]) for value in values]
        above = read_mask(path, Foreground(threshold=1))[0, 0].tolist()
        assert above == [float(value > 1) for value in values]

    @pytest.mark.parametrize("mode", ["P", "RGB"])
    def test_colours_that_differ_are_labels(self, tmp_path, mode):
        labels = Image.fromarray(np.array([[0, 1, 2]], dtype=np.uint8), "P")
        labels.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
        labels.convert(mode).save(tmp_path / "a.png")
        with pytest.raises(ValueError, match=r"a.png' holds the values .*\(128, 0, 0\)"):
            read_mask(tmp_path / "a.png")
        second = Foreground(values=(2,))
        if mode == "P":
            assert read_mask(tmp_path / "a.png", second).tolist() == [[[0, 0, 1]]]
        else:
            with pytest.raises(ValueError, match=r"a.png' is in colour"):
                read_mask(tmp_path / "a.png", second)

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0])
    def test_values_that_are_none(self, tmp_path, bad):
        tifffile.imwrite(tmp_path / "a.tif", np.array([[0, bad]], dtype=np.float32))
        with pytest.raises(ValueError, match=r"a.tif' holds"):
            read_mask(tmp_path / "a.tif")

    def test_a_mask_that_is_transparency_alone_is_not_empty(self, tmp_path):
        pixels = np.zeros((2, 2, 4), dtype=np.uint8)
        pixels[0, :, 3] = 255
        Image.fromarray(pixels).save(tmp_path / "a.png")
        with pytest.raises(ValueError, match=r"a.png.*transparency differs.*save it in grey"):
            read_mask(tmp_path / "a.png")
        pixels[0, :, 0] = 255
        Image.fromarray(pixels).save(tmp_path / "a.png")
        assert read_mask(tmp_path / "a.png").tolist() == [[[1, 1], [0, 0]]]

    def test_one_way_to_choose(self):
        with pytest.raises(ValueError, match=r"mask_foreground is \[1\] and mask_threshold 5"):
            Foreground((1,), 5)
        with pytest.raises(ValueError, match="mask_foreground is empty"):
            Foreground(())

    def test_one_channel_of_a_colour_suffices(self, tmp_path):
        red = np.zeros((2, 2, 3), dtype=np.uint8)
        red[0, 1] = (200, 0, 0)
        Image.fromarray(red).save(tmp_path / "a.png")
        assert read_mask(tmp_path / "a.png").tolist() == [[[0, 1], [0, 0]]]

    def test_unreadable(self, tmp_path):
        (tmp_path / "mask.png").write_text("no image")
        with pytest.raises(ValueError, match=r"cannot read .*mask.png"):
            read_mask(tmp_path / "mask.png")


class TestBoxes:
    @quick
    @given(
        box=st.tuples(*2 * [st.integers(-5, 9)], *2 * [st.integers(1, 20)]),
        shift=st.floats(-0.49, 0.49),
    )
    def test_filled_and_cut_off(self, box, shift):
        left, top, width, height = box
        expected = torch.zeros(1, 10, 10)
        expected[0, max(0, top) : max(0, top + height), max(0, left) : max(0, left + width)] = 1
        boxes = Boxes(((left + shift, top + shift, width, height),))
        if expected.any():
            assert torch.equal(boxes.read_mask((10, 10)), expected)
        else:
            with pytest.raises(ValueError, match=r"no pixel in an image of 10 x 10"):
                boxes.read_mask((10, 10))

    def test_several_are_joined(self):
        mask = Boxes(((0, 0, 1, 1), (2, 0, 1, 2))).read_mask((2, 3))
        assert mask.tolist() == [[[1, 0, 1], [0, 0, 1]]]


class TestSegments:
    @quick
    @given(mask=small_masks, compressed=st.booleans())
    def test_run_lengths(self, mask, compressed):
        run = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
        if compressed:
            run = {"size": run["size"], "counts": run["counts"].decode()}  # as JSON has it
        else:
            column_by_column = mask.T.flatten()
            edges = np.flatnonzero(np.diff(column_by_column.astype(int))) + 1
            bounds = np.concatenate([[0], edges, [mask.size]])
            counts = np.diff(bounds).tolist()
            counts = [0, *counts] if column_by_column[0] else counts  # background goes first
            run = {"size": list(mask.shape), "counts": counts}
        assert torch.equal(Segments((run,), mask.shape).read_mask(mask.shape), tensor(mask))

    @quick
    @given(corners=hnp.arrays(float, (3, 2), elements=st.floats(2, 40)))
    def test_triangles(self, corners):
        (ax, ay), (bx, by), (cx, cy) = corners
        if (bx - ax) * (cy - ay) - (by - ay) * (cx - ax) < 0:
            corners = corners[::-1]  # so that the inside is on the same hand of all sides
        y, x = np.mgrid[:40, :40] + 0.5  # the pixels' centres
        inside = np.full((40, 40), np.inf)
        for (fromx, fromy), (tox, toy) in zip(corners, np.roll(corners, -1, 0), strict=True):
            length = max(np.hypot(tox - fromx, toy - fromy), 1e-9)
            side = (tox - fromx) * (y - fromy) - (toy - fromy) * (x - fromx)
            inside = np.minimum(inside, side / length)
        mask = Segments(([corners.flatten().tolist()],), (40, 40)).read_mask((40, 40))[0].numpy()
        assert mask[inside > 1].all()
        assert not mask[inside < -1.5].any()

    def test_all_are_joined(self):
        squares = [[0, 0, 2, 0, 2, 2, 0, 2], [2, 2, 4, 2, 4, 4, 2, 4]]
        together = Segments((squares,), (4, 4)).read_mask((4, 4))
        apart = Segments(tuple([square] for square in squares), (4, 4)).read_mask((4, 4))
        expected = torch.eye(2).repeat_interleave(2, 0).repeat_interleave(2, 1)
        assert torch.equal(together[0], expected)
        assert torch.equal(apart, together)

    @pytest.mark.parametrize("bad", [{"size": [4, 4]}, "polygon", [["x", "y"]], [[1, 2]], 5])
    def test_what_is_no_segment(self, bad):
        with pytest.raises(ValueError, match="not a polygon or run lengths as COCO writes them"):
            Segments((bad,), (4, 4)).read_mask((4, 4))


class TestGrow:
    @quick
    @given(mask=small_masks, margin=st.integers(0, 4))
    def test_dilates_by_a_disk(self, mask, margin):
        y, x = np.ogrid[-margin : margin + 1, -margin : margin + 1]
        disk = x**2 + y**2 <= margin**2
        assert torch.equal(grow(tensor(mask), margin), tensor(binary_dilation(mask, disk)))

    @quick
    @given(mask=small_masks, margin=st.floats(0, 20))
    def test_never_shrinks_and_empty_stays_empty(self, mask, margin):
        grown = grow(tensor(mask), margin)
        assert (grown >= tensor(mask)).all()
        assert grown.any() == mask.any()
        assert set(grown.unique().tolist()) <= {0.0, 1.0}

    def test_no_mask_stays_none(self):
        none = torch.full((1, 3, 3), NO_MASK)
        assert torch.equal(grow(none, 2), none)


class TestShrink:
    @quick
    @given(mask=small_masks, margin=st.integers(0, 4))
    def test_erodes_by_a_disk_as_long_as_something_is_left(self, mask, margin):
        y, x = np.ogrid[-margin : margin + 1, -margin : margin + 1]
        disk = x**2 + y**2 <= margin**2
        eroded = binary_erosion(mask, disk, border_value=1)
        shrunk = shrink(tensor(mask), margin)
        if eroded.any() or not np.any(mask):
            assert torch.equal(shrunk, tensor(eroded))
        else:
            assert shrunk.any()

    @quick
    @given(mask=small_masks, margin=st.floats(0, 20))
    def test_never_grows_and_is_never_left_without_foreground(self, mask, margin):
        shrunk = shrink(tensor(mask), margin)
        assert (shrunk <= tensor(mask)).all()
        assert shrunk.any() == tensor(mask).any()
        assert set(shrunk.unique().tolist()) <= {0.0, 1.0}

    @pytest.mark.parametrize("value", [NO_MASK, 1.0])
    def test_no_mask_and_all_foreground_stay(self, value):
        mask = torch.full((1, 3, 3), value)
        assert torch.equal(shrink(mask, 2), mask)

    def test_the_innermost_pixels_are_what_is_left(self):
        mask = torch.zeros(1, 9, 9)
        mask[:, 2:7, 2:7] = 1
        left = torch.zeros(1, 9, 9)
        left[:, 4, 4] = 1
        assert torch.equal(shrink(mask, 50), left)
