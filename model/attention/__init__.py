"""The attention mechanisms. docs/attention.md explains the family.

Each is a class with the interface of ``model.attention.interface``, registered by ``attention_kind`` in a
module of this package. All modules here are imported, so adding a mechanism is adding a class; nothing
outside the package depends on which mechanism is used.
"""

from importlib import import_module
from pkgutil import iter_modules

from model.attention.interface import ATTENTION_KINDS, Attention, AttentionMaps, Memory, Query, Sizes
from model.errors import CheckpointError

__all__ = ["ATTENTION_KINDS", "Attention", "AttentionMaps", "Memory", "Query", "Sizes", "build_attention"]

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")


def build_attention(kind: str, sizes: Sizes) -> Attention:
    """The attention mechanism of that name, with random weights.

    Raises:
        CheckpointError: there is no such mechanism, or it cannot have these sizes.
    """
    if kind not in tuple(ATTENTION_KINDS):  # a damaged file may hold an unhashable value
        raise CheckpointError(
            f"There is no attention kind {kind!r}; choose one of {', '.join(ATTENTION_KINDS)}."
        )
    return ATTENTION_KINDS[kind](sizes)
