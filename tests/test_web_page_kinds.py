"""The page with captioners of every kind: without maps, with heads, of characters and byte pairs."""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from support.fake_captioner import FakeCaptioner
from support.page_actions import choose, photo, readout, served, words

from model import Caption, Label

pytest_plugins = ["support.browser"]


class OtherCaptioner(FakeCaptioner):
    """Changes every caption of the usual one with ``change``."""

    def __init__(self, change: Callable[[Caption], Caption], attention: str = "additive") -> None:
        self.change = change
        self.config = SimpleNamespace(attention=attention)

    def caption(self, *args: Any, **kwargs: Any) -> list[list[Caption]]:
        n_best = super().caption(*args, **kwargs)
        return [[self.change(caption) for caption in captions] for captions in n_best]


def without_maps(caption: Caption) -> Caption:
    return replace(caption, words=tuple(replace(word, attention=None) for word in caption.words))


def test_model_without_attention_shows_no_maps(open_page: Callable[..., Any]) -> None:
    with served(OtherCaptioner(without_maps, attention="none")) as address:
        page = open_page(address=address)
        assert page.locator(".headline").inner_text() == "Captions for your photos."
        choose(page, photo())
        assert page.locator("#no-map").is_visible()
        assert not page.locator("#play").is_visible()
        words(page).first.hover()
        assert "probability" in readout(page)


@pytest.mark.parametrize(
    ("confidence", "label"),
    [(0.75, "sure"), (0.749, "fairly sure"), (0.5, "fairly sure"), (0.1, "not sure: please check")],
)
def test_confidence_is_shown_in_words(open_page: Callable[..., Any], confidence: float, label: str) -> None:
    with served(OtherCaptioner(lambda caption: replace(caption, confidence=confidence))) as address:
        page = open_page(address=address)
        choose(page, photo())
        assert page.locator("#confidence-label").inner_text() == label
        title = page.locator("#confidence").get_attribute("title")
        assert title == f"{round(100 * confidence)}% likely to be right"
        page.locator("#announcement", has_text=f"Confidence: {label}.").wait_for(state="attached")
        choose(page, photo("b.jpg"), photo("c.jpg"), until="many")
        page.locator("#rows .state", has_text=label).nth(1).wait_for()


def test_confidence_is_hidden_where_there_is_none(open_page: Callable[..., Any]) -> None:
    with served(FakeCaptioner()) as address:
        page = open_page(address=address)
        choose(page, photo())
        assert not page.locator("#confidence").is_visible()


@pytest.mark.parametrize(
    ("confidence", "text"), [(None, "Keywords: "), (0.5, "Keywords: "), (0.499, "It may show: ")]
)
def test_labels_are_keywords_or_a_hint(
    open_page: Callable[..., Any], confidence: float | None, text: str
) -> None:
    labels = (Label(name="espresso", probability=0.77), Label(name="cup", probability=0.125))
    captioner = OtherCaptioner(lambda caption: replace(caption, confidence=confidence, labels=labels))
    with served(captioner) as address:
        page = open_page(address=address)
        choose(page, photo())
        assert page.locator("#labels").inner_text() == f"{text}espresso, cup"
        assert page.locator("#labels").get_attribute("title") == "espresso 77%, cup 13%"
        page.locator("#announcement", has_text=f"{text}espresso, cup.").wait_for(state="attached")


@pytest.mark.parametrize("labels", [None, ()])
def test_labels_are_hidden_where_there_are_none(open_page: Callable[..., Any], labels: Any) -> None:
    with served(OtherCaptioner(lambda caption: replace(caption, labels=labels))) as address:
        page = open_page(address=address)
        choose(page, photo())
        assert not page.locator("#labels").is_visible()


@pytest.mark.parametrize(
    "tokens",
    [list("a red fox"), ["a", "red", "fo", "x"], ["a ", "re", "d fox"], [" ", "a", " ", "red", " ", "fox"]],
)
def test_words_are_spaced_as_in_the_caption(open_page: Callable[..., Any], tokens: list[str]) -> None:
    def cut(caption: Caption) -> Caption:
        return replace(
            caption, text="a red fox", words=tuple(replace(caption.words[0], word=token) for token in tokens)
        )

    with served(OtherCaptioner(cut)) as address:
        page = open_page(address=address)
        choose(page, photo())
        assert words(page).all_text_contents() == tokens
        assert page.locator("#caption").text_content().strip() == "a red fox"


def test_heads_can_be_viewed_one_by_one(open_page: Callable[..., Any]) -> None:
    def with_heads(caption: Caption) -> Caption:
        heads = tuple(word.attention for word in caption.words[1:3])
        return replace(caption, words=tuple(replace(word, heads=heads) for word in caption.words[:1] * 3))

    with served(OtherCaptioner(with_heads)) as address:
        page = open_page(address=address)
        choose(page, photo())
        words(page).first.focus()
        assert "attention at the top left" in readout(page)
        page.get_by_label("2", exact=True).check()
        assert "head 2: attention at the top right" in readout(page)
