"""Commands that judge networks and synthetic images: evaluate, explain, audit."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from kerasmed.cli.app import app
from kerasmed.cli.options import (
    Assignments,
    ConfigPath,
    DataOption,
    GreyRangeOption,
    OutOption,
    Precision,
    PrecisionOption,
    ProviderOption,
    parse_range,
    refuse_other_keys,
    refuse_unreadable,
    refuse_with_model,
)
from kerasmed.cli.runs import print_evaluation, run_one_stage
from kerasmed.errors import ConfigError


@app.command()
def evaluate(
    target: Annotated[Path, typer.Argument(metavar="CONFIG|MODEL.onnx")],
    directory: Annotated[
        Path | None,
        typer.Argument(metavar="[DIR]", help="Class folders, .csv or .npz, with MODEL.onnx."),
    ] = None,
    grey_range: GreyRangeOption = None,
    assignments: Assignments = None,
    data: DataOption = None,
    out: OutOption = None,
) -> None:
    """Test the CNNs on real test images, or one ONNX file on images from elsewhere.

    DIR need not have every class of the model: what cannot be computed is named with the reason. Of
    one class alone that is all but the sensitivity. With MODEL.onnx, --set takes split.patient,
    split.group_by, split.pattern, split.run_length, data.official_split, data.masks and
    data.on_bad_image.
    """
    if directory is not None:
        from kerasmed.cli.tables import print_metrics
        from kerasmed.inference.evaluate import evaluate_folder
        from kerasmed.study.config import override

        refuse_with_model(data=data, out=out)
        refuse_other_keys(assignments, *_OF_A_FOLDER)
        values = {"name": "evaluate", "data": {"source": str(directory)}}
        config = override(values, assignments, source="--set")
        chosen = parse_range(grey_range)
        found = evaluate_folder(target, directory, config.data, config.split, chosen)
        print_metrics([found])
        return
    if grey_range is not None:
        raise ConfigError("--grey-range goes with a model and DIR; drop it.")
    _, run = run_one_stage("evaluate", target, assignments, data, out)
    print_evaluation(run)


@app.command()
def explain(
    target: Annotated[Path, typer.Argument(metavar="CONFIG|MODEL.onnx")],
    images: Annotated[
        list[str] | None,
        typer.Argument(metavar="[IMAGE]...", help="Files, folders, patterns, with MODEL.onnx."),
    ] = None,
    provider: ProviderOption = "auto",
    precision: PrecisionOption = Precision.given,
    grey_range: GreyRangeOption = None,
    assignments: Assignments = None,
    data: DataOption = None,
    out: Annotated[
        str | None,
        typer.Option("--out", metavar="DIR", help="Run folder; with MODEL.onnx: explanations/."),
    ] = None,
) -> None:
    """LIME for a few test images by every CNN, or for given images by one ONNX file.

    Both go on where they stopped. With MODEL.onnx, --set takes the keys explain.* and seed.
    """
    from kerasmed.cli.tables import print_explanation, print_explanations
    from kerasmed.files import read_json

    if images:
        from kerasmed.data.find_images import find_images, read_list
        from kerasmed.explain.files import explain_files
        from kerasmed.study.config import override
        from kerasmed.study.run_folder import trained_model_path

        refuse_with_model(data=data)
        refuse_other_keys(assignments, "explain.", "seed")
        if "://" in (out or ""):
            raise ConfigError(f"--out: expected a folder with a model, received {out}; name one.")
        values = {"name": "explain", "data": {"source": "."}}
        config = override(values, assignments, source="--set")
        paths = list(find_images(images, read_list(sys.stdin)))
        errors = []
        for path, record in explain_files(
            target,
            paths,
            config.explain,
            config.seed,
            Path(out or "explanations"),
            provider,
            precision.value,
            parse_range(grey_range),
            trained_model_path,
        ):
            if "error" in record:
                errors.append(record["error"])
            else:
                print_explanation(path, record)
        refuse_unreadable(errors, len(paths))
        return
    if provider != "auto" or precision is not Precision.given or grey_range is not None:
        raise ConfigError(
            "--provider, --precision and --grey-range go with a model and images; drop them."
        )
    _, run = run_one_stage("explain", target, assignments, data, out)
    print_explanations(read_json(run.explanations / "summary.json", "kerasmed explain"))


@app.command()
def audit(
    config: ConfigPath,
    assignments: Assignments = None,
    data: DataOption = None,
    out: OutOption = None,
) -> None:
    """Fidelity and privacy of the synthetic set."""
    run_one_stage("audit", config, assignments, data, out)


_OF_A_FOLDER = (
    *("split.patient", "split.group_by", "split.pattern", "split.run_length"),
    *("data.official_split", "data.masks", "data.on_bad_image"),
)
