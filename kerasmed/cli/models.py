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
        list[str] | None, typer.Option(help="fp32, fp16 or int8; repeat for several.")
    ] = None,
    check: Annotated[
        Path | None, typer.Option(metavar="MODEL.onnx", help="Only verify this file.")
    ] = None,
    assignments: Assignments = None,
    data: DataOption = None,
    out: OutOption = None,
) -> None:
    """Export the trained CNNs to ONNX, and copy the files to exported/<name>/."""
    import shutil

    from kerasmed.files import written_aside
    from kerasmed.inference.precisions import precision_path

    if check is not None:
        from kerasmed.cli.tables import print_pairs
        from kerasmed.export.verify import verify_file
        from kerasmed.study.run_folder import open_trained_model

        refuse_with_model(set=assignments, data=data, out=out, precision=precision)
        if config is not None:
            raise ConfigError("--check verifies a single file; leave the experiment file out.")
        print_pairs(verify_file(check, open_trained_model))
        return
    if config is None:
        raise ConfigError("kerasmed export takes an experiment file, or --check MODEL.onnx.")
    extra = [f"export.precisions=[{', '.join(precision)}]"] if precision else []
    name, run = run_one_stage("export", config, (assignments or []) + extra, data, out)
    folder = Path("exported") / name
    result = run.finished_stages()["export"]["result"]
    stems = [stem for stem, entry in result.items() if "not_exported" not in entry]
    networks = {precision_path(Path(f"{stem}.onnx"), "fp32").name for stem in stems}
    for path in folder.glob("*.onnx"):  # from an earlier export with more precisions
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
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="An exported CNN.")],
    images: Annotated[
        list[str],
        typer.Argument(metavar="IMAGE...", help='Files, folders, "*.png", or - to read a list.'),
    ],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object per line.")
    ] = False,
    provider: ProviderOption = "auto",
    precision: PrecisionOption = Precision.given,
    grey_range: GreyRangeOption = None,
) -> None:
    """Predict class probabilities with an exported CNN; a volume gives one line per slice."""
    from kerasmed.cli.tables import print_predictions
    from kerasmed.data.find_images import find_images, read_list
    from kerasmed.inference.classifier import OnnxClassifier
    from kerasmed.inference.predict import predict_files

    shown = parse_range(grey_range)
    engine = OnnxClassifier(model, provider, precision=precision.value, grey_range=shown)
    rows = predict_files(engine, find_images(images, read_list(sys.stdin)))
    count, errors = print_predictions(rows, engine.class_names, as_json)
    refuse_unreadable(errors, count)
    if not count:
        raise InputError("Images: expected at least one path, received none; name some.")


@app.command()
def serve(
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="An exported CNN.")],
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 admits other machines.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)] = 8000,
    max_body_mb: Annotated[
        float, typer.Option(help="Largest request, in MB.", min=0.001, max=1024)
    ] = 16.0,
    max_megapixels: Annotated[
        float, typer.Option(help="Largest image, in megapixels.", min=0.001, max=89)
    ] = 50,
    max_waiting: Annotated[
        int,
        typer.Option(help="Maximum number of requests at a time; others get status 503.", min=1),
    ] = 64,
    provider: ProviderOption = "auto",
    precision: PrecisionOption = Precision.given,
    grey_range: GreyRangeOption = None,
) -> None:
    """Serve predictions over HTTP, with an upload page; needs the extra `serve`."""
    from kerasmed.inference.classifier import OnnxClassifier
    from kerasmed.serve.app import serve
    from kerasmed.serve.limits import Limits

    limits = Limits(int(max_body_mb * 2**20), int(max_megapixels * 1e6), max_waiting)
    shown = parse_range(grey_range)
    engine = OnnxClassifier(model, provider, precision=precision.value, grey_range=shown)
    serve(engine, host, port, limits)
