"""The recipe's table [encode]. Imports no torch."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from distill.recipes.key_types import CodecText, Count, Table


class EncodeTable(Table):
    """Voted labels in fewer bytes; exactly one of the keys says which codec."""

    codec: CodecText | None = None
    target_bytes: Count | None = None
    max_loss: Annotated[float, Field(ge=0, lt=1)] | None = None

    @model_validator(mode="after")
    def _has_one_key(self) -> EncodeTable:
        given = [key for key, value in self if value is not None]
        if len(given) != 1:
            raise ValueError(
                f"got {', '.join(given) or 'nothing'}; give one of codec, target_bytes, max_loss"
            )
        return self
