"""The stages before the synthetic set: data and diffusion."""

from collections import Counter
from pathlib import Path
from typing import Any

from kerasmed.config import Config
from kerasmed.data.duplicates import find_duplicates
from kerasmed.data.entries import root_of
from kerasmed.data.examine import describe_duplicates
from kerasmed.data.fingerprints import read_fingerprints
from kerasmed.data.groups import group_images
from kerasmed.data.phantoms import write_phantoms
from kerasmed.data.splits import make_split, write_split
from kerasmed.files import folder_written_aside
from kerasmed.progress import say
from kerasmed.runs import RunFolder
from kerasmed.runtime import resolve_runtime
from kerasmed.stages.inputs import load_images, load_split, real_source
from kerasmed.workers import joined


def split_data(config: Config, run: RunFolder) -> dict[str, Any]:
    """Decode the images (or make the phantoms) and write the split."""
    phantoms = config.data.phantoms
    if phantoms is not None:
        size = config.data.image_size
        with folder_written_aside(run.images) as folder:
            write_phantoms(folder, phantoms.family, phantoms.per_class, size, config.seed)
    image_set = load_images(config, run)
    source = real_source(config, run)
    fingerprints = read_fingerprints(source, run.cache / "fingerprints")
    root = root_of(Path(str(source.source)))
    fingerprints = fingerprints.of(image_set.files, root)
    duplicates = find_duplicates(fingerprints, config.split.near_duplicate_bits)
    groups = group_images(image_set.files, duplicates.pairs, config.split, root)
    names = image_set.class_names
    split = make_split(image_set.labels, groups, names, config.split, config.seed)
    write_split(run.split_path, image_set, groups, split)
    sizes = Counter(groups)
    patients = {file.patient for file in image_set.files}
    return {
        "data_hash": image_set.data_hash,
        "classes": list(names),
        "images": image_set.counts(),
        "roles": {role: image_set.counts(at) for role, at in split.items()},
        "groups": len(sizes),
        "largest_group": max(sizes.values()),
        "patients": None if None in patients else len(patients),
        "duplicates": describe_duplicates(fingerprints, duplicates),
        "skipped": list(image_set.skipped),
    }


def train_diffusion(config: Config, run: RunFolder) -> dict[str, Any]:
    """Train the denoiser on the role `diffusion`, and export it where TensorFlow is the backend.

    Of several workers each takes part in the training, and the chief alone writes.
    """
    runtime = resolve_runtime(config.runtime)
    from kerasmed.diffusion.training import train_denoiser

    image_set, split = load_split(config, run)
    result = train_denoiser(
        image_set.subset(split["diffusion"]),
        image_set.subset(split["validation"]),
        config.diffusion,
        config.data.symmetry,
        config.seed,
        runtime,
        run.diffusion,
    )
    if not joined().is_chief:
        return {}
    if runtime.backend == "tensorflow":
        from kerasmed.export.denoisers import export_denoiser

        metadata = {"class_names": list(image_set.class_names), "data_hash": image_set.data_hash}
        source, path = run.diffusion / "denoiser.keras", run.diffusion / "denoiser.onnx"
        export_denoiser(source, metadata, path)
    else:
        (run.diffusion / "denoiser.onnx").unlink(missing_ok=True)  # of an earlier training
        say("denoiser.onnx was not written: the export needs the TensorFlow backend.")
    return result
