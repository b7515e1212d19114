"""The shipped checkpoint on real photos: examples/, and Flickr8k where it is available."""

import io
from pathlib import Path

import pytest
from conftest import SHARED_DATA
from PIL import Image

from model import Caption, Captioner, DecodingOptions, contact_sheet, open_image
from training.data.dataset import load_photos
from training.evaluation.attention_stats import describe_attention
from training.evaluation.evaluator import Evaluation

ROOT = Path(__file__).parents[1]
CHECKPOINT = ROOT / "checkpoints" / "default"
EXAMPLES = sorted((ROOT / "examples").glob("*.jpg"))
FLICKR8K = SHARED_DATA / "flickr8k"


@pytest.fixture(scope="module")
def shipped() -> Captioner:
    return Captioner.load(CHECKPOINT)


@pytest.fixture(scope="module")
def captions(shipped: Captioner) -> list[Caption]:
    photos = [open_image(path.read_bytes()).image for path in EXAMPLES]
    return [found[0] for found in shipped.caption(photos)]


def test_shipped_checkpoint_is_small_and_described(shipped: Captioner) -> None:
    assert sum(path.stat().st_size for path in CHECKPOINT.iterdir()) <= 40e6
    assert (CHECKPOINT / "README.md").exists()
    assert shipped.info.scores["split"] == "test"
    assert shipped.info.scores["images"] == 1000
    assert shipped.info.scores["checkpoint_sha256"] == shipped.info.sha256
    assert "non-commercial" in shipped.info.licence


def test_shipped_captions_are_finished_and_differ(
    captions: list[Caption],
) -> None:
    assert all(caption.is_finished and 4 <= len(caption.words) <= 20 for caption in captions)
    assert len({caption.text for caption in captions}) == len(EXAMPLES)
    assert not any(caption.text.split()[-1] in ("a", "an", "the", "and", "of") for caption in captions)


def test_shipped_maps_differ_between_words(captions: list[Caption]) -> None:
    attention = describe_attention(captions)
    assert attention["step_distance"] > 0.1
    assert attention["entropy"] < 0.98


def variants() -> dict[str, bytes]:
    """One photo as cameras and programs may hand it over."""
    photo = Image.open(ROOT / "examples" / "astronaut.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    streams: dict[str, io.BytesIO] = {
        name: io.BytesIO() for name in ("turned", "grey", "transparent", "cmyk", "panorama")
    }
    # Without loss: compressed again it is another photo, and may be captioned otherwise.
    photo.transpose(Image.Transpose.ROTATE_90).save(streams["turned"], "PNG", exif=exif)
    photo.convert("L").save(streams["grey"], "PNG")
    photo.convert("RGBA").save(streams["transparent"], "PNG")
    photo.convert("CMYK").save(streams["cmyk"], "JPEG", quality=95)
    photo.resize((4000, 300)).save(streams["panorama"], "JPEG")
    return {name: stream.getvalue() for name, stream in streams.items()}


@pytest.mark.parametrize(("name", "data"), variants().items())
def test_every_image_format_is_captioned_and_drawn(shipped: Captioner, name: str, data: bytes) -> None:
    image = open_image(data).image
    [[caption]] = shipped.caption([image])
    assert len(caption.words) >= 4
    sheet = contact_sheet(image, caption)
    assert max(sheet.size) <= 4000
    if name in ("turned", "transparent"):
        upright = open_image((ROOT / "examples" / "astronaut.jpg").read_bytes()).image
        assert caption.text == shipped.caption([upright])[0][0].text


@pytest.mark.skipif(not FLICKR8K.is_dir(), reason="Flickr8k is not here")
def test_val_scores_are_near_published_scores(shipped: Captioner) -> None:
    all_photos = load_photos([(FLICKR8K / "captions.json", FLICKR8K / "images")])
    val = [image for image in all_photos if image.split == "val"][:40]
    scores = Evaluation.of(shipped, val, DecodingOptions()).scores()
    # Forty photos: the interval of CIDEr is wide, and document frequencies differ from those of
    # a thousand. A broken preprocessing or vocabulary scores below 20.
    assert scores["cider"] > 45
    assert scores["bleu_1"] > 58
    assert scores["distinct_captions"] > 28
