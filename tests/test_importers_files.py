"""Folders and archives are read whole or refused; nothing is unpacked, nothing read unbounded."""

import bz2
import gzip
import io
import lzma
import os
import random
import tarfile
import zipfile
from pathlib import Path

import pytest

from zoo.errors import ZooError
from zoo.importers import files
from zoo.importers.files import Files, natural
from zoo.passed import LEFT_BEHIND

# More than a block of tar each, and nothing that could be a header.
MEMBERS = {f"nets/{n}.bin": random.Random(n).randbytes(700 + 300 * n) for n in range(5)}
PACKERS = {"tar": lambda c: c, "gz": gzip.compress, "xz": lzma.compress, "bz2": bz2.compress}


def tarred(members: dict[str, bytes] = MEMBERS, format: int = tarfile.PAX_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format) as archive:
        for name, content in members.items():
            item = tarfile.TarInfo(name)
            item.size = len(content)
            archive.addfile(item, io.BytesIO(content))
    return file.getvalue()


def zipped(members: dict[str, bytes] = MEMBERS) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def opened(tmp_path: Path, content: bytes) -> Files:
    path = tmp_path / "archive"
    path.write_bytes(content)
    return Files(path)


def read_all(tmp_path: Path, content: bytes) -> dict[str, bytes]:
    found = opened(tmp_path, content)
    return {name: found.read(name) for name in found.names}


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tars_are_read_however_packed(tmp_path: Path, packer: str, format: int):
    found = opened(tmp_path, PACKERS[packer](tarred(format=format)))
    assert found.names == list(MEMBERS)
    assert {name: found.read(name) for name in found.names} == MEMBERS
    assert found.where("nets/0.bin") == f"{tmp_path / 'archive'}: nets/0.bin"
    assert found.head("nets/1.bin") == MEMBERS["nets/1.bin"][:512]


def test_zips_are_read(tmp_path: Path):
    assert read_all(tmp_path, zipped()) == MEMBERS


def test_a_tar_with_a_damaged_header_is_refused_and_not_read_in_part(tmp_path: Path):
    """`tarfile` stops there without a word; fault 2."""
    whole = tarred()
    heads = [whole.index(name.encode()) for name in MEMBERS]
    rng = random.Random(0)
    for head in heads:
        for _ in range(20):
            content = bytearray(whole)
            content[head + rng.randrange(0, 345)] ^= 1 << rng.randrange(8)
            with pytest.raises(ZooError, match="archive"):
                opened(tmp_path, bytes(content))
    assert opened(tmp_path, whole).names == list(MEMBERS)


def test_a_cut_tar_is_refused_wherever_it_is_cut(tmp_path: Path):
    whole = tarred()
    end = whole.rindex(MEMBERS["nets/4.bin"]) + len(MEMBERS["nets/4.bin"])
    end += -end % 512
    for length in [*range(0, end, 97), end, end + 511]:
        with pytest.raises(ZooError, match="archive"):
            opened(tmp_path, whole[:length])
    # One block of zeros is an end; so is what GNU tar fills up to.
    for length in (end + 512, end + 1024, len(whole)):
        assert opened(tmp_path, whole[:length]).names == list(MEMBERS)


def test_archives_in_one_file_are_refused(tmp_path: Path):
    with pytest.raises(ZooError, match="goes on behind its end"):
        opened(tmp_path, tarred() + tarred({"more": b"x"}))


@pytest.mark.parametrize("packer", ["gz", "xz", "bz2"])
def test_a_cut_or_damaged_stream_is_refused(tmp_path: Path, packer: str):
    packed = PACKERS[packer](tarred())
    for length in range(6, len(packed), 211):
        with pytest.raises(ZooError, match="archive"):
            opened(tmp_path, packed[:length])
    for place in range(20, len(packed) - 20, 307):
        content = bytearray(packed)
        content[place] ^= 0x20
        with pytest.raises(ZooError, match="archive"):
            opened(tmp_path, bytes(content))


def test_a_header_that_leads_backwards_ends(tmp_path: Path):
    """A negative size, as base-256 numbers allow, would be read for ever."""
    item = tarfile.TarInfo("folder")
    item.type = tarfile.DIRTYPE
    head = bytearray(item.tobuf(tarfile.GNU_FORMAT))
    head[124:136] = b"\xff" * 10 + (-1024).to_bytes(2, "big", signed=True)
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    with pytest.raises(ZooError, match="damaged or cut"):
        opened(tmp_path, bytes(head) + tarred())


