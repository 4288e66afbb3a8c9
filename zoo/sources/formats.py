"""What a file of a picture is, by its content, and what of it OpenCV would get wrong.

Suffixes lie: a photograph called .heic may be a JPEG, and a .jpg an HTML page. The first
bytes decide. Nothing here decodes a picture; it reads the few fields of a header that say
whether the decoder's answer can be taken as it is.
"""

import re
import struct
from collections.abc import Iterator

# Files of these names are taken for pictures whatever is in them, so that a damaged one is
# an error and not passed over.
SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".png", ".apng", ".webp", ".bmp", ".dib",
    ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".jp2",
)  # fmt: skip
# The names that 324dc88 took, which are torchvision's.
OLDER_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
# Names of pictures that OpenCV cannot read; what is in them may still be one that it can.
FOREIGN_SUFFIXES = (".heic", ".heif", ".jxl", ".ico", ".psd", ".svg", ".tga", ".img")

# What the first bytes of other files that lie among pictures say.
_FOREIGN = {
    rb"....ftyp(hei[cxms]|hev[cxms]|mif1|msf1)": "an HEIC picture, which OpenCV cannot read",
    rb"\xff\x0a|\x00\x00\x00\x0cJXL ": "a JPEG XL picture, which OpenCV cannot read",
    rb"8BPS": "a Photoshop document",
    rb"%PDF": "a PDF",
    rb"PK\x03\x04|\x1f\x8b": "an archive",
    rb"version https://git-lfs": "a pointer of Git LFS, not the file it stands for",
    rb"\s*<(!doctype html|html)": "an HTML page",
    rb"\s*<(svg|\?xml)": "an SVG or XML text",
}
_READ = {
    rb"\xff\xd8\xff": "jpeg",
    rb"\x89PNG\r\n\x1a\n": "png",
    rb"GIF8[79]a": "gif",
    rb"RIFF....WEBP": "webp",
    rb"II\*\x00|MM\x00\*": "tiff",
    rb"P[1-6]\s(\s|#[^\n]*\n)*\d+\s": "pnm",
    rb"....ftypavi[fs]": "avif",
    rb"\x00\x00\x00\x0cjP  |\xff\x4f\xff\x51": "jp2",
}
HEAD_BYTES = 256
# Formats that some builds of OpenCV do not read.
OPTIONAL_SUFFIXES = (".gif", ".avif", ".jp2")

# Tags of TIFF, as TIFF 6.0 numbers them.
_BITS, _PHOTOMETRIC, _EXTRA_SAMPLES = 258, 262, 338


def format_of(content: bytes) -> str | None:
    """The format of a picture by its first `HEAD_BYTES`, if OpenCV reads it; else None.

    >>> format_of(b"GIF89a..."), format_of(b"P5 16 16 255 "), format_of(b"PNG is a format")
    ('gif', 'pnm', None)
    """
    for pattern, name in _READ.items():
        if re.match(pattern, content, re.DOTALL):
            return name
    # "BM" alone begins many a text: the reserved words must be 0 and the header a known one.
    if content[:2] == b"BM" and content[6:10] == b"\0" * 4 and content[14:18] in _BITMAP_HEADERS:
        return "bmp"
    return None


_BITMAP_HEADERS = {struct.pack("<I", size) for size in (12, 40, 52, 56, 64, 108, 124)}


def what_else(content: bytes) -> str:
    """What a file is that is no picture OpenCV reads, in a few words.

    >>> what_else(b"<!DOCTYPE html><title>404"), what_else(b"half a picture")
    ('an HTML page', 'damaged, or not a picture')
    """
    for pattern, words in _FOREIGN.items():
        if re.match(pattern, content, re.DOTALL | re.IGNORECASE):
            return words
    return "damaged, or not a picture"


