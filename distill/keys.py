"""What recipe keys are made of: ranges of numbers, lists of names, and tables. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def split(value: Any) -> Any:
    """A list, or text whose parts are separated by commas."""
    if not isinstance(value, str):
        return value
    return [part.strip() for part in value.split(",") if part.strip()]


Names = Annotated[list[str], BeforeValidator(split)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0, le=1)]
NotNegativeCount = Annotated[int, Field(ge=0)]
BatchSize = Annotated[int, Field(ge=2)]
Precision = Literal["float32", "bfloat16"]


class Table(BaseModel):
    """A table of a recipe: unknown keys are errors, and values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)
