"""Voxels: files of MedMNIST's layout, and distances to what is filled."""

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from zoo import voxels
from zoo.errors import ZooError


def volumes(count, side=6, filled=255):
    masks = np.zeros((count, side, side, side), np.uint8)
    masks[:, 1:4, 2:4, 1:5] = filled
    for number, mask in enumerate(masks):
        mask[0, 0, number % side] = filled
    return masks


def layout(**changed):
    arrays = {}
    for part, count in (("train", 5), ("val", 2), ("test", 3)):
        arrays[f"{part}_images"] = volumes(count)
        arrays[f"{part}_labels"] = (np.arange(count) % 2)[:, None].astype(np.uint8)
    return {name: array for name, array in (arrays | changed).items() if array is not None}


def saved(path: Path, **changed) -> Path:
    np.savez_compressed(path, **layout(**changed))
    return path


def ball(side, radius, middle=(0, 0, 0)):
    """Centres of voxels `z y x 3` as x, y, z, and which lie in a ball."""
    line = (2 * np.arange(side) + 1) / side - 1
    z, y, x = np.meshgrid(line, line, line, indexing="ij")
    centres = np.stack([x, y, z], -1)
    return centres, np.linalg.norm(centres - middle, axis=-1) < radius


def test_a_file_is_read_as_published(tmp_path):
    found = voxels.read(saved(tmp_path / "adrenalmnist3d_64.npz"))
    assert found.masks.shape == (10, 6, 6, 6)
    assert np.unique(found.masks).tolist() == [0, 1]
    assert np.array_equal(found.masks[5:7], volumes(2) > 0)
    assert found.labels.tolist() == [0, 1, 0, 1, 0, 0, 1, 0, 1, 0]
    expected = {"train": range(5), "validation": range(5, 7), "test": range(7, 10)}
    assert found.splits == expected
    assert found.class_names == ("normal", "hyperplasia")


def test_what_is_filled_may_be_any_value_and_other_names_have_numbers(tmp_path):
    first = voxels.read(saved(tmp_path / "a.npz"))
    assert first.class_names == ("0", "1")
    plain = {f"{part}_images": volumes(n, filled=1) for part, n in
             (("train", 5), ("val", 2), ("test", 3))}  # fmt: skip
    truths = {name: array.astype(bool) for name, array in plain.items()}
    for number, others in enumerate((plain, truths)):
        assert voxels.read(saved(tmp_path / f"{number}.npz", **others)).sha256 == first.sha256
    changed = volumes(3)
    changed[0, 5, 5, 5] = 255
    assert voxels.read(saved(tmp_path / "b.npz", test_images=changed)).sha256 != first.sha256


def test_single_volumes_that_are_no_shape_are_told(tmp_path):
    odd = volumes(5)
    odd[0], odd[1] = 0, 255
    odd[2, 0, 0, 0] = 7
    found = voxels.read(saved(tmp_path / "odd.npz", train_images=odd))
    flaws = [voxels.flaw(mask) for mask in found.masks]
    assert flaws == ["empty", "full", "not binary"] + [None] * 7
    holes = volumes(5, filled=1).astype(np.float32)
    holes[3, 2, 2, 2] = np.nan
    found = voxels.read(saved(tmp_path / "nan.npz", train_images=holes, val_images=holes[:2]))
    assert [voxels.flaw(mask) for mask in found.masks][3] == "not binary"


def test_a_file_of_empty_volumes_is_read_as_such(tmp_path):
    none = {f"{part}_images": np.zeros((n, 3, 3, 3)) for part, n in
            (("train", 5), ("val", 2), ("test", 3))}  # fmt: skip
    found = voxels.read(saved(tmp_path / "none.npz", **none))
    assert {voxels.flaw(mask) for mask in found.masks} == {"empty"}


