"""Beam search on toy step functions whose best captions can be enumerated."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from model.attention import AttentionMaps, Memory
from model.decoder import DecoderState, StepOutput
from model.decoding.beam_search import Hypothesis, beam_search
from model.decoding.constraints import BANNED_IDS
from model.decoding.options import DecodingOptions
from model.vocabulary import Vocabulary

END = Vocabulary.end_id
WORDS = (4, 5, 6)
V = 7
L = 2
NOTHING = Memory(torch.empty(0), (), None)  # the toy keeps all in its state


class ToyModel:
    """Scores that depend on the image and on every word before, through the state."""

    def __init__(self, images: int, seed: int = 0, end_bonus: float = 0.0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.table = torch.randn(images, 97, V, generator=generator) * 2
        self.table[:, :, END] += end_bonus
        self.images = images

    def start(self, beams: int) -> DecoderState:
        """The state counts which prefix was read: one number a row, and the image it belongs to."""
        image = torch.arange(self.images).repeat_interleave(beams).float().unsqueeze(1)
        return DecoderState(image, torch.zeros_like(image), position=0)

    def step(self, ids: Tensor, state: DecoderState, memory: Memory) -> StepOutput:
        prefix = (state.cell[:, 0] * 5 + ids) % 97  # a different number for most prefixes
        logits = self.table[state.hidden[:, 0].long(), prefix.long()]
        share = prefix / 97
        maps = AttentionMaps(
            alpha=torch.stack((share, 1 - share), dim=1),
            heads=torch.stack((share, 1 - share), dim=1).unsqueeze(1).expand(-1, 3, -1),
            chosen=prefix.long() % L,
            beta=share,
        )
        return StepOutput(logits, maps, DecoderState(state.hidden, prefix[:, None], state.position + 1))

    def search(self, **options: float) -> list[list[Hypothesis]]:
        decoding = DecodingOptions(**options)
        return beam_search(self.step, self.start(decoding.beam_size), NOTHING, self.images, decoding)


def step_through(
    model: ToyModel, image: int, ids: tuple[int, ...]
) -> tuple[list[float], list[AttentionMaps]]:
    """Log-probabilities of ``ids`` one by one over what may be emitted, and what was seen at each."""
    state = DecoderState(torch.tensor([[float(image)]]), torch.zeros(1, 1), position=0)
    before, log_probs, maps = Vocabulary.start_id, [], []
    for position, index in enumerate(ids):
        out = model.step(torch.tensor([before]), state, NOTHING)
        banned = [*BANNED_IDS, END] if position == 0 else [*BANNED_IDS]
        logits = out.logits.clone()
        logits[:, banned] = -math.inf
        log_probs.append(float(logits.log_softmax(1)[0, index]))
        maps.append(out.maps.select(0))
        state, before = out.state, index
    return log_probs, maps


def enumerated_best(model: ToyModel, image: int, max_length: int, penalty: float) -> tuple[int, ...]:
    every = [
        (*words, END)
        for length in range(1, max_length + 1)
        for words in itertools.product(WORDS, repeat=length)
    ]
    return max(every, key=lambda ids: sum(step_through(model, image, ids)[0]) / len(ids) ** penalty)[:-1]


def greedy(model: ToyModel, image: int, max_length: int) -> tuple[int, ...]:
    ids: tuple[int, ...] = ()
    while len(ids) < max_length:
        options = [*WORDS, END] if ids else [*WORDS]
        best = max(options, key=lambda index: step_through(model, image, (*ids, index))[0][-1])
        if best == END:
            break
        ids += (best,)
    return ids


@pytest.mark.parametrize("seed", range(3))
def test_beam_size_1_is_greedy(seed: int) -> None:
    model = ToyModel(5, seed)
    for image, [hypothesis] in enumerate(model.search(beam_size=1, max_length=6)):
        assert hypothesis.ids == greedy(model, image, 6)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_wide_beam_finds_enumerated_best(seed: int, penalty: float) -> None:
    model = ToyModel(2, seed)
    # With two words there are 9 + 3 hypotheses and 4 more moves; ten beams lose none that could win.
    found = model.search(beam_size=10, max_length=2, length_penalty=penalty)
    for image, [hypothesis] in enumerate(found):
        assert hypothesis.ids == enumerated_best(model, image, 2, penalty)


@pytest.mark.parametrize("beam_size", [1, 3])
def test_words_have_their_scores_and_maps(beam_size: int) -> None:
    model = ToyModel(4, seed=11)
    for image, hypotheses in enumerate(
        model.search(beam_size=beam_size, num_captions=beam_size, max_length=5)
    ):
        for hypothesis in hypotheses:
            ids = (*hypothesis.ids, END) if hypothesis.is_finished else hypothesis.ids
            log_probs, maps = step_through(model, image, ids)
            assert hypothesis.log_prob == pytest.approx(sum(log_probs), abs=1e-4)
            count = len(hypothesis.ids)
            assert list(hypothesis.log_probs) == pytest.approx(log_probs[:count], abs=1e-4)
            for found, expected in zip(hypothesis.maps, maps[:count], strict=True):
                assert found.sentinel is None
                for name in ("alpha", "heads", "chosen", "beta"):
                    assert getattr(found, name).shape == getattr(expected, name).shape
                    torch.testing.assert_close(getattr(found, name), getattr(expected, name))


def test_position_counts_words() -> None:
    model, positions = ToyModel(2), []

    def step(ids: Tensor, state: DecoderState, memory: Memory) -> StepOutput:
        positions.append(state.position)
        return model.step(ids, state, memory)

    beam_search(
        step, model.start(3), NOTHING, 2, DecodingOptions(beam_size=3, max_length=4, length_penalty=0.0)
    )
    assert positions == list(range(len(positions)))
    assert len(positions) > 1


def test_decoder_without_maps_gives_no_maps() -> None:
    model = ToyModel(2)

    def step(ids: Tensor, state: DecoderState, memory: Memory) -> StepOutput:
        return model.step(ids, state, memory)._replace(maps=AttentionMaps())

    for [hypothesis] in beam_search(
        step, model.start(2), NOTHING, 2, DecodingOptions(beam_size=2, max_length=3)
    ):
        assert hypothesis.maps == (AttentionMaps(),) * len(hypothesis.ids)


@pytest.mark.parametrize("seed", range(2))
def test_beam_search_is_batch_invariant(seed: int) -> None:
    together = ToyModel(6, seed)
    found = together.search(beam_size=3, num_captions=3, max_length=7)
    for image in range(6):
        alone = ToyModel(1, seed)
        alone.table = together.table[image : image + 1]
        [expected] = alone.search(beam_size=3, num_captions=3, max_length=7)
        assert [h.ids for h in found[image]] == [h.ids for h in expected]


@pytest.mark.parametrize("seed", range(3))
def test_captions_are_nonempty_distinct_words(seed: int) -> None:
    model = ToyModel(3, seed, end_bonus=3.0)
    model.table[:, :, list(BANNED_IDS)] += 50
    for hypotheses in model.search(beam_size=4, num_captions=4, max_length=4):
        ids = [hypothesis.ids for hypothesis in hypotheses]
        assert len(set(ids)) == len(ids) == 4
        assert all(ids)
        assert set(itertools.chain(*ids)) <= set(WORDS)


@pytest.mark.parametrize("seed", range(4))
def test_finished_hypothesis_is_not_also_truncated(seed: int) -> None:
    for hypotheses in ToyModel(8, seed).search(beam_size=3, num_captions=3, max_length=3):
        ids = [hypothesis.ids for hypothesis in hypotheses]
        assert len(set(ids)) == len(ids)


def test_captions_are_ranked_best_first() -> None:
    for hypotheses in ToyModel(5, 2).search(beam_size=5, num_captions=5, max_length=6, length_penalty=1.0):
        ranks = [(h.is_finished, h.log_prob / (len(h.ids) + h.is_finished)) for h in hypotheses]
        assert ranks == sorted(ranks, reverse=True)


def test_endless_caption_is_truncated_and_unfinished() -> None:
    for [hypothesis] in ToyModel(3, 0, end_bonus=-1000.0).search(beam_size=2, max_length=5):
        assert len(hypothesis.ids) == 5
        assert not hypothesis.is_finished


def test_zero_length_penalty_prefers_shorter_captions() -> None:
    longer = sum(len(h.ids) for [h] in ToyModel(20, 1).search(beam_size=5, max_length=8, length_penalty=1.0))
    shorter = sum(len(h.ids) for [h] in ToyModel(20, 1).search(beam_size=5, max_length=8, length_penalty=0.0))
    assert shorter < longer


def test_scorer_reranks_hypotheses():
    model = ToyModel(images=3, seed=4, end_bonus=1.0)
    options = DecodingOptions(beam_size=3, num_captions=3, max_length=4)
    asked = []

    def score(image: int, ids: tuple[int, ...]) -> float:
        asked.append((image, ids))
        return 5.0 * ids.count(WORDS[image])

    found = beam_search(model.step, model.start(3), NOTHING, 3, options, scorer=score)
    for image, hypotheses in enumerate(found):
        ranks = [
            (
                one.is_finished,
                one.log_prob / (len(one.ids) + one.is_finished) ** options.length_penalty
                + score(image, one.ids),
            )
            for one in hypotheses
        ]
        assert ranks == sorted(ranks, reverse=True)
        for one in hypotheses:
            log_probs, _ = step_through(model, image, one.ids)
            assert one.log_probs == pytest.approx(log_probs, abs=1e-5)  # the scorer changes no probability
    said = [sum(one.ids.count(WORDS[image]) for one in hypotheses) for image, hypotheses in enumerate(found)]
    plain = model.search(beam_size=3, num_captions=3, max_length=4)
    before = [
        sum(one.ids.count(WORDS[image]) for one in hypotheses) for image, hypotheses in enumerate(plain)
    ]
    assert sum(said) > sum(before)
    assert {len(ids) for _, ids in asked} >= {1, 2, 3, 4}  # beginnings too
    assert any(ids[-1] == END for _, ids in asked)


def test_constant_scorer_changes_nothing():
    model = ToyModel(images=4, seed=7)
    options = DecodingOptions(beam_size=3, num_captions=3, max_length=4)
    plain = beam_search(model.step, model.start(3), NOTHING, 4, options)
    scored = beam_search(model.step, model.start(3), NOTHING, 4, options, scorer=lambda image, ids: 3.0)
    assert [[one.ids for one in found] for found in scored] == [[one.ids for one in found] for found in plain]
