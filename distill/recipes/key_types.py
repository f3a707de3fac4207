"""Types of recipe keys: ranges of numbers, lists of names, and tables. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from distill.errors import RecipeError
from distill.names import GRADIENTS, PROTOCOLS, TEACHERS, choices, is_own_teacher, spelt_families
from distill.recipes.specs import parse_codec, parse_coding


def split_commas(value: Any) -> Any:
    """A list as it is, or the parts of a text that are separated by commas."""
    if not isinstance(value, str):
        return value
    return [part.strip() for part in value.split(",") if part.strip()]


NameList = Annotated[list[str], BeforeValidator(split_commas)]

# Work is done in 32-bit numbers, which hold 1e-38 to 3e38, and multiplies these.
_LEAST, _MOST = 1e-30, 1e30


def _in_range(value: float) -> float:
    if value and not _LEAST <= value <= _MOST:
        raise ValueError(f"it should lie in {_LEAST:g} to {_MOST:g}, as 32-bit numbers need")
    return value


Positive = Annotated[float, Field(gt=0, allow_inf_nan=False), AfterValidator(_in_range)]

NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False), AfterValidator(_in_range)]

# A softmax divisor, up to what label codecs take; below, a float16 logit would be infinite.
Temperature = Annotated[float, Field(ge=0.001, le=1000)]

Count = Annotated[int, Field(ge=1)]

Share = Annotated[float, Field(gt=0, le=1)]

NotNegativeCount = Annotated[int, Field(ge=0)]

BatchSize = Annotated[int, Field(ge=2)]

Precision = Literal["float32", "bfloat16"]

Compile = Literal["auto", "on", "off"]


class Table(BaseModel):
    """A table of a recipe: unknown keys are errors, and values do not change.

    Attributes:
        renamed: keys of earlier versions -> their names now.
    """

    renamed: ClassVar[Mapping[str, str]] = {}

    model_config = ConfigDict(extra="forbid", frozen=True)


# How the images of a batch are mixed; the same as synth's MixKind, which needs torch.
Mixing = Literal["none", "cutmix", "mixup"]

LABEL_SOURCES = ("hard", "learned", "votes", "projector")


def _codec(text: str) -> str:
    try:
        return parse_codec(text).text
    except RecipeError as error:
        raise ValueError(str(error)) from None


def _label_source(name: str) -> str:
    if name in LABEL_SOURCES:
        return name
    try:
        return parse_codec(name).text
    except RecipeError as error:
        sources = ", ".join(repr(source) for source in LABEL_SOURCES)
        raise ValueError(f"it should be {sources}, or a codec of the set: {error}") from None


def _coding(text: str) -> str:
    try:
        parse_coding(text)
    except RecipeError as error:
        raise ValueError(str(error)) from None
    return text


CodingText = Annotated[str, AfterValidator(_coding)]

CodecText = Annotated[str, AfterValidator(_codec)]

LabelSource = Annotated[str, AfterValidator(_label_source)]


# Families of views joined by underscores; a name for several is spelt out.
Families = Annotated[str, AfterValidator(spelt_families)]


def _one_of(names: Iterable[str]) -> Callable[[str], str]:
    """A check that a text is one of these names; a registry is read when the check runs."""

    def check(name: str) -> str:
        known = list(names)
        if name in known:
            return name
        shown = ", ".join(repr(other) for other in known[:-1])
        raise ValueError(f"it should be {shown} or {known[-1]!r}")

    return check


def _fresh(spec: str) -> str:
    own = is_own_teacher(spec)
    name = spec if own else spec.partition(":")[0]
    if own or name in TEACHERS:
        raise ValueError(
            f"{name} is a teacher with weights of its own; name a network that starts anew"
        )
    return spec


# A network with random weights, which a teacher is not.
FreshNetwork = Annotated[str, AfterValidator(_fresh)]

Gradient = Annotated[str, AfterValidator(_one_of(GRADIENTS))]

Protocol = Annotated[str, AfterValidator(_one_of(PROTOCOLS))]

MatchImages = Annotated[str, AfterValidator(_one_of(choices("match.init")))]

MatchLabels = Annotated[str, AfterValidator(_one_of(choices("match.label_init")))]

Vote = Annotated[str, AfterValidator(_one_of(choices("committee.vote")))]

Schedule = Annotated[str, AfterValidator(_one_of(choices("recover.schedule")))]

RecoverStart = Annotated[str, AfterValidator(_one_of(choices("recover.init")))]

SelectMethod = Annotated[str, AfterValidator(_one_of(choices("select.method")))]

Aggregate = Annotated[str, AfterValidator(_one_of(choices("relabel.aggregate")))]


class MakerTable(Table):
    """A table that says how the images of the set are made; a recipe has one such table."""

    ipc: Count

    @property
    def tiles(self) -> int:
        """How many real images, or crops of them, are tiled along a side of a stored one."""
        return 1

    @property
    def real_per_class(self) -> int:
        """Real images of each class that a set is made from, at least 1."""
        return self.ipc * self.tiles**2
