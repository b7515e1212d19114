"""The caption words that name object categories.

The name of a category and its plural always match. The 80 categories of COCO also have ``SYNONYMS``:

* A word is listed if in captions it nearly always means an object that COCO annotators put a box of that
  category around. Most are also in the longer list of the CHAIR metric (Rohrbach et al. 2018).
* Not listed are words with another common meaning in captions (bat, glass, plate, seat, bag, ski, pitcher,
  batter, scooter, plant, desk, computer, luggage, van, male, female), names of sports (baseball, football),
  words for several objects of any kind (group, crowd, couple, team, family), and pronouns.
* Phrases match before the words in them, so "hot dog" is not a dog and "microwave oven" is not an oven.
  ``OTHER_THINGS`` are phrases in which the word of a category means something else.

The lists cannot tell words used as adjectives ("orange shirt", "dog toy") or verbs ("men tie a rope").

The list of synonyms published with CHAIR can be used instead, by the rules of its published code.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from model.tokenizer import cut_for_scoring, tokenize
from training.data.json_files import read_text
from training.errors import DataError

_COCO = (
    "person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, "
    "fire hydrant, stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, "
    "bear, zebra, giraffe, backpack, umbrella, handbag, tie, suitcase, frisbee, skis, snowboard, "
    "sports ball, kite, baseball bat, baseball glove, skateboard, surfboard, tennis racket, bottle, "
    "wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot, "
    "hot dog, pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, tv, laptop, "
    "mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, book, clock, "
    "vase, scissors, teddy bear, hair drier, toothbrush"
)
COCO_CATEGORIES = tuple(_COCO.split(", "))

SYNONYMS: Mapping[str, str] = {  # in the singular, separated by commas
    "person": (
        "man, woman, boy, girl, child, kid, baby, infant, toddler, lady, guy, gentleman, adult, teenager, "
        "teen, mother, father, mom, dad, daughter, son, brother, sister, grandmother, bride, groom, cowboy, "
        "policeman, fireman, officer, soldier, worker, chef, bartender, waiter, waitress, student, tourist, "
        "pedestrian, passenger, driver, onlooker, spectator, umpire, referee, jockey, player, rider, racer, "
        "runner, climber, hiker, swimmer, surfer, skier, snowboarder, skateboarder, skater, biker, cyclist, "
        "bicyclist, motorcyclist, goalie, wrestler, dancer, singer, musician"
    ),
    "bicycle": "bike",
    "car": "automobile, taxi, cab, suv, minivan, jeep, sedan",
    "motorcycle": "motorbike, motor bike, dirt bike, moped",
    "airplane": "plane, aeroplane, air plane, jet, airliner, biplane, seaplane",
    "bus": "minibus",
    "train": "locomotive",
    "truck": "pickup, pickup truck, firetruck, fire truck, lorry",
    "boat": "sailboat, rowboat, speedboat, motorboat, canoe, kayak, ship, ferry, yacht",
    "traffic light": "traffic signal, stop light, stoplight",
    "fire hydrant": "hydrant",
    "bird": "seagull, gull, pigeon, duck, goose, swan, parrot, parakeet, owl, eagle, vulture, peacock",
    "cat": "kitten, kitty",
    "dog": (
        "puppy, pup, doggy, greyhound, retriever, german shepherd, terrier, collie, dachshund, labrador, "
        "poodle, beagle, spaniel, dalmatian, rottweiler, corgi, bulldog, pit bull, bull terrier"
    ),
    "horse": "pony, foal",
    "sheep": "lamb, ewe",
    "cow": "cattle, bull, ox",
    "bear": "panda",
    "backpack": "back pack, rucksack",
    "umbrella": "parasol",
    "handbag": "purse, hand bag",
    "tie": "necktie, bowtie, bow tie",
    "suitcase": "suit case",
    "snowboard": "snow board",
    "sports ball": "ball",
    "baseball glove": "baseball mitt, catchers mitt",
    "skateboard": "skate board",
    "surfboard": "surf board",
    "tennis racket": "racket, racquet, tennis racquet",
    "wine glass": "wineglass",
    "cup": "mug",
    "sandwich": "hamburger, burger, cheeseburger",
    "hot dog": "hotdog",
    "donut": "doughnut",
    "cake": "cupcake",
    "chair": "armchair",
    "couch": "sofa, loveseat",
    "potted plant": "houseplant, house plant",
    "dining table": "table",
    "toilet": "commode",
    "tv": "television, monitor",
    "remote": "remote control, remote controller",
    "cell phone": "cellphone, phone, mobile phone, cellular phone, smartphone, smart phone, iphone",
    "microwave": "microwave oven",
    "oven": "stove",
    "refrigerator": "fridge",
    "hair drier": "hair dryer, hairdryer, blow dryer, blow drier",
    "teddy bear": "teddy, stuffed bear",
}

# "baby", "adult" and "mother" are persons, but not before one of these.
ANIMALS = ("bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe")
AGES = ("baby", "adult", "mother")

OTHER_THINGS = (
    "hot dog, teddy bear, stuffed bear, baby carriage, baby stroller, baby pool, baby swing, record player, "
    "cd player, dvd player, car seat, train station, train track, train platform, bus stop, bus station, "
    "jet ski, bird cage, rubber duck, toy duck, dog bed, truck bed, flower bed, river bed, tie dye, "
    "tie dyed, ball pit, ball cap, table tennis, pool table, chair lift, book bag, toaster oven, "
    "toilet paper, mickey mouse, mouse pad, phone booth, pay phone, remote controlled"
)

# The rules that the code of CHAIR has beside its list (LisaAnne/Hallucination, utils/chair.py): words that
# belong together, and words that only describe the next one.
PUBLISHED_PHRASES = (
    "motor bike, motor cycle, air plane, traffic light, street light, traffic signal, stop light, "
    "fire hydrant, stop sign, parking meter, suit case, sports ball, baseball bat, baseball glove, "
    "tennis racket, wine glass, hot dog, cell phone, mobile phone, teddy bear, hair drier, potted plant, "
    "bow tie, laptop computer, stove top oven, home plate, train track"
)
PUBLISHED_MODIFIERS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("baby", "adult"), (*ANIMALS, "animal", "cub")),
    "passenger": ("jet", "train"),
}

IRREGULAR: Mapping[str, tuple[str, ...]] = {
    "person": ("people", "persons"),
    "man": ("men",),
    "woman": ("women",),
    "gentleman": ("gentlemen",),
    "policeman": ("policemen",),
    "fireman": ("firemen",),
    "child": ("children",),
    "mouse": ("mice",),
    "goose": ("geese",),
    "ox": ("oxen",),
    "knife": ("knives",),
    "wolf": ("wolves",),
    "leaf": ("leaves",),
    "shelf": ("shelves",),
    "potato": ("potatoes",),
    "tomato": ("tomatoes",),
    **{word: (word,) for word in ("sheep", "deer", "fish", "cattle", "skis", "scissors", "broccoli")},
}

Phrase = tuple[str, ...]
Meanings = dict[Phrase, str | None]  # the category that a phrase names; None: something else


class Mention(NamedTuple):
    """A word or phrase of a caption that names a category."""

    category: str  # its name in the instances file
    position: int  # of the word in the caption; of the last word of a phrase


class CategoryWords:
    """Finds the words that name the categories of one instances file."""

    def __init__(self, categories: Iterable[str], synonyms: Mapping[str, str] | None = None) -> None:
        """Collect the words of each category.

        Args:
            categories: their names in the file.
            synonyms: a list to use by the rules of CHAIR, see ``read_synonyms``; None: ``SYNONYMS``.

        Raises:
            DataError: the list lacks a category.
        """
        own = {name: _cut(name.replace("_", " ")) for name in categories}
        self._meanings = _meanings(own) if synonyms is None else _published_meanings(own, synonyms)
        self._longest = max(map(len, self._meanings))

    def phrases(self) -> Meanings:
        """The known phrases, and the category that each names; None: something else."""
        return dict(self._meanings)

    def find(self, words: Sequence[str]) -> list[Mention]:
        """The mentions in the words of a caption, from left to right; of overlapping phrases, the longest."""
        mentions = []
        start = 0
        while start < len(words):
            phrase = self._phrase_at(words, start)
            category = self._meanings.get(phrase)
            if category is not None:
                mentions.append(Mention(category, start + len(phrase) - 1))
            start += len(phrase)
        return mentions

    def _phrase_at(self, words: Sequence[str], start: int) -> Phrase:
        """The longest known phrase that begins at ``start``, or else the word there."""
        ends = range(min(start + self._longest, len(words)), start, -1)
        phrases = (tuple(words[start:end]) for end in ends)
        return next((phrase for phrase in phrases if phrase in self._meanings), (words[start],))


def read_synonyms(file: Path) -> dict[str, str]:
    """A list of synonyms: for each category its name and its synonyms in the form of ``SYNONYMS``.

    ``file``: a category a line, its name first, separated by commas.

    Raises:
        DataError: the file cannot be read.
    """
    lines = read_text(file, "synonyms").splitlines()
    lists = [[" ".join(tokenize(word)) for word in line.split(",")] for line in lines]
    return {listed[0]: ", ".join(filter(None, listed)) for listed in lists}


def _meanings(own: Mapping[str, Phrase]) -> Meanings:
    """The phrases of ``SYNONYMS`` for the categories ``own``, names with their words."""
    known = {" ".join(phrase): name for name, phrase in own.items()}
    meanings: Meanings = dict.fromkeys(_forms_of_list(OTHER_THINGS))
    for animal in ANIMALS:
        kinds = [*_forms((animal,)), *_forms_of_list(SYNONYMS.get(animal, ""))]
        meanings |= {(age, *kind): known.get(animal) for age in AGES for kind in kinds}
    for name, listed in SYNONYMS.items():
        if name in known:
            meanings |= dict.fromkeys(_forms_of_list(listed), known[name])
    # Last, because a file with the categories "woman" and "person" means the former by "woman".
    for name, phrase in own.items():
        meanings |= dict.fromkeys(_forms(phrase), name)
    return meanings


def _published_meanings(own: Mapping[str, Phrase], synonyms: Mapping[str, str]) -> Meanings:
    """The phrases of a list of synonyms, read by the published rules."""
    if lacking := [name for name, phrase in own.items() if " ".join(phrase) not in synonyms]:
        raise DataError(f"The list of synonyms has no line for {', '.join(lacking)}.")
    meanings: Meanings = dict.fromkeys(_forms_of_list(PUBLISHED_PHRASES))
    for name, phrase in own.items():
        meanings |= dict.fromkeys(_forms_of_list(synonyms[" ".join(phrase)]), name)
    for modifier, nouns in PUBLISHED_MODIFIERS.items():
        forms = _forms_of_list(", ".join(nouns))
        meanings |= {(modifier, *form): meanings.get(form) for form in forms}
    return meanings | {(toilet, "seat"): meanings.get((toilet,)) for toilet in ("toilet", "toilets")}


def plurals(word: str) -> tuple[str, ...]:
    """The plural forms of an English noun."""
    if word in IRREGULAR:
        return IRREGULAR[word]
    if word.endswith(("s", "x", "z", "ch", "sh")):
        return (word + "es",)
    if word.endswith("y") and word[-2:-1] not in "aeiou":
        return (word[:-1] + "ies",)
    return (word + "s",)


def _cut(name: str) -> Phrase:
    """A name cut as captions are cut for scoring."""
    return tuple(cut_for_scoring(" ".join(tokenize(name))).split())


def _forms_of_list(listed: str) -> Iterator[Phrase]:
    for text in filter(None, listed.split(", ")):
        yield from _forms(tuple(text.split()))


def _forms(phrase: Phrase) -> Iterator[Phrase]:
    """A phrase in the singular and in its plurals."""
    yield phrase
    if phrase:
        yield from ((*phrase[:-1], plural) for plural in plurals(phrase[-1]))
