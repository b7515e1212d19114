"""Grounding: its measures by hand-computed examples, and the command."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import draw_photo

from model import Caption, Captioner, DecodingOptions, Grid, Word
from training import grounding
from training.data.instances import AnnotatedPhoto, Instances, read_instances
from training.data.shapes import draw_world, write_world
from training.evaluation.grounding import describe_grounding, ground, measure_maps
from training.evaluation.object_words import CategoryWords

WHOLE = Grid(
    rows=2, columns=4, box=(0.0, 0.0, 1.0, 1.0)
)  # cells of 1/4 x 1/2, centres at 1/8, 3/8 ... and 1/4, 3/4
MIDDLE = Grid(rows=2, columns=2, box=(0.25, 0.0, 0.75, 1.0))


def one_hot(row: int, column: int, grid: Grid = WHOLE) -> np.ndarray:
    weights = np.zeros((grid.rows, grid.columns))
    weights[row, column] = 1
    return weights


def measure(weights, boxes, grid=WHOLE) -> tuple[float, float]:
    return tuple(measure_maps([np.array(weights)], grid, boxes)[0])


@pytest.mark.parametrize(
    ("cell", "expected"), [((0, 0), (1, 1)), ((0, 1), (0, 0)), ((1, 0), (0, 0)), ((1, 3), (0, 0))]
)
def test_peak_counts_if_its_centre_is_in_box(cell, expected):
    assert measure(one_hot(*cell), [(0, 0, 0.25, 0.5)]) == expected


def test_pointing_uses_peak_and_mass_uses_all_cells():
    weights = [[0.1, 0.4, 0, 0], [0.2, 0.3, 0, 0]]
    # The box covers the right half of the first column's cells and the left 3/5 of the second's.
    assert measure(weights, [(0.125, 0, 0.4, 1)]) == (1, pytest.approx(0.3 * 0.5 + 0.7 * 0.6))
    assert measure(weights, [(0.125, 0.5, 0.4, 1)]) == (0, pytest.approx(0.2 * 0.5 + 0.3 * 0.6))


def test_tied_peaks_share_the_point():
    assert measure([[0.3, 0.3, 0.3, 0.1], [0] * 4], [(0, 0, 0.45, 0.5)]) == (
        pytest.approx(2 / 3),
        pytest.approx(0.54),
    )


def test_uniform_map_scores_chance():
    boxes = [(0.1, 0.2, 0.65, 0.6)]  # three of eight centres: 1/8, 3/8, 5/8 in the upper row
    assert measure(np.full((2, 4), 1 / 8), boxes) == (pytest.approx(3 / 8), pytest.approx(0.55 * 0.4))


def test_overlapping_boxes_count_once():
    boxes = [(0, 0, 0.5, 0.5), (0.25, 0, 0.75, 0.5), (0, 0, 0.5, 0.5)]
    assert measure(np.full((2, 4), 1 / 8), boxes) == (pytest.approx(3 / 8), pytest.approx(0.375))


def test_coverage_equals_rasterized_boxes():
    rng = np.random.default_rng(4)
    corners = np.sort(rng.uniform(0, 1, (6, 2, 2)), axis=1)
    boxes = [(left, top, right, bottom) for (left, top), (right, bottom) in corners]
    grid = Grid(rows=3, columns=5, box=(0.1, 0.2, 0.9, 0.8))
    weights = rng.dirichlet(np.ones(15)).reshape(3, 5)
    down = 0.2 + 0.6 * (np.arange(900) + 0.5) / 900
    across = 0.1 + 0.8 * (np.arange(1500) + 0.5) / 1500
    covered = np.zeros((900, 1500), dtype=bool)
    for left, top, right, bottom in boxes:
        covered |= ((top < down) & (down < bottom))[:, None] & ((left < across) & (across < right))
    shares = covered.reshape(3, 300, 5, 300).mean(axis=(1, 3))
    assert measure(weights, boxes, grid)[1] == pytest.approx((weights * shares).sum(), abs=2e-3)


def test_grid_on_part_of_photo_is_placed():
    # Its columns are 1/4 to 1/2 and 1/2 to 3/4 of the photo.
    assert measure(one_hot(0, 0, MIDDLE), [(0.25, 0, 0.5, 0.5)], MIDDLE) == (1, 1)
    assert measure(one_hot(0, 1, MIDDLE), [(0.25, 0, 0.5, 0.5)], MIDDLE) == (0, 0)
    assert measure(one_hot(0, 1, MIDDLE), [(0.7, 0, 1, 1)], MIDDLE) == (0, pytest.approx(0.2))


def test_box_outside_grid_gets_nothing():
    assert measure(np.full((2, 2), 0.25), [(0, 0, 0.2, 1), (0.8, 0, 1, 1)], MIDDLE) == (0, 0)


def test_flipping_photo_and_map_changes_nothing():
    rng = np.random.default_rng(7)
    weights = rng.dirichlet(np.ones(8)).reshape(2, 4)
    turned = Grid(rows=4, columns=2, box=WHOLE.box)
    for _ in range(5):
        (left, top), (right, bottom) = np.sort(rng.uniform(0, 1, (2, 2)), axis=0)
        expected = measure(weights, [(left, top, right, bottom)])
        assert measure(weights.T, [(top, left, bottom, right)], turned) == pytest.approx(expected)


def caption(text: str, attention=None, grid: Grid = WHOLE) -> Caption:
    """A caption whose words all have one map; ``attention`` is rows of weights."""
    weights = None if attention is None else tuple(map(tuple, attention))
    words = tuple(Word(word=word, log_prob=-1.0, beta=0.5, attention=weights) for word in text.split())
    return Caption(text=text, log_prob=-1.0, words=words, grid=grid, is_finished=True)


def photo(path: Path = Path("nowhere.png"), captions=(), **boxes) -> AnnotatedPhoto:
    return AnnotatedPhoto(path=path, captions=captions, split="test", boxes=boxes)


def instances(*photos: AnnotatedPhoto) -> Instances:
    return Instances(categories=("dog", "cat", "hot dog", "person"), photos=photos)


LEFT, RIGHT = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)


def test_words_are_scored_by_their_category():
    known = instances(photo(dog=[LEFT], cat=[RIGHT]))
    found = describe_grounding([[caption("a puppy and two cats", one_hot(0, 0))]], known)
    assert (found["words"], found["absent"]) == (2, 0)
    assert found["pointing_accuracy"] == found["attention_in_box"] == 0.5
    assert found["by_category"] == {
        "dog": {"words": 1, "pointing_accuracy": 1},
        "cat": {"words": 1, "pointing_accuracy": 0},
    }


def test_phrase_uses_map_of_its_last_word():
    known = instances(photo(**{"hot dog": [LEFT], "dog": [RIGHT]}))
    spoken, last = caption("a hot dog", one_hot(0, 3)), caption("dog", one_hot(0, 0))
    spoken = replace(spoken, words=(*spoken.words[:2], *last.words))
    found = describe_grounding([[spoken]], known)
    assert found["words"] == 1
    assert found["pointing_accuracy"] == 1


def test_words_without_box_count_as_absent():
    known = instances(photo(dog=[LEFT]), photo(cat=[LEFT]))
    reference_captions = [[caption("a dog and a cat", one_hot(0, 0))], [caption("a man", one_hot(0, 0))]]
    found = describe_grounding(reference_captions, known)
    assert (found["words"], found["absent"], found["photographs"]) == (1, 2, 2)
    assert found["pointing_accuracy"] == 1


def test_chance_uses_the_same_words():
    known = instances(photo(dog=[LEFT]), photo(cat=[(0.26, 0.0, 1.0, 1.0)]))
    reference_captions = [[caption("a dog", one_hot(0, 0))], [caption("a cat", one_hot(0, 0))]]
    found = describe_grounding(reference_captions, known)
    assert found["chance"]["uniform"] == {
        "pointing_accuracy": (0.5 + 0.75) / 2,
        "attention_in_box": (0.5 + 0.74) / 2,
    }
    # On a grid of even sides the centre prior ties on the cells around the middle: two of four lie left.
    assert found["chance"]["centre"]["pointing_accuracy"] == (0.5 + 1) / 2
    outer, inner = (math.exp(-(distance**2) / (2 * 0.25**2)) for distance in (3 / 8, 1 / 8))
    first = outer / (2 * (outer + inner))  # weight of the first column
    expected = (0.5 + (1 - first - 0.04 * (0.5 - first))) / 2
    assert found["chance"]["centre"]["attention_in_box"] == pytest.approx(expected, abs=1e-4)


def test_words_without_map_have_no_scores():
    found = describe_grounding([[caption("a dog and a cat")]], instances(photo(dog=[LEFT])))
    assert (found["words"], found["without_map"], found["absent"]) == (0, 1, 1)
    nothing = {"pointing_accuracy": None, "attention_in_box": None}
    assert found == found | nothing | {
        "chance": {"uniform": nothing, "centre": nothing},
        "intervals": nothing,
    }
    assert found["by_category"] == {}
    json.dumps(found, allow_nan=False)


def test_intervals_are_over_photos():
    rng = np.random.default_rng(2)
    known = instances(*(photo(dog=[LEFT]) for _ in range(12)))
    reference_captions = [
        [caption("a dog", one_hot(0, column)) for _ in range(30)]
        for column in rng.integers(4, size=12).tolist()
    ]
    found = describe_grounding(reference_captions, known)
    low, high = found["intervals"]["pointing_accuracy"]
    assert low < found["pointing_accuracy"] < high
    assert high - low > 0.3  # as of 12 photos, not of 360 words
    assert found == describe_grounding(reference_captions, known)
    one = describe_grounding(reference_captions[:1], instances(known.photos[0]))
    assert one["intervals"]["pointing_accuracy"] == [one["pointing_accuracy"]] * 2


def spelled(*tokens: tuple[str, int], text: str) -> Caption:
    """A caption of tokens, each with all its attention on one column of the first row."""
    words = tuple(
        Word(word=token, log_prob=-1.0, beta=0.5, attention=tuple(map(tuple, one_hot(0, column).tolist())))
        for token, column in tokens
    )
    return Caption(text=text, log_prob=-1.0, words=words, grid=WHOLE, is_finished=True)


@pytest.mark.parametrize(
    "tokens",
    [
        [("a", 3), (" ", 3), ("d", 0), ("o", 0), ("g", 1), (" ", 3), (" ", 3), ("c", 3)],
        [("a", 3), ("do", 0), ("g", 1), ("c", 3)],
    ],
    ids=["characters", "pieces"],
)
def test_tokens_are_joined_into_words_with_their_mean_map(tokens):
    known = instances(photo(dog=[(0.0, 0.0, 0.25, 1.0)]))
    found = describe_grounding([[spelled(*tokens, text="a dog c")]], known)
    assert (found["words"], found["absent"]) == (1, 0)
    parts = [column for token, column in tokens if token in ("d", "o", "g", "do")]
    assert found["attention_in_box"] == round(parts.count(0) / len(parts), 4)


def test_words_without_spaces_match_category_names():
    tokens = [("一", 3), ("只", 3), ("小狗", 0), ("在", 3), ("跑", 3)]
    known = Instances(categories=("狗",), photos=(photo(**{"狗": [LEFT]}),))
    found = describe_grounding([[spelled(*tokens, text="一只小狗在跑")]], known)
    assert (found["words"], found["pointing_accuracy"]) == (1, 1)


class Parrot:
    """Says every photo's caption with its eye on one cell, and reads references with it on another."""

    def caption(self, images, options):
        return [[caption("a dog", one_hot(0, 0))] * options.num_captions for _ in images]

    def force_decode(self, images, captions):
        assert len(images) == len(captions)
        return [[caption(" ".join(words), one_hot(0, 3)) for words in texts] for texts in captions]


