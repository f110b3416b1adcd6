"""The experiment file: every setting of a study, its default and its range.

Relative paths in it are relative to the working directory.
"""

import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from kerasmed.errors import ConfigError

Fraction = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Regime = Literal["real", "synthetic", "both", "real_all"]
Strength = Literal["none", "light", "medium", "strong"]
Mixing = Literal["none", "mixup", "cutmix"]
Precision = Literal["fp32", "fp16", "int8"]
Distribution = Literal["none", "mirrored", "multi_worker"]
Solver = Literal["ddpm", "ddim", "dpmpp_2m", "unipc"]
SolverSteps = Annotated[int, Field(ge=1, le=1000)]
Guidance = Annotated[float, Field(gt=0)]  # at 0 the class would not count
InputSize = Annotated[int, Field(ge=32)]
Epochs = Annotated[int, Field(ge=0)]
PositiveShare = Annotated[float, Field(gt=0, le=1)]
Dropout = Annotated[float, Field(ge=0, lt=1)]

ATTENTION_HEADS = 4  # of the denoiser
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"

# What differs from the defaults of DiffusionConfig, which are the preset "cpu". The larger networks
# learn a few hundred images by heart without augmentation (docs/diffusion.md).
PRESETS: dict[str, dict[str, Any]] = {
    "cpu": {},
    "small": {
        "widths": [64, 128, 192, 256],
        "blocks": 2,
        "batch_size": 32,
        "learning_rate": 5e-4,
        "augment": 0.3,
    },
    "base": {
        "widths": [96, 192, 288, 384],
        "blocks": 3,
        "batch_size": 64,
        "learning_rate": 3e-4,
        "dropout": 0.1,
        "augment": 0.3,
        "checkpoint_steps": 1000,
    },
    "large": {
        "widths": [128, 256, 384, 512],
        "blocks": 4,
        "batch_size": 128,
        "learning_rate": 2e-4,
        "dropout": 0.1,
        "augment": 0.3,
        "checkpoint_steps": 1000,
    },
}


class Section(BaseModel):
    """One block of the experiment file; a key that it does not name is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class PhantomConfig(Section):
    """Procedural images that stand in for a domain."""

    family: Literal["mri", "smear", "ct"] = "mri"
    per_class: Count = 300


class DicomConfig(Section):
    """How grey values of DICOM files become 0 to 255."""

    # Centre and width, in units after the rescaling (Hounsfield units in CT), in the place of the
    # files' own windows. Without it the file's first usable window is taken, and data.grey_range
    # where it has none.
    window: tuple[float, Rate] | None = None
    frames: Literal["refuse", "split"] = "refuse"


class NiftiConfig(Section):
    """Which slices of a NIfTI volume are taken, and how their values become 0 to 255."""

    axis: Literal["sagittal", "coronal", "axial"] = "axial"
    # First and last slice taken, as a share of the volume from its left, back or lower end.
    slices: tuple[Share, Share] = (0.0, 1.0)
    # Whether a file of four dimensions is refused, or each of its volumes taken.
    frames: Literal["refuse", "split"] = "refuse"
    # Whether values are shown by the range of the whole set, or by the 0.1st and 99.9th percentile
    # of each volume, for scanners whose units differ.
    range: Literal["set", "volume"] = "set"

    @field_validator("slices")
    @classmethod
    def slices_go_up(cls, pair: tuple[float, float]) -> tuple[float, float]:
        return _going_up(pair, "data.nifti.slices")


def _going_up(pair: tuple[float, float], name: str) -> tuple[float, float]:
    if pair[0] >= pair[1]:
        raise ValueError(f"{name} must go up; received {list(pair)}")
    return pair


class Formats(Section):
    """The choices that a file's format leaves open."""

    dicom: DicomConfig = DicomConfig()
    nifti: NiftiConfig = NiftiConfig()
    # Values shown black and white where a file holds more than 8 bits a channel and does not say
    # itself (PNG and TIFF of 16 bits, NIfTI, DICOM without a window), after the file's rescaling.
    # Without it, the 0.1st and 99.9th percentile of the training images.
    grey_range: tuple[float, float] | None = None
    # What a value that is no number (NaN) stands for; black if null.
    nan_value: float | None = None

    @field_validator("grey_range")
    @classmethod
    def range_goes_up(cls, pair: tuple[float, float] | None) -> tuple[float, float] | None:
        return None if pair is None else _going_up(pair, "data.grey_range")


