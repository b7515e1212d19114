"""Sample pages of a run: the captions of the same few validation photos after every epoch.

They are plain files that a browser opens from disk, without scripts or network: ``index.html`` with the
captions by epoch, and a page an epoch with the attention map of every word.
"""

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader

from model import Caption, Captioner, DecodingOptions, contact_sheet
from model.drawing.overlay import bounded, encode_jpeg
from model.files import replacing, sha256_bytes, write_whole
from model.tokenizer import detokenize
from training.data.caption_files import CaptionedPhoto
from training.evaluation.evaluator import caption_photos
from training.reporting.epoch_log import EpochLine

COUNT = 8  # photos
PHOTO_SIDE, SHEET_SIDE = 480, 1100  # pixels, of the longer side
SHEET_QUALITY = 75  # of the JPEG, to keep eight sheets below a megabyte
PHOTOS = "photographs"  # a folder that the pages of all epochs share
# Of an epoch: an object from the image file of a photo to its caption. It is written last, so that where it
# is, the page is complete.
CAPTIONS = "captions.json"


class Sample(NamedTuple):
    """A photo as a page shows it, with files relative to the folder of the pages."""

    name: str  # of the photo
    image: str  # file in PHOTOS, named by its digest
    caption: str
    references: list[str]
    sheet: str | None  # contact sheet of the attention maps, if there are any


def choose_samples(photos: Sequence[CaptionedPhoto], seed: int) -> list[CaptionedPhoto]:
    """Eight of the photos, or all if there are fewer, in order; the same ones for the same seed."""
    count = min(COUNT, len(photos))
    indices = random.Random(seed).sample(range(len(photos)), count)
    return [photos[index] for index in sorted(indices)]


def write_samples(
    folder: Path,
    captioner: Captioner,
    photos: Sequence[CaptionedPhoto],
    lines: Sequence[EpochLine],
) -> None:
    """Caption the photos; write the page of the last epoch, and the index.

    Every file is written atomically, after the files it links to. Pages of a repeated epoch are replaced.

    Args:
        folder: of the pages; created if missing.
        captioner: as it is after the last epoch.
        photos: the same for every epoch, see ``choose_samples``.
        lines: of the log, each with ``epoch``, ``cider`` and ``bleu_4``; scores may be None. The index lists
            these epochs only, whatever pages an interrupted run left behind.

    Raises:
        OSError: the folder cannot be written; files of earlier epochs stay whole.
        DataError: a photo cannot be read.
        NonFiniteError: the network's output is not finite.
    """
    captions = caption_photos(captioner, photos, DecodingOptions())
    epoch_folder = folder / _folder_name(lines[-1]["epoch"])
    for needed in (epoch_folder, folder / PHOTOS):
        needed.mkdir(parents=True, exist_ok=True)
    samples = [
        _write_images(folder, epoch_folder, number, photo, caption)
        for number, (photo, caption) in enumerate(zip(photos, captions, strict=True), start=1)
    ]
    _write_page(folder / f"{epoch_folder.name}.html", "epoch.html", line=lines[-1], samples=samples)
    texts = {sample.image: sample.caption for sample in samples}
    write_whole(epoch_folder / CAPTIONS, json.dumps(texts, indent=1))
    _write_index(folder, lines)


def _write_images(
    folder: Path, epoch_folder: Path, number: int, photo: CaptionedPhoto, caption: Caption
) -> Sample:
    image = photo.read()
    data = encode_jpeg(bounded(image, PHOTO_SIDE))
    name = f"{sha256_bytes(data)[:12]}.jpg"
    with replacing(folder / PHOTOS / name) as file:
        file.write(data)
    sheet = epoch_folder / f"{number}.jpg"
    has_maps = any(word.attention is not None for word in caption.words)
    if has_maps:
        with replacing(sheet) as file:
            bounded(contact_sheet(image, caption), SHEET_SIDE).save(file, "JPEG", quality=SHEET_QUALITY)
    return Sample(
        name=photo.path.name,
        image=name,
        caption=caption.text,
        references=[detokenize(words) for words in photo.captions],
        sheet=f"{epoch_folder.name}/{sheet.name}" if has_maps else None,
    )


def _write_index(folder: Path, lines: Sequence[EpochLine]) -> None:
    """List the epochs that have a page, with their scores, and the captions of the photos of the last."""
    files = {line["epoch"]: folder / _folder_name(line["epoch"]) / CAPTIONS for line in lines}
    texts = {
        epoch: json.loads(path.read_text(encoding="utf-8")) for epoch, path in files.items() if path.exists()
    }
    _write_page(
        folder / "index.html",
        "index.html",
        lines=[line for line in lines if line["epoch"] in texts],
        histories={image: list(_history(image, texts)) for image in texts[lines[-1]["epoch"]]},
    )


def _history(image: str, texts: Mapping[int, Mapping[str, str]]) -> Iterator[tuple[str, list[int]]]:
    """Successive captions of a photo, each with the first and the last epoch that has it."""
    captions = [(epoch, of_epoch[image]) for epoch, of_epoch in texts.items() if image in of_epoch]
    for caption, group in groupby(captions, key=itemgetter(1)):
        epochs = [epoch for epoch, _ in group]
        yield caption, list(dict.fromkeys((epochs[0], epochs[-1])))


def _write_page(path: Path, template: str, **values: Any) -> None:
    write_whole(path, _TEMPLATES.get_template(template).render(values))


def _folder_name(epoch: int) -> str:
    return f"epoch-{epoch:02}"


def _printable(value: Any) -> Any:
    """Question marks instead of bytes that are not text, which file names may contain."""
    return value.encode("utf-8", "replace").decode() if type(value) is str else value


_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=True,
    trim_blocks=True,
    finalize=_printable,
)
_TEMPLATES.filters |= {
    "anchor": lambda image: f"photo-{Path(image).stem}",
    "folder": _folder_name,
    "score": lambda score: "–" if score is None else f"{score:.1f}",
}
