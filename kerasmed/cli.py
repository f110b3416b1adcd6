"""The command line: parse, call, print."""

import sys
import warnings
from enum import StrEnum
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kerasmed import __version__
from kerasmed.errors import ConfigError, DataError, DataWarning, InputError, KerasmedError

if TYPE_CHECKING:
    from kerasmed.config import Config
    from kerasmed.runs import RunFolder

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


ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="Experiment file (YAML).")]
Assignments = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a setting.")
]
DataOption = Annotated[
    Path | None, typer.Option("--data", metavar="PATH", help="Class folders, .csv or .npz.")
]
OutOption = Annotated[
    str | None,
    typer.Option(
        "--out", metavar="DIR", help="Run folder (default: runs/<name>), or s3://BUCKET/PATH."
    ),
]
ProviderOption = Annotated[str, typer.Option(help="auto, cpu, cuda, tensorrt, openvino or coreml.")]


GreyRangeOption = Annotated[
    str | None,
    typer.Option(
        "--grey-range",
        metavar="LOW,HIGH",
        help="Values shown black and white, where neither file nor model says.",
    ),
]


class Precision(StrEnum):
    """Which of the files of one model is run."""

    given = "given"
    auto = "auto"


PrecisionOption = Annotated[
    Precision, typer.Option(help="auto: int8 or fp16 where it lies beside and suits the machine.")
]


@app.command()
def demo(
    out: OutOption = None,
    assignments: Assignments = None,
) -> None:
    """A whole study on made-up images (phantoms); minutes on two CPU cores."""
    from importlib import resources

    with resources.as_file(resources.files("kerasmed") / "demo.yaml") as path:
        _study(path, assignments, None, out)


@app.command()
def study(
    config: ConfigPath,
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="The I-th of N processes on one run folder.")
    ] = None,
    executor: Annotated[
        str, typer.Option(metavar="local|ray|ray://HOST:PORT", help="Where its parts run.")
    ] = "local",
    assignments: Assignments = None,
    data: DataOption = None,
    out: OutOption = None,
) -> None:
    """Every stage in order, from the first that is not finished, to the report.

    With --shard, N processes or machines that share the run folder divide the synthetic images and
    the CNNs among them; with --executor ray, Ray does.
    """
    if shard is not None and executor != "local":
        raise ConfigError("--shard and --executor both divide the work; give one of them.")
    index, shards = _parse_shard(shard or "1/1")
    _study(config, assignments, data, out, index, shards, executor)


@data_app.command("list")
def data_list() -> None:
    """The data sets that are known by name."""
    from kerasmed.data.known import KNOWN
    from kerasmed.tables import print_known

    print_known(KNOWN)


@data_app.command("fetch")
def data_fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", help="As `kerasmed data list` shows it.")],
    taken_from: Annotated[
        Path | None, typer.Option("--from", metavar="DIR", help="A copy already on disk.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Where to (default: data/NAME).")
    ] = None,
) -> None:
    """Download a known data set, or take a copy, and compare it with what was published."""
    from kerasmed.data.known import fetch, find_known, verify
    from kerasmed.tables import print_counts

    known = find_known(name)
    found = verify(name, taken_from or fetch(name, out or Path("data") / name))
    print_counts(found["found"], found["published"])
    if not found["complete"]:
        print("Fewer images than were published: the figures of others need not hold for it.")
    print(f"Licence: {known.licence}. Cite: {known.citation}.")
    print(f"Next: kerasmed study {known.config} --data {found['source']}")


@data_app.command("check")
def data_check(
    source: Annotated[Path, typer.Argument(metavar="DIR", help="Class folders, .csv or .npz.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    assignments: Assignments = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Default: runs/check-<name>.")
    ] = None,
) -> None:
    """Counts, copies, outliers and shortcuts of a set, and a page of thumbnails."""
    from kerasmed.check import check_data
    from kerasmed.config import override
    from kerasmed.tables import print_findings

    values = {"name": "check", "data": {"source": str(source)}}
    config = override(values, assignments, source="--set")
    folder = out or Path("runs") / f"check-{source.resolve().name}"
    findings = check_data(config.data, config.split, folder)
    print_findings(findings, as_json)
    if not as_json:
        print(f"Page: {folder / 'check.html'}")


