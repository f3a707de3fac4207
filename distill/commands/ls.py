"""`distill ls`: every name that a recipe or command may use. Imports no torch."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping

import click

from distill import names as registry
from distill.commands.options import NameChoice, as_json, debug
from distill.terminal import echo, echo_json

Rows = list[dict[str, str]]


def _entries(table: Mapping[str, registry.Entry]) -> Rows:
    return [
        {"name": entry.name, "summary": entry.summary, "source": entry.source}
        for entry in table.values()
    ]


Optioned = registry.NetworkEntry | registry.CodecEntry | registry.CodingEntry


def _with_options(table: Mapping[str, Optioned]) -> Rows:
    rows = _entries(table)
    for row in rows:
        options = table[row["name"]].options
        row["options"] = ":".join(f"{key}={value}" for key, value in options.items())
    return rows


def _recipes() -> Rows:
    # Not above: the help of the whole program has no need of the models of recipes.
    from distill.recipes.loading import recipe_text

    rows = []
    for name in registry.recipe_names():
        raw = tomllib.loads(recipe_text(name))
        summary, origin = str(raw.get("summary", "")), str(raw.get("origin", "Limbeck"))
        rows.append({"name": name, "summary": summary, "source": origin})
    return rows


def _protocols() -> Rows:
    rows = _entries(registry.PROTOCOLS)
    for row in rows:
        sets = registry.PROTOCOLS[row["name"]].sets
        shown = [f"{key}={value}" for key, value in sets.items() if key not in registry.UNCHANGED]
        row["options"] = ":".join(shown)
    return rows


KINDS: dict[str, Callable[[], Rows]] = {
    "recipes": _recipes,
    "data": lambda: _entries(registry.DATA),
    "networks": lambda: _with_options(registry.NETWORKS),
    "teachers": lambda: _with_options(registry.TEACHERS),
    "codecs": lambda: _with_options(registry.CODECS),
    "codings": lambda: _with_options(registry.CODINGS),
    "strategies": lambda: _entries(
        {**registry.STRATEGIES, **registry.MAKING, **registry.LABELLING}
    ),
    "gradients": lambda: _entries(registry.GRADIENTS),
    "protocols": _protocols,
    "layouts": lambda: [
        *_entries(registry.LAYOUTS),
        *_entries(registry.EXPERT_LAYOUTS),
        *_entries(registry.HUB_LAYOUTS),
    ],
    "formats": lambda: _entries(registry.FORMATS),
    "loggers": lambda: _entries(registry.LOGGERS),
    "projector-formats": lambda: _entries(registry.PROJECTOR_FORMATS),
}


@click.command()
@click.argument("kind", required=False, type=NameChoice(list(KINDS)))
@as_json
@debug
def ls(kind: str | None, as_json: bool, debug: bool) -> None:
    """List recipes, data, networks, teachers, codecs, codings, strategies, gradients, protocols.

    \b
    Example:
      distill ls networks
    """
    chosen = {name: KINDS[name]() for name in ([kind] if kind else KINDS)}
    if as_json:
        echo_json(chosen)
        return
    for name, rows in chosen.items():
        if not rows and kind is None:
            continue
        echo(name, bold=True)
        width = max((len(row["name"]) for row in rows), default=0)
        for row in rows:
            options = f" [{row['options']}]" if row.get("options") else ""
            echo(f"  {row['name']:<{width}}  {row['summary']} ({row['source']}){options}")