class DataConfig(Formats):
    """Where the images come from and what size they get."""

    # A folder of class folders, a .csv with the columns path, label and perhaps patient, or an .npz
    # laid out as MedMNIST does.
    source: Path | None = None
    phantoms: PhantomConfig | None = None
    class_names: Annotated[list[str], Field(min_length=2)] | None = Field(
        default=None, description="of the labels 0, 1, ... of an .npz, which has none"
    )
    image_size: Annotated[int, Field(ge=16, le=512)] = 64
    on_bad_image: Literal["stop", "skip"] = "stop"
    # Folders such as train/ and test/ with the same class folders inside: "merge" takes all of them
    # as one set that is split anew, "keep" takes the set's own test images as the role `test`. An
    # .npz or a table with a column `split` is merged, and says so, unless its parts are kept.
    official_split: Literal["refuse", "merge", "keep"] = "refuse"
    # Pictures of few values whose name is another's with a suffix, or in a folder such as masks/.
    masks: Literal["leave_out", "keep"] = "leave_out"
    # Which flips and turns of an image show a valid image of the same class: "mirror" is left to
    # right, "dihedral" also upside down and quarter turns. Both kinds of training draw from them.
    symmetry: Literal["none", "mirror", "dihedral"] = "none"

    @property
    def formats(self) -> dict[str, Any]:
        """Of the choices of format those that are not the default, as plain values."""
        return self.model_dump(
            mode="json", include=set(Formats.model_fields), exclude_defaults=True
        )

    @model_validator(mode="after")
    def one_source(self) -> "DataConfig":
        if (self.source is None) == (self.phantoms is None):
            raise ValueError("give exactly one of data.source (or --data PATH) and data.phantoms")
        if len(set(self.class_names or [])) < len(self.class_names or []):
            raise ValueError(f"data.class_names must differ; received {self.class_names}")
        is_npz = self.source is not None and self.source.suffix.lower() == ".npz"
        if self.class_names is not None and not is_npz:
            raise ValueError(
                "data.class_names goes with an .npz alone, whose labels are numbers; remove it"
            )
        return self


class SplitConfig(Section):
    """Shares of each class. What is left over after diffusion and test is the role `train`."""

    diffusion: Fraction = 0.2
    validation: Fraction = Field(default=0.1, description="of the diffusion share")
    test: Fraction = 0.2
    # What else may not be torn apart, beside duplicates: the images of a patient whom a table or a
    # DICOM header names, or whom `pattern` finds in the path; or runs of neighbouring files.
    group_by: Literal["patient", "pattern", "neighbours"] = "patient"
    # Whether a table or a header that names patients is believed; "ignore" where it names one dummy
    # for all.
    patient: Literal["together", "ignore"] = "together"
    pattern: str | None = Field(
        default=None, description="regular expression; its first group is the patient"
    )
    run_length: Annotated[int, Field(ge=2)] = 30
    # Greatest number of the 256 bits of a perceptual hash in which two near-duplicates differ.
    near_duplicate_bits: Annotated[int, Field(ge=0, le=64)] | None = Field(
        default=32, description="only images of equal pixels are duplicates if null"
    )

    @model_validator(mode="after")
    def leaves_train(self) -> "SplitConfig":
        if self.diffusion + self.test >= 1:
            raise ValueError("split.diffusion + split.test must stay below 1")
        return self

    @model_validator(mode="after")
    def run_length_is_used(self) -> "SplitConfig":
        default = type(self).model_fields["run_length"].default  # which a run's record names too
        if self.group_by != "neighbours" and self.run_length != default:
            raise ValueError(
                "split.run_length goes with split.group_by: neighbours; received "
                f"{self.group_by!r}; change one of the two"
            )
        return self

    @model_validator(mode="after")
    def pattern_has_a_group(self) -> "SplitConfig":
        if (self.group_by == "pattern") != (self.pattern is not None):
            raise ValueError("split.pattern and split.group_by: pattern go together; give both")
        try:
            groups = re.compile(self.pattern or "()").groups
        except re.error as error:
            raise ValueError(f"split.pattern is no regular expression: {error}") from None
        if groups < 1:
            raise ValueError(
                "split.pattern must have one group in parentheses around what names the patient; "
                f"received {self.pattern!r}"
            )
        return self