def test_a_long_name_is_bounded(tmp_path: Path):
    item = tarfile.TarInfo("x" * (2 << 20))
    content = item.tobuf(tarfile.GNU_FORMAT) + bytes(1024)
    with pytest.raises(ZooError, match=r"a header of 2,\d+,\d+ bytes"):
        opened(tmp_path, content)


def test_streams_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(files, "STREAM_FREE", 1 << 20)
    for packer in ("gz", "xz", "bz2"):
        with pytest.raises(ZooError, match="unpacks to more than"):
            opened(tmp_path, PACKERS[packer](bytes(16 << 20)))
    monkeypatch.setattr(files, "LZMA_BYTES", 1 << 20)
    with pytest.raises(ZooError, match=r"archive: .*damaged or cut"):
        opened(tmp_path, lzma.compress(tarred(), preset=9))


def test_streams_of_xz_may_follow_one_another(tmp_path: Path):
    whole = tarred()
    packed = lzma.compress(whole[:1000]) + bytes(8) + lzma.compress(whole[1000:])
    assert opened(tmp_path, packed).names == list(MEMBERS)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (4, b"\xff\xff"),  # a version of the future
        (6, b"\x01\x00"),  # encrypted
        (8, b"\x63\x00"),  # another way of packing
        (14, b"\0\0\0\0"),  # a check sum
    ],
)
def test_zips_of_other_kinds_and_damaged_ones_are_refused_by_name(
    tmp_path: Path, place: int, value: bytes
):
    content = bytearray(zipped())
    central = content.index(b"PK\x01\x02") + 2
    content[central + place : central + place + len(value)] = value
    with pytest.raises(ZooError, match="archive") as raised:
        read_all(tmp_path, bytes(content))
    assert "\n" not in str(raised.value)


def test_a_damaged_name_in_a_zip_is_no_other_file(tmp_path: Path):
    """A file that is nobody's would be passed over, and the zoo have one network less."""
    whole = zipped()
    for place in (whole.index(b"nets/3"), whole.rindex(b"nets/3")):
        content = bytearray(whole)
        content[place] ^= 1
        with pytest.raises(ZooError, match="damaged or cut"):
            opened(tmp_path, bytes(content))
    end = whole.rindex(b"PK\x05\x06")
    content = bytearray(whole)
    content[end + 10] = 3
    with pytest.raises(ZooError, match="lists 5 files and says 3"):
        opened(tmp_path, bytes(content))


def test_a_folder_is_read_with_what_is_passed_over_counted(tmp_path: Path):
    root = tmp_path / "nets"
    (root / "a").mkdir(parents=True)
    (root / ".git").mkdir()
    for name in ("a/1.bin", "a/._1.bin", ".git/x", "Thumbs.db"):
        (root / name).write_bytes(b"x")
    os.mkfifo(root / "pipe.bin")
    (root / "linked").symlink_to(root / "a")
    (root / "dangling.bin").symlink_to(root / "nowhere")
    (root / "link.bin").symlink_to(root / "a" / "1.bin")
    found = Files(root)
    assert found.names == ["a/1.bin", "link.bin"]
    assert found.passed.to_json() == {LEFT_BEHIND: 3, "no regular files": 2, "links": 1}
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(root, "nets", filter=lambda item: None if item.isfifo() else item)
    found = Files(archive)
    assert found.names == ["nets/a/1.bin"]
    assert found.passed.to_json() == {LEFT_BEHIND: 3, "links": 3}


def test_a_folder_that_cannot_be_read_is_not_passed_over(tmp_path: Path):
    if os.geteuid() == 0:
        pytest.skip("root reads every folder")
    (tmp_path / "a").mkdir()
    (tmp_path / "a").chmod(0)
    with pytest.raises(ZooError, match="a: cannot be read"):
        Files(tmp_path)


def test_names_are_sorted_with_their_numbers():
    names = ["n10", "n9", "m", "n" + "9" * 5000, "10", "9"]
    assert sorted(names, key=natural)[:5] == ["m", "n" + "9" * 5000, "n9", "n10", "9"]
