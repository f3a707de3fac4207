"""Codecs of a user's own, which a container names by an id that nothing here has registered."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from distill.errors import WorkError
from distill.names import allowed_modules
from projectors.codecs import CODECS, register
from projectors.codecs.registry import codecs_of


def register_own(config: Mapping[str, Any]) -> None:
    """Register the codecs of the modules that the user has allowed, if a container needs them.

    Args:
        config: of the codec that wrote the container.

    Raises:
        WorkError: if such a module cannot be imported.
        CodecError: if the id of one is that of another codec.
    """
    inner = config.get("inner")
    ids = [part.get("id") for part in (config, inner) if isinstance(part, Mapping)]
    if all(codec_id in CODECS for codec_id in ids):
        return
    for name in allowed_modules():
        try:
            module = importlib.import_module(name)
        except Exception as error:  # noqa: BLE001 - a user's own code may raise anything
            raise WorkError(
                f"the module {name} cannot be imported ({type(error).__name__}: "
                f"{' '.join(str(error).split())[:200]}); put its folder on PYTHONPATH, or mend it"
            ) from None
        for codec in codecs_of(module):
            register(codec)
