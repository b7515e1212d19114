"""The table of decoding options: its validator and its command-line arguments."""

import argparse
import math
from dataclasses import fields, replace

import pytest

from model import DecodingOptions, OptionsError

GIVEN = DecodingOptions(
    beam_size=5,
    num_captions=2,
    max_length=9,
    length_penalty=1.0,
    phrase_weight=0.5,
    allow_repeats=True,
    draw_seed=7,
)


@pytest.mark.parametrize(
    ("option", "value", "right"),
    [
        ("beam_size", 0, "a whole number from 1 to 10"),
        ("beam_size", 11, "a whole number from 1 to 10"),
        ("beam_size", 2.5, "a whole number"),
        ("beam_size", True, "a whole number"),
        ("beam_size", None, "a whole number"),
        ("num_captions", 4, r"from 1 to 3 \(the beam size\)"),
        ("max_length", 201, "from 1 to 200"),
        ("length_penalty", "1", "a number from 0 to 2"),
        ("length_penalty", math.nan, "a number from 0 to 2"),
        ("phrase_weight", -1, "a number from 0 to 100"),
        ("allow_repeats", "no", "true or false"),
        ("draw_seed", -1, "from 0 to 4294967295"),
    ],
)
def test_invalid_option_is_named_with_its_limits(option, value, right):
    with pytest.raises(OptionsError, match=f"{option} is {value!r}; it must be .*{right}"):
        DecodingOptions(**{option: value})


def test_every_option_can_be_set_on_the_command_line():
    parser = argparse.ArgumentParser()
    DecodingOptions.add_arguments(parser)
    line = []
    for option in fields(GIVEN):
        value = getattr(GIVEN, option.name)
        line += [f"--{option.name.replace('_', '-')}", *([] if value is True else [str(value)])]
    assert DecodingOptions.from_values(vars(parser.parse_args(line))) == GIVEN
    assert DecodingOptions.from_values(vars(parser.parse_args([]))) == DecodingOptions()
    assert "from 1 to 10; default 3" in " ".join(parser.format_help().split())


def test_named_options_alone_are_added():
    parser = argparse.ArgumentParser()
    DecodingOptions.add_arguments(parser, "beam_size", "draw_seed")
    assert vars(parser.parse_args(["--draw-seed", "7"])) == {"beam_size": None, "draw_seed": 7}


def test_from_values_ignores_other_fields_and_none():
    assert DecodingOptions.from_values({"beam_size": None, "draw_seed": 7, "overlays": "words"}) == replace(
        DecodingOptions(), draw_seed=7
    )
