"""Words, characters and byte pairs in any script, and captioners that use them."""

import json
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import draw_photo, random_network

from model import Captioner, CheckpointInfo, DecodingOptions, ModelConfig
from model.checkpoint import TOKENIZER, save_checkpoint
from model.config import MAX_TOKENS, TOKENS
from model.errors import CheckpointError
from model.tokenizer import (
    CHARACTERS,
    MAX_PIECE,
    Pieces,
    Tokens,
    advise_tokens,
    cut_for_scoring,
    detokenize,
    plain_tokens,
    tokenize,
)
from model.vocabulary import Vocabulary

ROOT = Path(__file__).parents[1]
TEXTS = {
    "English": "Two dogs are playing with a ball, aren't they?",
    "Greek": "Ένας σκύλος τρέχει στο γρασίδι.",
    "Arabic": "كَلْبٌ أسود يركض على العشب",
    "Hindi": "एक काला कुत्ता घास पर दौड़ रहा है",
    "Korean": "검은 개가 잔디 위를 달린다",
    "Chinese": "一只黑色的狗在草地上奔跑。",
    "Chinese with a word of English": "一个穿着 T恤 的男人",
    "Japanese": "犬が芝生の上を走っている、サッカーボール。",
    "Thai": "สุนัขสีดำกำลังวิ่งบนสนามหญ้า",
}
# What ``tokenize`` leaves out, but other sources of words may not.
WORDS_WITH_EMOJI = ["a", "👨‍👩‍👧", "and", "a", "🐶🏽❤️"]
CAPTIONS = [tokenize(text) for text in TEXTS.values()]


def tokens_of(kind: str, captions: list[list[str]] = CAPTIONS) -> Tokens:
    return Pieces.learn(captions, min_count=2) if kind == "pieces" else plain_tokens(kind)


@pytest.mark.parametrize("kind", TOKENS)
@pytest.mark.parametrize("language", ["English", "Arabic", "Hindi", "Chinese with a word of English", "Thai"])
def test_tokens_join_to_the_caption(kind: str, language: str) -> None:
    words = tokenize(TEXTS[language])
    tokens = tokens_of(kind)
    assert tokens.join(tokens.cut(words)) == detokenize(words)
    vocabulary = Vocabulary.build([*CAPTIONS, words], min_count=1, tokens=kind)
    assert Vocabulary.unk_id not in vocabulary.encode(words)
    assert vocabulary.text(vocabulary.encode(words)) == detokenize(words)
    assert vocabulary.decode(vocabulary.encode(words)) == vocabulary.cut(words)


@pytest.mark.parametrize("kind", TOKENS)
def test_unseen_characters_round_trip(kind: str) -> None:
    tokens = tokens_of(kind)
    for words in (WORDS_WITH_EMOJI, ["ᓄᓇᕗᑦ", "dogs"], []):
        assert tokens.join(tokens.cut(words)) == detokenize(words)


def test_characters_keep_their_marks_and_spaces() -> None:
    assert CHARACTERS.cut(["हिन्दी", "में"]) == ["हि", "न्", "दी", " ", "में"]
    assert CHARACTERS.cut(["一只", "狗"]) == ["一", "只", " ", "狗"]
    assert CHARACTERS.cut(["a", "\u0301b"]) == ["a", " ", "\u0301", "b"]  # no mark hides a space


@pytest.mark.parametrize("kind", ["characters", "pieces"])
def test_any_token_sequence_joins_with_single_spaces(kind: str) -> None:
    vocabulary = Vocabulary.build(CAPTIONS, min_count=1, tokens=kind)
    rng = random.Random(0)
    for _ in range(50):
        ids = [rng.randrange(4, len(vocabulary)) for _ in range(12)]
        text = vocabulary.text(ids)
        assert text == " ".join(text.split())
        assert text.replace(" ", "") == "".join(vocabulary.decode(ids)).replace(" ", "")
    if kind == "characters":
        assert vocabulary.text(vocabulary.encode([" ", " "])) == ""


def test_pieces_are_shown_without_markers() -> None:
    vocabulary = Vocabulary.build(
        [["play", "plays", "runs"]] * 3 + [["一只狗", "狗"]] * 3, min_count=3, tokens="pieces"
    )
    assert vocabulary.tokens.cut(["runsplay", "狗一只"]) == ["runs", "##play", "狗", "##一只"]
    assert vocabulary.cut(["runsplay", "狗一只"]) == ["runs", "play", "狗", "一只"]
    assert all(token and "#" not in token for token in vocabulary.decode(range(4, len(vocabulary))))


