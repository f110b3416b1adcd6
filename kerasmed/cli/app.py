"""The application that commands register with."""

from typing import Annotated

import typer

from kerasmed import __version__

app = typer.Typer(
    help="Labelled synthetic medical images, and the evidence of what they are worth.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

data_app = typer.Typer(help="The images and their split.", no_args_is_help=True)
train_app = typer.Typer(help="Train one kind of network.", no_args_is_help=True)
app.add_typer(data_app, name="data")
app.add_typer(train_app, name="train")


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Labelled synthetic medical images, and the evidence of what they are worth."""
    if version:
        print(f"kerasmed {__version__}")
        raise typer.Exit