class DiffusionConfig(Section):
    """The denoiser and its training."""

    # Limits of which the first that is reached ends the training.
    BUDGET: ClassVar[set[str]] = {"max_minutes", "max_images", "max_epochs", "patience"}

    # Fills in what the file leaves out of this section; see PRESETS.
    preset: Literal["cpu", "small", "base", "large"] = "cpu"
    widths: Annotated[list[Count], Field(min_length=1)] = [32, 64, 128, 192]
    blocks: Count = 1
    patch_size: Literal[1, 2, 4, 8] = 2
    predict: Literal["x0", "v"] = "x0"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    # Chance that an image is scaled, turned or shifted, each; the network is told how, and draws
    # images to which nothing was done.
    augment: Share = 0.0
    label_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.15
    min_snr_gamma: Rate = 5.0
    min_snr_floor: Annotated[float, Field(ge=0)] = 0.05
    batch_size: Count = 16
    learning_rate: Rate = 1e-3
    warmup_steps: Count = 200
    # Share of the budget, at its end, over which the learning rate falls to nearly nothing.
    cooldown: Share = 0.0
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    clip_norm: Rate = 1.0
    ema_decay: Fraction = 0.9995
    max_minutes: Rate | None = 60.0
    max_images: Count | None = Field(default=None, description="shown in all")
    max_epochs: Count | None = Field(default=None, description="times that each image is shown")
    # Steps between two checkpoints, each with its validation loss; previews count checkpoints.
    checkpoint_steps: Count = 200
    preview_every: Count = 10
    patience: Count = Field(default=50, description="checkpoints without a lower validation loss")

    @model_validator(mode="before")
    @classmethod
    def fill_from_preset(cls, values: Any) -> Any:
        # What is no section, or no preset, is refused when it is checked.
        if not isinstance(values, dict):
            return values
        return {**PRESETS.get(str(values.get("preset", "cpu")), {}), **values}

    @model_validator(mode="after")
    def floor_is_below_gamma(self) -> "DiffusionConfig":
        if self.min_snr_floor > self.min_snr_gamma:
            raise ValueError(
                "diffusion.min_snr_floor must not exceed diffusion.min_snr_gamma; received "
                f"{self.min_snr_floor} and {self.min_snr_gamma}"
            )
        return self

    @model_validator(mode="after")
    def heads_divide_and_training_ends(self) -> "DiffusionConfig":
        if self.widths[-1] % ATTENTION_HEADS:
            raise ValueError(
                f"the last of diffusion.widths must be a multiple of {ATTENTION_HEADS}, the heads "
                f"of attention; received {self.widths}"
            )
        if self.max_minutes is None and self.max_images is None and self.max_epochs is None:
            raise ValueError(
                "give one of diffusion.max_minutes, diffusion.max_images and diffusion.max_epochs"
            )
        return self

    def budget(self) -> str:
        """The limits in words."""
        limits = (
            (self.max_minutes, "minutes"),
            (self.max_images, "images"),
            (self.max_epochs, "epochs"),
        )
        return " or ".join(f"{limit:,.12g} {unit}" for limit, unit in limits if limit is not None)


