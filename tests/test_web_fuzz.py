"""Corrupt images against the service; ``benchmarks.fuzz_images`` does the same with many more."""

import random

import pytest
from flask import Response
from support.fake_captioner import FakeCaptioner

from benchmarks.fuzz_images import EXPECTED, MUTATIONS, corrupt_files, fuzz, valid_files, with_checksums
from model import open_image
from service.app import create_app
from service.config import ServiceConfig

# Pillow warns of corrupt metadata, which is not used.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

COUNT = 500
MAX_GROWTH_MB = 50


def test_fuzzed_images_never_fail_or_leak() -> None:
    client = create_app(ServiceConfig(), FakeCaptioner()).test_client()
    report, unexpected = fuzz(client, COUNT, seed=7)
    assert unexpected == []
    assert report["memory_growth_mb"] < MAX_GROWTH_MB
    statuses = {status for found in report["statuses"].values() for status in found}
    assert {200, 415, 422} <= statuses <= set(EXPECTED)
    assert set(report["statuses"]) == set(valid_files())


def test_fuzz_reports_failing_service() -> None:
    app = create_app(ServiceConfig(), FakeCaptioner())
    app.view_functions["captions.captions"] = lambda: Response("broken", 500)
    report, unexpected = fuzz(app.test_client(), 10, seed=7)
    assert report["unexpected"] == len(unexpected) == 10


def test_fuzzed_files_are_seeded_and_corrupt() -> None:
    first, again, other = (list(corrupt_files(60, seed)) for seed in (3, 3, 4))
    assert first == again != other
    untouched = {data for variants in valid_files().values() for data in variants}
    assert sum(data in untouched for _, data in first) < 6


def test_fuzz_originals_are_valid() -> None:
    for kind, variants in valid_files().items():
        for data in variants:
            assert open_image(data).format == kind


def test_every_mutation_changes_the_file() -> None:
    data, *others = valid_files()["JPEG"]
    for mutation in MUTATIONS:
        assert any(mutation(random.Random(seed), data, others[0]) != data for seed in range(5)), mutation


def test_png_checksums_are_repaired() -> None:
    for data in valid_files()["PNG"]:
        corrupt = data[:45] + bytes([data[45] ^ 1]) + data[46:]
        assert with_checksums(data) == data
        assert with_checksums(corrupt)[45] == corrupt[45]
