"""Damaged pictures against the service: each must be captioned or refused, and nothing else may happen.

    python -m benchmarks.fuzz_images --count 10000

damages valid files of every accepted type in many ways, the same for the same seed, uploads each to the
service with ``checkpoints/default``, and prints one JSON object: how many were answered with which status, by
type, the slowest answer in ms and which one it was, and how much memory the process gained. A picture that is
answered in any other way is written to a file that the output names, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import struct
import sys
import time
import warnings
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
from flask.testing import FlaskClient
from PIL import Image, ImageDraw
from tqdm import tqdm
from werkzeug.datastructures import FileStorage
from werkzeug.test import encode_multipart

from service.app import create_app

EXPECTED = (200, 400, 413, 415, 422)
SIZE = (96, 64)
SHORT = {"beam_size": "1", "max_length": "1", "overlays": "none"}
LEAST_BYTES = 16  # of a file that is damaged once more
WARM_UP = 100  # answers before the memory is looked at for the first time
# What lengths and sizes in a file may claim: nothing, one, the signed and unsigned ends of their range.
EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)

Mutation = Callable[[random.Random, bytes, bytes], bytes]


def drawn(seed: int) -> Image.Image:
    """A picture of boxes, the same for the same seed."""
    rng = random.Random(seed)
    image = Image.new("RGB", SIZE, (90, 120, 60))
    pen = ImageDraw.Draw(image)
    for _ in range(8):
        left, top = rng.randrange(SIZE[0] - 8), rng.randrange(SIZE[1] - 8)
        colour = tuple(rng.randrange(256) for _ in range(3))
        pen.rectangle((left, top, left + rng.randrange(4, 40), top + rng.randrange(4, 30)), fill=colour)
    return image


def encoded(image: Image.Image, kind: str, **how: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **how)
    return stream.getvalue()


def valid_files() -> dict[str, list[bytes]]:
    """Files of every accepted type, in the variants that their decoders tell apart."""
    image, others = drawn(0), [drawn(seed) for seed in range(1, 4)]
    exif = Image.Exif()
    exif.update({0x0112: 6, 0x010E: "boxes"})
    clear = image.convert("RGBA")
    clear.putalpha(image.convert("L"))
    moving = {"save_all": True, "append_images": others, "duration": 50}
    few = image.quantize(16)
    return {
        "JPEG": [
            encoded(image, "JPEG", exif=exif),
            encoded(image, "JPEG", progressive=True),
            encoded(image.convert("L"), "JPEG", restart_marker_rows=1),
            encoded(image.convert("CMYK"), "JPEG"),
            encoded(image, "MPO", save_all=True, append_images=others[:1]),
        ],
        "PNG": [
            encoded(image, "PNG", exif=exif),
            encoded(few, "PNG", transparency=0),
            encoded(image.convert("I;16"), "PNG"),
            encoded(image.convert("1"), "PNG"),
            encoded(clear, "PNG", **moving),
        ],
        "WEBP": [
            encoded(image, "WEBP", exif=exif),
            encoded(image, "WEBP", lossless=True),
            encoded(clear, "WEBP"),
            encoded(image, "WEBP", **moving),
        ],
        "GIF": [
            encoded(image, "GIF", comment=b"boxes"),
            encoded(few, "GIF", transparency=0, interlace=0),
            encoded(image, "GIF", **moving),
        ],
        "BMP": [
            encoded(image, "BMP"),
            encoded(few, "BMP"),
            encoded(image.convert("1"), "BMP"),
            encoded(clear, "BMP"),
        ],
    }


# Ways to damage a file. ``other`` is another valid one.


def flip_bits(rng: random.Random, data: bytes, other: bytes) -> bytes:
    damaged = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5, 30))):
        damaged[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def overwrite(rng: random.Random, data: bytes, other: bytes) -> bytes:
    start, length = rng.randrange(len(data)), rng.randrange(1, 64)
    run = rng.choice((rng.randbytes(length), bytes(length), b"\xff" * length))
    return data[:start] + run[: len(data) - start] + data[start + length :]


def truncate(rng: random.Random, data: bytes, other: bytes) -> bytes:
    return data[: rng.randrange(len(data))]


def cut_out(rng: random.Random, data: bytes, other: bytes) -> bytes:
    start, end = sorted(rng.randrange(len(data)) for _ in range(2))
    return data[:start] + data[end:]


def repeat(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """A stretch of the file again, there or elsewhere, up to a hundred times."""
    start, end = sorted(rng.randrange(len(data)) for _ in range(2))
    at = rng.choice((end, rng.randrange(len(data))))
    return data[:at] + data[start:end] * rng.choice((1, 1, 2, 100)) + data[at:]


def claim(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Extreme numbers, where lengths and sizes may be; most of those stand near the beginning."""
    damaged = bytearray(data)
    for _ in range(rng.randrange(1, 4)):
        form = rng.choice((">H", "<H", ">I", "<I"))
        value = rng.choice(EXTREMES) & (0xFFFF if form.endswith("H") else 0xFFFFFFFF)
        within = rng.choice((40, 200, len(data)))
        at = rng.randrange(min(within, len(data) - 4))
        struct.pack_into(form, damaged, at, value)
    return bytes(damaged)


