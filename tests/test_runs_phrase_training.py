"""The phrase head: its targets, its training and its reranking of captions."""

import math
import random
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from conftest import WORDS, draw_photo, random_network
from PIL import Image

from model import Captioner, CheckpointInfo, DecodingOptions
from model.checkpoint import load_checkpoint, save_checkpoint
from model.network import CaptionNetwork
from model.phrases import PhraseHead, PhraseScorer
from model.vocabulary import Vocabulary
from training import phrases
from training.engine.cider_reward import CiderReward
from training.errors import DataError
from training.evaluation.evaluator import Evaluation
from training.runs import phrase_training
from training.runs.initialization import continued_config, grown_network
from training.runs.phrase_training import PhraseTable

RECIPE = ("--min-count", "2", "--width", "8")


def random_references(seed: int, photos: int = 30) -> list[list[list[int]]]:
    """For each photo three captions of two to seven words out of eight."""
    rng = random.Random(seed)
    return [
        [[rng.randrange(4, 12) for _ in range(rng.randrange(2, 8))] for _ in range(3)] for _ in range(photos)
    ]


def head_of(table: PhraseTable) -> PhraseHead:
    head = PhraseHead(5, len(table.phrases), 3)
    table.fill(head)
    return head


@pytest.fixture
def learnt() -> tuple[PhraseTable, PhraseScorer, list[list[list[int]]]]:
    """The phrase table of some captions, its scorer, and the captions."""
    references = random_references(0)
    table = PhraseTable(references, min_count=1)
    return table, PhraseScorer(head_of(table)), references


def shares_of(table: PhraseTable, *captions: list[int]) -> list[float]:
    return table.shares(captions).to_dense().tolist()


def test_reference_scores_highest_against_itself(learnt):
    table, scorer, references = learnt
    everything = [ids for of_photo in references for ids in of_photo]
    once = [ids for ids in everything if len(set(ids)) == len(ids) > 3]
    assert len(once) >= 10
    for person in once:
        shares = shares_of(table, person)
        best = max(everything, key=lambda ids: scorer.score(ids, shares))
        assert best == person


def test_score_is_mean_over_references(learnt):
    table, scorer, ((one, two, three), (caption, *_), *_) = learnt
    alone = [scorer.score(caption, shares_of(table, person)) for person in (one, two, three)]
    together = scorer.score(caption, shares_of(table, one, two, three))
    assert together == pytest.approx(sum(alone) / 3, rel=1e-5)
    assert together > 0


def test_repetition_does_not_raise_score(learnt):
    table, scorer, ((person, *_), *_) = learnt
    shares = shares_of(table, person)
    whole = scorer.score(person, shares)
    assert scorer.score([*person, *person], shares) < whole
    assert scorer.score([*person, 99], shares) < whole  # a word of which nothing is known
    assert scorer.score([99, 98], shares) == 0


def test_phrase_weights_equal_cider_weights(learnt):
    table, _, references = learnt
    reward = CiderReward(references)
    one, other = [index for index, phrase in enumerate(table.phrases) if len(phrase) == 1][:2]
    [one_id], [other_id] = table.phrases[one], table.phrases[other]
    # Of two words, a person said the first: the cosine is the first's share of the caption's length.
    cosine = table.idf[one] / math.hypot(table.idf[one], table.idf[other])
    [found] = reward.score([[one_id, other_id]], [[one_id]])
    assert found == pytest.approx(10 * cosine / 4 * math.exp(-1 / 72), rel=1e-5)


def test_rare_phrases_and_unknown_words_are_dropped():
    unk = Vocabulary.unk_id
    references = [[[4, 5, unk]], [[4, 5, 6]], [[4, 5, 6], [4, 7]]]
    assert set(PhraseTable(references, min_count=2).phrases) == {(4,), (5,), (6,), (4, 5), (5, 6), (4, 5, 6)}
    with pytest.raises(DataError, match="--min-count"):
        PhraseTable(references, min_count=4)


@pytest.fixture
def knowing(config, vocabulary) -> Captioner:
    """A captioner with a head that predicts phrases at random, far from all alike."""
    table = PhraseTable([[list(range(4, 11))], *random_references(3)], min_count=1)
    known = [ngram for ngram in table.phrases if max(ngram) < len(vocabulary)]
    with_head = replace(config, phrases=len(known), phrase_dim=3)
    network = random_network(with_head)
    head = network.phrases
    assert head is not None
    for row, ngram in zip(head.ids, known, strict=True):
        row[: len(ngram)] = torch.tensor(ngram)
    with torch.no_grad():
        head.idf.uniform_(1, 3)
        head.output.weight.mul_(20)
    info = CheckpointInfo(name="tiny", licence="none", trained_on="nothing")
    return Captioner(network, with_head, vocabulary, info)


