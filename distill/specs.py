"""Network specs: `name[:option=value]...`, as in convnet3:width=32:norm=batch. No torch.

The options of a few may be written without their names: torchvision:resnet50.
"""

from __future__ import annotations

from distill.errors import RecipeError
from distill.registry import NETWORKS, NetworkEntry
from distill.suggest import suggestion


def parse_network(spec: str) -> tuple[NetworkEntry, dict[str, int | str]]:
    """The registry's entry for a spec, and all its options with their values.

    Raises:
        RecipeError: for an unknown network or option, or a value of the wrong type.
    """
    name, *parts = spec.split(":")
    if name not in NETWORKS:
        raise RecipeError(f"there is no network {name}; {suggestion(name, NETWORKS)}")
    entry = NETWORKS[name]
    options = dict(entry.options)
    for part in parts:
        key, separator, value = part.partition("=")
        if entry.bare and not separator:
            key, separator, value = entry.bare, "=", part
        if not separator or key not in options:
            raise RecipeError(f"network {spec}: unknown option {key}; {suggestion(key, options)}")
        options[key] = _value(spec, key, value, options[key])
    return entry, options


def _value(spec: str, key: str, value: str, default: int | str) -> int | str:
    if isinstance(default, str):
        return value
    if not value.isdecimal() or int(value) < 1:
        raise RecipeError(f"network {spec}: {key} is {value!r}; it must be a whole number above 0")
    return int(value)
