"""Options as dataclass fields: default, limits and help in one place, for Python, command line and HTTP."""

import math
from collections.abc import Collection, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Protocol

from model.errors import CaptioningError, OptionsError

MAX_CHOICES_LISTED = 20  # in a help text


class ArgumentParser(Protocol):
    """What ``add_arguments`` needs of an argparse parser or argument group."""

    def add_argument(self, flag: str, /, **settings: Any) -> Any:
        """Add one option."""


@dataclass(frozen=True, kw_only=True)
class Option:
    """What the value of a field may be. Limits are inclusive, but for ``above`` and ``below``."""

    kind: type  # int, float, bool, str or Path
    help: str = ""  # empty: not offered on the command line
    low: float = -math.inf
    high: float = math.inf
    above: float = -math.inf
    below: float = math.inf
    choices: Collection[str] = ()  # of a str; empty: any
    metavar: str = ""

    def allows(self, value: object) -> bool:
        """Whether ``value`` has the right type and is within the limits."""
        if self.kind in (int, float):
            if isinstance(value, bool) or not isinstance(value, int if self.kind is int else int | float):
                return False
            return self.low <= value <= self.high and self.above < value < self.below
        return isinstance(value, self.kind) and (not self.choices or value in self.choices)

    @property
    def limits(self) -> str:
        """The limits in words, such as "from 1 to 10"; empty without any."""
        if math.isfinite(self.low) and math.isfinite(self.high):
            return f"from {self.low} to {self.high}"
        parts = (
            (self.low, f"at least {self.low}"),
            (self.above, f"above {self.above}"),
            (self.high, f"at most {self.high}"),
            (self.below, f"below {self.below}"),
        )
        return " and ".join(words for limit, words in parts if math.isfinite(limit))

    @property
    def valid(self) -> str:
        """What a value must be, in words."""
        if self.kind is bool:
            return "true or false"
        if self.kind not in (int, float):
            return f"one of {', '.join(self.choices)}" if self.choices else f"a {self.kind.__name__}"
        return f"a {'whole ' if self.kind is int else ''}number {self.limits}".rstrip()


def option(default: Any = MISSING, help: str = "", *, kind: type | None = None, **limits: Any) -> Any:
    """A dataclass field with an ``Option`` of these limits; its ``kind`` is the type of the default."""
    found = Option(kind=kind or type(default), help=help, **limits)
    return field(default=default, metadata={"option": found})


def options_of(config: type[Any] | Any) -> dict[str, Option]:
    """The options among the fields of a dataclass or its instance, by name."""
    return {one.name: one.metadata["option"] for one in fields(config) if "option" in one.metadata}


def check_options(
    config: Any, *, subject: str = "{} is", error: type[CaptioningError] = OptionsError, flags: bool = False
) -> None:
    """Check every option of a dataclass; None is valid where it is the default.

    Args:
        config: an instance of the dataclass.
        subject: how an error begins; ``{}`` is the name of the option.
        error: what to raise.
        flags: name options as on the command line.

    Raises:
        error: a value has another type or is outside its limits.
    """
    defaults = {one.name: one.default for one in fields(config)}
    for name, known in options_of(config).items():
        value = getattr(config, name)
        if not (value is None and defaults[name] is None) and not known.allows(value):
            shown = subject.format(flag(name) if flags else name)
            raise error(f"{shown} {value!r}; it must be {known.valid}.")


def flag(name: str) -> str:
    """An option as it is written on the command line."""
    return f"--{name.replace('_', '-')}"


def add_arguments(
    parser: ArgumentParser,
    config: type[Any],
    names: Collection[str] = (),
    *,
    without: Collection[str] = (),
    choices: Mapping[str, Collection[str]] | None = None,
    **defaults: Any,
) -> None:
    """Add the options of a dataclass that have a help text to the command line.

    An option that is not given is parsed as None, which ``given`` leaves out.

    Args:
        parser: where to add them.
        config: the dataclass.
        names: the only ones to add; empty: all.
        without: those not to add.
        choices: of options whose field does not know them.
        defaults: what the help shows where it is not the default of the field.
    """
    fallback = {one.name: one.default for one in fields(config)} | defaults
    for name, known in options_of(config).items():
        if not known.help or name in without or (names and name not in names):
            continue
        if known.kind is bool:
            parser.add_argument(flag(name), action="store_true", default=None, help=known.help)
            continue
        allowed = (choices or {}).get(name, known.choices)
        listed = f"one of {', '.join(allowed)}" if 0 < len(allowed) <= MAX_CHOICES_LISTED else ""
        details = [known.help, known.limits if known.kind in (int, float) else listed]
        if fallback[name] not in (None, "", MISSING):
            details.append(f"default {fallback[name]}")
        parser.add_argument(
            flag(name),
            type=known.kind,
            required=fallback[name] is MISSING,
            choices=allowed or None,
            metavar=known.metavar or {int: "N", float: "X"}.get(known.kind, "NAME"),
            help="; ".join(filter(None, details)).replace("%", "%%"),
        )


def given(config: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Those of ``values``, such as parsed arguments, that are options of a dataclass and not None."""
    return {name: values[name] for name in options_of(config) if values.get(name) is not None}