PHOTOS = [draw_photo(seed) for seed in range(6)]


def texts(captioner: Captioner, **options: float) -> list[list[str]]:
    found = captioner.caption(PHOTOS, DecodingOptions(max_length=6, **options))
    return [[caption.text for caption in of_photo] for of_photo in found]


def test_phrase_weight_changes_captions(knowing, config, vocabulary):
    assert knowing.network.phrases is not None
    plain = {name: value for name, value in knowing.network.state_dict().items() if "phrases." not in name}
    network = CaptionNetwork(config)
    network.load_state_dict(plain)
    without = texts(Captioner(network, config, vocabulary, knowing.info), beam_size=3)
    assert texts(knowing, beam_size=3, phrase_weight=0) == without
    assert texts(knowing, beam_size=3, phrase_weight=50) != without


def test_captions_are_ranked_by_probability_and_score(knowing):
    options = DecodingOptions(beam_size=4, num_captions=4, max_length=6, phrase_weight=3)
    head = knowing.network.phrases
    scorer = PhraseScorer(head)
    changed = 0
    for image in PHOTOS:
        shares = head(knowing.network.encoder(knowing._preprocess(image)[None]))[0].tolist()
        [captions] = knowing.caption([image], options)
        ranks, plain = [], []
        for caption in captions:
            ids = knowing.vocabulary.encode(caption.text.split())
            ended = [*ids, *[Vocabulary.end_id] * caption.is_finished]
            likely = caption.log_prob / (len(ids) + caption.is_finished) ** options.length_penalty
            plain.append((caption.is_finished, likely))
            ranks.append((caption.is_finished, likely + 3 * scorer.score(ended, shares)))
        assert ranks == sorted(ranks, reverse=True)
        changed += plain != sorted(plain, reverse=True)
    assert changed


def test_reranking_is_batch_invariant(knowing):
    together = texts(knowing, beam_size=3)
    alone = [knowing.caption([image], DecodingOptions(max_length=6))[0][0].text for image in PHOTOS]
    assert [captions[0] for captions in together] == alone


def test_phrase_head_round_trips(knowing, tmp_path):
    save_checkpoint(tmp_path, knowing.network, knowing.config, knowing.vocabulary, knowing.info)
    again = Captioner.load(tmp_path)
    assert again.config.phrases == knowing.config.phrases
    assert torch.equal(again.network.phrases.ids, knowing.network.phrases.ids)
    assert texts(again, beam_size=2, phrase_weight=9) == texts(knowing, beam_size=2, phrase_weight=9)


@pytest.fixture
def lawns(tmp_path: Path) -> list[str]:
    """Green photos of dogs and red ones of cats, some of them for val, as a CSV file."""
    lines = ["image,caption,split"]
    for number in range(40):
        image = draw_photo(number)
        image.paste(("green", "red")[number % 2], (0, 0, 64, 40))
        image.save(tmp_path / f"{number}.png")
        animal = ("a dog runs on grass", "a cat sits")[number % 2]
        lines += [f"{number}.png,{animal},{'val' if number > 33 else 'train'}"]
    (tmp_path / "lawns.csv").write_text("\n".join(lines))
    return ["--captions", str(tmp_path / "lawns.csv"), "--images", str(tmp_path)]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_command_learns_phrases(lawns, checkpoint, tmp_path, capsys, precision):
    output = tmp_path / "knowing"
    arguments = ["--checkpoint", str(checkpoint), *lawns, "--output", str(output), *RECIPE]
    assert phrases.main([*arguments, "--precision", precision]) == 0
    assert "phrases, from 34 training photos" in (said := capsys.readouterr().out)
    assert "of val" in said
    start, found = load_checkpoint(checkpoint), load_checkpoint(output)
    for name, value in start.network.state_dict().items():
        assert torch.equal(found.network.state_dict()[name], value), name
    captioner = Captioner.load(output)
    head, vocabulary = captioner.network.phrases, captioner.vocabulary
    names = [vocabulary.text(row[row > 0].tolist()) for row in head.ids]
    assert {"a dog", "a cat sits", "dog runs on grass"} <= set(names)
    assert WORDS[0] in names
    for number, (said, unsaid) in ((34, ("a dog", "a cat")), (35, ("a cat", "a dog"))):
        with Image.open(tmp_path / f"{number}.png") as image:
            pixels = captioner._preprocess(image.convert("RGB"))
        with torch.no_grad():
            shares = head(captioner.network.encoder(pixels[None]))[0]
        assert shares[names.index(said)] > 0.6
        assert shares[names.index(unsaid)] < 0.4
        assert shares[names.index("a")] > 0.9


