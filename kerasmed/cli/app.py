"""The application that commands register with."""

from typing import Annotated

import typer

from kerasmed import __version__

app = typer.Typer(
    help="Labelled synthetic medical images, and evidence of their usefulness and privacy.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,  # rich takes longer to import than everything else that --help needs
    context_settings={"max_content_width": 120},
)

data_app = typer.Typer(help="Find, check and split images.", no_args_is_help=True)
train_app = typer.Typer(help="Train the diffusion model or the classifiers.", no_args_is_help=True)
app.add_typer(data_app, name="data")
app.add_typer(train_app, name="train")


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    """Labelled synthetic medical images, and evidence of their usefulness and privacy."""
    if version:
        print(f"kerasmed {__version__}")
        raise typer.Exit
