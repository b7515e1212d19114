"""Texts and files taken from the page: edited captions, copied or saved."""

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.page_actions import choose, photo

from training.data.caption_files import parse_captions

pytest_plugins = ["support.browser"]

CLIPBOARD = ["clipboard-read", "clipboard-write"]


def in_page(page: Any, call: str, *arguments: Any) -> Any:
    """What a function of formats.js returns."""
    return page.evaluate(
        "async ([name, given]) => (await import('/static/formats.js'))[name](...given)",
        [call, list(arguments)],
    )


def keep_labels(page: Any) -> None:
    """From now on ``data-labels`` of the body has what any button says, however short a time."""
    page.evaluate(
        """() => new MutationObserver((changes) => {
            for (const { target } of changes) {
                if (target.tagName === "BUTTON") document.body.dataset.labels += target.textContent;
            }
        }).observe(document.body, { childList: true, subtree: true })"""
    )


# Editing


def test_alt_text_is_capitalized_and_editable(page: Any) -> None:
    choose(page, photo())
    assert page.input_value("#text") == "A red wide picture"
    page.fill("#text", "A plain red card")
    assert page.locator("#length").inner_text() == "16 characters (recommended: up to 125)"
    assert page.locator("#caption").inner_text() == "a red wide picture"  # what was said stays what was said


def test_long_alt_text_is_only_flagged(page: Any) -> None:
    choose(page, photo())
    page.fill("#text", "x" * 125)
    assert "more than" not in page.locator("#length").inner_text()
    page.locator("#text").press_sequentially("yz")
    assert page.input_value("#text").endswith("yz")
    assert page.locator("#length.long").inner_text() == "127 characters, more than the recommended 125"


def test_alternatives_keep_their_edits(page: Any) -> None:
    choose(page, photo())
    choices = page.locator("#alternatives input")
    assert choices.count() == 3
    page.fill("#text", "Mine")
    choices.nth(1).check()
    assert page.input_value("#text") == "A red wide"
    page.fill("#text", "Other")
    assert page.locator("#caption").inner_text() == "a red wide"
    choices.nth(0).check()
    assert page.input_value("#text") == "Mine"
    choices.nth(1).check()
    assert page.input_value("#text") == "Other"


@pytest.mark.parametrize(
    ("caption", "start"),
    [("a dog runs .", "A dog runs"), ("éclair", "Éclair"), ("狗在跑。", "狗在跑。"), (" ", ""), ("𐐨b", "𐐀b")],
)
def test_initial_alt_text_is_tidy_in_any_script(page: Any, caption: str, start: str) -> None:
    assert in_page(page, "altText", caption) == start


# Copying

TEXT = 'A "tall" <b>dog</b> & [his] *cat*\nat 5 o\'clock'


@pytest.mark.parametrize(
    ("button", "copied"),
    [
        ("Copy text", TEXT),
        (
            "Copy <img alt>",
            '<img src="my%20dog%20(1).jpg" alt="A &quot;tall&quot; &lt;b&gt;dog&lt;/b&gt; &amp; [his] *cat*'
            " at 5 o'clock\">",
        ),
        (
            "Copy Markdown",
            '![A "tall" \\<b\\>dog\\</b\\> \\& \\[his\\] \\*cat\\* at 5 o\'clock](my%20dog%20%281%29.jpg)',
        ),
    ],
)
def test_text_is_copied_in_chosen_format(open_page: Callable[..., Any], button: str, copied: str) -> None:
    page = open_page(permissions=CLIPBOARD)
    choose(page, photo("my dog (1).jpg"))
    page.fill("#text", TEXT)
    keep_labels(page)
    page.get_by_role("button", name=button).press("Enter")
    page.locator("body[data-labels*=Copied]").wait_for()
    assert page.evaluate("() => navigator.clipboard.readText()") == copied
    page.get_by_role("button", name=button).wait_for()


def test_copied_img_element_has_alt_text(page: Any) -> None:
    html = in_page(page, "asHtml", TEXT, 'a"&<b.jpg')
    attributes = page.evaluate(
        """html => {
            const body = new DOMParser().parseFromString(html, "text/html").body;
            return [body.children.length, body.firstChild.alt, body.firstChild.getAttribute("src")];
        }""",
        html,
    )
    assert attributes == [1, TEXT.replace("\n", " "), "a%22%26%3Cb.jpg"]


def test_copying_works_without_clipboard_api(open_page: Callable[..., Any]) -> None:
    hidden = """
        window.clipboard = navigator.clipboard;
        Object.defineProperty(navigator, "clipboard", { value: undefined });
    """
    page = open_page(permissions=CLIPBOARD, script=hidden)
    choose(page, photo())
    keep_labels(page)
    page.get_by_role("button", name="Copy text").click()
    page.locator("body[data-labels*=Copied]").wait_for()
    assert page.evaluate("() => window.clipboard.readText()") == "A red wide picture"


# Saving


def saved(page: Any, button: str) -> tuple[str, bytes]:
    """Name and content of the file that a button saves."""
    with page.expect_download() as download:
        page.locator(button).click()
    return download.value.suggested_filename, Path(download.value.path()).read_bytes()


def test_contact_sheet_of_chosen_caption_is_saved(page: Any) -> None:
    choose(page, photo("dog.jpg"))
    name, best = saved(page, "#sheet")
    assert name == "dog-sheet.jpg"
    page.locator("#alternatives input").nth(2).check()
    _, other = saved(page, "#sheet")
    assert min(Image.open(io.BytesIO(best)).size) > 300
    assert other != best


def test_animation_of_best_caption_is_saved(page: Any) -> None:
    choose(page, photo("dog.jpg"))
    name, data = saved(page, "#gif")
    assert name == "dog-animation.gif"
    assert Image.open(io.BytesIO(data)).n_frames > 3
    page.locator("#alternatives input").nth(1).check()
    assert not page.locator("#gif").is_visible()


def test_failed_download_shows_reason(page: Any) -> None:
    choose(page, photo())
    problem = '{"detail": "No ink."}'
    answer = {"status": 500, "content_type": "application/problem+json", "body": problem}
    page.route("**/v1/overlays", lambda route: route.fulfill(**answer))
    page.locator("#gif").press("Enter")
    page.locator("#problem", has_text="No ink.").wait_for()
    assert page.evaluate("document.activeElement.id") == "gif"


def test_csv_download_is_readable_by_training(page: Any, tmp_path: Path) -> None:
    choose(page, photo("a, b.jpg"))
    page.fill("#text", 'Ein Hund sagt "wau",\nungefähr')
    name, data = saved(page, "#csv")
    assert name == "captions.csv"
    assert data.startswith(b"\xef\xbb\xbf")
    [row] = csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""))
    assert row == {"image": "a, b.jpg", "caption": 'Ein Hund sagt "wau", ungefähr'}
    (tmp_path / name).write_bytes(data)
    [listed] = parse_captions(tmp_path / name, tmp_path)
    assert listed.path == tmp_path / "a, b.jpg"
    assert "ungefähr" in listed.captions[0]


@pytest.mark.parametrize("start", ["=", "+", "-", "@"])
def test_csv_cells_are_not_formulas(page: Any, start: str) -> None:
    rows = [{"name": f'{start}cmd,".jpg', "text": f"{start}1+1"}]
    text = in_page(page, "asCsv", rows)
    [_, row] = csv.reader(io.StringIO(text, newline=""))
    assert row == [f'./{start}cmd,".jpg', f"'{start}1+1"]
