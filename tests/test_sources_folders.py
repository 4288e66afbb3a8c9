"""Folders of pictures: what is taken, in which order, what of it changes, what is left out."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torchvision.datasets
from PIL import Image

from zoo import sources
from zoo.errors import ZooError
from zoo.sources import load_images

RNG = np.random.default_rng(20260726)


def write_picture(path: Path, picture: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), picture)


def noise(*shape: int, dtype: type = np.uint8) -> np.ndarray:
    return RNG.integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)


def open_folder(path: Path, size: int | None = None) -> sources.ImageSource:
    return load_images(f"imagefolder:{path}", size=size)


def test_order_is_a_proportional_interleave(tmp_path):
    value = 0
    for name, count in (("b", 8), ("a", 4), ("c", 2)):
        for rank in range(count):
            write_picture(tmp_path / name / f"{rank}.png", np.full((2, 2), value, np.uint8))
            value += 1
    (tmp_path / ".ipynb_checkpoints").mkdir()
    (tmp_path / "a" / "._0.png").write_bytes(b"left by macOS")
    (tmp_path / "a" / "notes.txt").write_text("not a picture")
    source = open_folder(tmp_path)
    assert source.class_names == ("a", "b", "c")
    # Positions: a 1/8 3/8 .., b 1/16 3/16 .., c 1/4 3/4.
    assert "".join("abc"[label] for label in source.labels) == "babcbabbabcbab"
    assert source.files[:4] == ("b/0.png", "a/0.png", "b/1.png", "c/0.png")
    assert (source.train_items, len(source), source.shape) == (14, 14, (2, 2, 1))
    assert source.images[:4, 0, 0, 0].tolist() == [0, 8, 1, 12]
    for length in range(len(source)):
        counts = np.bincount(source.labels[:length], minlength=3)
        assert np.abs(counts - length * np.array([4, 8, 2]) / 14).max() <= 1


def test_ties_go_by_class_and_numbers_agree_with_torchvision(tmp_path):
    for name in ("z", "m"):
        for rank in range(3):
            write_picture(tmp_path / name / f"{rank}.png", noise(2, 2))
    source = open_folder(tmp_path)
    assert source.labels.tolist() == [0, 1, 0, 1, 0, 1]
    theirs = torchvision.datasets.ImageFolder(str(tmp_path))
    assert {
        (str(tmp_path / file), label)
        for file, label in zip(source.files, source.labels.tolist(), strict=True)
    } == set(theirs.samples)


def test_train_and_test_folders(tmp_path):
    for part, count in (("train", 3), ("test", 2), ("more", 1)):
        for name in ("cat", "dog"):
            for rank in range(count):
                write_picture(tmp_path / part / name / f"{rank}.png", noise(3, 4))
    source = open_folder(tmp_path)
    assert (source.train_items, len(source), source.class_names) == (6, 10, ("cat", "dog"))
    assert [file.split("/")[0] for file in source.files] == ["train"] * 6 + ["test"] * 4
    assert source.labels[6:].tolist() == [0, 1, 0, 1]
    assert source.title == f"Image folder {tmp_path.name}"
    assert source.label == f"imagefolder:{tmp_path.name}"
    assert source.passed_over == {"in more, beside train": 2}

    (tmp_path / "test" / "dog").rename(tmp_path / "test" / "wolf")
    with pytest.raises(ZooError, match=r"test has class folders that train lacks: wolf"):
        open_folder(tmp_path)


@pytest.mark.parametrize("name", ["val", "valid", "validation", "Val"])
def test_validation_folders(tmp_path, name):
    for part, count in (("train", 30), (name, 4), ("test", 5)):
        for rank in range(count):
            write_picture(tmp_path / part / "cat" / f"{rank}.png", noise(3, 4))
            if part != "test":  # a part may lack a class
                write_picture(tmp_path / part / "dog" / f"{rank}.png", noise(3, 4))
    source = open_folder(tmp_path)
    assert (source.train_items, source.validation_items, len(source)) == (60, 8, 73)
    assert {file.split("/")[0] for file in source.files[60:68]} == {name}
    assert source.labels[60:].tolist() == [0, 1] * 4 + [0] * 5
    assert source.passed_over == {}
    older = sources.folders.open_folder(
        sources.Request(f"imagefolder:{tmp_path}", str(tmp_path), Path(), None, False, older=True)
    )
    assert (older.train_items, older.validation_items, len(older)) == (60, 0, 65)
    for expect, items in ((None, 73), (source.sha256, 73), (older.sha256, 65), ("0" * 64, 73)):
        assert len(load_images(f"imagefolder:{tmp_path}", expect=expect)) == items


def test_folders_of_parts_that_contradict(tmp_path):
    for part in ("val", "test"):
        write_picture(tmp_path / part / "cat" / "0.png", noise(3, 4))
    with pytest.raises(ZooError, match=r"has test, val but no folder train beside it"):
        open_folder(tmp_path)
    for part in ("train", "valid"):
        write_picture(tmp_path / part / "cat" / "0.png", noise(3, 4))
    with pytest.raises(ZooError, match=r"has val and valid, which both stand for the validation"):
        open_folder(tmp_path)


def test_trains_among_vehicles(tmp_path):
    for name in ("car", "train", "tram"):
        write_picture(tmp_path / name / "0.png", noise(3, 4))
    assert open_folder(tmp_path).class_names == ("car", "train", "tram")


def test_a_flat_folder_is_one_class(tmp_path, monkeypatch):
    folder = tmp_path / "shells"
    for rank in range(3):
        write_picture(folder / f"{rank}.png", noise(3, 4))
    (folder / "notes").mkdir()
    (folder / "notes" / "about.txt").write_text("of shells")
    source = open_folder(folder)
    assert (source.class_names, source.labels.tolist()) == (("shells",), [0, 0, 0])
    assert source.files == ("0.png", "1.png", "2.png")
    assert source.passed_over == {".txt": 1}
    monkeypatch.chdir(tmp_path)
    for name in ("shells", "shells/", "./shells", str(folder), "imagefolder:shells"):
        assert load_images(name).sha256 == source.sha256
        assert load_images(name).label == "imagefolder:shells"

    # Beside class folders loose pictures have no class.
    (folder / "notes" / "about.txt").rename(folder / "about.txt")
    (folder / "notes").rmdir()
    write_picture(folder / "sea" / "3.png", noise(3, 4))
    source = open_folder(folder)
    assert source.class_names == ("sea",)
    assert source.passed_over == {"beside the class folders": 3, ".txt": 1}


def test_flat_parts(tmp_path):
    for part, count in (("train", 3), ("val", 1), ("test", 2)):
        for rank in range(count):
            write_picture(tmp_path / part / f"{rank}.png", noise(3, 4))
    source = open_folder(tmp_path)
    assert (source.class_names, source.train_items, source.validation_items, len(source)) == (
        (tmp_path.name,), 3, 1, 6,
    )  # fmt: skip
    # The classes of a competition's test pictures are a secret.
    for name in ("cat", "dog"):
        (tmp_path / "train" / name).mkdir()
        write_picture(tmp_path / "train" / name / "0.png", noise(3, 4))
    for rank in range(3):
        (tmp_path / "train" / f"{rank}.png").unlink()
    (tmp_path / "val" / "0.png").unlink()
    write_picture(tmp_path / "val" / "dog" / "0.png", noise(3, 4))
    source = open_folder(tmp_path)
    assert (source.class_names, len(source)) == (("cat", "dog"), 3)
    assert source.passed_over == {"in test, which has no class folders": 2}


def test_what_is_left_out_is_counted(tmp_path):
    folder = tmp_path / "a"
    write_picture(folder / "0.png", noise(3, 4))
    for name in ("b.heic", "c.HEIC", "d.svg", "readme", "e.txt", "f.png.part", ".DS_Store"):
        (folder / name).write_bytes(b"\0\0\0\x18ftypheic" if "eic" in name.lower() else b"x")
    (folder / ".ipynb_checkpoints").mkdir()
    write_picture(folder / ".ipynb_checkpoints" / "0-checkpoint.png", noise(3, 4))
    write_picture(tmp_path / "__MACOSX" / "a" / "._0.png", noise(3, 4))
    os.mkfifo(folder / "pipe.png")
    source = open_folder(tmp_path)
    assert source.files == ("a/0.png",)
    assert source.passed_over == {
        ".heic": 2, "hidden or left behind by a system": 3, ".svg": 1, ".txt": 1, ".part": 1,
        "without suffix": 1, "not a plain file": 1,
    }  # fmt: skip
    assert source.remarks() == {"passed_over": dict(source.passed_over)}


def test_links_are_followed_but_not_round_in_circles(tmp_path):
    write_picture(tmp_path / "real" / "0.png", noise(3, 4))
    folder = tmp_path / "set" / "a"
    write_picture(folder / "1.png", noise(3, 4))
    (folder / "linked").symlink_to(tmp_path / "real")
    (folder / "again").symlink_to(tmp_path / "real")
    (folder / "circle").symlink_to(tmp_path / "set")
    source = open_folder(tmp_path / "set")
    assert source.files == ("a/1.png", "a/again/0.png", "a/linked/0.png")
    (folder / "gone.png").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ZooError, match=r"gone\.png \(cannot be read: No such file"):
        open_folder(tmp_path / "set")


# ---- formats


def smooth() -> np.ndarray:
    """An RGB picture that lossy formats hardly change."""
    grey = np.add.outer(np.arange(16) * 8, np.arange(16) * 7).astype(np.uint8)
    return np.stack([grey, grey.T[::-1], 255 - grey], 2)


def save(folder: Path, name: str, picture: Image.Image, format: str, **options: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    picture.save(folder / name, format=format, **options)
    return folder / name


FORMATS = [
    ("a.JPG", "JPEG", {"quality": 95}, 12),
    ("a.jfif", "JPEG", {"quality": 95}, 12),
    ("a.jpe", "JPEG", {"quality": 95}, 12),
    ("a.webp", "WEBP", {"lossless": True}, 0),
    ("a.bmp", "BMP", {}, 0),
    ("a.TIF", "TIFF", {}, 0),
    ("a.gif", "GIF", {}, 48),  # 256 colours
    ("a.ppm", "PPM", {}, 0),
    ("a.jp2", "JPEG2000", {}, 0),
    ("a.avif", "AVIF", {"quality": 100}, 16),
    # Suffixes that lie, or are none.
    ("a.png", "JPEG", {"quality": 95}, 12),
    ("a.jpg", "PNG", {}, 0),
    ("a.heic", "JPEG", {"quality": 95}, 12),
    ("a", "PNG", {}, 0),
]


@pytest.mark.parametrize(("name", "format", "options", "far"), FORMATS, ids=lambda v: str(v))
def test_formats(tmp_path, name, format, options, far):
    file = save(tmp_path, name, Image.fromarray(smooth()), format, **options)
    source = open_folder(tmp_path)
    assert (source.files, source.shape, source.remarks()) == ((name,), (16, 16, 3), {})
    with Image.open(file) as opened:
        theirs = np.asarray(opened.convert("RGB"))
    assert np.abs(source.images[0].astype(int) - theirs).max() <= 1
    assert np.abs(source.images[0].astype(int) - smooth()).max() <= far


@pytest.mark.parametrize("format", ["PNG", "GIF", "BMP", "TIFF"])
def test_palettes(tmp_path, format):
    picture = Image.fromarray(smooth()).quantize(16)
    save(tmp_path, f"a.{format.lower()}", picture, format)
    found = open_folder(tmp_path).images[0]
    np.testing.assert_array_equal(found, np.asarray(picture.convert("RGB")))


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_cmyk(tmp_path, format):
    file = save(tmp_path, f"a.{format.lower()}", Image.fromarray(smooth()).convert("CMYK"), format)
    with Image.open(file) as opened:
        theirs = np.asarray(opened.convert("RGB"))
    assert np.abs(open_folder(tmp_path).images[0].astype(int) - theirs).max() <= 1


@pytest.mark.parametrize("format", ["PNG", "TIFF", "BMP", "GIF"])
def test_one_bit(tmp_path, format):
    picture = smooth()[..., 0] > 100
    save(tmp_path, f"a.{format.lower()}", Image.fromarray(picture), format)
    np.testing.assert_array_equal(open_folder(tmp_path).images[0, ..., 0], picture * np.uint8(255))


@pytest.mark.parametrize("format", ["PNG", "WEBP", "AVIF", "GIF"])
def test_transparency_is_dropped_and_said(tmp_path, format):
    alpha = np.full((16, 16), 255, np.uint8)
    options = {"WEBP": {"lossless": True, "exact": True}}.get(format, {})
    name = f"a.{format.lower()}"
    save(tmp_path, name, Image.fromarray(np.dstack([smooth(), alpha])), format, **options)
    assert open_folder(tmp_path).read == ()  # a channel that is opaque all over says nothing
    alpha[:8] = 0
    save(tmp_path, name, Image.fromarray(np.dstack([smooth(), alpha])), format, **options)
    source = open_folder(tmp_path)
    assert source.read == ("1 picture with transparency: alpha was dropped, not blended",)
    far = {"AVIF": 40, "GIF": 60}.get(format, 0)
    assert np.abs(source.images[0, 8:].astype(int) - smooth()[8:]).max() <= far


def test_colours_of_a_tiff_with_alpha_are_said_to_be_multiplied(tmp_path):
    picture = np.dstack([smooth(), np.full((16, 16), 51, np.uint8)])
    save(tmp_path, "a.tiff", Image.fromarray(picture), "TIFF")
    source = open_folder(tmp_path)
    assert source.read == (
        "1 picture a TIFF with transparency: its colours are multiplied by alpha",
    )
    np.testing.assert_allclose(source.images[0], smooth() / 5, atol=1)


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_several_frames_the_first_is_taken(tmp_path, format):
    frames = [Image.fromarray(smooth()).quantize(32).convert("RGB")]
    frames += [frames[0].rotate(90 * turns) for turns in (1, 2)]
    options = {"WEBP": {"lossless": True}}.get(format, {})
    name = f"a.{format.lower()}"
    save(tmp_path, name, frames[0], format, save_all=True, append_images=frames[1:], **options)
    source = open_folder(tmp_path)
    assert source.read == ("1 picture of several frames or pages: the first was taken",)
    np.testing.assert_array_equal(source.images[0], np.asarray(frames[0]))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientation_is_applied(tmp_path, format):
    halves = np.zeros((16, 32, 3), np.uint8)
    halves[:8] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn clockwise
    save(tmp_path, f"a.{format.lower()}", Image.fromarray(halves), format, exif=exif)
    images = open_folder(tmp_path).images
    assert images.shape == (1, 32, 16, 1)
    assert images[0, :, 9:].min() > 200
    assert images[0, :, :7].max() < 50


def test_what_opencv_gets_wrong_is_refused_or_mended(tmp_path):
    picture = smooth()
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = save(tmp_path, "a.avif", Image.fromarray(picture), "AVIF", exif=exif)
    with pytest.raises(ZooError, match=r"a\.avif \(AVIF that is turned or mirrored"):
        open_folder(tmp_path)
    turned.unlink()
    lab = save(tmp_path, "a.tif", Image.fromarray(picture, "RGB").convert("LAB"), "TIFF")
    with pytest.raises(ZooError, match=r"a\.tif \(TIFF of colour space 8, expected grey, RGB"):
        open_folder(tmp_path)
    lab.unlink()

    deep = (picture.astype(np.uint16) * 4)[..., ::-1]
    options = [cv2.IMWRITE_AVIF_DEPTH, 10, cv2.IMWRITE_AVIF_QUALITY, 100]
    assert cv2.imwrite(str(tmp_path / "a.avif"), deep, options)
    assert np.abs(open_folder(tmp_path).images[0].astype(int) - picture).max() <= 8
    (tmp_path / "a.avif").unlink()

    grey = picture[..., 0]
    for peak, kind in ((1023, ">u2"), (100, "u1")):
        values = np.rint(grey / 255 * peak).astype(kind)
        header = f"P5\n# of a camera\n16 16\n{peak}\n".encode()
        (tmp_path / "a.pgm").write_bytes(header + values.tobytes())
        assert np.abs(open_folder(tmp_path).images[0, ..., 0].astype(int) - grey).max() <= 2


def test_what_a_broken_picture_is_instead(tmp_path):
    for name, content in (
        ("a.jpg", b"<!DOCTYPE html><title>404"),
        ("b.jpg", b"version https://git-lfs.github.com/spec/v1"),
        ("c.png", b"\0\0\0\x18ftypheic\0\0"),
    ):
        (tmp_path / name).write_bytes(content)
    with pytest.raises(
        ZooError,
        match=r"3 of 3 pictures cannot be used: \S*a\.jpg \(an HTML page\), \S*b\.jpg \(a pointer "
        r"of Git LFS, .*\), \S*c\.png \(an HEIC picture, which OpenCV cannot read\)",
    ):
        open_folder(tmp_path)


def test_pictures_of_half_the_content_are_damaged(tmp_path):
    blocks = np.kron(noise(16, 16, 3), np.ones((4, 4, 1), np.uint8))
    for name, format, options, _ in FORMATS[:10]:
        file = save(tmp_path, name, Image.fromarray(blocks), format, **options)
        content = file.read_bytes()
        for part in (0.4, 0.999):
            file.write_bytes(content[: int(len(content) * part)])
            with pytest.raises(ZooError, match=r"\(damaged, or not a picture\)"):
                open_folder(tmp_path)
        file.unlink()


def test_a_build_of_opencv_without_gif(tmp_path, monkeypatch):
    save(tmp_path, "a.gif", Image.fromarray(smooth()), "GIF")
    save(tmp_path, "b.png", Image.fromarray(smooth()), "PNG")
    has = cv2.haveImageWriter
    monkeypatch.setattr(cv2, "haveImageWriter", lambda name: "gif" not in name and has(name))
    source = open_folder(tmp_path)
    assert source.files == ("b.png",)
    assert source.passed_over == {".gif, which this version of OpenCV does not read": 1}


# ---- sizes


def test_ways_to_fit(tmp_path):
    wide = np.zeros((4, 8, 3), np.uint8)
    wide[:, :4] = 200
    write_picture(tmp_path / "0.png", wide)
    path = f"imagefolder:{tmp_path}"
    crop = load_images(path, size=4)
    assert crop.images[0, 0, :, 0].tolist() == [200, 200, 0, 0]
    assert crop.read == ("1 picture cropped to the largest centred part of 4x4 shape and resized",)
    pad = load_images(path, size=8, fit="pad")
    assert pad.images[0, :, 0, 0].tolist() == [0, 0, 200, 200, 200, 200, 0, 0]
    assert pad.images[0, 3, :, 0].tolist() == [200] * 4 + [0] * 4
    assert "with black on two sides" in pad.read[0]
    stretch = load_images(path, size=4, fit="stretch")
    assert (stretch.images[0, :, :, 0] == [200, 200, 0, 0]).all()
    assert "distorts" in stretch.read[0]
    for fit in sources.FITS:  # of one shape there is nothing to choose, and nothing to say
        same = load_images(path, size="4x2", fit=fit)
        assert same.shape == (2, 4, 1)
        assert (same.images[0, :, :, 0] == [200, 200, 0, 0]).all()
        assert same.read == ()
    assert load_images(path, size="2x4").shape == (4, 2, 1)


def test_grey_deep_and_colour_pictures_share_one_array(tmp_path):
    grey, deep, colour = noise(4, 5), noise(4, 5, dtype=np.uint16), noise(4, 5, 3)
    clear = noise(4, 5, 4)
    deep[0, :3] = (128, 129, 65535)
    pictures = (grey, deep, np.repeat(grey[..., None], 3, 2), colour, clear)
    for rank, picture in enumerate(pictures):
        write_picture(tmp_path / "all" / f"{rank}.png", picture)
    source = open_folder(tmp_path)
    assert source.shape == (4, 5, 3)
    np.testing.assert_array_equal(source.images[0], np.repeat(grey[..., None], 3, 2))
    expected = np.rint(deep / 257).astype(np.uint8)
    np.testing.assert_array_equal(source.images[1], np.repeat(expected[..., None], 3, 2))
    assert source.images[1, 0, :3, 0].tolist() == [0, 1, 255]
    np.testing.assert_array_equal(source.images[2], source.images[0])
    np.testing.assert_array_equal(source.images[3], colour[..., ::-1])
    np.testing.assert_array_equal(source.images[4], clear[..., 2::-1])

    for rank in (3, 4):
        (tmp_path / "all" / f"{rank}.png").unlink()
    assert open_folder(tmp_path).images.shape == (3, 4, 5, 1)


def test_late_colour_keeps_all_earlier_grey_pictures(tmp_path):
    pictures = noise(80, 3, 3)
    for rank, picture in enumerate(pictures):
        write_picture(tmp_path / "all" / f"{rank:03}.png", picture)
    write_picture(tmp_path / "all" / "colour.png", noise(3, 3, 3))
    images = open_folder(tmp_path).images
    np.testing.assert_array_equal(images[:80], np.repeat(pictures[..., None], 3, 3))


def test_broken_pictures_are_named_and_counted(tmp_path):
    write_picture(tmp_path / "a" / "whole.jpg", noise(64, 64, 3))
    write_picture(tmp_path / "a" / "whole.png", noise(64, 64, 3))
    jpeg = (tmp_path / "a" / "whole.jpg").read_bytes()
    (tmp_path / "a" / "half.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    with pytest.raises(
        ZooError, match=r"^imagefolder: 1 of 3 pictures cannot be used: \S*a/half\.jpg \(damaged"
    ):
        open_folder(tmp_path)
    png = bytearray((tmp_path / "a" / "whole.png").read_bytes())
    png[len(png) // 2] ^= 255
    (tmp_path / "a" / "flipped.png").write_bytes(png)
    (tmp_path / "a" / "empty.png").touch()
    (tmp_path / "a" / "text.png").write_text("not a picture")
    write_picture(tmp_path / "a" / "float.tiff", np.ones((64, 64), np.float32))
    with pytest.raises(
        ZooError,
        match=r"5 of 7 .*empty\.png \(damaged, or not a picture\), \S*flipped\.png .*"
        r"float\.tiff \(float32 pixels, expected 8 or 16 bits without sign\) and 2 more; repair",
    ) as caught:
        open_folder(tmp_path)
    assert "\n" not in str(caught.value)


def test_unequal_sizes_want_a_size(tmp_path):
    wide = np.zeros((4, 8, 3), np.uint8)
    wide[:, 2:6] = (10, 20, 30)  # the centred square, in OpenCV's BGR
    write_picture(tmp_path / "a" / "0.png", wide)
    write_picture(tmp_path / "a" / "1.png", wide.transpose(1, 0, 2))
    with pytest.raises(
        ValueError,
        match=r"differ in size: \S*0\.png has 4 rows and 8 columns, \S*1\.png 8 and 4; pass --size",
    ):
        open_folder(tmp_path)
    for size in (2, 4, 9):
        source = open_folder(tmp_path, size)
        assert source.images.shape == (2, size, size, 3)
        assert (source.images == (30, 20, 10)).all()


def test_exif_orientation_is_applied(tmp_path):
    from PIL import Image

    picture = Image.fromarray(np.repeat(np.uint8([[0], [255]]), 16, 0).repeat(16, 1))
    exif = picture.getexif()
    exif[0x0112] = 6  # shown after a quarter turn clockwise
    (tmp_path / "a").mkdir()
    picture.save(tmp_path / "a" / "0.jpg", exif=exif)
    images = open_folder(tmp_path).images
    assert images.shape == (1, 16, 32, 1)
    assert images[0, :, :8].min() > 200
    assert images[0, :, -8:].max() < 50


def test_folders_that_hold_no_pictures(tmp_path):
    with pytest.raises(ZooError, match=r"^imagefolder: \S*/none does not exist; expected"):
        open_folder(tmp_path / "none")
    (tmp_path / "file").touch()
    with pytest.raises(ZooError, match=r"^imagefolder: \S*/file is not a folder; expected"):
        open_folder(tmp_path / "file")
    (tmp_path / "bare").mkdir()
    with pytest.raises(ZooError, match=r"\S*/bare has no pictures; expected \S*/<class>/<pict"):
        open_folder(tmp_path / "bare")
    (tmp_path / "bare" / "a.heic").write_bytes(b"\0\0\0\x18ftypheic")
    with pytest.raises(ZooError, match=r"no pictures that can be read \(left out: 1 \.heic\);"):
        open_folder(tmp_path / "bare")
    write_picture(tmp_path / "gap" / "full" / "0.png", noise(2, 2))
    (tmp_path / "gap" / "bare").mkdir()
    with pytest.raises(ZooError, match=r"no pictures in \S*/gap for bare; expected pictures"):
        open_folder(tmp_path / "gap")
