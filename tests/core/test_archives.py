"""What an archive of images, or a file of arrays, made by somebody else may and may not do."""

import contextlib
import gzip
import io
import pickle
import stat
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from pocketcortex.core import (
    ImageFiles,
    InputError,
    decode_image,
    index_tar,
    index_zip,
    map_array,
    read_array,
    read_arrays,
)
from pocketcortex.core.pictures import _webp_canvas


def png(pixels: np.ndarray, mode: str | None = None) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(pixels)
    (image if mode is None else image.convert(mode)).save(buffer, format="PNG")
    return buffer.getvalue()


GREY = png(np.full((4, 6), 77, dtype=np.uint8))


def make_zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def make_tar(path: Path, members: dict[str, bytes], kind: bytes = tarfile.REGTYPE) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size, info.type, info.linkname = len(content), kind, "elsewhere"
            archive.addfile(info, io.BytesIO(content))
    return path


Index = Callable[[Path], ImageFiles]
MAKE = {index_zip: make_zip, index_tar: make_tar}


def test_lists_images_only(tmp_path: Path) -> None:
    members = ["b.png", "folder/a.JPG", "readme.txt", ".hidden.png", "__MACOSX/._b.png", "x/"]
    archive = make_zip(tmp_path / "images.zip", dict.fromkeys(members, GREY))
    assert index_zip(archive).members == ("b.png", "folder/a.JPG")
    tar = make_tar(tmp_path / "images.tar", dict.fromkeys([f"./{m}" for m in members[:-1]], GREY))
    assert index_tar(tar).members == ("./b.png", "./folder/a.JPG")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../evil.png", r"climbs out .* '\.\.'"),
        ("a/../../evil.txt", r"climbs out"),
        ("..\\evil.png", r"climbs out"),
        ("/etc/evil.png", "absolute path"),
        ("C:/evil.png", "drive letter"),
    ],
)
@pytest.mark.parametrize("index", MAKE)
def test_refuses_names_that_leave_the_archive(
    tmp_path: Path, name: str, reason: str, index: Index
) -> None:
    archive = MAKE[index](tmp_path / "images", {"good.png": GREY, name: GREY})
    with pytest.raises(InputError, match=reason) as caught:
        index(archive)
    assert "images" in str(caught.value)
    assert "evil" in str(caught.value)


def test_refuses_symbolic_links(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(InputError, match=r"'link\.png' is a symbolic link"):
        index_zip(tmp_path / "images.zip")


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, b"S"]
)
def test_refuses_tar_members_that_are_no_plain_files(tmp_path: Path, kind: bytes) -> None:
    archive = make_tar(tmp_path / "images.tar", {"odd.png": b""}, kind)
    with pytest.raises(InputError, match=r"'odd\.png' is a link, a device or the like"):
        index_tar(archive)


def test_refuses_bombs(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "images.zip", {"a.png": GREY, "b.png": GREY})
    with pytest.raises(InputError, match=r"member 'a\.png' unpacks to"):
        index_zip(archive, max_member_bytes=len(GREY) - 1)
    with pytest.raises(InputError, match=r"images\.zip unpacks to"):
        index_zip(archive, max_archive_bytes=2 * len(GREY) - 1)
    tar = make_tar(tmp_path / "images.tar", {"a.png": GREY})
    with pytest.raises(InputError, match=r"member 'a\.png' unpacks to"):
        index_tar(tar, max_member_bytes=len(GREY) - 1)
    bomb = tmp_path / "bomb.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("a.png", bytes(10_000))
    bomb.write_bytes(bomb.read_bytes().replace((10_000).to_bytes(4, "little"), b"\5\0\0\0"))
    with pytest.raises(InputError, match=r"'a\.png' is damaged \(wrong length"):
        index_zip(bomb).read(0)


def test_refuses_what_is_no_zip(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        index_zip(tmp_path / "absent.zip")
    whole = make_zip(tmp_path / "images.zip", {"a.png": GREY, "b.png": GREY}).read_bytes()
    (tmp_path / "images.zip").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="is truncated"):
        index_zip(tmp_path / "images.zip")
    with pytest.raises(InputError, match="cannot be opened"):
        index_zip(tmp_path)


