"""Commands that test networks and synthetic images: evaluate, compare, explain, audit, judge."""

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
    parse_folder,
    parse_range,
    refuse_existing,
    refuse_other_keys,
    refuse_unreadable,
    refuse_with_model,
)
from kerasmed.cli.runs import print_evaluation, run_one_stage
from kerasmed.errors import ConfigError


@app.command()
def evaluate(
    target: Annotated[
        Path,
        typer.Argument(metavar="CONFIG|MODEL.onnx", help="Experiment file, or an exported CNN."),
    ],
    directory: Annotated[
        Path | None,
        typer.Argument(metavar="[DIR]", help="With MODEL.onnx: class folders, .csv or .npz."),
    ] = None,
    grey_range: GreyRangeOption = None,
    assignments: Assignments = None,
    data: DataOption = None,
    out: OutOption = None,
) -> None:
    """Test the CNNs of a study on its test images, or one ONNX file on other images.

    DIR may lack some classes of the model: the command lists metrics that it cannot compute, with
    the reason. With a single class, it computes only the sensitivity. With MODEL.onnx, --set takes
    split.patient, split.group_by, split.pattern, split.run_length, data.official_split, data.masks,
    data.synthetic and data.on_bad_image.
    """
    if directory is not None:
        from kerasmed.cli.tables import print_metrics
        from kerasmed.inference.evaluate import evaluate_folder
        from kerasmed.study.config import override

        refuse_with_model(data=data, out=out)
        refuse_other_keys(assignments, *_OF_A_FOLDER)
        values = {"name": "evaluate", "data": {"source": str(directory)}}
        config = override(values, assignments, source="--set")
        shown = parse_range(grey_range)
        print_metrics([evaluate_folder(target, directory, config.data, config.split, shown)])
        return
    if grey_range is not None:
        raise ConfigError("--grey-range goes with a model and DIR; drop it.")
    _, run = run_one_stage("evaluate", target, assignments, data, out)
    print_evaluation(run)


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders, two or more.")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="JSON file for the comparisons.")
    ] = None,
) -> None:
    """Compare training regimes over several studies of the same images.

    The studies differ only in --set seed. Each has its own draw of training images, generator and
    CNNs. The intervals are over the studies and over groups of test images.
    """
    from kerasmed.cli.tables import print_comparisons
    from kerasmed.files import write_json
    from kerasmed.study.pooling import compare_studies
    from kerasmed.study.run_folder import RunFolder

    comparisons = compare_studies([RunFolder(run) for run in runs])
    if out is not None:
        write_json(out, comparisons)
    print_comparisons(comparisons)


@app.command()
def worth(
    config: ConfigPath,
    assignments: Assignments = None,
    data: DataOption = None,
    out: OutOption = None,
) -> None:
    """Estimate how many further real images the synthetic set is worth.

    Trains the first CNN on growing numbers of real images, each worth.draws times. The worth is the
    number that reaches the accuracy of the training images with the synthetic set. The command
    first says how long it takes. `kerasmed report CONFIG` then shows the result.
    """
    from kerasmed.audit.worth import worth_sentence
    from kerasmed.files import read_json

    _, run = run_one_stage("worth", config, assignments, data, out)
    print(worth_sentence(read_json(run.evaluation / "worth.json", "kerasmed worth CONFIG")))