def test_generated_and_reference_words_are_separate(tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(40)]  # more than a batch
    for path in paths:
        draw_photo(1).save(path)
    references = [(("two", "dogs"), ("a", "cat")) if number % 2 else () for number in range(40)]
    pairs = zip(paths, references, strict=True)
    known = instances(*(photo(path, words, dog=[LEFT]) for path, words in pairs))
    found = ground(Parrot(), known, DecodingOptions(beam_size=1))
    assert (found["beam_size"], found["photographs"], found["words"], found["absent"]) == (1, 40, 40, 0)
    assert found["pointing_accuracy"] == 1
    read = found["reference"]
    assert (read["photographs"], read["words"], read["absent"]) == (20, 20, 20)
    assert read["pointing_accuracy"] == 0
    assert read["chance"] == found["chance"]
    assert set(found) - {"beam_size", "reference"} == set(read)


def test_missing_references_are_not_scored(tmp_path):
    draw_photo(1).save(tmp_path / "a.png")
    known = instances(photo(tmp_path / "a.png", dog=[LEFT]))
    assert "reference" not in ground(Parrot(), known, DecodingOptions(beam_size=1))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    write_world(folder, 12, size=32)
    return folder


def command(world: Path, checkpoint: Path, *more: str) -> list[str]:
    data = ["--instances", str(world / "instances.json"), "--images", str(world / "images")]
    return ["--checkpoint", str(checkpoint), *data, "--device", "cpu", *more]


