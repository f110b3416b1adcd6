"""The application that commands register with."""

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from kerasmed import __version__

# The commands of `kerasmed --help`, in the order in which a user needs them.
WORKFLOW = {
    "Start here": ("demo", "init", "study"),
    "Data": ("data",),
    "Models": ("train", "sample", "export"),
    "Evidence": ("evaluate", "explain", "audit", "judge", "worth", "compare", "report"),
    "Hand over": ("release", "predict", "serve"),
    "Machine": ("doctor", "schema"),
}


class _ByWorkflow(TyperGroup):
    """Lists the commands under the headings of WORKFLOW, each with its first sentence."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write one section for each heading."""
        for heading, names in WORKFLOW.items():
            commands = {name: self.get_command(ctx, name) for name in names}
            rows = [(name, of.get_short_help_str(200)) for name, of in commands.items() if of]
            with formatter.section(heading):
                formatter.write_dl(rows)


app = typer.Typer(
    cls=_ByWorkflow,
    help="Labelled synthetic medical images, and evidence of their usefulness and privacy.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
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