def test_pieces_are_independent_of_caption_order() -> None:
    first = Vocabulary.build(CAPTIONS * 3, min_count=2, tokens="pieces")
    again = Vocabulary.build(CAPTIONS[::-1] * 3, min_count=2, tokens="pieces")
    assert isinstance(first.tokens, Pieces)
    assert isinstance(again.tokens, Pieces)
    assert first.tokens.as_record() == again.tokens.as_record()
    assert first.words == again.words


def test_pieces_are_deterministic_across_processes() -> None:
    program = (
        "import sys; from types import ModuleType; package = ModuleType('model');"
        "package.__path__ = ['model']; sys.modules['model'] = package;"  # the real one imports torch
        "from model.vocabulary import Vocabulary; sys.stdout.reconfigure(encoding='utf-8');"
        "Vocabulary.build([['a']], min_count=1, tokens='characters').encode(['a']);"
        "assert 'tokenizers' not in sys.modules;"
        f"print(Vocabulary.build({CAPTIONS!r}, min_count=2, tokens='pieces').tokens.as_record())"
    )
    other = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, check=True, encoding="utf-8"
    )
    assert other.stdout.strip() == Pieces.learn(CAPTIONS, min_count=2).as_record()


def test_repeated_sentence_stays_several_pieces() -> None:
    sentence = "一只黑色的狗在草地上奔跑"
    pieces = Pieces.learn([[sentence + "着一个球"]] * 50, min_count=2).cut([sentence + "着一个球"])
    assert len(pieces) > 1
    assert max(map(len, pieces)) <= MAX_PIECE + len("##")


@pytest.mark.parametrize("kind", ["words", "characters"])
def test_rare_words_and_characters_are_dropped(kind: str) -> None:
    vocabulary = Vocabulary.build([["aa"], ["aa"], ["aa", "q"]], min_count=2, tokens=kind)
    assert not any("q" in word for word in vocabulary.words)
    assert Vocabulary.unk_id in vocabulary.encode(["aa", "q"])


def test_rare_words_are_spelt_in_pieces() -> None:
    vocabulary = Vocabulary.build([["dog", "plays"]] * 5 + [["zebra"]], min_count=5, tokens="pieces")
    assert vocabulary.cut(["dog", "zebra"]) == ["dog", "z", "e", "b", "r", "a"]
    assert Vocabulary.unk_id not in vocabulary.encode(["dog", "zebra"])


@pytest.mark.parametrize("kind", ["words", "characters"])
def test_vocabulary_grows_at_its_end(kind: str) -> None:
    before = Vocabulary.build([["a", "dog"], ["a", "cat"]], min_count=1, tokens=kind)
    after = before.grown([["a", "猫"], ["猫", "犬", "a"], ["犬", "猫", "鳥"]], min_count=2)
    new = ["猫", "犬"]
    assert after.words == [
        *before.words,
        *([" "] if kind == "characters" and " " not in before.words else []),
        *new,
    ]
    assert after.tokens is before.tokens
    assert before.grown([["dog", "a"]], min_count=1).words == before.words


def test_pieces_do_not_grow() -> None:
    before = Vocabulary.build([["a", "dog"]] * 2, min_count=1, tokens="pieces")
    assert before.grown([["猫"]] * 9, min_count=1) is before


def test_caption_length_covers_nearly_all_captions() -> None:
    captions = [["一" * length] for length in range(1, 101)]
    assert Vocabulary.build(captions, min_count=1).caption_length(captions) == 20
    characters = Vocabulary.build(captions, min_count=1, tokens="characters")
    assert characters.caption_length(captions) == 99
    assert characters.caption_length([["一"]]) == 1
    assert characters.caption_length([["一" * 1000]]) == MAX_TOKENS


@pytest.mark.parametrize(
    ("text", "scored"),
    [
        ("two dogs play", "two dogs play"),
        ("검은 개가", "검은 개가"),
        ("كلب أسود", "كلب أسود"),
        ("一只狗 在跑", "一 只 狗 在 跑"),
        ("穿t恤的人", "穿 t 恤 的 人"),
        ("サッカーを見る人々", "サ ッ カ ー を 見 る 人 々"),
        ("สีดำ", "สี ด ำ"),
        ("", ""),
    ],
)
def test_scoring_splits_scripts_without_spaces(text: str, scored: str) -> None:
    assert cut_for_scoring(text) == scored
    assert cut_for_scoring(scored) == scored


