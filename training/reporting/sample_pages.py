"""Pages that show what a captioner in training says of a few photos, epoch after epoch.

They are plain files that a browser opens from disk, without a script or a network: ``index.html`` with how
the captions changed, and a page an epoch with where each word looked. This file knows nothing of how a run
goes on.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from hashlib import sha256
from html import escape
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

from model import Caption, Captioner, DecodingOptions, contact_sheet
from model.drawing.overlay import bounded, encode_jpeg
from model.files import replacing, write_whole
from model.tokenizer import detokenize
from training.data.caption_files import CaptionedPhoto
from training.evaluation.evaluator import caption_photos

COUNT = 8  # photos
PHOTO_SIDE, SHEET_SIDE = 480, 1100  # pixels, the longest side
SHEET_QUALITY = 75  # of the JPEG; so eight sheets stay below a megabyte
INDEX = "index.html"
PHOTOS = "photographs"  # a folder: the pages of all epochs show the same files
# Of an epoch: an object, from the name of a photo to its caption. Written last, so that where it is, the
# page is too.
CAPTIONS = "captions.json"
NO_MAP = "This model has no attention map."

Line = Mapping[str, Any]  # of the log: one epoch

# The look of the page that the service serves (service/web/static/page.css).
STYLE = """
:root {
  --paper: #fbfaf7; --ink: #1d1a16; --soft: #696257; --line: #d9d4ca; --accent: #a83a0b;
  --serif: "Iowan Old Style", "Palatino Linotype", Palatino, "Book Antiqua", Georgia,
    "Liberation Serif", serif;
  color-scheme: light dark;
}
@media (prefers-color-scheme: dark) {
  :root { --paper: #141210; --ink: #f0eae0; --soft: #a79f92; --line: #3a352e; --accent: #ffa159; }
}
body {
  max-width: 60rem; margin: 0 auto; padding: 1.25rem clamp(1rem, 4vw, 2.5rem) 4rem;
  background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif;
}
h1 { margin: 0.3rem 0; font: 400 2rem/1.2 var(--serif); }
a { color: var(--accent); }
p { margin: 0; }
.soft, th, ul { color: var(--soft); font-size: 0.9375rem; }
table { margin: 1.5rem 0; border-collapse: collapse; font-variant-numeric: tabular-nums; }
th { font-weight: 400; text-align: right; }
th, td { padding: 0.2rem 1.5rem 0.2rem 0; }
td { text-align: right; }
article { margin-top: 2rem; padding-top: 2rem; border-top: 1px solid var(--line); }
.beside { display: flex; flex-wrap: wrap; gap: 1.5rem; align-items: flex-start; }
.beside > img { width: 15rem; max-width: 100%; }
.beside > div { flex: 1 1 20rem; }
img { border-radius: 3px; }
.sheet { display: block; max-width: 100%; margin-top: 1.25rem; }
.caption { font: 400 1.5rem/1.3 var(--serif); text-wrap: balance; }
h2 { margin: 1rem 0 0.2rem; color: var(--soft); font-size: 0.8125rem; font-weight: 400; }
ul { margin: 0; padding: 0; list-style: none; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0.3rem 1rem; margin: 0; }
dt { font-variant-numeric: tabular-nums; }
dd { margin: 0; font-family: var(--serif); }
"""


class Sample(NamedTuple):
    """A photo with its files as the pages name them, relative to their folder."""

    photo: CaptionedPhoto
    caption: Caption
    picture: str  # file name, of the photo's own bytes: another photo has another
    sheet: str | None  # path; None without maps

    @property
    def anchor(self) -> str:
        """Where on the page of an epoch it stands."""
        return _anchor(self.picture)


def choose_samples(photos: Sequence[CaptionedPhoto], seed: int) -> list[CaptionedPhoto]:
    """Eight of the photos, or all if they are fewer, in their order; the same for the same seed."""
    count = min(COUNT, len(photos))
    places = random.Random(seed).sample(range(len(photos)), count)
    return [photos[place] for place in sorted(places)]


def write_samples(
    folder: Path,
    captioner: Captioner,
    photos: Sequence[CaptionedPhoto],
    log_lines: Sequence[Line],
) -> None:
    """Caption the photos; write the page of the last epoch of the log, and ``index.html`` anew.

    Every file is written after what it shows, and whole or not at all; those of an epoch that is done again
    are replaced.

    Args:
        folder: where the pages lie, the run's ``samples``; it is made if it is not there.
        captioner: as it is after that epoch, with maps or without.
        photos: the same for every epoch, as ``choose_samples`` gives them.
        log_lines: of all epochs so far, each with ``epoch``, ``cider`` and ``bleu_4``; scores may be None.
            The index lists these epochs and no others, whatever pages a run that died left behind.

    Raises:
        OSError: the disk is full or the folder cannot be written. What was written before is still whole, and
            training can go on without.
        DataError: a photo cannot be read.
        NonFiniteError: the network's output is not finite.
    """
    captions = caption_photos(captioner, photos, DecodingOptions())
    own = folder / _name(log_lines[-1]["epoch"])
    for needed in (own, folder / PHOTOS):
        needed.mkdir(parents=True, exist_ok=True)
    samples = [
        _draw(folder, own, number, photo, caption)
        for number, (photo, caption) in enumerate(zip(photos, captions, strict=True), start=1)
    ]
    write_whole(folder / f"{own.name}.html", _epoch_page(log_lines[-1], samples))
    said = {sample.picture: sample.caption.text for sample in samples}
    write_whole(own / CAPTIONS, json.dumps(said, indent=1))
    _write_index(folder, log_lines)


def _name(epoch: int) -> str:
    return f"epoch-{epoch:02}"


def _anchor(picture: str) -> str:
    return f"photo-{Path(picture).stem}"


def _draw(folder: Path, own: Path, number: int, photo: CaptionedPhoto, caption: Caption) -> Sample:
    """Write the pictures that a page shows of one photo."""
    image = photo.read()
    data = encode_jpeg(bounded(image, PHOTO_SIDE))
    picture = f"{sha256(data).hexdigest()[:12]}.jpg"
    with replacing(folder / PHOTOS / picture) as file:  # which earlier pages may show
        file.write(data)
    sheet = own / f"{number}.jpg"
    has_maps = any(word.attention is not None for word in caption.words)
    if has_maps:
        with replacing(sheet) as file:
            bounded(contact_sheet(image, caption), SHEET_SIDE).save(file, "JPEG", quality=SHEET_QUALITY)
    return Sample(photo, caption, picture, f"{own.name}/{sheet.name}" if has_maps else None)


def _epoch_page(line: Line, samples: Sequence[Sample]) -> str:
    title = f"Epoch {line['epoch']}"
    articles = "\n".join(map(_article, samples))
    return _page(
        title,
        f'<p><a href="{INDEX}">All epochs</a></p>\n<h1>{title}</h1>\n'
        f'<p class="soft">{_score(line)}</p>\n{articles}',
    )


def _article(sample: Sample) -> str:
    said = _shown(sample.caption.text)
    references = "\n".join(
        f'<li dir="auto">{_shown(detokenize(words))}</li>' for words in sample.photo.captions
    )
    seen = (
        f'<img class="sheet" src="{sample.sheet}" alt="Where it looked for each word of: {said}">'
        if sample.sheet
        else f'<p class="soft">{NO_MAP}</p>'
    )
    return f"""<article id="{sample.anchor}">
<div class="beside">
{_picture(sample.picture)}
<div>
<p class="caption" dir="auto">{said}</p>
<h2>What people wrote of {_shown(sample.photo.path.name)}</h2>
<ul>
{references}
</ul>
</div>
</div>
{seen}
</article>"""


def _picture(name: str) -> str:
    return f'<img src="{PHOTOS}/{name}" alt="The photo">'


def _write_index(folder: Path, log_lines: Sequence[Line]) -> None:
    """The epochs that have a page, with their scores, and what was said of each photo of the last."""
    lines = [line for line in log_lines if (folder / _name(line["epoch"]) / CAPTIONS).exists()]
    said = {line["epoch"]: _read_captions(folder / _name(line["epoch"])) for line in lines}
    rows = "\n".join(
        f'<tr><td><a href="{_name(line["epoch"])}.html">{line["epoch"]}</a></td>'
        f"<td>{_number(line.get('cider'))}</td><td>{_number(line.get('bleu_4'))}</td></tr>"
        for line in lines
    )
    histories = "\n".join(_history(picture, said) for picture in said[lines[-1]["epoch"]])
    table = f"<table>\n<tr><th>Epoch</th><th>CIDEr</th><th>BLEU-4</th></tr>\n{rows}\n</table>"
    head = "<h1>What it says, epoch by epoch</h1>"
    write_whole(folder / INDEX, _page("Samples", f"{head}\n{table}\n{histories}"))


def _read_captions(own: Path) -> dict[str, str]:
    captions: dict[str, str] = json.loads((own / CAPTIONS).read_text(encoding="utf-8"))
    return captions


def _history(picture: str, said: Mapping[int, Mapping[str, str]]) -> str:
    """A photo with its captions, each once with the epochs that said it one after the other."""
    captions = [(epoch, texts[picture]) for epoch, texts in said.items() if picture in texts]
    entries = "\n".join(
        f'<dt class="soft">{_epochs([epoch for epoch, _ in group], picture)}</dt>'
        f'<dd dir="auto">{_shown(text)}</dd>'
        for text, group in groupby(captions, key=itemgetter(1))
    )
    return f"""<article class="beside">
{_picture(picture)}
<div>
<dl>
{entries}
</dl>
</div>
</article>"""


def _epochs(epochs: Sequence[int], picture: str) -> str:
    """Links to the first and the last of successive epochs."""
    ends = dict.fromkeys((epochs[0], epochs[-1]))
    return "–".join(f'<a href="{_name(epoch)}.html#{_anchor(picture)}">{epoch}</a>' for epoch in ends)


def _score(line: Line) -> str:
    if line.get("cider") is None:
        return "Not scored on val."
    return f"CIDEr {_number(line['cider'])}, BLEU-4 {_number(line.get('bleu_4'))} on val."


def _number(score: float | None) -> str:
    return "–" if score is None else f"{score:.1f}"


def _shown(text: str) -> str:
    """Text as HTML; of a file name that is no text, question marks."""
    return escape(text.encode("utf-8", "replace").decode("utf-8"))


def _page(title: str, body: str) -> str:
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{STYLE}</style>
</head>
<body>
{body}
</body>
</html>"""