GREY = np.random.default_rng(0).integers(0, 256, (5, 6, 6, 6), np.uint8)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"val_images": None}, r"expected the arrays .* val_images missing, it has test_images"),
        ({"train_images": GREY, "test_images": GREY[:3]}, "8 of 10 have other values, or NaN"),
        ({"val_images": volumes(2, 7)}, r"one size, train has \(6, 6, 6\), val \(7, 7, 7\)"),
        ({"train_images": GREY[..., 0]}, r"must be \(item, z, y, x\), got \(5, 6, 6\); pictures"),
        ({"train_images": GREY[..., None]}, r"must be \(item, z, y, x\), got \(5, 6, 6, 6, 1\)"),
        ({"val_labels": np.zeros((3, 1), int)}, r"val_labels must be one class .* got \(3, 1\)"),
        ({"val_labels": np.zeros((2, 1))}, "val_labels must be whole numbers, got float64"),
        ({"val_labels": np.array([[0], [-1]])}, "class numbers from 0, got -1 to 0"),
        ({"train_images": volumes(5).astype(str)}, "train_images must be numbers"),
        ({"train_images": volumes(5, 6)[:0], "train_labels": np.zeros((0, 1), int)}, "no volume"),
        ({f"{part}_images": volumes(n)[:, :1] for part, n in
          (("train", 5), ("val", 2), ("test", 3))}, "sides of volumes must be 2 to 512"),
    ],
)  # fmt: skip
def test_other_layouts_are_refused_by_one_line(tmp_path, changed, message):
    path = saved(tmp_path / "wrong.npz", **changed)
    with pytest.raises(ZooError, match=message) as found:
        voxels.read(path)
    assert "\n" not in str(found.value)
    assert str(path) in str(found.value)


class Trap:
    def __reduce__(self):
        return Path.touch, (Path("opened"),)


def test_pickles_are_never_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trap = np.empty(5, object)
    trap[:] = [Trap()] * 5
    with pytest.raises(ZooError, match="train_images is a pickle of Python objects"):
        voxels.read(saved(tmp_path / "trap.npz", train_images=trap))
    (tmp_path / "plain.npz").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ZooError, match=r"MedMNIST's layout; it is a pickle"):
        voxels.read(tmp_path / "plain.npz")
    assert not Path("opened").exists()