@app.command()
def explain(
    target: Annotated[
        Path,
        typer.Argument(metavar="CONFIG|MODEL.onnx", help="Experiment file, or an exported CNN."),
    ],
    images: Annotated[
        list[str] | None,
        typer.Argument(metavar="[IMAGE]...", help="With MODEL.onnx: files, folders or patterns."),
    ] = None,
    provider: ProviderOption = "auto",
    precision: PrecisionOption = Precision.given,
    grey_range: GreyRangeOption = None,
    assignments: Assignments = None,
    data: DataOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            parser=parse_folder,
            help="Run folder; with MODEL.onnx, the target folder (default: explanations/).",
        ),
    ] = None,
) -> None:
    """Explain test images with every CNN of a study, or your images with one ONNX file.

    An interrupted run continues where it stopped. With MODEL.onnx, --set takes explain.* and seed.
    """
    from kerasmed.cli.tables import print_explanations
    from kerasmed.files import read_json

    if images:
        refuse_with_model(data=data)
        _explain_images(target, images, provider, precision, grey_range, assignments, out)
        return
    if provider != "auto" or precision is not Precision.given or grey_range is not None:
        raise ConfigError(
            "--provider, --precision and --grey-range go with a model and images; drop them."
        )
    _, run = run_one_stage("explain", target, assignments, data, out)
    print_explanations(read_json(run.explanations / "summary.json", "kerasmed explain"))


def _explain_images(
    model: Path,
    images: list[str],
    provider: str,
    precision: Precision,
    grey_range: str | None,
    assignments: list[str] | None,
    out: Path | None,
) -> None:
    """Explain image files with one ONNX file."""
    from kerasmed.cli.tables import print_explanation
    from kerasmed.data.find_images import find_images, read_list
    from kerasmed.explain.files import explain_files
    from kerasmed.study.config import override
    from kerasmed.study.run_folder import trained_model_path

    refuse_other_keys(assignments, "explain.", "seed")
    values = {"name": "explain", "data": {"source": "."}}
    config = override(values, assignments, source="--set")
    paths = list(find_images(images, read_list(sys.stdin)))
    errors = []
    for path, record in explain_files(
        model,
        paths,
        config.explain,
        config.seed,
        out or Path("explanations"),
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


@app.command()
def audit(
    config: ConfigPath,
    assignments: Assignments = None,
    data: DataOption = None,
    out: OutOption = None,
) -> None:
    """Measure fidelity and privacy, and answer: is the set useful, faithful and private?"""
    run_one_stage("audit", config, assignments, data, out)


@app.command()
def judge(
    real: Annotated[Path, typer.Argument(metavar="REAL", help="Real images of its classes.")],
    synthetic: Annotated[Path, typer.Argument(metavar="SYNTHETIC", help="The synthetic set.")],
    train: Annotated[
        Path | None,
        typer.Option("--train", metavar="DIR", help="Real images that the generator learned from."),
    ] = None,
    assignments: Assignments = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            parser=parse_folder,
            help="Target folder (default: runs/judged-<name of SYNTHETIC>).",
        ),
    ] = None,
) -> None:
    """Judge whether a synthetic set, from any program, is useful, faithful and private.

    REAL, SYNTHETIC and DIR are class folders, a .csv or an .npz. They may also be folders of
    unlabelled images, for which usefulness is not answered. Without --train, REAL is split, and
    useful and private are amber at best. --set takes data.*, split.*, classifiers.*,
    audit.extractors and seed.
    """
    from kerasmed.cli.tables import print_verdicts
    from kerasmed.study.config import override
    from kerasmed.study.judging import judge_folders

    refuse_other_keys(
        assignments, "data.", "split.", "classifiers.", "audit.extractors", "seed",
        whom="judge",
    )  # fmt: skip
    values = {
        "name": "judge",
        "data": {"source": str(real)},
        "classifiers": {"seeds": 3},
        # None is trained, and this one takes images of any size.
        "diffusion": {"widths": [4], "patch_size": 1},
    }
    config = override(values, assignments, source="--set")
    folder = out or Path("runs") / f"judged-{synthetic.stem}"
    refuse_existing(folder)
    verdicts = judge_folders(real, synthetic, train, config)
    verdicts.to_directory(folder)
    print_verdicts(verdicts.answers)
    print(f"Report: {folder / 'report.html'}")


_OF_A_FOLDER = (
    *("split.patient", "split.group_by", "split.pattern", "split.run_length"),
    *("data.official_split", "data.masks", "data.on_bad_image", "data.synthetic"),
)
