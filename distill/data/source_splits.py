"""The request to a data source, and the splits that it returns."""

from dataclasses import dataclass
from pathlib import Path

from distill.data.splits import DataError, SourceError, Split


@dataclass(frozen=True)
class Request:
    """What `load_data` requests from a source.

    Attributes:
        source: the whole source string, for messages.
        argument: what follows the colon, "" if nothing does.
        size: requested height and width in pixels, None for the images' own.
        channels: 1, 3, or None for the images' own.
        skip_damaged: leave out pictures that cannot be read, and rows without one or a class.
    """

    source: str
    argument: str
    size: int | None = None
    channels: int | None = None
    skip_damaged: bool = False

    def path(self) -> Path:
        """The argument as a path, with a leading `~` expanded.

        Raises:
            SourceError: when there is no argument, or no such home folder.
        """
        if not self.argument:
            name = self.source.partition(":")[0]
            raise SourceError(f"source {self.source!r} lacks a path; write it as {name}:PATH")
        try:
            return Path(self.argument).expanduser()
        except RuntimeError as error:
            raise SourceError(
                f"source {self.source!r}: no home folder for '~' is known; write the whole path"
            ) from error


@dataclass(frozen=True, eq=False)
class SourceSplits:
    """The splits of a data source.

    Attributes:
        train: training images, validation not yet cut unless `validation` is given.
        test: test images.
        class_names: one name per class, in the order of the labels.
        validation: the source's own validation images, or None.
        packed: whether the images stay on the disk and are read by batches.
        digest: of packed data as they are; None where they were cut or changed.
        notes: sentences on what was passed over, left out, or taken for something else.
        damaged: what was left out as damaged, and what is wrong with each.
    """

    train: Split
    test: Split
    class_names: tuple[str, ...]
    validation: Split | None = None
    packed: bool = False
    digest: str | None = None
    notes: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()

    @property
    def three(self) -> tuple[Split, Split, Split]:
        """Training, validation and test images.

        Raises:
            DataError: where validation has not been cut yet.
        """
        if self.validation is None:
            raise DataError("no validation images came, they are needed; cut the parts first")
        return self.train, self.validation, self.test