def test_damaged_files_are_told(tmp_path):
    path = saved(tmp_path / "whole.npz")
    content = path.read_bytes()
    with pytest.raises(ValueError, match="there is no file"):
        voxels.read(tmp_path / "none.npz")
    (tmp_path / "cut.npz").write_bytes(content[: len(content) // 2])
    with pytest.raises(
        ZooError, match=r"expected a \.npz of MedMNIST's layout; it is no whole zip archive"
    ):
        voxels.read(tmp_path / "cut.npz")
    place = content.index(b"train_images.npy") + 60
    (tmp_path / "bad.npz").write_bytes(content[:place] + b"\xff" * 8 + content[place + 8 :])
    with pytest.raises(ZooError, match=r"bad\.npz"):
        voxels.read(tmp_path / "bad.npz")


def test_a_header_that_promises_more_than_there_is_asks_for_no_memory(tmp_path):
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in layout().items():
            stream = io.BytesIO()
            np.save(stream, array)
            text = stream.getvalue()
            if name == "train_images":
                text = text.replace(b"(5, 6, 6, 6)", b"(9999, 512, 512, 512)"[:12])
                header = (
                    "{'descr': '|u1', 'fortran_order': False, 'shape': (99999, 512, 512, 512), }"
                )
                length = len(header) + 1
                text = b"\x93NUMPY\x01\x00" + length.to_bytes(2, "little") + f"{header}\n".encode()
            archive.writestr(f"{name}.npy", text)
    with pytest.raises(ZooError, match="train_images is cut short, or its header is wrong"):
        voxels.read(path)


# ---- distances


def test_distances_of_a_ball_are_those_of_the_ball():
    centres, mask = ball(32, 0.6)
    found = voxels.field(mask)[1:-1, 1:-1, 1:-1]
    exact = np.linalg.norm(centres, axis=-1) - 0.6
    assert np.abs(found - exact).max() < 0.9 * 2 / 32
    assert np.abs(found - exact).mean() < 0.3 * 2 / 32
    assert np.array_equal(found < 0, mask)


def test_distances_are_the_nearest_by_brute_force():
    mask = np.random.default_rng(0).random((4, 5, 6)) < 0.4
    padded = np.pad(mask, 1)
    places = np.argwhere(np.ones_like(padded))
    filled = padded.ravel()
    apart = np.linalg.norm(places[:, None] - places, axis=2)
    nearest = np.where(filled[:, None] != filled, apart, np.inf).min(1)
    signed = np.where(filled, 0.5 - nearest, nearest - 0.5) * (2 / 6)
    np.testing.assert_allclose(voxels.field(mask).ravel(), signed, atol=1e-6)


def test_a_slab_has_its_surface_between_voxels_and_axes_are_z_y_x():
    mask = np.zeros((8, 8, 8), np.uint8)
    mask[:, :, :2] = 1  # x up to -.5
    points = np.array([[-0.5, 0, 0], [0.3, 0, 0], [-0.6, 0, 0.1], [-1, 0, 0]], np.float32)
    found = voxels.sample(voxels.field(mask), points)
    np.testing.assert_allclose(found, [0, 0.8, -0.1, 0], atol=1e-6)
    assert np.array_equal(voxels.distance(mask[None], points[None])[0], found)


def test_points_between_centres_are_linear_and_beyond_the_cube_constant():
    mask = np.zeros((4, 4, 4), bool)
    mask[1:3, 1:3, 1:3] = True
    field = voxels.field(mask)
    centres = ball(4, 1)[0].reshape(-1, 3).astype(np.float32)
    inner = field[1:-1, 1:-1, 1:-1].ravel()
    np.testing.assert_allclose(voxels.sample(field, centres), inner, atol=1e-6)
    middle = (centres[:-1] + centres[1:]) / 2
    same = np.flatnonzero((centres[:-1, 1:] == centres[1:, 1:]).all(1))
    expected = (inner[:-1] + inner[1:])[same] / 2
    np.testing.assert_allclose(voxels.sample(field, middle[same]), expected, atol=1e-6)
    far = voxels.sample(field, np.array([[9, 9, 9], [1.25, 1.25, 1.25]], np.float32))
    assert far[0] == far[1] == field[-1, -1, -1]


def test_boxes_of_voxels_are_centred_and_keep_their_voxels_cubic():
    mask = np.zeros((2, 4, 8), bool)
    mask[:, :, 4:] = True
    points = np.array([[0.5, 0, 0], [0.5, 0, 0.25], [0.5, 0.5, 0], [0, 0.1, 0.1]], np.float32)
    np.testing.assert_allclose(
        voxels.sample(voxels.field(mask), points), [-0.125, 0, 0, 0], atol=1e-6
    )


@pytest.mark.parametrize("mask", [np.zeros((3, 3, 3)), np.ones((3, 3, 3)), np.full((3, 3, 3), 2)])
def test_no_shape_has_no_field(mask):
    with pytest.raises(ValueError, match="a mask must have filled and empty voxels, this one is"):
        voxels.field(mask)


def test_clouds_lie_on_the_faces():
    _, mask = ball(12, 0.7, (0.2, 0, 0))
    index = np.array([4])
    found = voxels.cloud(mask[None], 3, index, 3_000)
    assert np.abs(voxels.distance(mask[None], found)).max() < 0.7 * 2 / 12
    # On a face one coordinate is half way between two centres.
    steps = (found[0].astype(np.float64) + 1) * 6
    assert (np.abs(steps - np.rint(steps)).min(axis=1) < 1e-5).all()
    np.testing.assert_allclose(found[0].mean(0), [0.2, 0, 0], atol=0.03)
    both = voxels.cloud(np.stack([~mask, mask]), 3, np.array([9, 4]), 3_000)
    assert np.array_equal(both[1], found[0])