@pytest.mark.parametrize(
    ("language", "is_advised"),
    [("English", False), ("Hindi", False), ("Chinese", True), ("Japanese", True), ("Thai", True)],
)
def test_scripts_without_spaces_get_advice(language: str, is_advised: bool) -> None:
    captions = [tokenize(TEXTS[language])] * 3
    advice = advise_tokens([*captions, ["a", "dog"]])
    assert (advice is not None) == is_advised
    if advice:
        assert "3 of 4 captions" in advice
        assert "--tokens characters" in advice


def test_spaced_text_gets_no_advice() -> None:
    assert advise_tokens([tokenize("一只 黑色 的 狗 在 草地 上 奔跑")]) is None
    assert advise_tokens([tokenize("สุนัข สี ดำ กำลัง วิ่ง บน สนาม หญ้า")]) is None


def tiny_captioner(config: ModelConfig, kind: str) -> Captioner:
    vocabulary = Vocabulary.build(CAPTIONS * 2, min_count=2, tokens=kind)
    config = replace(
        config,
        vocabulary_size=len(vocabulary),
        tokens=kind,
        caption_length=vocabulary.caption_length(CAPTIONS),
    )
    network = random_network(config)
    with torch.no_grad():
        for parameter in network.parameters():  # what half precision keeps, it keeps exactly
            parameter.copy_(parameter.half())
    info = CheckpointInfo(name="tiny", licence="none", trained_on="nothing")
    return Captioner(network, config, vocabulary, info)


def save(captioner: Captioner, folder: Path) -> Path:
    save_checkpoint(folder, captioner.network, captioner.config, captioner.vocabulary, captioner.info)
    return folder


@pytest.mark.parametrize("kind", TOKENS)
def test_captioner_round_trips_with_every_tokenizer(tmp_path: Path, config: ModelConfig, kind: str) -> None:
    before = tiny_captioner(config, kind)
    after = Captioner.load(save(before, tmp_path / kind))
    assert after.config == before.config
    assert after.vocabulary.words == before.vocabulary.words
    assert (tmp_path / kind / TOKENIZER).exists() == (kind == "pieces")
    photos = [draw_photo(seed) for seed in range(3)]
    said, said_again = before.caption(photos), after.caption(photos)
    assert said == said_again
    for [one], [other] in zip(said, said_again, strict=True):
        assert one.as_record(attention=True) == other.as_record(attention=True)
        assert one.words
        assert len(one.words) <= before.config.caption_length


@pytest.mark.parametrize("kind", TOKENS)
def test_forced_decoding_is_token_by_token(config: ModelConfig, kind: str) -> None:
    captioner = tiny_captioner(config, kind)
    [read] = captioner.force_decode([draw_photo(0)], [CAPTIONS])
    for words, caption in zip(CAPTIONS, read, strict=True):
        assert caption.text == detokenize(words)
        assert [word.word for word in caption.words] == captioner.vocabulary.cut(words)


def test_max_length_defaults_to_caption_length(config: ModelConfig) -> None:
    captioner = tiny_captioner(config, "characters")
    with torch.no_grad():
        captioner.network.decoder.output.bias[Vocabulary.end_id] = -1000  # it never ends by itself
    [[own]] = captioner.caption([draw_photo(0)])
    [[asked]] = captioner.caption([draw_photo(0)], DecodingOptions(max_length=60))
    assert (len(own.words), len(asked.words)) == (captioner.config.caption_length, 60)
    assert captioner.resolve(DecodingOptions()).max_length == captioner.config.caption_length


def test_saving_over_pieces_removes_tokenizer_file(tmp_path: Path, config: ModelConfig) -> None:
    folder = save(tiny_captioner(config, "pieces"), tmp_path)
    save(tiny_captioner(config, "characters"), folder)
    assert not (folder / TOKENIZER).exists()
    assert Captioner.load(folder).config.tokens == "characters"


def test_changed_tokenizer_is_refused(tmp_path: Path, config: ModelConfig) -> None:
    path = save(tiny_captioner(config, "pieces"), tmp_path) / TOKENIZER
    whole = path.read_bytes()
    path.write_bytes(whole.replace("狗".encode(), "猫".encode()))
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is damaged or was modified"):
        Captioner.load(tmp_path)
    path.unlink()
    with pytest.raises(CheckpointError, match=r"incomplete.*tokenizer\.json"):
        Captioner.load(tmp_path)


@pytest.mark.parametrize(
    "record", ["", "[]", "{}", '{"model": {}}', "\x80\x04cos\nsystem\n.", json.dumps("x" * 9)]
)
def test_invalid_tokenizer_record_is_refused(record: str) -> None:
    with pytest.raises(CheckpointError, match="not in the format of the tokenizers library") as raised:
        Pieces(record)
    assert "\n" not in str(raised.value)