def splice(rng: random.Random, data: bytes, other: bytes) -> bytes:
    return data[: rng.randrange(len(data))] + other[rng.randrange(len(other)) :]


def keep_header(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Noise behind an intact beginning."""
    start = min(rng.choice((32, 64, 200, 700)), len(data) // 2)
    return data[:start] + rng.randbytes(len(data) - start)


MUTATIONS: tuple[Mutation, ...] = (
    flip_bits,
    overwrite,
    truncate,
    cut_out,
    repeat,
    claim,
    splice,
    keep_header,
)


def with_checksums(data: bytes) -> bytes:
    """A PNG whose checksums are right again, so that the damage gets past them."""
    repaired, at = data[:8], 8
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        body = data[at + 4 : at + 8 + length]
        repaired += data[at : at + 4] + body + struct.pack(">I", zlib.crc32(body))
        at += 12 + length
    return repaired


def damaged_files(count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """``count`` damaged files with the type they were, each damaged once to three times."""
    rng, files = random.Random(seed), valid_files()
    everything = [data for variants in files.values() for data in variants]
    for number in range(count):
        kind = list(files)[number % len(files)]
        data = rng.choice(files[kind])
        for _ in range(rng.choice((1, 1, 2, 3))):
            if len(data) > LEAST_BYTES:
                data = rng.choice(MUTATIONS)(rng, data, rng.choice(everything))
        yield kind, with_checksums(data) if kind == "PNG" and rng.random() < 0.7 else data


def upload(client: FlaskClient, data: bytes) -> int:
    """The status that a file is answered with. It is the decoding that counts, so the caption is short."""
    boundary, body = encode_multipart({"image": FileStorage(io.BytesIO(data), "a.jpg"), **SHORT})
    content_type = f"multipart/form-data; boundary={boundary}"
    return client.post("/v1/captions", data=body, content_type=content_type).status_code


def memory() -> int:
    """Bytes of this process that are in memory now."""
    return int(psutil.Process().memory_info().rss)


def fuzz(client: FlaskClient, count: int, seed: int) -> tuple[dict[str, Any], list[bytes]]:
    """The report on ``count`` files, and those that were answered in no right way."""
    statuses: defaultdict[str, Counter[int]] = defaultdict(Counter)
    slowest, wrong, before = (0.0, -1), [], 0
    for number, (kind, data) in enumerate(tqdm(damaged_files(count, seed), total=count, disable=None)):
        if number == min(WARM_UP, count // 2):
            before = memory()
        clock = time.perf_counter()
        status = upload(client, data)
        slowest = max(slowest, (1000 * (time.perf_counter() - clock), number))
        statuses[kind][status] += 1
        if status not in EXPECTED:
            wrong.append(data)
    report = {
        "files": count,
        "seed": seed,
        "statuses": {kind: dict(sorted(found.items())) for kind, found in statuses.items()},
        "slowest_ms": round(slowest[0]),
        "slowest_file": slowest[1],
        "memory_gained_mb": round((memory() - before) / 1e6, 1),
        "wrong": len(wrong),
    }
    return report, wrong


def main() -> int:
    """The command line; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fuzz_images",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--count", type=int, default=10_000, metavar="N", help="files, default 10000")
    parser.add_argument("--seed", type=int, default=1, help="of the damage, default 1")
    chosen = parser.parse_args()
    warnings.filterwarnings("ignore", module="PIL")  # it tells of every damaged bit of metadata
    report, wrong = fuzz(create_app().test_client(), chosen.count, chosen.seed)
    files = [Path(f"fuzz_{chosen.seed}_{number}.bin") for number in range(len(wrong))]
    for path, data in zip(files, wrong, strict=True):
        path.write_bytes(data)
    print(json.dumps(report | {"files_written": [str(path) for path in files]}, indent=1))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
