"""gapless.data.decode: the rules for every kind of picture, and the table of hostile input."""

from __future__ import annotations

import io
import struct
import sys
import zlib

import numpy as np
import pytest
from data_fixtures import encoded, picture
from PIL import Image, ImageOps

from gapless.data import decode
from gapless.data.decode import DecodeError
from gapless.errors import DataError


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("size", [(48, 64), (17, 31), (1, 1)])
def test_jpeg_pixels_are_equal_by_either_route(subsampling, progressive, size, monkeypatch):
    data = encoded(picture(3, *size), "JPEG", subsampling=subsampling, progressive=progressive)
    fast = decode.decode(data)
    monkeypatch.setitem(sys.modules, "simplejpeg", None)  # an import of it fails now
    assert np.array_equal(fast, decode.decode(data))
    assert np.array_equal(fast, np.asarray(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "WEBP"])
def test_grey_stays_one_channel(kind):
    data = encoded(picture(1, c=1), kind)
    got = decode.decode(data)
    assert got.dtype == np.uint8
    if kind == "WEBP":  # WebP has no grey
        assert got.shape == (12, 16, 3)
    else:
        assert np.array_equal(got[:, :, 0], np.asarray(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("BMP", {}), ("WEBP", {"lossless": True})])
def test_lossless_formats_give_the_pixels_back(kind, options):
    a = picture(2)
    assert np.array_equal(decode.decode(encoded(a, kind, **options)), a)


def test_alpha_is_composited_on_white():
    rgba = np.zeros((1, 3, 4), np.uint8)
    rgba[0] = [[200, 100, 0, 255], [200, 100, 0, 0], [200, 100, 0, 128]]
    got, flags = decode.decode_flags(encoded(Image.fromarray(rgba)))
    assert got[0].tolist() == [[200, 100, 0], [255, 255, 255], [227, 177, 127]]
    assert flags & decode.ALPHA


def test_grey_with_alpha_and_palette_with_transparency():
    la = Image.merge("LA", [Image.new("L", (2, 2), 50), Image.new("L", (2, 2), 0)])
    assert decode.decode(encoded(la)).tolist() == [[[255], [255]], [[255], [255]]]
    p = Image.new("P", (2, 1))
    p.putpalette([10, 20, 30, 40, 50, 60])
    p.putpixel((1, 0), 1)
    assert decode.decode(encoded(p))[0].tolist() == [[10, 20, 30], [40, 50, 60]]
    assert decode.decode(encoded(p, transparency=1))[0].tolist() == [[10, 20, 30], [255, 255, 255]]


def test_sixteen_bits_give_the_high_byte_and_are_not_clipped():
    deep = np.array([[0, 255, 256, 40000, 65535]], np.uint16)
    got, flags = decode.decode_flags(encoded(Image.fromarray(deep)))
    assert got[0, :, 0].tolist() == [0, 0, 1, 156, 255]
    assert flags & decode.DEEP


def test_sixteen_bits_in_colour():
    raw = struct.pack(">3H", 0x1234, 0x80FF, 0xFF00)
    chunk = lambda k, d: struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d))
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">2I5B", 1, 1, 16, 2, 0, 0, 0))
    png += chunk(b"IDAT", zlib.compress(b"\0" + raw)) + chunk(b"IEND", b"")
    got, flags = decode.decode_flags(png)
    assert got[0, 0].tolist() == [0x12, 0x80, 0xFF]
    assert flags & decode.DEEP


def test_cmyk_becomes_rgb():
    data = encoded(Image.fromarray(picture(4)).convert("CMYK"), "JPEG")
    got, flags = decode.decode_flags(data)
    assert np.array_equal(got, np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
    assert flags & decode.CMYK


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_animated_gives_its_first_frame(kind):
    frames = [Image.new("RGB", (4, 4), c) for c in ("red", "lime")]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], lossless=True)
    got, flags = decode.decode_flags(data)
    assert got[0, 0].tolist() == [255, 0, 0]
    assert flags & decode.ANIMATED


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_exif_orientation_is_applied(orientation, kind):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(picture(5), kind, exif=exif)
    want = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    got, flags = decode.decode_flags(data)
    assert got.flags.c_contiguous
    assert np.array_equal(got, want)
    assert bool(flags & decode.ROTATED) == (orientation > 1)


