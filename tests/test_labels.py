"""Labels: the head, their place in records, and their checkpoints."""

from dataclasses import replace

import pytest
import torch
from conftest import TINY, draw_photo, random_network

from model import Captioner, DecodingOptions
from model.checkpoint import save_checkpoint
from model.labels import MAX_NAME_BYTES, LabelHead

NAMES = ["crane (bird)", "café", "x" * MAX_NAME_BYTES, "cup", "dog", "espresso", "stairs"]
PHOTOS = [draw_photo(seed) for seed in range(3)]


@pytest.fixture
def labelling(config, vocabulary) -> Captioner:
    """A captioner with labels, which differ from photo to photo."""
    config = replace(config, labels=len(NAMES), label_dim=4)
    network = random_network(config)
    network.labels.fill(NAMES)
    torch.nn.init.normal_(network.labels.output.weight, std=4)
    return Captioner(network, config, vocabulary, TINY)


def head_with(probabilities: list[float]) -> LabelHead:
    head = LabelHead(5, len(probabilities), 4)
    head.fill(NAMES[: len(probabilities)])
    torch.nn.init.zeros_(head.output.weight)
    torch.nn.init.zeros_(head.cell_output.weight)
    head.output.bias.data = torch.logit(torch.tensor(probabilities))
    return head


@pytest.mark.parametrize(
    ("probabilities", "expected"),
    [
        ([0.3, 0.099, 0.9], [2, 0]),
        ([0.101], [0]),
        ([0.09, 0.05], []),
        ([0.7, 0.2, 0.3, 0.4, 0.6, 0.5, 0.8], [6, 0, 4, 5, 3]),
    ],
)
def test_at_most_five_probable_labels_are_given(probabilities, expected):
    [labels] = head_with(probabilities).best(torch.randn(1, 6, 5))
    assert [label.name for label in labels] == [NAMES[index] for index in expected]
    assert [label.probability for label in labels] == pytest.approx([probabilities[i] for i in expected])


def test_label_record_is_rounded():
    [[label]] = head_with([0.123456]).best(torch.randn(1, 6, 5))
    assert label.as_record() == {"label": NAMES[0], "probability": 0.123}


def test_captions_have_the_labels_of_their_own_photo(labelling):
    alone = [labelling.caption([photo])[0][0].labels for photo in PHOTOS]
    assert len({tuple(label.name for label in labels) for labels in alone}) > 1
    together = labelling.caption(PHOTOS, DecodingOptions(num_captions=2))
    for labels, captions in zip(alone, together, strict=True):
        for caption in captions:
            assert [label.name for label in caption.labels] == [label.name for label in labels]
            found = [label.probability for label in caption.labels]
            assert found == pytest.approx([label.probability for label in labels], abs=1e-4)


def test_labels_do_not_change_captions(labelling):
    with_labels = labelling.caption(PHOTOS)
    labelling.network.labels = None
    without = labelling.caption(PHOTOS)
    assert [[replace(one, labels=None) for one in captions] for captions in with_labels] == without


def test_captioner_without_labels_gives_none(captioner):
    [[caption]] = captioner.caption(PHOTOS[:1])
    assert caption.labels is None


def test_labels_survive_a_checkpoint(labelling, tmp_path):
    save_checkpoint(tmp_path, labelling.network, labelling.config, labelling.vocabulary, TINY)
    again = Captioner.load(tmp_path)
    assert [again.network.labels.name(index) for index in range(len(NAMES))] == NAMES
    before, after = (one.caption(PHOTOS[:1])[0][0].labels for one in (labelling, again))
    assert [label.name for label in after] == [label.name for label in before]
    found = [label.probability for label in after]
    assert found == pytest.approx([label.probability for label in before], abs=0.02)