@data_app.command("leakage")
def data_leakage(
    config: ConfigPath,
    assignments: Assignments = None,
    data: DataOption = None,
    out: OutOption = None,
) -> None:
    """What a random split would have claimed, against this study's split."""
    from kerasmed.files import read_json
    from kerasmed.tables import print_leakage

    _, run = _perform("leakage", config, assignments, data, out)
    print_leakage(read_json(run.evaluation / "leakage.json", "kerasmed data leakage"))


@data_app.command("split")
def data_split(
    config: ConfigPath,
    assignments: Assignments = None,
    data: DataOption = None,
    out: OutOption = None,
) -> None:
    """Decode the images (or make the phantoms), find copies, and write split.json."""
    from kerasmed.tables import print_split

    _, run = _perform("data", config, assignments, data, out)
    print_split(run.finished_stages()["data"]["result"])


@train_app.command("diffusion")
def train_diffusion(
    config: ConfigPath,
    assignments: Assignments = None,
    data: DataOption = None,
    out: OutOption = None,
) -> None:
    """Train the diffusion model; an interrupted training goes on where it stopped."""
    _perform("diffusion", config, assignments, data, out)


@app.command()
def sample(
    config: ConfigPath,
    per_class: Annotated[int | None, typer.Option(help="Images of each class.")] = None,
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="Draw the I-th of N parts alone.")
    ] = None,
    assignments: Assignments = None,
    data: DataOption = None,
    out: OutOption = None,
) -> None:
    """Draw the synthetic set; an interrupted drawing goes on where it stopped.

    Parts drawn with --shard, at once or in turn, become the set when the command is given without.
    """
    extra = [f"sampling.per_class={per_class}"] if per_class is not None else []
    settings = (assignments or []) + extra
    if shard is None:
        _perform("sampling", config, settings, data, out)
        return
    from kerasmed.stages import STAGES, check_inputs
    from kerasmed.stages.sampling import draw_shard

    index, shards = _parse_shard(shard)
    resolved, run = _open(config, settings, data, out)
    with run.locked(index, shards):
        check_inputs(STAGES["sampling"], resolved, run)
        missing = draw_shard(resolved, run, index, shards)
    print(f"Shard {shard} is drawn; {missing} images of all sets are missing.")


@train_app.command("classifier")
def train_classifier(
    config: ConfigPath,
    backbone: Annotated[list[str] | None, typer.Option(help="May be given several times.")] = None,
    on: Annotated[
        list[str] | None, typer.Option(help="real, synthetic, both, real_all; several times.")
    ] = None,
    seeds: Annotated[int | None, typer.Option(help="Trainings of each.")] = None,
    assignments: Assignments = None,
    data: DataOption = None,
    out: OutOption = None,
) -> None:
    """Train the CNNs that are not there yet; on real images alone, no synthetic ones are needed."""
    extra = [f"classifiers.backbones=[{', '.join(backbone)}]"] if backbone else []
    extra += [f"classifiers.train_on=[{', '.join(on)}]"] if on else []
    extra += [f"classifiers.seeds={seeds}"] if seeds is not None else []
    _perform("classifiers", config, (assignments or []) + extra, data, out)


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
    from kerasmed.inference import precision_path

    if check is not None:
        from kerasmed.export.verify import verify_file
        from kerasmed.tables import print_pairs

        _refuse_with_model(set=assignments, data=data, out=out, precision=precision)
        if config is not None:
            raise ConfigError("--check verifies one file by itself; leave the experiment file out.")
        print_pairs(verify_file(check))
        return
    if config is None:
        raise ConfigError("kerasmed export takes an experiment file, or --check MODEL.onnx.")
    extra = [f"export.precisions=[{', '.join(precision)}]"] if precision else []
    name, run = _perform("export", config, (assignments or []) + extra, data, out)
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
        from kerasmed.config import override
        from kerasmed.outside import evaluate_folder
        from kerasmed.tables import print_metrics

        _refuse_with_model(data=data, out=out)
        _refuse_other_keys(assignments, *_OF_A_FOLDER)
        values = {"name": "evaluate", "data": {"source": str(directory)}}
        config = override(values, assignments, source="--set")
        chosen = _parse_range(grey_range)
        found = evaluate_folder(target, directory, config.data, config.split, chosen)
        print_metrics([found])
        return
    if grey_range is not None:
        raise ConfigError("--grey-range goes with a model and DIR; drop it.")
    _, run = _perform("evaluate", target, assignments, data, out)
    _print_evaluation(run)


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
    from kerasmed.files import read_json
    from kerasmed.tables import print_explanation, print_explanations

    if images:
        from kerasmed.config import override
        from kerasmed.standalone import explain_files, find_images, read_list

        _refuse_with_model(data=data)
        _refuse_other_keys(assignments, "explain.", "seed")
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
            _parse_range(grey_range),
        ):
            if "error" in record:
                errors.append(record["error"])
            else:
                print_explanation(path, record)
        _refuse_unreadable(errors, len(paths))
        return
    if provider != "auto" or precision is not Precision.given or grey_range is not None:
        raise ConfigError(
            "--provider, --precision and --grey-range go with a model and images; drop them."
        )
    _, run = _perform("explain", target, assignments, data, out)
    print_explanations(read_json(run.explanations / "summary.json", "kerasmed explain"))