def test_refuses_what_is_no_tar(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        index_tar(tmp_path / "absent.tar")
    with pytest.raises(InputError, match="cannot be opened"):
        index_tar(tmp_path)
    path = make_tar(tmp_path / "images.tar", {"a.png": GREY, "b.png": GREY})
    whole = path.read_bytes()
    for n_bytes in (0, 100, 600, 1024, 1200, 2048, 2300):  # 1024 and 2048: between two members
        path.write_bytes(whole[:n_bytes])
        with pytest.raises(InputError, match="damaged or truncated"):
            index_tar(path)
    path.write_bytes(whole[:1024] + b"x" + whole[1025:])
    with pytest.raises(InputError, match="damaged or truncated"):
        index_tar(path)
    path.write_bytes(gzip.compress(whole))
    with pytest.raises(InputError, match=r"compressed.*decompress it first \(gunzip\)"):
        index_tar(path)


def test_a_tar_replaced_after_listing_is_noticed(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "images.tar", {"a.png": GREY, "b.png": GREY})
    images = index_tar(path)
    assert images.read(1) == GREY
    make_tar(path, {"c.png": GREY + bytes(600), "d.png": GREY})
    with pytest.raises(InputError, match=r"'b\.png' is damaged .* or the archive was replaced"):
        images.read(1)


def test_a_member_without_a_name_is_no_image(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "images.zip", {"a.png": GREY, "b.png": GREY})
    archive.write_bytes(archive.read_bytes().replace(b"a.png", b"\0.png"))
    assert index_zip(archive).members == ("b.png",)


@pytest.mark.parametrize("index", MAKE)
def test_threads_read_one_archive_at_once(tmp_path: Path, index: Index) -> None:
    rng = np.random.default_rng(0)
    members = {f"{k}.png": rng.bytes(5000 + k) for k in range(40)}
    images = index(MAKE[index](tmp_path / "images", members))
    start = threading.Barrier(4)

    def read_all(_: int) -> list[bytes]:
        start.wait()
        return [images.read(k) for k in range(len(members))]

    with ThreadPoolExecutor(4) as pool:
        for contents in pool.map(read_all, range(4)):
            assert contents == list(members.values())


def test_reads_deflated_members_only(tmp_path: Path) -> None:
    for method, name in ((zipfile.ZIP_DEFLATED, "a.png"), (zipfile.ZIP_LZMA, "b.png")):
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w", method) as archive:
            archive.writestr(name, GREY)
    assert index_zip(tmp_path / "a.png.zip").read(0) == GREY
    with pytest.raises(InputError, match="compressed by an unusual method"):
        index_zip(tmp_path / "b.png.zip").read(0)


def test_refuses_a_member_that_fails_its_checksum(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "images.zip", {"a.png": GREY})
    content = bytearray(archive.read_bytes())
    content[content.index(GREY) + 40] ^= 0xFF
    archive.write_bytes(content)
    with pytest.raises(InputError, match=r"images\.zip: member 'a\.png' is damaged"):
        index_zip(archive).read(0)


def test_decodes_grey_and_colour() -> None:
    assert (decode_image(GREY, "grey") == 77).all()
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    np.testing.assert_array_equal(decode_image(png(pixels), "x"), pixels.transpose(2, 0, 1))
    opaque = decode_image(png(pixels, "RGBA"), "x")
    np.testing.assert_array_equal(opaque, pixels.transpose(2, 0, 1))


def test_resizes_the_short_side_and_cuts_out_the_centre() -> None:
    pixels = np.zeros((10, 30, 3), dtype=np.uint8)
    pixels[:, 10:20] = 200
    assert (decode_image(png(pixels), "x", size=10) == 200).all()
    assert decode_image(png(pixels), "x", size=24).shape == (3, 24, 24)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "cannot be decoded"),
        (GREY[: len(GREY) // 2], "cannot be decoded"),
        (png(np.zeros((4, 4), dtype=np.uint16)), "8 bits"),
        (png(np.zeros((4, 4, 4), dtype=np.uint8)), "transparent"),
    ],
)
def test_refuses_images_it_would_have_to_guess(content: bytes, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        decode_image(content, "x.png")


def test_refuses_image_bombs() -> None:
    with pytest.raises(InputError, match="4 x 6, more than the 23 pixels"):
        decode_image(GREY, "x.png", max_pixels=23)
    thin = png(np.zeros((1, 500), dtype=np.uint8))
    with pytest.raises(InputError, match="resized is 100 x 50000"):
        decode_image(thin, "x.png", size=100, max_pixels=10_000)
    huge = GREY.replace((6).to_bytes(4) + (4).to_bytes(4), (20_000).to_bytes(4) * 2)
    with pytest.raises(InputError, match=r"too many pixels|cannot be decoded|claims"):
        decode_image(huge, "x.png")
    buffer = io.BytesIO()
    Image.new("RGB", (6, 4)).save(buffer, format="BMP")
    claim = bytearray(buffer.getvalue())
    claim[18:26] = (3000).to_bytes(4, "little") * 2
    with pytest.raises(InputError, match=r"claims 3000 x 3000 pixels in a file of \d+ bytes"):
        decode_image(bytes(claim), "x.png")


def test_reads_plain_arrays(tmp_path: Path) -> None:
    array = np.arange(6.0).reshape(2, 3)
    np.save(tmp_path / "a.npy", array)
    np.testing.assert_array_equal(read_array(tmp_path / "a.npy"), array)
    np.savez(tmp_path / "a.npz", x=array, y=np.array(["é"]))
    arrays = read_arrays(tmp_path / "a.npz")
    np.testing.assert_array_equal(arrays["x"], array)
    assert arrays["y"].tolist() == ["é"]
    with pytest.raises(InputError, match="where one array"):
        read_array(tmp_path / "a.npz")
    with pytest.raises(InputError, match="where an archive"):
        read_arrays(tmp_path / "a.npy")


def test_refuses_pickles(tmp_path: Path) -> None:
    np.save(tmp_path / "object.npy", np.array([{}], dtype=object), allow_pickle=True)
    (tmp_path / "pickle.npy").write_bytes(pickle.dumps([1, 2]))
    for name in ("object.npy", "pickle.npy"):
        with pytest.raises(InputError, match="pickled objects where a plain array is expected"):
            read_array(tmp_path / name)
    np.savez(tmp_path / "object.npz", x=np.array([{}], dtype=object))
    with pytest.raises(InputError, match="pickled objects where a plain array is expected"):
        read_arrays(tmp_path / "object.npz")


def test_refuses_missing_truncated_and_foreign_arrays(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_array(tmp_path / "absent.npy")
    np.save(tmp_path / "a.npy", np.arange(100.0))
    whole = (tmp_path / "a.npy").read_bytes()
    for n_bytes in (0, 5, 60, len(whole) - 1):
        (tmp_path / "a.npy").write_bytes(whole[:n_bytes])
        with pytest.raises(InputError, match=r"truncated|not a NumPy file"):
            read_array(tmp_path / "a.npy")
    claim = whole.replace(b"(100,), }" + b" " * 13, b"(9000000000000000,), }")
    assert claim != whole
    (tmp_path / "claim.npy").write_bytes(claim)
    with pytest.raises(InputError, match="damaged or truncated"):
        read_array(tmp_path / "claim.npy")
    (tmp_path / "text.npy").write_text("1, 2, 3")
    with pytest.raises(InputError, match="not a NumPy file"):
        read_array(tmp_path / "text.npy")
    with pytest.raises(InputError, match="is no array"):
        read_arrays(make_zip(tmp_path / "images.npz", {"a.png": GREY}))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_damage_gives_an_input_error_or_nothing(tmp_path: Path, data: st.DataObject) -> None:
    images = make_zip(tmp_path / "images.zip", {"a.png": GREY, "b.png": GREY})
    tar = make_tar(tmp_path / "images.tar", {"a.png": GREY, "b.png": GREY})
    np.save(tmp_path / "a.npy", np.arange(5.0))
    np.savez_compressed(tmp_path / "a.npz", x=np.arange(5.0))
    for path in (images, tar, tmp_path / "a.npy", tmp_path / "a.npz"):
        content = bytearray(path.read_bytes())
        where = data.draw(st.integers(0, len(content) - 1))
        content[where] = data.draw(st.integers(0, 255))
        path.write_bytes(content[: data.draw(st.integers(where, len(content)))])
    for action, path in (
        (lambda path: _decode_all(index_zip(path)), images),
        (lambda path: _decode_all(index_tar(path)), tar),
        (read_array, tmp_path / "a.npy"),
        (map_array, tmp_path / "a.npy"),
        (read_arrays, tmp_path / "a.npz"),
    ):
        with contextlib.suppress(InputError):
            action(path)


def _decode_all(images: ImageFiles) -> None:
    for k, name in enumerate(images.members):
        decode_image(images.read(k), name)


def test_a_long_header_is_refused_in_no_time(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(3))
    content = (tmp_path / "a.npy").read_bytes()
    header = content[10:].split(b"\n")[0] + b" " * 8000 + b"U\n"
    bad = content[:8] + len(header).to_bytes(2, "little") + header + bytes(24)
    (tmp_path / "a.npy").write_bytes(bad)
    make_zip(tmp_path / "a.npz", {"x.npy": bad})
    started = time.monotonic()
    for read in (read_array, map_array, lambda path: read_arrays(path.with_suffix(".npz"))):
        with pytest.raises(InputError, match="header of over 1024 bytes"):
            read(tmp_path / "a.npy")
    assert time.monotonic() - started < 5


def test_refuses_archives_that_grow_beyond_measure(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.npz"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        for k in range(2):
            with archive.open(f"{k}.npy", "w") as member:
                np.lib.format.write_array(member, np.zeros(150 * 2**17))  # 150 MiB
    assert bomb.stat().st_size < 2**20
    with pytest.raises(InputError, match="more than 200 times as much"):
        read_arrays(bomb)
    with pytest.raises(InputError, match="more than 200 times as much"):
        index_zip(bomb)


def test_refuses_members_that_share_their_bytes(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "images.zip", {f"{k}.png": GREY * 20 for k in range(3)})
    with zipfile.ZipFile(path) as archive:
        offsets = [info.header_offset for info in archive.infolist()]
    content = bytearray(path.read_bytes())
    first = content.index(b"PK\x01\x02")
    del content[offsets[1] : first]  # every member's content is the first one's
    for _ in range(3):
        at = content.index(b"PK\x01\x02")
        content[at : at + 4] = b"done"
        content[at + 42 : at + 46] = bytes(4)
    content = content.replace(b"done", b"PK\x01\x02")
    end = content.index(b"PK\x05\x06")
    content[end + 16 : end + 20] = content.index(b"PK\x01\x02").to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(InputError, match="members overlap each other"):
        index_zip(path)


def test_an_altered_shape_is_noticed(tmp_path: Path) -> None:
    """A shorter shape leaves numbers over, a checksum that nobody reads tells nothing."""
    buffer = io.BytesIO()
    np.save(buffer, np.arange(20))
    short = buffer.getvalue().replace(b"(20,)", b"(10,)")
    with pytest.raises(InputError, match="holds more than its array"):
        read_arrays(make_zip(tmp_path / "a.npz", {"x.npy": short}))


def test_only_formats_that_run_nothing_are_decoded() -> None:
    """Pillow would hand PostScript to Ghostscript, which runs what the file says."""
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, format="EPS")
    with pytest.raises(InputError, match=r"cannot be decoded .* none of JPEG"):
        decode_image(buffer.getvalue(), "x.png")


@pytest.mark.parametrize("lossless", [True, False])
def test_a_webp_canvas_is_looked_at_before_pillow_makes_room_for_it(lossless: bool) -> None:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, format="WEBP", lossless=lossless)
    content = buffer.getvalue()
    assert _webp_canvas(content) == (7, 9)
    assert decode_image(content, "x.webp").shape == (3, 9, 7)
    assert _webp_canvas(GREY) is None
    chunk = b"VP8X" + (10).to_bytes(4, "little") + bytes(4) + b"\xff\xff\x00" * 2
    body = b"WEBP" + chunk + content[12:]
    bomb = b"RIFF" + len(body).to_bytes(4, "little") + body
    assert _webp_canvas(bomb) == (65536, 65536)  # 32 GiB of canvases
    with pytest.raises(InputError, match="is 65536 x 65536, more than the 64000000 pixels"):
        decode_image(bomb, "x.webp")


@pytest.mark.parametrize("order", ["<", ">"])
def test_text_of_numbers_that_are_no_letters_is_refused(tmp_path: Path, order: str) -> None:
    """NumPy hands it out as a string that Python's own functions fail on (SystemError)."""
    path = tmp_path / "a.npy"
    np.save(path, np.array(["ab", "é𝄞"], dtype=f"{order}U2"))
    assert read_array(path).tolist() == map_array(path).tolist() == ["ab", "é𝄞"]
    np.save(path, np.zeros((2, 0), dtype="U3"))
    assert read_array(path).shape == (2, 0)
    letter = np.array([97], dtype=f"{order}u4").tobytes()
    np.save(path, np.array(["ab", "cd"], dtype=f"{order}U2"))
    path.write_bytes(path.read_bytes().replace(letter, b"\xff" * 4))
    for read in (read_array, map_array):
        with pytest.raises(InputError, match=r"damaged or truncated \(a letter number 4294967295"):
            read(path)


@pytest.mark.parametrize(
    "kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGLINK]
)
def test_a_tar_header_that_asks_for_gigabytes_is_refused(tmp_path: Path, kind: bytes) -> None:
    info = tarfile.TarInfo("long")
    info.type, info.size = kind, 2**40
    whole = make_tar(tmp_path / "images.tar", {"a.png": GREY}).read_bytes()
    (tmp_path / "images.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + whole)
    with pytest.raises(InputError, match="a header of 1099511627776 bytes"):
        index_tar(tmp_path / "images.tar")
