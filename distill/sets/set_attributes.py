"""What the root attributes of a set.h5 must be, whoever wrote them."""

from __future__ import annotations

from typing import Any

# Of these only the type is known here; whoever uses one says what it does not know.
_TEXTS = ("augmentation", "network", "recipe_digest")


def attribute_problem(manifest: dict[str, Any]) -> str | None:
    """What is wrong with the attributes of a set, or None.

    Args:
        manifest: the attributes by name, see `distill.sets.set_file`.
    """
    names, lr, seed = manifest["class_names"], manifest["student_lr"], manifest["seed"]
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        return f"class_names is {names!r}, need a list of names"
    if not isinstance(lr, float) or not 0 < lr < float("inf"):
        return f"student_lr is {lr!r}, need a number above 0"
    if type(seed) is not int or not 0 <= seed < 2**63:
        return f"seed is {seed!r}, need a whole number from 0 below 2^63"
    for name in _TEXTS:
        if not isinstance(manifest[name], str):
            return f"{name} is {manifest[name]!r}, need a text"
    if not isinstance(manifest["source"], dict) or "digest" not in manifest["source"]:
        return "source lacks the digest of the real data"
    if not isinstance(manifest["recipe"], dict):
        return "recipe holds no tables"
    if type(manifest["factor"]) is not int or manifest["factor"] < 1:
        return f"factor is {manifest['factor']!r}, need a whole number of at least 1"
    return None