@app.command()
def audit(
    config: ConfigPath,
    assignments: Assignments = None,
    data: DataOption = None,
    out: OutOption = None,
) -> None:
    """Fidelity and privacy of the synthetic set."""
    _perform("audit", config, assignments, data, out)


@app.command()
def report(
    config: ConfigPath,
    assignments: Assignments = None,
    data: DataOption = None,
    out: OutOption = None,
) -> None:
    """Draw the page again from the results."""
    _, run = _perform("report", config, assignments, data, out)
    print(run.report)


@app.command()
def release(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Run folder of a finished study.")],
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to make.")],
) -> None:
    """Write the synthetic set with its data sheet and checksums, ready to hand over."""
    from kerasmed.release import release
    from kerasmed.runs import RunFolder

    folder = RunFolder.at(run)
    if folder.mirror is not None:
        folder.mirror.fetch()
    found = release(folder, directory)
    print(f"{directory}: {found['released']} images, {found['withheld']} withheld as near copies.")
    print(f"Read {directory / 'DATASHEET.md'}, and complete its licence, before you pass it on.")


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
    from kerasmed.inference import OnnxClassifier
    from kerasmed.standalone import find_images, predict_files, read_list
    from kerasmed.tables import print_predictions

    chosen = _parse_range(grey_range)
    engine = OnnxClassifier(model, provider, precision=precision.value, grey_range=chosen)
    rows = predict_files(engine, find_images(images, read_list(sys.stdin)))
    count, errors = print_predictions(rows, engine.class_names, as_json)
    _refuse_unreadable(errors, count)
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
    from kerasmed.inference import OnnxClassifier
    from kerasmed.serve import Limits, serve

    limits = Limits(int(max_body_mb * 2**20), int(max_megapixels * 1e6), max_waiting)
    chosen = _parse_range(grey_range)
    engine = OnnxClassifier(model, provider, precision=precision.value, grey_range=chosen)
    serve(engine, host, port, limits)


@app.command()
def doctor() -> None:
    """What this machine has, and what will really run."""
    from kerasmed.doctor import examine
    from kerasmed.tables import print_pairs

    print_pairs(examine())


def _study(
    config_path: Path,
    assignments: list[str] | None,
    data: Path | None,
    out: str | None,
    index: int = 1,
    shards: int = 1,
    executor: str = "local",
) -> None:
    from kerasmed.study import run_study

    config, run = _open(config_path, assignments, data, out)
    run_study(config, run, index, shards, executor)
    _print_evaluation(run)
    print(f"Report: {run.report}")


def _print_evaluation(run: "RunFolder") -> None:
    from kerasmed.files import read_json
    from kerasmed.tables import print_comparisons, print_metrics, print_over_seeds

    for print_table, name in (
        (print_metrics, "metrics"),
        (print_over_seeds, "over_seeds"),
        (print_comparisons, "comparisons"),
    ):
        print_table(read_json(run.evaluation / f"{name}.json", "kerasmed evaluate"))


