"""Damage to files: of bytes, and of what a format's checksums would otherwise hide.

Everything is decided by a `random.Random`, so execution k of a format is the same on every machine.
"""

import io
import random
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Sequence

Case = dict[str, bytes]
"""The files of one input, by their names in a folder."""
Mutation = Callable[[random.Random, bytes], bytes]

_NUMBERS = (0, 1, 2, 7, 127, 128, 255, 256, 32767, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1)
_LONG = (0, 1, 2**31, 2**32, 2**40, 2**53, 2**63 - 1, 2**63, 2**64 - 1)
_TEXTS = (
    b"", b"0", b"-1", b"1e999", b"NaN", b"null", b"true", b"[]", b"{}", b'""', b"9" * 20, b"-0.5",
    b"\x00", b"\xff\xfe", b"../../etc/passwd", b"/etc/passwd", b"[" * 500, b"{" * 500,
    b"O", b"|O", b"<U0", b"V8", b"'", b"\\u0000", b"\xc3\xa9",
)  # fmt: skip
_MOST = 100_000
_TOKEN = re.compile(rb"[A-Za-z_]+|[0-9]+|\s|.", re.DOTALL)


def damaged(rng: random.Random, content: bytes) -> bytes:
    """Return bytes with one to four changes, of any kind of file."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        content = rng.choice(_OF_BYTES)(rng, content)
    return content


def _flip(rng: random.Random, content: bytes) -> bytes:
    if not content:
        return content
    k = rng.randrange(len(content))
    return content[:k] + bytes([content[k] ^ (1 << rng.randrange(8))]) + content[k + 1 :]


def _set(rng: random.Random, content: bytes) -> bytes:
    if not content:
        return content
    k = rng.randrange(len(content))
    return (
        content[:k]
        + bytes([rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))])
        + content[k + 1 :]
    )


def _number(rng: random.Random, content: bytes) -> bytes:
    """Put a number that is likely to be a bad size, offset or count over two to eight bytes."""
    near = (len(content), len(content) - 1, len(content) + 1)
    kind = rng.choice("HIQ")
    value = rng.choice((*(_LONG if kind == "Q" else _NUMBERS), *near))
    size = struct.calcsize(kind)
    new = struct.pack(rng.choice("<>") + kind, value % 2 ** (8 * size))
    k = rng.randrange(max(len(content) - size, 0) + 1)
    return content[:k] + new + content[k + size :]


def _cut(rng: random.Random, content: bytes) -> bytes:
    return content[: rng.randrange(len(content) + 1)]


def _without(rng: random.Random, content: bytes) -> bytes:
    a, b = _part(rng, content)
    return content[:a] + content[b:]


def _twice(rng: random.Random, content: bytes) -> bytes:
    a, b = _part(rng, content)
    return content[:b] + content[a:b] * rng.choice((1, 2, 20)) + content[b:]


def _moved(rng: random.Random, content: bytes) -> bytes:
    a, b = _part(rng, content)
    k = rng.randrange(len(content) + 1)
    return content[:k] + content[a:b] + content[k + b - a :]


def _noise(rng: random.Random, content: bytes) -> bytes:
    k = rng.randrange(len(content) + 1)
    return content[:k] + rng.randbytes(rng.choice((1, 4, 16, 300))) + content[k:]


def _part(rng: random.Random, content: bytes) -> tuple[int, int]:
    a = rng.randrange(len(content) + 1)
    return a, min(len(content), a + rng.choice((1, 2, 4, 8, 32, 512, len(content) + 1)))


_OF_BYTES: Sequence[Mutation] = (
    _flip, _flip, _set, _set, _number, _number, _cut, _without, _twice, _moved, _noise,
)  # fmt: skip


def damaged_text(rng: random.Random, content: bytes) -> bytes:
    """Return a text with a few of its words replaced, left out, doubled or exchanged."""
    tokens = _TOKEN.findall(content)
    for _ in range(rng.choice((1, 1, 2, 5))):
        if not tokens:
            break
        k, other = rng.randrange(len(tokens)), rng.choice(tokens)
        how = rng.randrange(5)
        if how == 0:
            tokens[k] = rng.choice(_TEXTS)
        elif how == 1:
            tokens[k] = other
        elif how == 2:
            del tokens[k]
        elif how == 3:
            tokens.insert(k, other)
        else:
            n = rng.choice((2, 10, 3000))
            tokens[k] = tokens[k][: _MOST // n + 1] * n
    return b"".join(tokens)[:_MOST]


def damaged_zip(inner: Mutation) -> Mutation:
    """Return a mutation that also packs a damaged member again, its checksum right."""

    def mutate(rng: random.Random, content: bytes) -> bytes:
        if rng.random() < 0.4:
            return damaged(rng, content)
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = [(info, archive.read(info)) for info in archive.infolist()]
        chosen = rng.randrange(len(members))
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for k, (info, data) in enumerate(members):
                name, kind = info.filename, info.compress_type
                if k == chosen and rng.random() < 0.15:
                    name = rng.choice(
                        ("../x.png", "/x.png", "x\\..\\y.npy", "/", name + "\x00", "a" * 300)
                    )
                if k == chosen and rng.random() < 0.1:
                    kind = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2))
                archive.writestr(name, inner(rng, data) if k == chosen else data, kind)
        packed = buffer.getvalue()
        return damaged(rng, packed) if rng.random() < 0.1 else packed

    return mutate


def damaged_tar(rng: random.Random, content: bytes) -> bytes:
    """Return a tar with a damaged header whose checksum is right, or any damage."""
    if rng.random() < 0.4 or len(content) < tarfile.BLOCKSIZE:
        return damaged(rng, content)
    k = rng.randrange(len(content) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
    block = bytearray(content[k : k + tarfile.BLOCKSIZE])
    for _ in range(rng.choice((1, 2, 3))):
        field = rng.choice(
            (slice(0, 100), slice(124, 136), slice(156, 157), slice(157, 257), slice(257, 265))
        )
        width = field.stop - field.start
        new = rng.choice((
            b"\xff" * width, b"7" * width, b"\x80" + b"\0" * (width - 2) + b"\x05",
            b"../" * (width // 3 + 1), b"-1", rng.randbytes(width),
            b"gxLKSV12345"[rng.randrange(11) :][:1],
        ))[:width]  # fmt: skip
        block[field] = new.ljust(width, b"\0")
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return content[:k] + bytes(block) + content[k + tarfile.BLOCKSIZE :]


def damaged_png(rng: random.Random, content: bytes) -> bytes:
    """Return a PNG with a damaged chunk whose checksum is right, or any damage."""
    if rng.random() < 0.4 or not content.startswith(b"\x89PNG"):
        return damaged(rng, content)
    chunks, k = [], 8
    while k + 12 <= len(content):
        (n,) = struct.unpack(">I", content[k : k + 4])
        chunks.append((content[k + 4 : k + 8], content[k + 8 : k + 8 + n]))
        k += 12 + n
    chosen = rng.randrange(len(chunks))
    kind, data = chunks[chosen]
    if kind == b"IDAT" and rng.random() < 0.5:
        data = zlib.compress(damaged(rng, zlib.decompress(data)))
    else:
        data = damaged(rng, data)
    if rng.random() < 0.2:
        kind = rng.choice((b"tRNS", b"zTXt", b"iTXt", b"iCCP", b"acTL", b"fdAT", b"PLTE", b"eXIf"))
    chunks.insert(chosen, (kind, data)) if rng.random() < 0.3 else chunks.__setitem__(
        chosen, (kind, data)
    )
    return content[:8] + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def damaged_header(rng: random.Random, content: bytes) -> bytes:
    """Return a safetensors file with a damaged header of the length it states, or any damage."""
    if rng.random() < 0.4:
        return damaged(rng, content)
    (n,) = struct.unpack("<Q", content[:8])
    header = damaged_text(rng, content[8 : 8 + n])
    return struct.pack("<Q", len(header)) + header + content[8 + n :]


def damaged_npy(rng: random.Random, content: bytes) -> bytes:
    """Return a `.npy` file with a damaged header of the length it states, or any damage."""
    if rng.random() < 0.4:
        return damaged(rng, content)
    (n,) = struct.unpack("<H", content[8:10])
    header = damaged_text(rng, content[10 : 10 + n])[:60000]
    return content[:8] + struct.pack("<H", len(header)) + header + content[10 + n :]


def one_of(*mutations: Mutation) -> Mutation:
    """Return a mutation that takes one of several each time."""
    return lambda rng, content: rng.choice(mutations)(rng, content)


def in_one_file(**by_suffix: Mutation) -> Callable[[random.Random, Case], Case]:
    """Return a mutation of a folder: one of its files damaged by its suffix's, or none there."""

    def mutate(rng: random.Random, case: Case) -> Case:
        name = rng.choice(sorted(case))
        if len(case) > 1 and rng.random() < 0.03:
            return {other: content for other, content in case.items() if other != name}
        how = by_suffix.get(name.rpartition(".")[2], damaged)
        return case | {name: how(rng, case[name])}

    return mutate
