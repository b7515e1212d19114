"""Captions image files in batches and writes the results as it goes. Knows nothing of the command line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from model import (
    Caption,
    Captioner,
    DecodingOptions,
    NonFiniteError,
    OptionsError,
    Photo,
    open_image,
)
from model.files import append_lines, sha256_bytes
from service.files.output import WRITERS, Records, keep_settings
from service.files.sources import Source

PROGRESS_FORMAT = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{remaining} left, {rate_fmt}]"


@dataclass(frozen=True, kw_only=True)
class BatchOptions:
    """How to caption, and what to write."""

    decoding: DecodingOptions
    batch_size: int = 8  # images in memory, and captioned, at once
    attention: bool = False  # include the attention weights of every word in the records
    formats: frozenset[str] = frozenset()  # keys of ``WRITERS``

    def __post_init__(self) -> None:
        """Check the batch size.

        Raises:
            OptionsError: it is below 1.
        """
        if self.batch_size < 1:
            raise OptionsError(f"batch_size is {self.batch_size}; it must be a whole number from 1.")

    def settings(self, captioner: Captioner) -> dict[str, Any]:
        """What decides the content of the output, beside the checkpoint."""
        formats = {name: name in self.formats for name in WRITERS}
        return asdict(captioner.resolve(self.decoding)) | {"attention": self.attention} | formats


@dataclass
class Counts:
    """How many images a run has dealt with so far."""

    captioned: int = 0
    already_done: int = 0
    failed: int = 0

    def __str__(self) -> str:
        return f"{self.captioned} captioned, {self.already_done} already done, {self.failed} failed"


class BatchRun:
    """One pass over the image files."""

    def __init__(self, captioner: Captioner, output: Path, options: BatchOptions, counts: Counts) -> None:
        """Continue in ``output``, a folder that is empty or from an earlier run; its errors are forgotten.

        Raises:
            OutputError: the folder was written with other settings, or by another program.
            OSError: the folder cannot be written.
        """
        self._captioner, self._options, self._counts = captioner, options, counts
        settings = {"checkpoint": captioner.info.sha256, **options.settings(captioner)}
        defaults = BatchOptions(decoding=DecodingOptions()).settings(captioner)
        keep_settings(output / "settings.json", settings, defaults)
        self._records = Records(output / "captions.jsonl")
        self._writers = [WRITERS[name](output) for name in sorted(options.formats)]
        self._errors = output / "errors.jsonl"
        self._errors.unlink(missing_ok=True)

    def caption(self, sources: Sequence[Source]) -> None:
        """Caption the sources that have no record yet; list those that fail in ``errors.jsonl``.

        Raises:
            OSError: the output can no longer be written.
        """
        try:
            with tqdm(total=len(sources), unit="photo", bar_format=PROGRESS_FORMAT, disable=None) as progress:
                opened = self._open(sources, progress)
                while batch := list(islice(opened, self._options.batch_size)):
                    self._caption_batch(batch)
                    progress.update(len(batch))
                    batch.clear()  # or two batches would be in memory while the next one is opened
        finally:
            self._records.compact()

    def _open(self, sources: Iterable[Source], progress: tqdm[Any]) -> Iterator[tuple[Source, Photo]]:
        """Read and decode, lazily, the sources that are to be captioned."""
        for source in sources:
            try:
                data = source.read()
                recorded = self._records.sha256_of(source.name)
                if recorded is None or recorded != sha256_bytes(data):
                    self._records.discard(source.name)
                    yield source, open_image(data)
                    continue
                self._counts.already_done += 1
            except Exception as error:  # no single file may end a run of hours
                self._fail(source, error)
            progress.update()

    def _caption_batch(self, batch: Sequence[tuple[Source, Photo]]) -> None:
        records = []
        for source, photo, captions in self._captions(batch):
            try:
                for writer in self._writers:
                    writer.write(source.name, photo.image, captions)
            except OSError as error:  # such as a file name too long for an overlay
                self._fail(source, error)
                continue
            records.append(photo.as_record(source.name, captions, attention=self._options.attention))
        self._records.append(records)  # last: a record says that everything about its photo is written
        self._counts.captioned += len(records)

    def _captions(
        self, batch: Sequence[tuple[Source, Photo]]
    ) -> Iterator[tuple[Source, Photo, list[Caption]]]:
        """The photos of the batch that can be captioned, each with its captions."""
        try:
            n_best = self._captioner.caption([photo.image for _, photo in batch], self._options.decoding)
        except NonFiniteError as error:
            if len(batch) == 1:
                self._fail(batch[0][0], error)
                return
            for item in batch:  # one at a time, so that only those that cause it fail
                yield from self._captions([item])
            return
        for (source, photo), captions in zip(batch, n_best, strict=True):
            yield source, photo, captions

    def _fail(self, source: Source, error: Exception) -> None:
        failure = {"image": source.name, "error": type(error).__name__, "detail": str(error)}
        append_lines(self._errors, [failure])
        self._counts.failed += 1
