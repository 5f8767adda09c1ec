"""Commands about recipes: recipes, import-config."""

from pathlib import Path
from typing import Annotated

import typer

from facescale.cli.app import JsonOption, app, show, table


@app.command()
def recipes(
    name: Annotated[str | None, typer.Argument(help="Print this recipe, its figures and memory.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List the recipes, or print one.

    facescale train NAME trains it. To change a recipe, write a TOML file that begins with extends = "NAME",
    or use --set.
    """
    from facescale.recipes.recipe import all_recipes, describe, read_recipe

    if name is None:
        rows = [recipe.row() for recipe in all_recipes()]
        show(rows, as_json, table(rows))
    else:
        recipe = read_recipe(name)
        show({**recipe.row(), "config": recipe.config.model_dump(mode="json")}, as_json, describe(recipe))


@app.command("import-config")
def import_config(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILES",
            help="Config of arcface_torch or AttFC (.py); main.py, .sh and optim_config of F2C.",
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="TOML file to write; printed if omitted.")] = None,
    processes: Annotated[int, typer.Option(min=1, help="GPUs it ran on; its batch is for one of them.")] = 8,
) -> None:
    """Translate a config of another project.

    The config is parsed, never executed. What has no counterpart is printed, and listed in comments at the
    top of the file.
    """
    from facescale.files import write_atomically
    from facescale.recipes.import_config import import_configs

    text = import_configs(files, processes)
    if out is None:
        print(text, end="")
    else:
        write_atomically(out, text)
        comments = [line.removeprefix("# ") for line in text.splitlines() if line.startswith("# ")]
        print(*comments[1:], sep="\n", end="\n" * (len(comments) > 1))
        print(f"{out}: facescale train {out} --run runs/{out.stem}")