def _refuse_unreadable(errors: list[str], count: int) -> None:
    """What could be read has been dealt with by now."""
    if errors:
        raise DataError(f"{len(errors)} of {count} images cannot be read: {errors[0]}")


def _perform(
    name: str,
    config_path: Path,
    assignments: list[str] | None,
    data: Path | None,
    out: str | None,
) -> "tuple[str, RunFolder]":
    """Run one stage, after the data stage if that has not been done."""
    from kerasmed.stages import STAGES
    from kerasmed.study import run_stage

    config, run = _open(config_path, assignments, data, out)
    run_stage(STAGES[name], config, run)
    return config.name, run


def _open(
    config_path: Path, assignments: list[str] | None, data: Path | None, out: str | None
) -> "tuple[Config, RunFolder]":
    from kerasmed.config import load_config
    from kerasmed.files import make_folder
    from kerasmed.runs import RunFolder

    if config_path.suffix == ".onnx":
        raise ConfigError(
            f"{config_path} is a model: expected an experiment file, or a model and the images to "
            "run it on; add the images."
        )
    config = load_config(config_path, assignments, data)
    run = RunFolder.at(out or Path("runs") / config.name)
    make_folder(run.root)
    return config, run


def _parse_shard(text: str) -> tuple[int, int]:
    """I and N of "I/N"."""
    index, slash, shards = text.partition("/")
    if slash and index.isdecimal() and shards.isdecimal() and 1 <= int(index) <= int(shards):
        return int(index), int(shards)
    raise ConfigError(f"--shard takes I/N with 1 <= I <= N, received {text!r}; for example 1/4.")


def _parse_range(text: str | None) -> tuple[float, float] | None:
    """LOW and HIGH of "LOW,HIGH"."""
    if text is None:
        return None
    try:
        low, high = (float(number) for number in text.split(","))
    except ValueError:
        raise ConfigError(
            f"--grey-range takes LOW,HIGH, received {text!r}; for example --grey-range=-1000,400."
        ) from None
    return low, high


_OF_A_FOLDER = (
    *("split.patient", "split.group_by", "split.pattern", "split.run_length"),
    *("data.official_split", "data.masks", "data.on_bad_image"),
)


def _refuse_other_keys(assignments: list[str] | None, *taken: str) -> None:
    """Refuse settings that mean nothing with a model.

    Args:
        assignments: of --set.
        taken: keys that mean something; one that ends in a dot stands for all that begin so.

    Raises:
        ConfigError: naming another key.
    """
    for assignment in assignments or []:
        key = assignment.partition("=")[0]
        if not any(key == name or (name[-1] == "." and key.startswith(name)) for name in taken):
            known = ", ".join(name + "*" * (name[-1] == ".") for name in taken)
            raise ConfigError(f"--set with a model takes {known}, received {key}; drop it.")


def _refuse_with_model(**options: object) -> None:
    """Options of a study say nothing to a model that stands alone."""
    for name, value in options.items():
        if value is not None:
            raise ConfigError(f"--{name} goes with an experiment file, not with a model; drop it.")


def main(arguments: list[str] | None = None) -> int:
    """Run a command; a user's mistake is one line on stderr and exit code 2."""
    # Names of files need not be text; they go in and out as they are, or escaped.
    for stream, errors in ((sys.stdin, "surrogateescape"), (sys.stdout, "backslashreplace")):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors=errors)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("once", DataWarning)
            warnings.showwarning = _show_warning
            app(arguments)
    except KerasmedError as error:
        print(f"kerasmed: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1
    return 0


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    """Our own warnings as one line; others say nothing to a user of commands."""
    if issubclass(category, DataWarning):
        print(f"kerasmed: {message}", file=sys.stderr)


def entry() -> None:
    """The installed command."""
    import traceback

    from kerasmed.hardware import limit_blas_threads
    from kerasmed.workers import leave

    limit_blas_threads()
    try:
        code = main()
    except Exception:  # a bug; it too must not leave other workers waiting
        traceback.print_exc()
        code = 1
    leave(code)


if __name__ == "__main__":
    entry()