def test_prints_json_even_without_named_objects(world, checkpoint, capsys):
    assert grounding.main(command(world, checkpoint, "--beam-size", "2")) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["checkpoint_sha256"] == Captioner.load(checkpoint).info.sha256
    assert (found["photographs"], found["words"], found["beam_size"]) == (12, 0, 2)
    assert found["pointing_accuracy"] is None
    assert "reference" not in found


def test_references_are_force_decoded(world, checkpoint, capsys):
    captions = world / "captions.json"
    assert grounding.main(command(world, checkpoint, "--captions", str(captions))) == 0
    found = json.loads(capsys.readouterr().out)["reference"]
    known = read_instances(world / "instances.json", world / "images", captions)
    names = CategoryWords(known.categories)
    said = [names.find(words) for one in known.photos for words in one.captions]
    assert found["words"] == sum(map(len, said)) > 60
    assert found["absent"] == found["without_map"] == 0
    assert 0 < found["attention_in_box"] < 1
    assert 0 < found["chance"]["uniform"]["attention_in_box"] < 1


def test_perfect_maps_score_one(world, checkpoint, capsys, monkeypatch):
    scenes = iter(draw_world(12, size=32))
    grid = Grid(rows=32, columns=32, box=(0.0, 0.0, 1.0, 1.0))

    def name_the_first_shape(self, images, options=None):
        shapes = [next(scenes).shapes[0] for _ in images]
        maps = np.zeros((len(shapes), 32, 32))
        for weights, (left, top, width, height) in zip(maps, (shape.box for shape in shapes), strict=True):
            weights[top : top + height, left : left + width] = 1 / (width * height)
        return [[caption(shape.name, seen, grid)] for shape, seen in zip(shapes, maps, strict=True)]

    monkeypatch.setattr(Captioner, "caption", name_the_first_shape)
    assert grounding.main(command(world, checkpoint)) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["words"], found["absent"]) == (12, 0)
    assert found["pointing_accuracy"] == found["attention_in_box"] == 1
    assert found["chance"]["uniform"]["attention_in_box"] < 0.5


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["--checkpoint", "nowhere"], "nowhere"),
        (["--instances", "nowhere.json"], "nowhere.json"),
        (["--instances", __file__], "is not JSON"),
        (["--checkpoint", "nowhere", "--instances", "none.json"], "nowhere"),  # weights before photos
        (["--captions", "nowhere.json"], "nowhere.json"),
        (["--images", "nowhere"], "nowhere"),
        (["--beam-size", "11"], "beam_size is 11"),
        (["--device", "abacus"], "'abacus'"),
    ],
)
def test_user_error_exits_2_with_one_line(world, checkpoint, capsys, more, named):
    assert grounding.main(command(world, checkpoint, *more)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    [line] = err.splitlines()
    assert line.startswith("grounding: ")
    assert named in line


def test_ctrl_c_is_one_line_and_exits_130(world, checkpoint, capsys, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Captioner, "caption", interrupt)
    assert grounding.main(command(world, checkpoint)) == 130
    assert capsys.readouterr().err.splitlines()[-1] == "grounding: stopped"