@pytest.mark.parametrize(
    "exif",
    [b"", b"Exif\0\0", b"Exif\0\0II*\0", b"Exif\0\0II*\0\xff\xff\xff\xff",
     b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01",
     b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x09\0\0\0"],
)  # fmt: skip
def test_senseless_exif_means_upright(exif):
    assert decode.exif_orientation(exif) == 1


def _truncated(kind, share):
    data = encoded(picture(6, 64, 64), kind)
    return data[: int(len(data) * share)]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "WEBP"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.9, 0.99])
def test_truncated_files_are_errors(kind, share):
    with pytest.raises(DecodeError):
        decode.decode(_truncated(kind, share))


def test_jpeg_that_ends_early_but_with_an_end_marker_is_an_error():
    with pytest.raises(DecodeError, match="truncated or damaged"):
        decode.decode(_truncated("JPEG", 0.6) + b"\xff\xd9")


def test_jpeg_with_stray_bytes_between_segments_is_read():
    data = encoded(picture(6, 64, 64), "JPEG")
    assert np.array_equal(decode.decode(data + b"tail"), decode.decode(data))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"\xff\xd8\xff", "damaged|not a JPEG"),
        (b"hello", "not a JPEG, PNG, WebP or BMP"),
        (b"GIF89a" + bytes(20), "GIF"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "LFS"),
        (bytes(1000), "not a JPEG"),
    ],
)
def test_what_is_no_picture_says_so(data, words):
    with pytest.raises(DecodeError, match=words):
        decode.decode(data, name="x.jpg")


def test_gif_and_tiff_are_not_decoded_whatever_their_name():
    for kind in ("GIF", "TIFF"):
        with pytest.raises(DecodeError, match=kind):
            decode.decode(encoded(picture(1), kind))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "WEBP"])
def test_pixel_limit_is_looked_at_before_decoding(kind):
    data = encoded(picture(1, 40, 50), kind)
    assert decode.decode(data, max_pixels=2000).shape == (40, 50, 3)
    with pytest.raises(DecodeError, match=r"50×40 = 2,000 pixels; the limit is max_pixels=1,999"):
        decode.decode(data, max_pixels=1999)


def test_bomb_of_a_png_is_refused_from_its_header():
    chunk = lambda k, d: struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d))
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">2I5B", 60000, 60000, 8, 2, 0, 0, 0))
    with pytest.raises(DecodeError, match="pixels"):
        decode.decode(png + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b""))


def test_byte_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(decode, "MAX_BYTES", 100)
    (tmp_path / "a.png").write_bytes(encoded(picture(1, 40, 50)))
    with pytest.raises(DecodeError, match=r"a\.png: .* bytes; the limit is 100"):
        decode.read(tmp_path / "a.png")


def test_error_of_a_file_names_it_and_is_a_data_error(tmp_path):
    with pytest.raises(DataError, match=r"gone\.jpg: cannot be read: No such file"):
        decode.read(tmp_path / "gone.jpg")


def test_grey_and_colour_convert_as_pillow_does():
    rgb = picture(7)
    assert np.array_equal(decode.as_channels(rgb, 1)[:, :, 0], np.asarray(Image.fromarray(rgb).convert("L")))
    assert np.array_equal(decode.as_channels(rgb[:, :, :1], 3), np.repeat(rgb[:, :, :1], 3, 2))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "WEBP"])
def test_flipped_bits_never_crash(kind):
    data = bytearray(encoded(picture(8, 20, 20), kind))
    rng = np.random.default_rng(0)
    outcomes = set()
    for _ in range(150):
        bad = bytearray(data)
        for at in rng.integers(0, len(bad), 3):
            bad[at] ^= 1 << int(rng.integers(8))
        try:
            got = decode.decode(bytes(bad), max_pixels=1 << 20)
            assert got.ndim == 3
            assert got.shape[2] in (1, 3)
            outcomes.add("read")
        except DecodeError:
            outcomes.add("refused")
    assert "refused" in outcomes