def test_retraining_replaces_phrases(lawns, checkpoint, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    for start, output in ((checkpoint, first), (first, second)):
        assert phrases.main(["--checkpoint", str(start), *lawns, "--output", str(output), *RECIPE]) == 0
    assert load_checkpoint(first).info.sha256 == load_checkpoint(second).info.sha256


def test_image_size_may_grow(lawns, checkpoint, tmp_path):
    output = tmp_path / "larger"
    arguments = ["--checkpoint", str(checkpoint), *lawns, "--output", str(output), *RECIPE]
    assert phrases.main([*arguments, "--image-size", "56"]) == 0
    assert load_checkpoint(output).config.image_size == 56


def test_image_size_is_fixed_for_positional_weights(lawns, config, vocabulary, tmp_path, capsys):
    placed = replace(config, attention="location")
    info = CheckpointInfo(name="tiny", licence="none", trained_on="nothing")
    save_checkpoint(tmp_path / "placed", random_network(placed), placed, vocabulary, info)
    arguments = ["--checkpoint", str(tmp_path / "placed"), *lawns, "--output", str(tmp_path / "out"), *RECIPE]
    assert phrases.main([*arguments, "--image-size", "56"]) == 2
    assert "weights for each location of its grid" in capsys.readouterr().err


def test_finetuning_starts_without_phrases(knowing, tmp_path):
    save_checkpoint(tmp_path, knowing.network, knowing.config, knowing.vocabulary, knowing.info)
    start = load_checkpoint(tmp_path)
    config = continued_config(start.config, {})
    network = grown_network(start, config, start.vocabulary, [["a", "dog"]])
    assert (config.phrases, network.phrases) == (0, None)


def test_phrases_use_train_split_only(lawns, checkpoint, tmp_path, monkeypatch):
    file = tmp_path / "lawns.csv"
    held_out = ["36.png,a zebra,test", "35.png,a zebra,val"]
    file.write_text("\n".join([*file.read_text().splitlines()[:35], *held_out]))
    seen = []
    monkeypatch.setattr(
        phrase_training, "train_phrase_head", lambda start, train, *rest: seen.extend(train) or start
    )
    evaluation = Mock(scores=lambda: {"cider": 1})
    monkeypatch.setattr(Evaluation, "of", lambda *anything: evaluation)
    assert phrases.main(["--checkpoint", str(checkpoint), *lawns, "--output", str(tmp_path / "out")]) == 0
    assert len(seen) == 34
    assert {one.split for one in seen} == {"train"}


def test_interrupted_scoring_keeps_checkpoint(lawns, checkpoint, tmp_path, monkeypatch, capsys):
    def stop(*anything: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Evaluation, "of", stop)
    output = tmp_path / "out"
    assert phrases.main(["--checkpoint", str(checkpoint), *lawns, "--output", str(output), *RECIPE]) == 130
    assert "is written" in capsys.readouterr().err
    assert Captioner.load(output).config.phrases


def test_user_error_is_one_line(lawns, checkpoint, tmp_path, capsys):
    arguments = ["--checkpoint", str(checkpoint), *lawns, "--output"]
    for output, option, refusal in (
        (str(checkpoint), (), "already has"),
        (str(tmp_path / "out"), ("--min-count", "900"), "smaller --min-count"),
        (str(tmp_path / "out"), ("--epochs", "0"), "at least 1"),
        (str(tmp_path / "out"), ("--image-size", "0"), "image_size = 0"),
        (str(tmp_path / "out"), ("--width", "3000000"), "phrase_dim = 3000000"),
        (str(tmp_path / "out"), ("--seed", "9" * 30), "--seed"),
        (str(tmp_path / "out"), ("--device", "nonsense"), "no device 'nonsense'"),
        (str(tmp_path / "out"), ("--checkpoint", str(tmp_path / "nowhere")), "no checkpoint folder"),
        (str(tmp_path / "lawns.csv"), (), "is not a folder"),
    ):
        assert phrases.main([*arguments, output, *option]) == 2
        assert refusal in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out").exists()
