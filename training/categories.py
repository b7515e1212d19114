"""The words that name the object categories of an annotation file.

Knows nothing of photographs, networks or attention. A category's own name and its plural always name it,
whatever the file is about. For the 80 categories of COCO there are ``SYNONYMS`` besides, by these rules:

* A word is listed if in captions it nearly always means a thing that COCO annotators give a box of
  that category. Most are also in the list of the CHAIR measure (Rohrbach et al. 2018), which is longer.
* Left out is what has another common meaning in captions (bat, glass, plate, seat, bag, ski, pitcher,
  batter, scooter, plant, desk, computer, luggage, van, male, female), what is the name of a sport
  (baseball, football), what stands for several things of any kind (group, crowd, couple, team, family),
  and pronouns.
* Phrases are matched before the words in them, so "hot dog" is no dog and "microwave oven" is no oven.
  ``OTHER_THINGS`` are phrases in which a category's word names something else.

What the lists cannot know: a word that describes ("orange shirt", "dog toy") or acts ("men tie a rope").
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, Self

from model.vocabulary import tokenize

SYNONYMS: Mapping[str, str] = {  # singular, by commas
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

# Young and old of these are not persons, though "baby", "adult" and "mother" alone are.
ANIMALS = ("bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe")
AGES = ("baby", "adult", "mother")

OTHER_THINGS = (
    "hot dog, teddy bear, stuffed bear, baby carriage, baby stroller, baby pool, baby swing, record player, "
    "cd player, dvd player, car seat, train station, train track, train platform, bus stop, bus station, "
    "jet ski, bird cage, rubber duck, toy duck, dog bed, truck bed, flower bed, river bed, tie dye, "
    "tie dyed, ball pit, ball cap, table tennis, pool table, chair lift, book bag, toaster oven, "
    "toilet paper, mickey mouse, mouse pad, phone booth, pay phone, remote controlled"
)

# The rules of the published CHAIR code beside its list of synonyms (LisaAnne/Hallucination, utils/chair.py):
# pairs of words that are read as one, whether or not the list has them, and words that change nothing.
PUBLISHED_PAIRS = (
    "motor bike, motor cycle, air plane, traffic light, street light, traffic signal, stop light, fire "
    "hydrant, "
    "stop sign, parking meter, suit case, sports ball, baseball bat, baseball glove, tennis racket, wine "
    "glass, "
    "hot dog, cell phone, mobile phone, teddy bear, hair drier, potted plant, bow tie, laptop computer, "
    "stove top oven, home plate, train track"
)
PUBLISHED_AGES = ("baby", "adult")
PUBLISHED_ANIMALS = (*ANIMALS, "animal", "cub")
PUBLISHED_VEHICLES = ("jet", "train")  # "passenger train"

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


class Mention(NamedTuple):
    """A word or phrase of a caption that names a category."""

    category: str  # as the annotation file calls it
    position: int  # of the word in the caption; of a phrase, its last word


class CategoryWords:
    """Finds in captions the words that name the categories of one annotation file."""

    def __init__(self, categories: Iterable[str]) -> None:
        """``categories``: their names as the file writes them."""
        own = {name: tuple(tokenize(name.replace("_", " "))) for name in categories}
        known = {" ".join(phrase): name for name, phrase in own.items()}
        self._meanings: dict[Phrase, str | None] = dict.fromkeys(_forms_of_list(OTHER_THINGS))
        for animal in ANIMALS:
            kinds = [*_forms((animal,)), *_forms_of_list(SYNONYMS.get(animal, ""))]
            self._meanings |= {(age, *kind): known.get(animal) for age in AGES for kind in kinds}
        for name, listed in SYNONYMS.items():
            if name in known:
                self._meanings |= dict.fromkeys(_forms_of_list(listed), known[name])
        # Last, for a file that has "woman" beside "person" means the one by the word, not the other.
        for name, phrase in own.items():
            self._meanings |= dict.fromkeys(_forms(phrase), name)
        self._longest = max(map(len, self._meanings), default=1)

    @classmethod
    def from_synonyms(cls, synonyms: str, categories: Iterable[str]) -> Self:
        """The words of a list of synonyms, read by the rules of the published CHAIR code.

        Those are, beside the list: two words that make one (``PUBLISHED_PAIRS``), a young animal is that
        animal, a passenger train that train, and a toilet seat is a toilet and no chair.

        Args:
            synonyms: a category a line, its name and then its synonyms, by commas.
            categories: which of them are looked for.

        Raises:
            ValueError: a category has no line.
        """
        lists = [[" ".join(tokenize(part)) for part in line.split(",")] for line in synonyms.splitlines()]
        by_name = {listed[0]: list(filter(None, listed)) for listed in lists}
        own = {name: " ".join(tokenize(name.replace("_", " "))) for name in categories}
        if lacking := [name for name, phrase in own.items() if phrase not in by_name]:
            raise ValueError(f"the list of synonyms has no line for {', '.join(lacking)}")
        words = cls(())
        meanings: dict[Phrase, str | None] = {}
        for name, phrase in own.items():
            meanings |= dict.fromkeys(_forms_of_list(", ".join(by_name[phrase])), name)
        for pair in _forms_of_list(PUBLISHED_PAIRS):
            meanings.setdefault(pair, None)
        for before, nouns in (
            *((age, PUBLISHED_ANIMALS) for age in PUBLISHED_AGES),
            ("passenger", PUBLISHED_VEHICLES),
        ):
            for form in _forms_of_list(", ".join(nouns)):
                meanings[before, *form] = meanings.get(form)
        toilets = list(_forms(("toilet",)))
        meanings |= {(*toilet, "seat"): meanings.get(toilet) for toilet in toilets}
        words._meanings = meanings
        words._longest = max(map(len, meanings))
        return words

    def find(self, words: Sequence[str]) -> list[Mention]:
        """The mentions in a tokenized caption, from left to right; of phrases that overlap the longest."""
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
        """The longest phrase with a meaning that begins at ``start``, or else the word there."""
        ends = range(min(start + self._longest, len(words)), start, -1)
        phrases = (tuple(words[start:end]) for end in ends)
        return next((phrase for phrase in phrases if phrase in self._meanings), (words[start],))


def plurals(word: str) -> tuple[str, ...]:
    """The plural forms of an English noun."""
    if word in IRREGULAR:
        return IRREGULAR[word]
    if word.endswith(("s", "x", "z", "ch", "sh")):
        return (word + "es",)
    if word.endswith("y") and word[-2:-1] not in "aeiou":
        return (word[:-1] + "ies",)
    return (word + "s",)


def _forms_of_list(listed: str) -> Iterator[Phrase]:
    for text in filter(None, listed.split(", ")):
        yield from _forms(tuple(text.split()))


def _forms(phrase: Phrase) -> Iterator[Phrase]:
    """A phrase in the singular and in its plurals."""
    yield phrase
    if phrase:
        yield from ((*phrase[:-1], plural) for plural in plurals(phrase[-1]))
