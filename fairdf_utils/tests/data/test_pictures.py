"""One reader for all who open pictures: bit depths, orientation, transparency, and what cannot be read."""

import os
import struct
import zlib

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fairdf_utils.data import batches, pictures
from fairdf_utils.data.image_checks import image_problems
from fairdf_utils.data.manifests import ManifestError
from fairdf_utils.data.pictures import UnreadablePicture, read_picture

RAMP = np.add.outer(np.arange(24), 8 * np.arange(32)).clip(0, 255).astype(np.uint8)  # (24, 32)
COLOURS = np.stack([RAMP, RAMP[::-1], 255 - RAMP], axis=-1)


def png(pixels, colour_type):
    """A PNG file of 16 bits a channel, which Pillow cannot write; pixels uint16 (H, W) or (H, W, channels)."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, colour_type, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def grey(pixels):
    return np.repeat(pixels[..., None], 3, axis=-1)


SIXTEEN = RAMP.astype(np.uint16) * 257


@pytest.mark.parametrize(
    ("name", "save", "wanted"),
    [
        ("grey.png", lambda path: Image.fromarray(SIXTEEN).save(path), grey(RAMP)),
        ("little.tif", lambda path: Image.fromarray(SIXTEEN).save(path), grey(RAMP)),
        ("grey.jp2", lambda path: Image.fromarray(SIXTEEN).save(path), grey(RAMP)),
        ("grey.pgm", lambda path: path.write_bytes(b"P5 32 24 65535\n" + SIXTEEN.astype(">u2").tobytes()), grey(RAMP)),
        ("rgb.png", lambda path: path.write_bytes(png(COLOURS.astype(np.uint16) * 257, 2)), COLOURS),
        ("unit.tif", lambda path: Image.fromarray(RAMP / np.float32(255)).save(path), grey(RAMP)),
        ("float.tif", lambda path: Image.fromarray(RAMP.astype(np.float32)).save(path), grey(RAMP)),
    ],
)
def test_other_bit_depths_are_scaled(tmp_path, name, save, wanted):
    save(tmp_path / name)
    assert np.array_equal(read_picture(tmp_path / name), wanted)


def test_sixteen_bits_of_either_byte_order(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(tmp_path / "big.tif", SIXTEEN, byteorder=">")
    assert np.array_equal(read_picture(tmp_path / "big.tif"), grey(RAMP))


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        (RAMP.astype(np.int32), "32-bit integers from 0 to 255, of unknown range"),
        (RAMP.astype(np.float32) * 300, "floating-point numbers from 0 to 76500, of unknown range"),
        (RAMP.astype(np.float32) - 1, "floating-point numbers from -1 to 254"),
        (np.where(RAMP == 9, np.nan, RAMP).astype(np.float32), "of unknown range: save it with 8 or 16 bits"),
    ],
)
def test_numbers_of_unknown_range_are_refused_everywhere(tmp_path, pixels, said):
    Image.fromarray(pixels).save(tmp_path / "a.tif")
    with pytest.raises(ManifestError, match=rf"train.csv, line 2: .*a.tif .*{said}"):
        batches.load_image(tmp_path / "a.tif", 32, "train.csv, line 2")
    rows = {"file": ["train.csv"], "line": [2], "img_path": ["a.tif"]}
    (problem,) = image_problems(pd.DataFrame(rows), tmp_path)
    assert problem.kind == "unreadable image" and said in problem.finding


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif"])
def test_pictures_are_upright(tmp_path, orientation, ending):
    """The eight ways to hold a camera, by the definition of the tag: where row 0 and column 0 of what is stored lie."""
    stored = {
        1: COLOURS, 2: COLOURS[:, ::-1], 3: COLOURS[::-1, ::-1], 4: COLOURS[::-1],
        5: COLOURS.swapaxes(0, 1), 6: np.rot90(COLOURS), 7: np.rot90(COLOURS, 2).swapaxes(0, 1),
        8: np.rot90(COLOURS, -1),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 98, "subsampling": 0} if ending == "jpg" else {"lossless": True} if ending == "webp" else {}
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / f"a.{ending}", exif=exif, **options)
    read = read_picture(tmp_path / f"a.{ending}")
    assert read.shape == COLOURS.shape and np.abs(read.astype(int) - COLOURS).mean() < 2
    loaded = batches.load_image(tmp_path / f"a.{ending}", 24)
    resized = Image.fromarray(COLOURS).resize((24, 24), Image.Resampling.BILINEAR)
    assert np.abs(loaded.astype(int) - np.asarray(resized)).mean() < 2, "training sees it upright, too"


def test_a_turned_sixteen_bit_picture(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.ascontiguousarray(np.rot90(SIXTEEN))).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_picture(tmp_path / "a.png"), grey(RAMP))


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "CMYK"])
def test_colour_modes(tmp_path, mode):
    image = Image.fromarray(COLOURS).convert(mode)
    image.save(tmp_path / "a.tif")
    assert np.array_equal(read_picture(tmp_path / "a.tif"), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_what_is_transparent_is_black(tmp_path, mode):
    alpha = np.full(RAMP.shape, 255, np.uint8)
    alpha[:12] = 0
    image = Image.fromarray(grey(np.full_like(RAMP, 200))).convert("L" if mode == "LA" else "RGB")
    image.putalpha(Image.fromarray(alpha))
    image = image.convert("RGBA").quantize(8) if mode == "PA" else image
    image.save(tmp_path / "a.png")
    read = read_picture(tmp_path / "a.png")
    assert not read[:12].any() and (read[12:] == 200).all()


def test_the_first_frame_of_an_animation(tmp_path):
    frames = [Image.fromarray(grey(np.full_like(RAMP, level))) for level in (40, 200)]
    for name in ("a.gif", "a.webp", "a.png"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        assert np.abs(read_picture(tmp_path / name).astype(int) - 40).max() < 4


def test_what_cannot_be_read_is_told_in_words(tmp_path, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    said = {"words.png": "not a picture of a known kind", "empty.png": "not a picture of a known kind"}
    (tmp_path / "words.png").write_text("words")
    (tmp_path / "empty.png").touch()
    for name in ("a.png", "a.jpg"):
        Image.fromarray(noise).save(tmp_path / name)
        whole = (tmp_path / name).read_bytes()
        (tmp_path / f"cut_{name}").write_bytes(whole[: len(whole) // 2])
        said[f"cut_{name}"] = "truncated"
    for name, reason in said.items():
        with pytest.raises(UnreadablePicture, match=f"^{reason}$"):
            read_picture(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        read_picture(tmp_path / "absent.png")
    with pytest.raises(IsADirectoryError):
        read_picture(tmp_path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(UnreadablePicture, match="^more than 0 megapixels: make it smaller$"):
        read_picture(tmp_path / "a.png")


def test_names_with_bytes_that_are_no_text(tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    Image.fromarray(COLOURS).save(tmp_path / "a.png")
    os.rename(tmp_path / "a.png", tmp_path / name)
    assert np.array_equal(read_picture(tmp_path / name), COLOURS)


def test_pixels_stored_by_an_older_reader_are_not_taken(training_set, corpus, monkeypatch):
    now = batches.digest_of_images(training_set, corpus / "images", 16)
    monkeypatch.setattr(pictures, "READER", pictures.READER - 1)
    assert batches.digest_of_images(training_set, corpus / "images", 16) != now