class VariantConfig(Section):
    """What a further synthetic set changes; null takes the section's own."""

    per_class: Count | None = None
    times_real: Rate | None = None
    solver: Solver | None = None
    steps: SolverSteps | None = None
    guidance_scale: Guidance | None = None


class SamplingConfig(Section):
    """The synthetic set, and further ones to compare it with."""

    per_class: Count | None = Field(default=None, description="by times_real if null")
    times_real: Rate = Field(default=1.0, description="of the largest class of the real share")
    solver: Solver = "unipc"
    steps: SolverSteps = 15
    guidance_scale: Guidance = 1.0  # 1 is unguided, at half the cost
    batch_size: Count = 32
    engine: Literal["onnx", "keras"] = "onnx"
    # An image that is a copy of a training image, also mirrored, turned, shifted or blended, is
    # drawn again.
    copy_filter: bool = True
    # A sweep: further sets by name, such as {x3: {times_real: 3}, guided: {guidance_scale: 2}}.
    # CNNs are trained on each of them too.
    variants: dict[Annotated[str, Field(pattern=NAME)], VariantConfig] = {}

    def of_set(self, variant: str | None) -> "SamplingConfig":
        """The settings of one set: the section's own, or those of a variant."""
        changes: dict[str, Any] = {"variants": {}}
        if variant is not None:
            changes |= self.variants[variant].model_dump(exclude_none=True)
            if "times_real" in changes:
                changes.setdefault("per_class", None)
        return self.model_copy(update=changes)


class BackboneConfig(Section):
    """What differs for one backbone; null takes the section's own."""

    input_size: InputSize | None = None
    batch_size: Count | None = None
    finetune_epochs: Epochs | None = None
    patience: Count | None = None
    finetune_learning_rate: Rate | None = None
    finetune_share: PositiveShare | None = None
    dropout: Dropout | None = None


class ClassifierConfig(Section):
    """The CNNs: which, trained on what, and how."""

    backbones: Annotated[list[str], Field(min_length=1)] = ["MobileNetV2"]
    train_on: Annotated[list[Regime], Field(min_length=1)] = ["real", "synthetic", "both"]
    seeds: Count = 1
    # "imagenet", "none" or a path; or one of these for each backbone.
    weights: str | dict[str, str] = "imagenet"
    input_size: InputSize | None = Field(default=None, description="the backbone's own if null")
    batch_size: Count = 16
    finetune_epochs: Epochs = 10
    patience: Count = Field(
        default=5, description="epochs of the second half without a lower validation loss"
    )
    # An epoch shows as many images as the real share and the main synthetic set have together, so
    # that all CNNs of a study train for as many steps, whatever is added to it; if false, each
    # shows its own set once, and a larger one also means longer training.
    equal_steps: bool = True
    # Of the logistic regression on frozen features that the training of pretrained networks starts
    # from; scikit-learn's C.
    head_inverse_regularisation: Rate = 0.01
    finetune_learning_rate: Rate = 1e-4
    dropout: Dropout = 0.0
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    class_weights: bool = True
    # Colours, small turns, zooms and shifts; flips and quarter turns come from data.symmetry.
    augment: Strength = "medium"
    mixing: Mixing = "none"
    # Share of the backbone's layers, from its output down, that the second phase trains.
    finetune_share: PositiveShare = 1.0
    # What differs for some of the backbones, such as {ResNet50: {input_size: 64}}.
    by_backbone: dict[str, BackboneConfig] = {}

    def of_backbone(self, backbone: str) -> "ClassifierConfig":
        """The settings of one backbone alone: the section's own with what differs for it."""
        changes = self.by_backbone.get(backbone, BackboneConfig()).model_dump(exclude_none=True)
        weights = self.weights
        if isinstance(weights, dict) and backbone in weights:
            weights = weights[backbone]
        changes |= {"backbones": [backbone], "weights": weights, "by_backbone": {}}
        return self.model_copy(update=changes)

    @field_validator("backbones", "train_on")
    @classmethod
    def once_each(cls, values: list[str]) -> list[str]:
        if len(set(values)) < len(values):
            raise ValueError(f"expected each once, received {values}; take out what is repeated")
        return values

    @model_validator(mode="after")
    def some_training(self) -> "ClassifierConfig":
        for backbone in self.backbones:
            self.of_backbone(backbone)._check_some_training()
        return self

    def _check_some_training(self) -> None:
        if self.weights != "none":
            return
        if not self.finetune_epochs:
            raise ValueError(
                "no training is left: classifiers.finetune_epochs is 0 and without weights there "
                "is no head to fit; raise it"
            )
        if self.finetune_share < 1:
            raise ValueError(
                "classifiers.finetune_share below 1 would leave the lower layers of a network "
                "without weights as they were drawn; set it to 1 or give weights"
            )


