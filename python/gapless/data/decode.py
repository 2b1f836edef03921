"""Image bytes to pixels: one set of rules, whatever the file and whichever library decodes it.

The rules, for every place where gapless opens a picture (training, evaluation, prediction, export):

=====================  =================================================================================
input                  what becomes of it
=====================  =================================================================================
formats                JPEG, PNG, WebP and BMP, by content, not by extension; anything else is an error
EXIF orientation       applied always, so that the pixels are upright (JPEG, PNG and WebP)
grey                   one channel; stays one channel when the whole data set is grey
palette                looked up: three channels
alpha                  composited on white: ``(c*a + 255*(255-a) + 127) // 255``
CMYK, YCCK             Pillow's conversion to RGB, without colour management
ICC profiles           not applied
16 bits per channel    the high byte is taken
animated               the first frame
truncated, damaged     an error: half a picture is never fed to a network
pixel and byte limits  looked at before anything is decoded
=====================  =================================================================================

A JPEG in YCbCr, grey or RGB is decoded by simplejpeg, everything else by Pillow; both are libjpeg-turbo with
the accurate inverse DCT and smooth upsampling, and give the same pixels.
"""

from __future__ import annotations

import io
import os
import stat
import struct
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gapless.errors import DataError

__all__ = [
    "EXTENSIONS",
    "MAX_BYTES",
    "MAX_PIXELS",
    "RULES",
    "DecodeError",
    "as_channels",
    "decode",
    "exif_orientation",
    "from_pillow",
    "orient",
    "read",
]

Image = NDArray[np.uint8]

MAX_PIXELS = 89_000_000  # just under the size from which Pillow warns of a decompression bomb
MAX_BYTES = 1 << 28
EXTENSIONS = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp"})
RULES = 1  # number of the table above; a cache of decoded things made under other rules is not used

# What a picture needed, as bits; counted per data set so that nothing happens in silence.
ALPHA, DEEP, CMYK, ANIMATED, ROTATED = 1, 2, 4, 8, 16
FLAG_TEXT = {
    ALPHA: "with an alpha channel: composited on white",
    DEEP: "with 16 bits per channel: the high byte is taken",
    CMYK: "in CMYK: converted to RGB without colour management",
    ANIMATED: "animated: the first frame is taken",
    ROTATED: "turned upright by their EXIF orientation",
}

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
_pillow_lock = threading.Lock()
_pillow_module: Any = None


class DecodeError(DataError):
    """A picture that cannot be decoded whole; ``reason`` is the short text without the name."""

    def __init__(self, reason: str, name: str | None = None) -> None:
        super().__init__(f"{name}: {reason}" if name else reason)
        self.reason = reason


def _pillow() -> Any:
    """Pillow with its four readers, imported once: Pillow's own lazy import is not made for many threads."""
    global _pillow_module
    if _pillow_module is None:
        with _pillow_lock:
            from PIL import BmpImagePlugin, Image, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

            del BmpImagePlugin, JpegImagePlugin, PngImagePlugin, WebPImagePlugin
            Image.preinit()
            _pillow_module = Image
    return _pillow_module


def decode(data: bytes, *, max_pixels: int = MAX_PIXELS, name: str | None = None) -> Image:
    """Decode a whole picture.

    Parameters
    ----------
    data : bytes
        The file's content.
    max_pixels : int
        Height times width beyond which the picture is refused before it is decoded.
    name : str, optional
        What to call it in an error.

    Returns
    -------
    ndarray
        uint8 (H, W, 1) for grey pictures, (H, W, 3) RGB for all others, upright.

    Raises
    ------
    DecodeError
        If the picture is damaged, truncated, too large or of another format.

    Examples
    --------
    >>> import io, PIL.Image
    >>> out = io.BytesIO()
    >>> PIL.Image.new("RGB", (5, 3), "red").save(out, "PNG")
    >>> decode(out.getvalue()).shape
    (3, 5, 3)
    """
    return decode_flags(data, max_pixels=max_pixels, name=name)[0]


