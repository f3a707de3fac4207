"""Another place for the same data: a path in a source string, replaced."""

from __future__ import annotations

from distill.data.splits import SourceError
from distill.names import DATA

# Sources that lie nowhere: they come with a package, or are drawn.
_PLACELESS = ("digits", "glyphs")


def source_at(source: str, place: str) -> str:
    """The source string of data that now lie elsewhere.

    Args:
        source: as in a recipe, for example "folder:photos".
        place: a path, or a whole source string, such as "packed:photos-64".

    Returns:
        The place itself where it is a source string, else the source with this path.

    Raises:
        SourceError: for a source that has no path.
    """
    name, _, argument = source.partition(":")
    if place.partition(":")[0] in DATA:
        return place
    if name in _PLACELESS:
        raise SourceError(f"source {source!r} has no place on a disk; leave --data out")
    if name not in DATA and argument:
        # Code of the user's own, MODULE:OBJECT:PATH.
        return f"{name}:{argument.partition(':')[0]}:{place}"
    if name == "torchvision":
        return f"{name}:{argument.partition(':')[0]}:{place}"
    return f"{name}:{place}"