class ExportConfig(Section):
    """The ONNX files."""

    # float32 is always written; the others are made from it.
    precisions: Annotated[list[Precision], Field(min_length=1)] = ["fp32"]
    calibration_images: Annotated[int, Field(ge=16)] = 64


class EvaluationConfig(Section):
    """Intervals of the figures."""

    bootstrap_samples: Annotated[int, Field(ge=100)] = 1000


class AuditConfig(Section):
    """What fidelity is measured in, beside the features of a CNN of the study and pixels."""

    # Backbones by name, such as InceptionV3.
    extractors: list[str] = []
    extractor_weights: str | dict[str, str] = "imagenet"

    @model_validator(mode="after")
    def extractors_have_learned(self) -> "AuditConfig":
        weights = self.extractor_weights
        if "none" in (weights.values() if isinstance(weights, dict) else [weights]):
            raise ValueError(
                'audit.extractor_weights: expected "imagenet" or a path, received "none"; a '
                "network without weights sees nothing"
            )
        return self


class ExplainConfig(Section):
    """What the networks look at."""

    images_per_class: Count = 4
    explainers: Annotated[
        list[Literal["lime", "kernel_shap", "occlusion", "grad_cam"]], Field(min_length=1)
    ] = ["lime"]
    # LIME stops between these two, when the strongest superpixels have settled.
    min_samples: Annotated[int, Field(ge=10)] = 256
    num_samples: Annotated[int, Field(ge=10)] = 1000
    sampling: Literal["orthogonal", "paired", "independent", "glime"] = "orthogonal"
    segmentation: Literal["foreground", "slic", "quickshift", "felzenszwalb", "grid"] = "foreground"
    superpixels: Annotated[int, Field(ge=1, le=5000)] = 50
    hide: Literal["mean"] | Annotated[int, Field(ge=0, le=255)] = Field(
        default="mean",
        description="what hidden superpixels show: their mean, or a grey level",
    )
    top: Count = 5
    # Deletion and insertion curves, the same network with its weights shuffled, and for phantoms
    # the region that decides.
    checks: bool = True


class RuntimeConfig(Section):
    """How the arithmetic is done. `auto` is resolved on the machine and recorded."""

    precision: Literal["auto", "float32", "mixed_float16", "mixed_bfloat16"] = "auto"
    jit_compile: Literal["auto"] | bool = "auto"
    # "mirrored" divides every training batch among the devices of this machine, "multi_worker"
    # among those of all workers that TF_CONFIG names.
    distribution: Distribution = "none"


