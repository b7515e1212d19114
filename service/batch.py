"""Captions folders of photos into files: ``python -m service.batch PHOTOS --output CAPTIONS``.

Knows files, and the order in which things must reach the disk; not HTTP, and nothing of networks.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from model import (
    Caption,
    Captioner,
    CaptioningError,
    DecodingOptions,
    OptionsError,
    Photo,
    contact_sheet,
    encode_png,
    open_image,
    photo_record,
)
from model.files import append_lines, replacing
from service.files.output import Records, keep_settings
from service.files.sources import Source, find_sources

ALL_CAPTIONED, WRONG_USAGE, FINISHED_WITH_FAILURES, INTERRUPTED = 0, 2, 3, 130  # exit statuses

DEFAULT_CHECKPOINT = Path("checkpoints/default")

EXAMPLE = """\
example:
  python -m service.batch holiday/ --output captions/ --overlays

  captions/captions.jsonl               one record a photo: {"image": "beach/a.jpg", "captions": [...]}
  captions/overlays/beach/a.jpg.png     where the captioner looked, word by word
  captions/errors.jsonl                 the photos that could not be captioned, and why

Stopped half-way? Run the same command again: photos already recorded are not done again, and
those that failed are tried once more. For another checkpoint or other options choose another --output.

exit status: 0 all captioned, 2 wrong usage, 3 finished, but some photos failed
"""


@dataclass(frozen=True, kw_only=True)
class BatchOptions:
    """What is asked of a run."""

    decoding: DecodingOptions
    batch_size: int  # photos decoded, captioned and recorded together
    attention: bool  # records hold the attention weights of every word
    overlays: bool  # a contact sheet is drawn for every photo

    def __post_init__(self) -> None:
        """Refuse a batch of nothing.

        Raises:
            OptionsError: the batch size is below 1.
        """
        if self.batch_size < 1:
            raise OptionsError(f"batch_size is {self.batch_size}; it must be a whole number from 1.")

    def settings(self) -> dict[str, Any]:
        """What decides what the records hold."""
        return asdict(self.decoding) | {"attention": self.attention, "overlays": self.overlays}


@dataclass(frozen=True)
class Opened:
    """A photo in memory, on its way to its captions."""

    source: Source
    sha256: str
    photo: Photo


class Run:
    """One pass over the photos, and how far it has come."""

    def __init__(self, captioner: Captioner, output: Path, options: BatchOptions) -> None:
        """Open ``output``, a new folder or that of an earlier run, whose list of errors begins anew.

        Raises:
            OutputError: the folder holds a ``captions.jsonl`` that is not ours, or was made otherwise.
            OSError: the folder cannot be written.
        """
        output.mkdir(parents=True, exist_ok=True)
        self._captioner, self._options = captioner, options
        keep_settings(output / "settings.json", {"checkpoint": captioner.info.sha256, **options.settings()})
        self._records = Records(output / "captions.jsonl")
        self._errors = output / "errors.jsonl"
        self._errors.unlink(missing_ok=True)
        self._overlays = output / "overlays"
        self.captioned = self.already_done = self.failed = 0  # photos

    def caption(self, sources: Sequence[Source]) -> None:
        """Caption what is not recorded yet; failures are listed and the run goes on.

        Raises:
            OSError: the output cannot be written any more.
        """
        layout = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{remaining} left, {rate_fmt}]"
        try:
            with tqdm(total=len(sources), unit="photo", bar_format=layout, disable=None) as progress:
                opened = self._open(sources, progress)
                while batch := list(islice(opened, self._options.batch_size)):
                    self._caption_batch(batch)
                    progress.update(len(batch))
                    batch.clear()  # or two batches would be in memory while the next one is opened
        finally:
            self._records.drop_superseded()

    def _open(self, sources: Iterable[Source], progress: tqdm[Any]) -> Iterator[Opened]:
        for source in sources:
            try:
                data = source.read()
                sha256 = hashlib.sha256(data).hexdigest()
                if not self._records.holds(source.image, sha256):
                    self._records.supersede(source.image)
                    yield Opened(source, sha256, open_image(data))
                    continue
                self.already_done += 1
            except Exception as error:  # whatever one file provokes must not end a run of hours
                self._fail(source, error)
            progress.update()

    def _caption_batch(self, batch: Sequence[Opened]) -> None:
        n_best = self._captioner.caption([item.photo.image for item in batch], self._options.decoding)
        records = []
        for item, captions in zip(batch, n_best, strict=True):
            try:
                if self._options.overlays:
                    self._draw(item, captions[0])
                records.append(self._record(item, captions))
            except OSError as error:  # a name too long for an overlay, say
                self._fail(item.source, error)
        self._records.append(records)  # after the overlays: a record says that all is done
        self.captioned += len(records)

    def _draw(self, item: Opened, caption: Caption) -> None:
        path = self._overlays / f"{item.source.image}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            file.write(encode_png(contact_sheet(item.photo.image, caption)))

    def _record(self, item: Opened, captions: Sequence[Caption]) -> dict[str, Any]:
        return photo_record(
            item.source.image,
            sha256=item.sha256,
            width=item.photo.width,
            height=item.photo.height,
            captions=captions,
            attention=self._options.attention,
        )

    def _fail(self, source: Source, error: Exception) -> None:
        failure = {"image": source.image, "error": type(error).__name__, "detail": str(error)}
        append_lines(self._errors, [failure])
        self.failed += 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line ``arguments`` (those of the process if None); returns the exit status."""
    chosen = _parser().parse_args(arguments)
    try:
        return _run(chosen)
    except CaptioningError as error:
        print(f"service.batch: {error}", file=sys.stderr)
    except OSError as error:  # those of the photos are in errors.jsonl
        print(f"service.batch: The output folder {chosen.output} cannot be written: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        return _interrupted(captioned=0)
    return WRONG_USAGE


def _run(chosen: argparse.Namespace) -> int:
    decoding = DecodingOptions(beam_size=chosen.beam_size, num_captions=chosen.num_captions)
    captioner = Captioner.load(chosen.checkpoint)
    options = BatchOptions(
        decoding=captioner.settled(decoding),
        batch_size=chosen.batch_size,
        attention=chosen.attention,
        overlays=chosen.overlays,
    )
    sources = find_sources(chosen.inputs, passed_over=chosen.output / "overlays")
    run = Run(captioner, chosen.output, options)
    try:
        run.caption(sources)
    except KeyboardInterrupt:
        return _interrupted(run.captioned)
    reasons = f" (why: {chosen.output / 'errors.jsonl'})" if run.failed else ""
    print(f"{run.captioned} captioned, {run.already_done} already done, {run.failed} failed{reasons}")
    return FINISHED_WITH_FAILURES if run.failed else ALL_CAPTIONED


def _interrupted(captioned: int) -> int:
    print(f"{captioned} captioned, run the same command again to continue", file=sys.stderr)
    return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m service.batch",
        description="Caption photos into files that other tools read.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "inputs", nargs="+", metavar="INPUT", help="file, folder (with its subfolders), glob, or - for a list"
    )
    add("--output", type=Path, required=True, metavar="DIR", help="folder to write, or to continue in")
    add("--checkpoint", type=Path, default=DEFAULT_CHECKPOINT, metavar="DIR", help="default: %(default)s")
    add("--beam-size", type=int, default=3, metavar="N", help="hypotheses searched, 1-10 (default: 3)")
    add("--num-captions", type=int, default=1, metavar="N", help="captions a photo (default: 1)")
    add("--batch-size", type=int, default=8, metavar="N", help="photos in memory at once (default: 8)")
    add("--attention", action="store_true", help="add the attention weights of every word to the records")
    add("--overlays", action="store_true", help="draw a sheet that shows where every word looked")
    return parser


if __name__ == "__main__":
    sys.exit(main())
