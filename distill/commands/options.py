"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

from distill.errors import suggestion
from distill.names import LOGGERS, NO_LOGGER, allowed_code, recipe_names
from distill.terminal import echo

if TYPE_CHECKING:
    from distill.recipes.schema import Recipe

Command = TypeVar("Command", bound=Callable[..., Any])


class NameChoice(click.Choice[str]):
    """A choice of names that suggests the nearest one."""

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:
        """What came, and what may have been meant."""
        return f"{value!r} is unknown; {suggestion(str(value), map(str, self.choices))}"


DEVICES = NameChoice(["auto", "cpu", "cuda"])

debug = click.option("--debug", is_flag=True, help="Show the traceback of an error.")

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")

quiet = click.option("--quiet", "-q", is_flag=True, help="Show no progress.")


class Workers(click.ParamType):
    """A number of workers, or "auto"."""

    name = "auto|N"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | str:
        """The number, at least 1; "auto" as it is."""
        if value == "auto":
            return "auto"
        if not str(value).isascii() or not str(value).isdigit() or int(value) < 1:
            self.fail(f"{value!r} is no number of workers; give one from 1 on, or auto", param, ctx)
        return int(value)


workers = click.option(
    "--workers",
    type=Workers(),
    default="auto",
    show_default=True,
    help="Networks trained at once, each on one thread: results depend neither on this number nor "
    "on the engine; 1: one after another. auto: as many as cores and memory allow, and one for "
    "short work or on a GPU; with Ray, one per CPU. With Ray, N also limits the processes that "
    "share the segments of matching.",
)

engine = click.option(
    "--engine",
    type=NameChoice(["local", "ray"]),
    default="local",
    show_default=True,
    help="What does independent work: processes of this machine, or a Ray cluster.",
)

address = click.option(
    "--address",
    metavar="HOST:PORT",
    help="Ray cluster to use; default: one that is started on this machine.",
)

licence = click.option(
    "--licence",
    "--license",
    "licence",
    default="unknown",
    show_default=True,
    help="SPDX identifier for the card, such as cc-by-4.0.",
)

device = click.option("--device", type=DEVICES, help="Where to compute; default: the recipe's.")


place = click.option(
    "--data",
    "place",
    metavar="PLACE",
    help="Where the real data lie now: a path, or a source such as packed:FOLDER; default: where "
    "the recipe says. Their digest must be that of the data that the set was made from.",
)


def html_page(shows: str) -> Callable[[Command], Command]:
    """The option --html, of commands that also write a page of pictures."""
    return click.option(
        "--html",
        metavar="FILE",
        type=click.Path(path_type=Path, dir_okay=False),
        help=f"Also write a page with {shows}.",
    )


def read_recipe(
    name: str,
    overrides: Sequence[str],
    *,
    seed: int | None = None,
    budget: int | None = None,
    quiet: bool = False,
) -> Recipe:
    """The recipe of a command, checked as far as that takes no torch; see `load_recipe`.

    Unless quiet, a note says where another one is read within a budget.
    """
    from distill.recipes.early import check_early
    from distill.recipes.loading import load_recipe, recipe_within

    recipe = load_recipe(name, list(overrides), seed, budget)
    read = name if budget is None else recipe_within(name, list(overrides))
    if read != name and not quiet:
        echo(f"note: within a budget of bytes, {name} is made as {read}", err=True)
    check_early(recipe)
    return recipe


def complete_recipe(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Names of packaged recipes that begin so; files, where none does."""
    names = [CompletionItem(name) for name in recipe_names() if name.startswith(incomplete)]
    return names or [CompletionItem(incomplete, type="file")]


recipe_argument = click.argument("recipe", shell_complete=complete_recipe)


def _allow_code(
    context: click.Context, parameter: click.Parameter, modules: tuple[str, ...]
) -> tuple[str, ...]:
    """Let specs name what these modules define while the command runs."""
    if modules:
        context.with_resource(allowed_code(modules))
    return modules


allow_code = click.option(
    "--allow-code",
    multiple=True,
    metavar="MODULE|FILE",
    expose_value=False,
    callback=_allow_code,
    help="Let specs such as MODULE:Network name networks, data sources and codecs that this Python "
    "module of your own defines, which is then imported and run, or load this program of "
    "torch.export (FILE.pt2); no recipe can do so by itself. May be given several times.",
)


def recipe_options(command: Command) -> Command:
    """RECIPE --out --set --seed --device --engine --address --workers and so on."""
    options = (
        recipe_argument,
        click.option(
            "--out",
            required=True,
            type=click.Path(path_type=Path),
            help="Folder of the run; created, or resumed if it exists.",
        ),
        click.option(
            "--set",
            "overrides",
            multiple=True,
            metavar="TABLE.KEY=VALUE",
            help="Override a key of the recipe; may be given several times.",
        ),
        click.option("--seed", type=click.IntRange(0, 2**31 - 1), help="Override the seed."),
        device,
        engine,
        address,
        workers,
        click.option(
            "--download",
            is_flag=True,
            help="First fetch what the recipe names and is not here: a data set of torchvision or "
            "Hugging Face, weights of torchvision's members, the projector's tower.",
        ),
        click.option(
            "--reuse",
            multiple=True,
            metavar="RUN|FILE",
            type=click.Path(path_type=Path),
            help="Take experts, committee, projector and images of the set from the folder of "
            "another run, where its recipe asks for the same, or experts from a file that "
            "`distill import --from buffers` made; may be given several times.",
        ),
        click.option(
            "--log",
            multiple=True,
            type=NameChoice([*LOGGERS, NO_LOGGER]),
            help="Also show metrics in this program; may be given several times. Default: "
            "tensorboard, where it is installed.",
        ),
        allow_code,
        quiet,
        as_json,
        debug,
    )
    for option in reversed(options):
        command = option(command)
    return command