class Config(Section):
    """A whole experiment."""

    name: Annotated[str, Field(pattern=NAME)]
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    data: DataConfig
    split: SplitConfig = SplitConfig()
    diffusion: DiffusionConfig = DiffusionConfig()
    sampling: SamplingConfig = SamplingConfig()
    classifiers: ClassifierConfig = ClassifierConfig()
    export: ExportConfig = ExportConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    audit: AuditConfig = AuditConfig()
    explain: ExplainConfig = ExplainConfig()
    runtime: RuntimeConfig = RuntimeConfig()

    @model_validator(mode="after")
    def guidance_was_trained_for(self) -> "Config":
        sets = [None, *self.sampling.variants]
        scales = [self.sampling.of_set(name).guidance_scale for name in sets]
        if not self.diffusion.label_dropout and any(scale != 1.0 for scale in scales):
            raise ValueError(
                "a guidance_scale other than 1 needs a denoiser that has learned without labels: "
                f"diffusion.label_dropout is 0, sampling asks for {scales}; change one of the two"
            )
        return self

    @model_validator(mode="after")
    def size_fits_network(self) -> "Config":
        stride = self.diffusion.patch_size * 2 ** (len(self.diffusion.widths) - 1)
        # On a lowest level of a single pixel tf2onnx 1.17 makes a graph that does not run.
        if self.data.image_size % stride or self.data.image_size < 2 * stride:
            raise ValueError(
                f"data.image_size must be a multiple of {stride} "
                f"(diffusion.patch_size * 2 ** (len(diffusion.widths) - 1)), {2 * stride} or more; "
                f"received {self.data.image_size}; change one of the three"
            )
        return self


class _EachKeyOnce(yaml.SafeLoader):
    """Refuses a key that is given twice, of which YAML would drop the first without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"the key {key.value!r} is given twice", problem_mark=key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def load_config(
    path: Path, assignments: list[str] | None = None, data: Path | None = None
) -> Config:
    """The settings in a YAML file, with single keys overridden.

    Args:
        path: the experiment file.
        assignments: ``key.path=value`` strings; the value is read as YAML.
        data: folder, .csv or .npz that takes the place of the file's own source.

    Raises:
        ConfigError: the file or an override is not valid, naming each key at fault.
    """
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _EachKeyOnce)
    except FileNotFoundError:
        raise ConfigError(
            f"No experiment file at {path}: expected a YAML file; configs/ has examples."
        ) from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} is not readable YAML: {_one_line(error)}; mend it.") from None
    if not isinstance(values, dict):
        raise ConfigError(
            f"{path} holds no settings: expected `key: value` lines, "
            f"received {type(values).__name__}; see configs/ for examples."
        )
    if data is not None:
        _assign(values, "data.source", str(data))
        _assign(values, "data.phantoms", None)
    return override(values, assignments, source=str(path))


def override(values: dict[str, Any], assignments: list[str] | None, source: str) -> Config:
    """Checked settings from plain values and ``key.path=value`` strings that change them.

    Raises:
        ConfigError: a value or an override is not valid; ``source`` names where they came from.
    """
    for assignment in assignments or []:
        _assign(values, *_parse(assignment))
    return parse_config(values, source)


def parse_config(values: dict[str, Any], source: str) -> Config:
    """Checked settings from plain values; ``source`` names them in errors."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{source}: {_describe(error)}") from None


def _parse(assignment: str) -> tuple[str, Any]:
    key, equals, text = assignment.partition("=")
    if not equals or not key:
        raise ConfigError(
            f"--set takes key.path=value, received {assignment!r}; "
            "for example --set diffusion.max_minutes=20."
        )
    try:
        return key, yaml.load(text, _EachKeyOnce)
    except (ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"--set {assignment}: {_one_line(error)}; quote the value.") from None


def _assign(values: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    section = values
    for parent in parents:
        if section.get(parent) is None:
            section[parent] = {}
        section = section[parent]
        if not isinstance(section, dict):
            raise ConfigError(f"Setting {key}: {parent!r} is a value, not a section of keys.")
    section[last] = value


def _describe(error: ValidationError) -> str:
    problems = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            problems.append(f"unknown key {key}; remove it or mend its spelling")
            continue
        if problem["type"] == "missing":
            problems.append(f"missing key {key}; add it")
            continue
        message = problem["msg"].removeprefix("Value error, ")
        received = "" if isinstance(problem["input"], dict) else f", received {problem['input']!r}"
        problems.append(f"{key}: {message}{received}".removeprefix(": "))
    return "; ".join(dict.fromkeys(problems)) + "."


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
