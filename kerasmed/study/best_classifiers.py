"""The CNNs of the regime ``best``: those of the regime that does best on the validation images."""

from collections.abc import Sequence

import numpy as np

from kerasmed.audit.choice import Choice, choose_regime
from kerasmed.audit.comparison import TrainedOn
from kerasmed.audit.tables import trained_on
from kerasmed.classify.config import PLAIN_REGIMES, SYNTHETIC_REGIMES
from kerasmed.data.image_set import ImageSet
from kerasmed.files import read_json, sha256_of, write_json, written_aside
from kerasmed.fingerprint import Fingerprint
from kerasmed.progress import say
from kerasmed.runtime.backend import load_keras
from kerasmed.study.classifier_specs import ClassifierSpec, trained_path, training_record
from kerasmed.study.run_folder import RunFolder
from kerasmed.text import counted

_MADE_BY = "kerasmed train classifier CONFIG"


def choose_best(
    specs: Sequence[ClassifierSpec], run: RunFolder, validation: ImageSet, groups: np.ndarray
) -> None:
    """Write the CNNs of ``best``, copies of those that are chosen for their backbone.

    Args:
        specs: all CNNs of the study; the others are trained.
        run: the study's run folder.
        validation: the validation images.
        groups: (n,), the group of each.
    """
    for backbone in dict.fromkeys(spec.backbone for spec in specs if spec.trained_on == "best"):
        of_backbone = [spec for spec in specs if spec.backbone == backbone]
        candidates = [
            spec for spec in of_backbone if spec.trained_on in (*PLAIN_REGIMES, *SYNTHETIC_REGIMES)
        ]
        hashes = {spec.name: sha256_of(trained_path(spec, run)) for spec in candidates}
        made_from = Fingerprint(
            {"validation groups": groups.tolist()},
            {**hashes, "validation images": validation.data_hash},
        )
        best = [spec for spec in of_backbone if spec.trained_on == "best"]
        if all(_is_made(spec, run, made_from) for spec in best):
            continue
        choice = _choice(candidates, run, validation, groups)
        say(sentence(backbone, choice))
        for spec in best:
            _copy(spec, choice, run, made_from)


def chosen_spec(spec: ClassifierSpec, run: RunFolder) -> ClassifierSpec:
    """The CNN that one of the regime ``best`` is a copy of; any other is itself."""
    if spec.trained_on != "best":
        return spec
    choice = read_json(training_record(spec, run), _MADE_BY)["result"]["chosen"]
    return ClassifierSpec(spec.backbone, choice["regime"], spec.seed, choice["variant"])


def sentence(backbone: str, choice: Choice) -> str:
    """What was chosen, and by what margin."""
    named, plain = trained_on(choice["regime"], choice["variant"]), choice["without_synthetic"]
    highest = max(choice["gains"], key=lambda gain: gain["lower_end"])
    verdict = (
        "No use of synthetic images clearly helps" if choice["regime"] == plain else "It helps"
    )
    corrected = f"corrected for {counted(len(choice['gains']), 'candidate')}"
    return (
        f"{backbone}: best is a copy of {named}. {verdict} on {choice['groups']} groups of "
        f"validation images: {trained_on(highest['regime'], highest['variant'])} gains "
        f"{100 * highest['gain']:.1f} points over {plain} (one-sided 95% lower bound "
        f"{100 * highest['lower_end']:+.1f}, {corrected})."
    )


def _choice(
    candidates: Sequence[ClassifierSpec], run: RunFolder, validation: ImageSet, groups: np.ndarray
) -> Choice:
    load_keras()
    import keras

    from kerasmed.saved_models import load_model

    correct: dict[TrainedOn, list[np.ndarray]] = {}
    losses: dict[TrainedOn, list[float]] = {}
    for spec in candidates:
        model = load_model(trained_path(spec, run), compile=False)
        key = TrainedOn(spec.backbone, spec.trained_on, spec.variant)
        is_right = model.predict(validation).argmax(axis=1) == validation.labels
        correct.setdefault(key, []).append(is_right.astype(float))
        keras.backend.clear_session()
        loss = read_json(training_record(spec, run), _MADE_BY)["result"]["validation_loss"]
        losses.setdefault(key, []).append(loss)
    means = {key: float(np.mean(of_seeds)) for key, of_seeds in losses.items()}
    return choose_regime(correct, means, groups)


def _is_made(spec: ClassifierSpec, run: RunFolder, made_from: Fingerprint) -> bool:
    path = training_record(spec, run)
    record = read_json(path, _MADE_BY) if path.exists() else {}
    return trained_path(spec, run).exists() and made_from.matches(record.get("fingerprint"))


def _copy(spec: ClassifierSpec, choice: Choice, run: RunFolder, made_from: Fingerprint) -> None:
    original = ClassifierSpec(spec.backbone, choice["regime"], spec.seed, choice["variant"])
    path = training_record(spec, run)
    path.unlink(missing_ok=True)
    for name in (trained_path(spec, run).name, "history.csv"):
        with written_aside(path.with_name(name)) as temporary:
            source = trained_path(original, run).with_name(name)
            temporary.write_bytes(source.read_bytes())
    result = {**read_json(training_record(original, run), _MADE_BY)["result"], "chosen": choice}
    write_json(path, {"fingerprint": made_from.as_record(), "result": result})
