"""Sample pages: the same photos every epoch, complete, escaped and self-contained."""

import os
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from conftest import config_of_kind, draw_photo, random_network
from markupsafe import escape
from PIL import Image

from model import Captioner, CheckpointInfo, DecodingOptions, ModelConfig, files
from model.network import CaptionNetwork
from model.vocabulary import Vocabulary
from training.data.batches import CaptionedPhoto
from training.reporting.sample_pages import choose_samples, write_samples

VOID = {"meta", "img"}
EVIL = "<script>alert('1')</script>&\"x"


class Page(HTMLParser):
    """A page taken apart: its tags, what it links, its anchors and its text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.tags: list[str] = []
        self.links: list[str] = []
        self.anchors: list[str] = []
        self.alts: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self._open.append(tag)
        for name, value in attrs:
            assert not name.startswith("on")
            {"href": self.links, "src": self.links, "id": self.anchors, "alt": self.alts}.get(
                name, []
            ).append(str(value))
        assert tag != "img" or self.alts

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def pages(folder: Path) -> list[Page]:
    return [Page(path) for path in sorted(folder.glob("*.html"))]


def photos(folder: Path, count: int, name: str = "photo") -> list[CaptionedPhoto]:
    folder.mkdir(exist_ok=True)
    found = []
    for seed in range(count):
        path = folder / f"{name}-{seed}.png"
        draw_photo(seed).save(path)
        found.append(CaptionedPhoto(path=path, captions=(("a", "dog"), ("it", "sits")), split="val"))
    return found


def log(*epochs: int) -> list[dict[str, Any]]:
    return [{"epoch": epoch, "cider": 10.0 * epoch + 0.5, "bleu_4": 3.0 * epoch} for epoch in epochs]


def captioner_of(config: ModelConfig, words: Sequence[str]) -> Captioner:
    info = CheckpointInfo(name="tiny", licence="none", trained_on="nothing")
    return Captioner(random_network(config), config, Vocabulary(words), info)


@pytest.fixture
def val(tmp_path: Path) -> list[CaptionedPhoto]:
    return photos(tmp_path / "photos", 12)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run" / "samples"


def change(network: CaptionNetwork) -> None:
    """Another epoch says other things."""
    network.decoder.output.bias.data.add_(network.decoder.output.bias.data.flip(0) * 3 + 0.1)
    network.decoder.output.weight.data.copy_(network.decoder.output.weight.data.flip(0))


def test_seed_chooses_eight_photos(val):
    chosen = choose_samples(val, 3)
    assert len(chosen) == 8
    assert chosen == choose_samples(val, 3) != choose_samples(val, 4)
    assert chosen == [photo for photo in val if photo in chosen]


def test_small_val_set_is_shown_whole(val):
    assert choose_samples(val[:3], 0) == val[:3]


def test_epochs_show_the_same_photos(folder, captioner, val):
    chosen = choose_samples(val[:3], 0)
    write_samples(folder, captioner, chosen, log(1))
    change(captioner.network)
    write_samples(folder, captioner, chosen, log(1, 2))
    first, second, index = pages(folder)
    assert (first.path.name, second.path.name) == ("epoch-01.html", "epoch-02.html")
    assert first.anchors == second.anchors
    assert len(set(first.anchors)) == 3
    assert first.text != second.text
    assert index.path.name == "index.html"
    assert len(list((folder / "photographs").iterdir())) == 3


@pytest.mark.parametrize(("kind", "count"), [("additive", 2), ("hard", 1), ("none", 2)])
def test_page_links_exist(folder, config, vocabulary, val, kind, count):
    captioner = captioner_of(config_of_kind(config, kind), vocabulary.words)
    for epochs in ((1,), (1, 2)):
        write_samples(folder, captioner, val[:count], log(*epochs))
    anchors = {page.path.name: page.anchors for page in pages(folder)}
    for page in pages(folder):
        assert page.links
        for link in page.links:
            file, _, anchor = link.partition("#")
            assert not re.match(r"[a-z]+:|/", link)
            assert (folder / file).is_file(), link
            assert not anchor or anchor in anchors[file]
    linked = {link for page in pages(folder) for link in page.links}
    images = {path.relative_to(folder).as_posix() for path in folder.rglob("*.jpg")}
    assert images <= linked
    assert not list(folder.rglob("*.part"))


def test_epoch_page_shows_captions_references_and_maps(folder, captioner, val):
    write_samples(folder, captioner, val[:2], log(1))
    page, index = pages(folder)
    for found, photo in zip(
        captioner.caption([one.read() for one in val[:2]], DecodingOptions()), val[:2], strict=True
    ):
        assert found[0].text in page.text
        assert found[0].text in index.text
        assert any(found[0].text in alt for alt in page.alts)
        assert photo.path.name in page.text
    assert {"a dog", "it sits"} <= set(page.text.splitlines())
    assert sum(link.startswith("epoch-01/") for link in page.links) == 2


def test_model_without_maps_says_so(folder, config, vocabulary, val):
    captioner = captioner_of(config_of_kind(config, "none"), vocabulary.words)
    write_samples(folder, captioner, val[:2], log(1))
    page, _ = pages(folder)
    assert page.text.count("This model has no attention map.") == 2
    assert page.tags.count("img") == 2
    assert not list((folder / "epoch-01").glob("*.jpg"))


def test_captions_are_escaped(folder, config, tmp_path):
    captioner = captioner_of(config, [f"{EVIL}{i}" for i in range(7)])
    (val,) = photos(tmp_path / "photos", 1, name="<b>&")
    val = CaptionedPhoto(path=val.path, captions=((EVIL, "<i>"), ("שלום", "😀")), split="val")
    write_samples(folder, captioner, [val], log(1))
    for page in pages(folder):
        assert not {"script", "b", "i"} & set(page.tags)
        assert EVIL in page.text
        assert EVIL not in page.path.read_text(encoding="utf-8")
        assert str(escape(EVIL)) in page.path.read_text(encoding="utf-8")
    assert "שלום 😀" in pages(folder)[0].text


def test_undecodable_file_name_is_shown(folder, captioner, tmp_path):
    (val,) = photos(tmp_path / "photos", 1)
    odd = val.path.rename(val.path.with_name("a\udcff.png"))
    write_samples(folder, captioner, [CaptionedPhoto(path=odd, captions=(), split="val")], log(1))
    assert "a?.png" in pages(folder)[0].text


def test_index_lists_epochs_of_the_log(folder, captioner, val):
    for epochs in ((1,), (1, 2), (1, 2, 3)):
        write_samples(folder, captioner, val[:2], log(*epochs))
    unscored = {"epoch": 2, "cider": None, "bleu_4": None}
    write_samples(folder, captioner, val[:2], [*log(1), unscored])  # resumed from before epoch 2
    index = Page(folder / "index.html")
    linked = {link.partition("#")[0] for link in index.links if link.startswith("epoch")}
    assert linked == {"epoch-01.html", "epoch-02.html"}
    assert "10.5" in index.text
    assert "20.5" not in index.text
    assert "Not scored on val." in Page(folder / "epoch-02.html").text


def test_unchanged_caption_is_shown_once(folder, captioner, val):
    for epochs in ((1,), (1, 2), (1, 2, 3)):
        write_samples(folder, captioner, val[:1], log(*epochs))
    [[caption]] = captioner.caption([val[0].read()], DecodingOptions())
    index = Page(folder / "index.html")
    assert index.text.count(caption.text) == 1
    assert "1–3" in index.text
    change(captioner.network)
    write_samples(folder, captioner, val[:1], log(1, 2, 3, 4))
    assert Page(folder / "index.html").tags.count("dd") == 2


def test_images_of_large_photos_are_small(folder, captioner, tmp_path):
    path = tmp_path / "large.png"
    draw_photo(1, (1600, 1200)).save(path)
    write_samples(folder, captioner, [CaptionedPhoto(path=path, captions=(), split="val")], log(1))
    for name, side in (("photographs", 480), ("epoch-01", 1100)):
        (file,) = (folder / name).glob("*.jpg")
        with Image.open(file) as opened:
            assert opened.format == "JPEG"
            assert max(opened.size) <= side


def test_full_disk_raises_and_keeps_earlier_epochs(folder, captioner, val, monkeypatch):
    write_samples(folder, captioner, val[:2], log(1))
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def run_out(number: int) -> None:
        os.truncate(number, os.fstat(number).st_size // 2)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", run_out)
    with pytest.raises(OSError, match="No space left"):
        write_samples(folder, captioner, val[:2], log(1, 2))
    assert {path: path.read_bytes() for path in before} == before


def test_unwritable_folder_raises_oserror(folder, captioner, val):
    folder.parent.mkdir()
    folder.write_text("in the way")
    with pytest.raises(OSError, match="samples"):
        write_samples(folder, captioner, val[:1], log(1))