def has_alpha(content: bytes, format: str | None) -> bool:
    """Whether the header says that pixels can be transparent."""
    if format == "png":
        return content[25:26] in (b"\x04", b"\x06") or b"tRNS" in content[: _first_idat(content)]
    if format == "webp":
        lossless = content[12:16] == b"VP8L"
        return bool(content[24:25] and content[24] & 0x10) if lossless else _webp_alpha(content)
    if format == "gif":
        # The graphic control extension; bit 0 of its flags is transparency.
        found = re.search(rb"\x21\xf9\x04(.)", content[:4096], re.DOTALL)
        return bool(found and found[1][0] & 1)
    if format == "avif":
        return b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha" in content[:4096]
    if format == "tiff":
        return bool(tiff_tag(content, _EXTRA_SAMPLES))
    return False


def _first_idat(content: bytes) -> int:
    return max(content.find(b"IDAT"), 0)


def _webp_alpha(content: bytes) -> bool:
    return content[12:16] == b"VP8X" and bool(content[20:21] and content[20] & 0x10)


def has_frames(content: bytes, format: str | None) -> bool:
    """Whether the file holds several pictures: an animation, or pages."""
    if format == "png":
        return b"acTL" in content[: _first_idat(content)]
    if format == "webp":
        return content[12:16] == b"VP8X" and bool(content[20:21] and content[20] & 0x02)
    if format == "gif":
        # A graphic control extension with an image descriptor behind it, twice.
        return len(re.findall(rb"\x00\x21\xf9\x04.{4}\x00[\x2c\x21]", content, re.DOTALL)) > 1
    if format == "avif":
        return b"avis" in content[:64]
    return format == "tiff" and _tiff_pages(content)


def _tiff_pages(content: bytes) -> bool:
    order = "<" if content[:2] == b"II" else ">"
    try:
        (start,) = struct.unpack_from(f"{order}I", content, 4)
        (count,) = struct.unpack_from(f"{order}H", content, start)
        (after,) = struct.unpack_from(f"{order}I", content, start + 2 + 12 * count)
    except struct.error:
        return False
    return bool(after)


def wrong_colours(content: bytes, format: str | None) -> str | None:
    """Why the decoder's colours or orientation would be wrong, or None."""
    if format == "avif" and re.search(rb"irot[\1-\3]|imir", content[:4096]):
        return "AVIF that is turned or mirrored, which OpenCV does not apply"
    if format == "tiff":
        kind, bits = tiff_tag(content, _PHOTOMETRIC), tiff_tag(content, _BITS)
        if kind not in (None, 0, 1, 2, 3, 5, 6):
            return f"TIFF of colour space {kind}, expected grey, RGB, palette, CMYK or YCbCr"
        if kind == 0 and (bits or 1) > 8:
            return f"{bits}-bit TIFF in which 0 is white, which OpenCV does not turn round"
    return None


def pnm_peak(content: bytes) -> int | None:
    """The value of white that a PGM or PPM states; OpenCV leaves it out of account.

    >>> pnm_peak(b"P5 # a comment\\n16 16 1023\\n"), pnm_peak(b"P4 8 8 ")
    (1023, None)
    """
    space = rb"(?:\s|#[^\n]*\n)+"
    number = rb"(\d+)"
    found = re.match(rb"P[2356]" + (space + number) * 3 + rb"\s", content)
    return int(found[3]) if found else None


def tiff_tag(content: bytes, tag: int) -> int | None:
    """The first value of a tag of a TIFF's first page; None without the tag."""
    for found, value in _tiff_tags(content):
        if found == tag:
            return value
    return None


def _tiff_tags(content: bytes) -> Iterator[tuple[int, int]]:
    order = "<" if content[:2] == b"II" else ">"
    try:
        (start,) = struct.unpack_from(f"{order}I", content, 4)
        (count,) = struct.unpack_from(f"{order}H", content, start)
        for at in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind, values, word = struct.unpack_from(f"{order}HHII", content, at)
            if kind == 3 and values <= 2:  # SHORTs that lie in the entry itself
                (word,) = struct.unpack_from(f"{order}H", content, at + 8)
            elif kind == 3:
                (word,) = struct.unpack_from(f"{order}H", content, word)
            yield tag, word
    except struct.error:
        return