def read(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> Image:
    """Read and decode a file; as `decode`, and the error names the path."""
    return read_flags(path, max_pixels=max_pixels)[0]


def read_flags(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> tuple[Image, int]:
    """As `read`, with the bits that say what the picture needed."""
    name = printable(os.fspath(path))
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe would wait for ever
            raise DecodeError("cannot be read: not a regular file", name)
        with open(path, "rb") as f:
            size = os.fstat(f.fileno()).st_size
            if size > MAX_BYTES:
                raise DecodeError(f"{size:,} bytes; the limit is {MAX_BYTES:,}", name)
            data = f.read(MAX_BYTES + 1)
    except OSError as e:
        raise DecodeError(f"cannot be read: {e.strerror or e}", name) from e
    return decode_flags(data, max_pixels=max_pixels, name=name)


def printable(text: str) -> str:
    """File names that are not valid UTF-8, with the odd bytes as ``\\udcXX``: can be printed and stored."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def decode_flags(data: bytes, *, max_pixels: int = MAX_PIXELS, name: str | None = None) -> tuple[Image, int]:
    """As `decode`, with the bits (ALPHA, DEEP, …) that say what the picture needed."""
    if not data:
        raise DecodeError("the file is empty (0 bytes)", name)
    if len(data) > MAX_BYTES:
        raise DecodeError(f"{len(data):,} bytes; the limit is {MAX_BYTES:,}", name)
    try:
        if data[:3] == b"\xff\xd8\xff":
            return _jpeg(data, max_pixels)
        return _by_pillow(data, max_pixels)
    except DecodeError as e:
        raise DecodeError(e.reason, name) from e.__cause__


def _check_size(h: int, w: int, max_pixels: int) -> None:
    if h < 1 or w < 1:
        raise DecodeError(f"has no pixels ({w}×{h})")
    if h * w > max_pixels:
        raise DecodeError(f"{w}×{h} = {h * w:,} pixels; the limit is max_pixels={max_pixels:,}")


def _jpeg(data: bytes, max_pixels: int) -> tuple[Image, int]:
    try:
        import simplejpeg
    except ImportError:  # the pixels are the same, only slower
        return _by_pillow(data, max_pixels)
    try:
        h, w, space, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return _by_pillow(data, max_pixels)  # its error is the more telling one
    _check_size(h, w, max_pixels)
    if space not in ("YCbCr", "Gray", "RGB"):
        return _by_pillow(data, max_pixels)
    try:
        image = simplejpeg.decode_jpeg(data, "GRAY" if space == "Gray" else "RGB")
    except ValueError as e:
        if "premature end" in str(e).lower():  # Pillow would fill the missing part with grey
            raise DecodeError(f"truncated or damaged JPEG ({e})") from e
        return _by_pillow(data, max_pixels)  # a harmless irregularity, such as stray bytes between segments
    return _upright(image, _jpeg_exif(data), 0)


def _by_pillow(data: bytes, max_pixels: int) -> tuple[Image, int]:
    pil = _pillow()
    try:
        with pil.open(io.BytesIO(data), formats=_FORMATS) as im:
            w, h = im.size
            _check_size(h, w, max_pixels)
            flags = ANIMATED if im.format != "MPO" and getattr(im, "is_animated", False) else 0
            im.load()
            exif = _jpeg_exif(data) if im.format in ("JPEG", "MPO") else im.info.get("exif", b"")
            pixels, more = _pixels(im, _sixteen(data))
    except DecodeError:
        raise
    except pil.DecompressionBombError as e:
        raise DecodeError(f"too many pixels ({e})") from e
    except Exception as e:  # Pillow's readers raise whatever struct, zlib or a bad index gave
        if type(e).__name__ == "UnidentifiedImageError":
            raise DecodeError(_unidentified(data)) from e
        raise DecodeError(f"damaged or truncated ({e or type(e).__name__})") from e
    return _upright(pixels, exif, flags | more)


def from_pillow(im: Any) -> Image:
    """The pixels of a Pillow image by the same rules, its EXIF orientation included."""
    im.load()
    return _upright(_pixels(im, False)[0], im.info.get("exif", b""), 0)[0]


def _sixteen(data: bytes) -> bool:
    """Whether these are the bytes of a PNG of 16 bits per channel: Pillow's mode does not always tell."""
    return data[:8] == b"\x89PNG\r\n\x1a\n" and data[12:16] == b"IHDR" and data[24:25] == b"\x10"


def _pixels(im: Any, deep: bool) -> tuple[Image, int]:
    """The pixels of a loaded Pillow image, one or three channels, and its flags."""
    mode, flags = im.mode, DEEP if deep else 0
    if mode.startswith("I"):  # 16-bit grey; convert("L") would clip it to white
        return (np.asarray(im).astype(np.uint16) >> 8).astype(np.uint8)[:, :, None], DEEP
    if mode in ("LA", "La") or (mode in ("1", "L") and "transparency" in im.info):
        a = np.asarray(im.convert("LA"))
        return _on_white(a[:, :, :1], a[:, :, 1:]), flags | ALPHA
    if mode in ("RGBA", "RGBa", "PA") or (mode in ("P", "RGB") and "transparency" in im.info):
        a = np.asarray(im.convert("RGBA"))
        return _on_white(a[:, :, :3], a[:, :, 3:]), flags | ALPHA
    if mode in ("1", "L"):
        return np.asarray(im.convert("L"))[:, :, None], flags
    if mode == "CMYK":
        flags |= CMYK
    return np.asarray(im if mode == "RGB" else im.convert("RGB")), flags


def _on_white(color: Image, alpha: Image) -> Image:
    a = alpha.astype(np.uint32)
    return ((color * a + 255 * (255 - a) + 127) // 255).astype(np.uint8)


def _unidentified(data: bytes) -> str:
    for start, what in ((b"\xff\xd8", "JPEG"), (b"\x89PNG", "PNG"), (b"RIFF", "WebP"), (b"BM", "BMP")):
        if data.startswith(start):
            return f"damaged or truncated: the head of a {what} and no more that can be read"
    return f"not a JPEG, PNG, WebP or BMP picture{_guess(data)}"


def _guess(data: bytes) -> str:
    head = data[:200].lstrip().lower()
    for start, what in (
        (b"gif8", "a GIF"),
        (b"ii*\0", "a TIFF"),
        (b"mm\0*", "a TIFF"),
        (b"%pdf", "a PDF"),
        (b"pk\3\4", "a ZIP archive"),
        (b"version https://git-lfs", "a Git LFS pointer: the picture itself was not fetched"),
        (b"<!doctype html", "a web page"),
        (b"<html", "a web page"),
        (b"<svg", "an SVG"),
        (b"<?xml", "XML"),
    ):
        if head.startswith(start):
            return f" (it looks like {what})"
    if head[4:8] == b"ftyp":
        return " (it looks like HEIF, AVIF or a video)"
    return ""


def _jpeg_exif(data: bytes) -> bytes:
    """The body of the APP1 segment that holds EXIF, or nothing."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if marker in (0xDA, 0xD9):
            break
        size = int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == 0xE1 and data[at + 4 : at + 10] == b"Exif\0\0":
            return data[at + 4 : at + 2 + size]
        at += 2 + max(size, 2)
    return b""


def exif_orientation(exif: bytes) -> int:
    """The orientation 1..8 in an EXIF block; 1 where there is none or it makes no sense.

    Examples
    --------
    >>> entry = b"\\x01\\x12\\0\\x03\\0\\0\\0\\x01\\0\\x06\\0\\0"
    >>> exif_orientation(b"Exif\\0\\0MM\\0*\\0\\0\\0\\x08\\0\\x01" + entry)
    6
    """
    if exif[:6] == b"Exif\0\0":
        exif = exif[6:]
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None or len(exif) < 8:
        return 1
    (at,) = struct.unpack_from(order + "I", exif, 4)
    if at + 2 > len(exif):
        return 1
    (count,) = struct.unpack_from(order + "H", exif, at)
    for i in range(count):
        entry = at + 2 + 12 * i
        if entry + 12 > len(exif):
            break
        tag, kind, n, value = struct.unpack_from(order + "HHIH", exif, entry)
        if tag == 0x0112:
            return value if kind == 3 and n == 1 and 1 <= value <= 8 else 1
    return 1


def orient(image: Image, orientation: int) -> Image:
    """Turn a picture upright, given EXIF's number (as Pillow's ``ImageOps.exif_transpose``)."""
    if orientation in (2, 7):
        image = image[:, ::-1]
    if orientation in (3, 4):
        image = image[::-1, ::-1] if orientation == 3 else image[::-1]
    elif orientation in (5, 8):
        image = image.transpose(1, 0, 2) if orientation == 5 else np.rot90(image, 1)
    elif orientation in (6, 7):
        image = np.rot90(image, -1)
    return np.ascontiguousarray(image)


def _upright(image: Image, exif: bytes, flags: int) -> tuple[Image, int]:
    orientation = exif_orientation(exif) if exif else 1
    return orient(image, orientation), flags | (ROTATED if orientation > 1 else 0)


def as_channels(image: Image, channels: int) -> Image:
    """Grey to three equal channels, or RGB to ITU-R 601 luma (Pillow's ``convert("L")``).

    Examples
    --------
    >>> as_channels(np.full((1, 1, 3), 200, np.uint8), 1).tolist()
    [[[200]]]
    """
    if image.shape[2] == channels:
        return image
    if channels == 3:
        return np.repeat(image, 3, axis=2)
    r, g, b = (image[:, :, k].astype(np.uint32) for k in range(3))
    return ((r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16).astype(np.uint8)[:, :, None]
