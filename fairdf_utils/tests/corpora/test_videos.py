"""Frames: the right ones, pixel by pixel as in a full decode, upright; and what is said of files that are no video."""

import os
from fractions import Fraction

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fairdf_utils.corpora import videos
from fairdf_utils.corpora.videos import VideoError, positions, read_frames
from fairdf_utils.tests.corpora.tiny_videos import cut, number_in, numbered, write_sound, write_video

COUNT = 61
OPEN_GOP = {"x264-params": "keyint=12:open-gop=1:bframes=4:b-pyramid=normal:log-level=none"}
KINDS = {
    "h264.mp4": {},
    "h264.mkv": {},
    "h264.ts": {},
    "h264.flv": {},
    "h264.avi": {},  # whose packets have no time of presentation
    "open_gop.mp4": OPEN_GOP,
    "closed_gop.mp4": {"x264-params": "keyint=8:log-level=none"},
    "hevc.mp4": {"codec": "libx265", "x265-params": "keyint=20:log-level=none"},
    "mpeg4.mp4": {"codec": "mpeg4", "bf": "2"},
    "mpeg4.avi": {"codec": "mpeg4", "bf": "2"},
    "vp9.webm": {"codec": "libvpx-vp9", "auto-alt-ref": "1", "lag-in-frames": "16", "cpu-used": "8"},
    "mpeg2.mpg": {"codec": "mpeg2video", "bf": "2"},
    # Packets flagged as key ones in the middle from which no clean picture can be decoded.
    "intra_refresh.mp4": {"x264-params": "intra-refresh=1:keyint=12:log-level=none"},
    "intra_refresh.ts": {"x264-params": "intra-refresh=1:keyint=12:log-level=none"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One video a kind, and one with its table of contents in front."""
    folder = tmp_path_factory.mktemp("videos")
    for name, options in KINDS.items():
        write_video(folder / name, numbered(COUNT), **options)
    write_video(folder / "front.mp4", numbered(COUNT), container={"movflags": "faststart"})
    return folder


def full_decode(path):
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def read(path, count=30):
    """Numbers of the frames, and why there are no more."""
    got = []
    try:
        for number, image in read_frames(path, count):
            got.append(number)
            assert image.dtype == np.uint8 and image.shape[2:] == (3,)
    except VideoError as error:
        return got, error.reason
    return got, ""


@given(total=st.integers(0, 5000), count=st.integers(1, 200))
def test_positions_are_distinct_and_evenly_spaced(total, count):
    places = positions(total, count)
    assert len(places) == min(total, count)
    assert all(0 <= place < total for place in places)
    gaps = np.diff(places)
    assert len(gaps) == 0 or (gaps.min() >= 1 and gaps.max() - gaps.min() <= 1)
    if places:  # as much before the first as after the last
        assert abs(places[0] - (total - 1 - places[-1])) <= 1


@pytest.mark.parametrize("name", KINDS)
def test_the_frames_of_a_full_decode(folder, name):
    reference = full_decode(folder / name)
    assert len(reference) == COUNT
    for count in (1, 3, 7, 30, COUNT, 100):
        got = list(read_frames(folder / name, count))
        assert [number for number, _ in got] == positions(COUNT, count)
        assert all((image == reference[number]).all() for number, image in got)
        assert all(number_in(image) == number for number, image in got)


@given(count=st.integers(1, 70))
def test_every_count_gives_the_numbers_that_the_frames_show(folder, count):
    for name in ("h264.mp4", "open_gop.mp4"):
        got = list(read_frames(folder / name, count))
        assert [number for number, _ in got] == [number_in(image) for _, image in got] == positions(COUNT, count)


def test_variable_frame_rate(tmp_path):
    times = np.cumsum([0, *(40 if place < 20 else 400 for place in range(1, 40))]).tolist()
    path = write_video(tmp_path / "vfr.mp4", numbered(40), times=times)
    with av.open(str(path)) as container:
        assert [round(1000 * frame.time) for frame in container.decode(video=0)] == times
    got = list(read_frames(path, 10))
    assert [number for number, _ in got] == [number_in(image) for _, image in got] == positions(40, 10)


@pytest.mark.parametrize("degrees", [90, 180, -90])
def test_frames_are_upright(tmp_path, degrees):
    """What the camera stored lies on its side; the metadata say how to turn it back."""
    upright = numbered(3)
    stored = [np.ascontiguousarray(np.rot90(image, -degrees // 90)) for image in upright]
    path = write_video(tmp_path / "turned.mp4", stored, rotation=degrees, crf="10")
    got = list(read_frames(path, 3))
    assert [number_in(image) for _, image in got] == [0, 1, 2]
    assert all(np.abs(image.astype(int) - upright[number]).mean() < 5 for number, image in got)


@pytest.mark.parametrize("degrees", [0, 90, 180, -90])
@pytest.mark.parametrize("flips", [{"hflip": True}, {"vflip": True}, {"hflip": True, "vflip": True}])
def test_frames_are_mirrored_as_the_metadata_say(tmp_path, degrees, flips):
    """What was filmed with the front camera; metadata turn counter-clockwise first, and mirror then."""
    stored = numbered(2)
    shown = [np.rot90(image, degrees // 90) for image in stored]
    shown = [image[:: -1 if "vflip" in flips else 1, :: -1 if "hflip" in flips else 1] for image in shown]
    path = write_video(tmp_path / "mirrored.mp4", stored, rotation=degrees, flips=flips, crf="10")
    got = list(read_frames(path, 2))
    assert [image.shape for _, image in got] == [image.shape for image in shown]
    assert all(np.abs(image.astype(int) - shown[number]).mean() < 5 for number, image in got)


@pytest.mark.parametrize(("ratio", "size"), [((2, 1), (64, 256)), ((1, 2), (128, 128)), ((64, 45), (64, 182))])
def test_pixels_that_are_not_square_are_stretched(tmp_path, ratio, size):
    images = numbered(3)
    path = write_video(tmp_path / "wide.mp4", images, aspect=Fraction(*ratio), crf="10")
    for number, image in read_frames(path, 3):
        wanted = np.asarray(Image.fromarray(images[number]).resize(size[::-1]))
        assert image.shape == (*size, 3) and np.abs(image.astype(int) - wanted).mean() < 6


def test_an_aspect_ratio_that_is_a_slip_is_not_followed(tmp_path):
    path = write_video(tmp_path / "odd.mp4", numbered(2), aspect=Fraction(1000, 1))
    assert [image.shape for _, image in read_frames(path, 2)] == [(64, 128, 3)] * 2


@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize("frames", [1, 20])
def test_the_largest_picture_of_several_is_taken(tmp_path, ending, frames):
    """A preview, or a cover, comes first."""
    sizes, counts = ((32, 64), (64, 128)), (frames, 20)
    with av.open(str(tmp_path / f"two.{ending}"), "w") as file:
        streams = [file.add_stream("libx264", rate=25, options={"threads": "1"}) for _ in sizes]
        for stream, (height, width) in zip(streams, sizes, strict=True):
            stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for stream, count in zip(streams, counts, strict=True):
            for image in numbered(count, stream.height, stream.width):
                file.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            file.mux(stream.encode())
    got = list(read_frames(tmp_path / f"two.{ending}", 5))
    assert [number for number, _ in got] == [number_in(image) for _, image in got] == positions(20, 5)
    assert {image.shape for _, image in got} == {(64, 128, 3)}


def test_packets_that_are_not_shown_are_no_frames(tmp_path):
    """In front of every key frame a copy of it that is not shown, as alternate references lie in a WebM file."""
    plain = write_video(tmp_path / "plain.webm", numbered(60), codec="libvpx", g="10", **{"cpu-used": "8"})
    with av.open(str(plain)) as source, av.open(str(tmp_path / "hidden.webm"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size and packet.is_keyframe and packet.pts:
                data = bytearray(bytes(packet))
                data[0] &= 0b11101111
                hidden = av.Packet(bytes(data))
                hidden.stream, hidden.time_base, hidden.pts = stream, packet.time_base, packet.pts - 9
                hidden.dts, hidden.is_keyframe = hidden.pts, True
                target.mux(hidden)
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    with av.open(str(tmp_path / "hidden.webm")) as container:
        assert sum(packet.size > 0 for packet in container.demux(video=0)) > 60
    got = list(read_frames(tmp_path / "hidden.webm", 12))
    assert [number for number, _ in got] == [number_in(image) for _, image in got] == positions(60, 12)


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (b"\x86\0\0", True),
        (b"\x84\0\0", False),
        (b"\x84\0\xc1", False),  # ends like an index, but there is none
        (b"\x88", True),  # shows a frame that was sent before
        (b"\xb1\0\0", True),  # of profile 3, which has one bit more
        (b"\xb2\0\0", False),
        (b"\x84\0\x86\0\xc1\2\2\xc1", True),  # two frames and their index
    ],
)
def test_the_flags_of_vp9(data, shown):
    assert videos._shows("vp9", av.Packet(data)) == shown


@pytest.mark.parametrize("name", ["12:30.mp4", "http:x.mp4", "file:y.mp4", os.fsdecode(b"caf\xe9.mp4"), "50%d.mp4"])
def test_a_name_is_a_file(folder, tmp_path, monkeypatch, name):
    (tmp_path / name).write_bytes((folder / "h264.mp4").read_bytes())
    monkeypatch.chdir(tmp_path)
    assert read(name, 5) == (positions(COUNT, 5), "")


def test_a_file_whose_suffix_says_nothing_is_read_by_its_content(folder, tmp_path):
    (tmp_path / "clip").write_bytes((folder / "h264.mp4").read_bytes())
    assert read(tmp_path / "clip", 5) == (positions(COUNT, 5), "")
    Image.fromarray(numbered(1)[0]).save(tmp_path / "still", format="PNG")
    assert read(tmp_path / "still") == ([0], "")
    (tmp_path / "words").write_text("words\n" * 500)
    assert read(tmp_path / "words") == ([], "not a video")


@pytest.mark.parametrize("suffix", [".3gp", ".mts", ".m2ts", ".qt", ".f4v", ".vob", ".asf"])
def test_more_containers(tmp_path, suffix):
    kind = {".mts": "mpegts", ".m2ts": "mpegts", ".qt": "mov", ".f4v": "mp4"}.get(suffix)
    codec = {".vob": "mpeg2video", ".asf": "msmpeg4"}.get(suffix, "libx264")
    made = write_video(tmp_path / f"a{suffix}", numbered(20), codec=codec, kind=kind)
    assert read(made, 5) == (positions(20, 5), "")


@pytest.mark.parametrize(
    ("pixels", "size", "limit"),
    [
        ("yuv444p", (241, 321), 4),
        ("yuv420p10le", (66, 130), 4),
        ("yuvj420p", (64, 128), 4),
        ("gray", (64, 128), 10),  # whose range the file does not tell
    ],
)
def test_odd_sizes_grey_and_ten_bits(tmp_path, pixels, size, limit):
    images = numbered(4, *size)
    path = write_video(tmp_path / "odd.mp4", images, pixels=pixels, crf="5")
    got = [image for _, image in read_frames(path, 4)]
    assert [image.shape for image in got] == [(*size, 3)] * 4
    assert np.abs(np.stack(got).astype(int) - np.stack(images)).mean() < limit


def test_still_images(tmp_path):
    image = numbered(1)[0]
    Image.fromarray(image).save(tmp_path / "a.PNG")
    Image.fromarray(image[..., 0]).save(tmp_path / "grey.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    Image.fromarray(np.rot90(image).copy()).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    for name in ("a.PNG", "grey.png", "turned.jpg"):
        ((number, got),) = read_frames(tmp_path / name, 30)
        assert number == 0 and np.abs(got.astype(int) - image).mean() < 4
    cut(tmp_path / "a.PNG", tmp_path / "half.png")
    (tmp_path / "words.png").write_text("words")
    assert read(tmp_path / "half.png") == ([], "truncated")
    assert read(tmp_path / "words.png") == ([], "not a picture of a known kind")


def test_what_is_no_video(tmp_path):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "words.mp4").write_text("words\n" * 500)
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(20_000))
    (tmp_path / "folder.mp4").mkdir()
    os.symlink("loop.mp4", tmp_path / "loop.mp4")
    write_sound(tmp_path / "sound.mp4")
    reasons = {"empty": "empty file", "words": "not a video", "noise": "not a video", "folder": "not a file"}
    reasons |= {"loop": "symlink loop", "sound": "no video stream", "absent": "no such file"}
    assert {name: read(tmp_path / f"{name}.mp4") for name in reasons} == {n: ([], r) for n, r in reasons.items()}


def test_a_play_list_opens_no_other_file(folder, tmp_path):
    for name, text in {
        "list.mp4": f"#EXTM3U\n#EXTINF:2,\n{folder}/h264.ts\n#EXT-X-ENDLIST\n",
        "concat.mp4": f"ffconcat version 1.0\nfile {folder}/h264.mp4\n",
    }.items():
        (tmp_path / name).write_text(text)
        assert read(tmp_path / name) == ([], "not a video")


def test_a_missing_end_keeps_the_beginning(folder, tmp_path):
    got, reason = read(cut(folder / "front.mp4", tmp_path / "cut.mp4"))
    assert reason == "truncated"
    assert 5 < len(got) < 30 and got == positions(COUNT, 30)[: len(got)]
    assert read(cut(folder / "h264.mp4", tmp_path / "no_contents.mp4")) == ([], "truncated")


def test_damage_in_the_middle(folder, tmp_path):
    """The frames that do not decode are missing, those before are there."""
    with av.open(str(folder / "front.mp4")) as container:
        place = [packet.pos for packet in container.demux(video=0) if packet.size][40]
    data = bytearray((folder / "front.mp4").read_bytes())
    data[place : place + 300] = bytes(300)
    (tmp_path / "damaged.mp4").write_bytes(data)
    got, reason = read(tmp_path / "damaged.mp4", COUNT)
    assert reason == "damaged"
    assert len(got) < COUNT and got[:30] == list(range(30))


def test_the_file_is_closed_when_nobody_reads_on(folder):
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    if before is None:
        pytest.skip("the system does not list open files")
    for _ in range(5):
        next(read_frames(folder / "h264.mp4", 5))
    assert len(os.listdir("/proc/self/fd")) == before
