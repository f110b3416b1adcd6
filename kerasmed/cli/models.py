"""Commands on ONNX files: export, predict, serve."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from kerasmed.cli.app import app
from kerasmed.cli.options import (
    Assignments,
    DataOption,
    GreyRangeOption,
    OutOption,
    Precision,
    PrecisionOption,
    ProviderOption,
    parse_range,
    refuse_unreadable,
    refuse_with_model,
)
from kerasmed.cli.runs import run_one_stage
from kerasmed.errors import ConfigError, InputError


@app.command()
def export(
    config: Annotated[
        Path | None, typer.Argument(metavar="CONFIG", help="Experiment file (YAML).")
    ] = None,
    precision: Annotated[
        list[str] | None, typer.Option(help="fp32, fp16, int8; may be given several times.")
    ] = None,
    check: Annotated[
        Path | None, typer.Option(metavar="MODEL.onnx", help="Verify this file and stop.")
    ] = None,
    assignments: Assignments = None,
    data: DataOption = None,
    out: OutOption = None,
) -> None:
    """Write the trained CNNs as ONNX, and copy them to exported/<name>/."""
    import shutil

    from kerasmed.files import written_aside
    from kerasmed.inference.precisions import precision_path

    if check is not None:
        from kerasmed.cli.tables import print_pairs
        from kerasmed.export.verify import verify_file
        from kerasmed.study.run_folder import open_trained_model

        refuse_with_model(set=assignments, data=data, out=out, precision=precision)
        if config is not None:
            raise ConfigError("--check verifies one file by itself; leave the experiment file out.")
        print_pairs(verify_file(check, open_trained_model))
        return
    if config is None:
        raise ConfigError("kerasmed export takes an experiment file, or --check MODEL.onnx.")
    extra = [f"export.precisions=[{', '.join(precision)}]"] if precision else []
    name, run = run_one_stage("export", config, (assignments or []) + extra, data, out)
    folder = Path("exported") / name
    result = run.finished_stages()["export"]["result"]
    stems = [stem for stem, found in result.items() if "not_exported" not in found]
    networks = {precision_path(Path(f"{stem}.onnx"), "fp32").name for stem in stems}
    for path in folder.glob("*.onnx"):  # of before, in a precision that is there no more
        if path.stem not in stems and precision_path(path, "fp32").name in networks:
            path.unlink()
            path.with_suffix(".json").unlink(missing_ok=True)
    for stem in stems:
        for suffix in (".onnx", ".json"):
            path = run.exported / f"{stem}{suffix}"
            with written_aside(folder / path.name) as temporary:
                shutil.copyfile(path, temporary)
            print(folder / path.name)


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx")],
    images: Annotated[
        list[str],
        typer.Argument(metavar="IMAGE...", help='Files, folders, "*.png", or - for a list.'),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    provider: ProviderOption = "auto",
    precision: PrecisionOption = Precision.given,
    grey_range: GreyRangeOption = None,
) -> None:
    """Class probabilities of images by an exported CNN; of a volume one line a slice."""
    from kerasmed.cli.tables import print_predictions
    from kerasmed.data.find_images import find_images, read_list
    from kerasmed.inference.classifier import OnnxClassifier
    from kerasmed.inference.predict import predict_files

    chosen = parse_range(grey_range)
    engine = OnnxClassifier(model, provider, precision=precision.value, grey_range=chosen)
    rows = predict_files(engine, find_images(images, read_list(sys.stdin)))
    count, errors = print_predictions(rows, engine.class_names, as_json)
    refuse_unreadable(errors, count)
    if not count:
        raise InputError("Images: expected at least one path, received none; name some.")


@app.command()
def serve(
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx")],
    host: Annotated[str, typer.Option(help="0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    max_body_mb: Annotated[
        float, typer.Option(help="Largest request.", min=0.001, max=1024)
    ] = 16.0,
    max_megapixels: Annotated[float, typer.Option(help="Of one image.", min=0.001, max=89)] = 50,
    max_waiting: Annotated[int, typer.Option(help="Requests at once; 503 beyond.", min=1)] = 64,
    provider: ProviderOption = "auto",
    precision: PrecisionOption = Precision.given,
    grey_range: GreyRangeOption = None,
) -> None:
    """Answer over HTTP, with a page to upload to; needs the extra serve."""
    from kerasmed.inference.classifier import OnnxClassifier
    from kerasmed.serve.app import serve
    from kerasmed.serve.limits import Limits

    limits = Limits(int(max_body_mb * 2**20), int(max_megapixels * 1e6), max_waiting)
    chosen = parse_range(grey_range)
    engine = OnnxClassifier(model, provider, precision=precision.value, grey_range=chosen)
    serve(engine, host, port, limits)
