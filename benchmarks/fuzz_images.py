"""Fuzzes the service with corrupt images, each of which must be captioned or refused.

    python -m benchmarks.fuzz_images --count 10000

corrupts valid files of every accepted format, reproducibly for a seed, uploads each to the service with
``checkpoints/default``, and prints one JSON object: status codes by format, the slowest response and which
file caused it, and the growth of memory. Files with an unexpected status code are written to the working
directory and named in the output; the exit status is then 1.
"""

import io
import json
import random
import struct
import sys
import time
import warnings
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from flask.testing import FlaskClient
from PIL import Image
from tqdm import tqdm

from benchmarks.harness.client import Upload
from benchmarks.harness.report import benchmark_parser
from model.command import run_command
from service.app import create_app
from training.data.shapes import draw_world

EXPECTED = (200, 400, 413, 415, 422)
SIZE = 96  # pixels a side
MIN_BYTES = 16  # of a file that is mutated again
WARM_UP = 100  # responses before the first reading of the memory
# Lengths and sizes to write into a file: zero, one, and the ends of the signed and unsigned ranges.
EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def encoded(image: Image.Image, kind: str, **how: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **how)
    return stream.getvalue()


def valid_files() -> dict[str, list[bytes]]:
    """Files of every accepted format, in the variants that its decoder distinguishes."""
    image, *others = (scene.image for scene in draw_world(4, SIZE))
    exif = Image.Exif()
    exif.update({0x0112: 6, 0x010E: "shapes"})
    translucent = image.convert("RGBA")
    translucent.putalpha(image.convert("L"))
    animated = {"save_all": True, "append_images": others, "duration": 50}
    palette = image.quantize(16)
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
            encoded(palette, "PNG", transparency=0),
            encoded(image.convert("I;16"), "PNG"),
            encoded(image.convert("1"), "PNG"),
            encoded(translucent, "PNG", **animated),
        ],
        "WEBP": [
            encoded(image, "WEBP", exif=exif),
            encoded(image, "WEBP", lossless=True),
            encoded(translucent, "WEBP"),
            encoded(image, "WEBP", **animated),
        ],
        "GIF": [
            encoded(image, "GIF", comment=b"shapes"),
            encoded(palette, "GIF", transparency=0, interlace=0),
            encoded(image, "GIF", **animated),
        ],
        "BMP": [
            encoded(image, "BMP"),
            encoded(palette, "BMP"),
            encoded(image.convert("1"), "BMP"),
            encoded(translucent, "BMP"),
        ],
    }


# Mutations of a file; ``other`` is another valid file.


def flip_bits(rng: random.Random, data: bytes, other: bytes) -> bytes:
    mutated = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5, 30))):
        mutated[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(mutated)


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
    """Repeat a part of the file, in place or elsewhere, up to a hundred times."""
    start, end = sorted(rng.randrange(len(data)) for _ in range(2))
    at = rng.choice((end, rng.randrange(len(data))))
    return data[:at] + data[start:end] * rng.choice((1, 1, 2, 100)) + data[at:]


def set_extremes(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Write extreme numbers where lengths and sizes may be, mostly near the beginning."""
    mutated = bytearray(data)
    for _ in range(rng.randrange(1, 4)):
        form = rng.choice((">H", "<H", ">I", "<I"))
        value = rng.choice(EXTREMES) & (0xFFFF if form.endswith("H") else 0xFFFFFFFF)
        within = rng.choice((40, 200, len(data)))
        at = rng.randrange(min(within, len(data) - 4))
        struct.pack_into(form, mutated, at, value)
    return bytes(mutated)


def splice(rng: random.Random, data: bytes, other: bytes) -> bytes:
    return data[: rng.randrange(len(data))] + other[rng.randrange(len(other)) :]


def keep_header(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Replace all but the beginning with noise."""
    start = min(rng.choice((32, 64, 200, 700)), len(data) // 2)
    return data[:start] + rng.randbytes(len(data) - start)


MUTATIONS = (flip_bits, overwrite, truncate, cut_out, repeat, set_extremes, splice, keep_header)


def with_checksums(data: bytes) -> bytes:
    """A PNG with its checksums repaired, so that decoders get past them."""
    repaired, at = data[:8], 8
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        body = data[at + 4 : at + 8 + length]
        repaired += data[at : at + 4] + body + struct.pack(">I", zlib.crc32(body))
        at += 12 + length
    return repaired


def corrupt_files(count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """``count`` files, each mutated one to three times, with the format they had."""
    rng, files = random.Random(seed), valid_files()
    everything = [data for variants in files.values() for data in variants]
    for number in range(count):
        kind = list(files)[number % len(files)]
        data = rng.choice(files[kind])
        for _ in range(rng.choice((1, 1, 2, 3))):
            if len(data) > MIN_BYTES:
                data = rng.choice(MUTATIONS)(rng, data, rng.choice(everything))
        yield kind, with_checksums(data) if kind == "PNG" and rng.random() < 0.7 else data


def fuzz(client: FlaskClient, count: int, seed: int) -> tuple[dict[str, Any], list[bytes]]:
    """The report on ``count`` files, and the files with an unexpected status code."""
    statuses: defaultdict[str, Counter[int]] = defaultdict(Counter)
    slowest, unexpected, before, process = (0.0, -1), [], 0, psutil.Process()
    for number, (kind, data) in enumerate(tqdm(corrupt_files(count, seed), total=count, disable=None)):
        if number == min(WARM_UP, count // 2):
            before = process.memory_info().rss
        # The caption is short, because decoding the file is what is tested.
        upload = Upload.of(data, beam_size="1", max_length="1", overlays="none")
        start = time.perf_counter()
        status = client.post(upload.path, data=upload.body, content_type=upload.content_type).status_code
        slowest = max(slowest, (1000 * (time.perf_counter() - start), number))
        statuses[kind][status] += 1
        if status not in EXPECTED:
            unexpected.append(data)
    report = {
        "files": count,
        "seed": seed,
        "statuses": {kind: dict(sorted(found.items())) for kind, found in statuses.items()},
        "slowest_ms": round(slowest[0]),
        "slowest_file": slowest[1],
        "memory_growth_mb": round((process.memory_info().rss - before) / 1e6, 1),
        "unexpected": len(unexpected),
    }
    return report, unexpected


def main() -> int:
    """Run the command line; returns the exit status."""
    parser = benchmark_parser("fuzz_images", __doc__)
    parser.add_argument("--count", type=int, default=10_000, metavar="N", help="files (default: 10000)")
    parser.add_argument("--seed", type=int, default=1, help="random seed (default: 1)")
    args = parser.parse_args()
    warnings.filterwarnings("ignore", module="PIL")  # of corrupt metadata
    report, unexpected = fuzz(create_app().test_client(), args.count, args.seed)
    files = [Path(f"fuzz_{args.seed}_{number}.bin") for number in range(len(unexpected))]
    for path, data in zip(files, unexpected, strict=True):
        path.write_bytes(data)
    print(json.dumps(report | {"files_written": [str(path) for path in files]}, indent=1))
    return 1 if unexpected else 0


if __name__ == "__main__":
    sys.exit(run_command("benchmarks.fuzz_images", main))
