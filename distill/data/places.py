"""Another place for the same data: a path in a source string, replaced."""

from __future__ import annotations

from pathlib import Path

from distill.data.splits import SourceError
from distill.names import DATA

# Sources that lie nowhere: they come with a package, or are drawn.
_PLACELESS = ("digits", "glyphs")

# Sources whose argument is a path.
_PATHS = ("folder", "npz", "packed")

# How far above a run its data are looked for: "runs/grown/new" lies three below where it began.
_ABOVE = 3


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


def source_near(source: str, folder: Path) -> str:
    """The source string of a run's data, seen from another directory than the run began in.

    Args:
        source: as in a recipe; of use is a relative path, such as in "folder:photos".
        folder: of the run.

    Returns:
        The source with the path as it leads from `folder`, or from the nearest of the three above
        it, where something is there and nothing where the program runs; else the source as it is.
    """
    name, _, argument = source.partition(":")
    if name not in _PATHS or not argument or Path(argument).exists():
        return source
    near = folder.resolve()
    places = (above / argument for above in (near, *near.parents[:_ABOVE]))
    found = next((place for place in places if place.exists()), None)
    return source if found is None else f"{name}:{found}"
