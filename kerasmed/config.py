"""The experiment file: every setting of a study, its default and its range.

Relative paths in it are relative to the working directory.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from kerasmed.errors import ConfigError

Fraction = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0)]
Regime = Literal["real", "synthetic", "both", "real_all"]


class Section(BaseModel):
    """One block of the experiment file; a key that it does not name is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class PhantomConfig(Section):
    """Procedural images that stand in for a domain."""

    family: Literal["mri", "smear", "ct"] = "mri"
    per_class: Count = 300


class DataConfig(Section):
    """Where the images come from and what size they get."""

    directory: Path | None = None
    phantoms: PhantomConfig | None = None
    image_size: Annotated[int, Field(ge=16, le=512)] = 64
    on_bad_image: Literal["stop", "skip"] = "stop"
    # Which flips and turns of an image show a valid image of the same class: "mirror" is left to
    # right, "dihedral" also upside down and quarter turns. Both kinds of training draw from them.
    symmetry: Literal["none", "mirror", "dihedral"] = "none"

    @model_validator(mode="after")
    def one_source(self) -> "DataConfig":
        if (self.directory is None) == (self.phantoms is None):
            raise ValueError("give exactly one of data.directory (or --data DIR) and data.phantoms")
        return self


class SplitConfig(Section):
    """Shares of each class. What is left over after diffusion and test is the role `train`."""

    diffusion: Fraction = 0.2
    validation: Fraction = Field(default=0.1, description="of the diffusion share")
    test: Fraction = 0.2

    @model_validator(mode="after")
    def leaves_train(self) -> "SplitConfig":
        if self.diffusion + self.test >= 1:
            raise ValueError("split.diffusion + split.test must stay below 1")
        return self


class DiffusionConfig(Section):
    """The denoiser and its training."""

    widths: Annotated[list[Count], Field(min_length=1)] = [32, 64, 128, 192]
    blocks: Count = 1
    patch_size: Literal[1, 2, 4, 8] = 2
    predict: Literal["x0", "v"] = "x0"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    label_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.15
    min_snr_gamma: Rate = 5.0
    min_snr_floor: Annotated[float, Field(ge=0)] = 0.05
    batch_size: Count = 16
    learning_rate: Rate = 1e-3
    warmup_steps: Count = 200
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    clip_norm: Rate = 1.0
    ema_decay: Fraction = 0.9995
    steps: Count = 20_000
    max_minutes: Rate | None = None
    steps_per_epoch: Count = 200
    preview_every: Count = 10

    @model_validator(mode="after")
    def whole_epochs_and_heads(self) -> "DiffusionConfig":
        if self.steps % self.steps_per_epoch:
            raise ValueError(
                f"diffusion.steps must be a multiple of diffusion.steps_per_epoch "
                f"({self.steps_per_epoch}); received {self.steps}"
            )
        if self.widths[-1] % 4:
            raise ValueError(
                "the last of diffusion.widths must be a multiple of 4, the heads of attention; "
                f"received {self.widths}"
            )
        return self


class SamplingConfig(Section):
    """The synthetic set."""

    per_class: Count | None = Field(default=None, description="as many as the real share if null")
    solver: Literal["ddpm", "ddim", "dpmpp_2m"] = "dpmpp_2m"
    steps: Annotated[int, Field(ge=1, le=1000)] = 25
    guidance_scale: Annotated[float, Field(ge=0)] = 1.5
    batch_size: Count = 32
    engine: Literal["onnx", "keras"] = "onnx"


class ClassifierConfig(Section):
    """The CNNs: which, trained on what, and how."""

    backbones: Annotated[list[str], Field(min_length=1)] = ["MobileNetV2"]
    train_on: Annotated[list[Regime], Field(min_length=1)] = ["real", "synthetic", "both"]
    seeds: Count = 1
    # "imagenet", "none" or a path; or one of these for each backbone.
    weights: str | dict[str, str] = "imagenet"
    input_size: Annotated[int, Field(ge=32)] | None = Field(
        default=None, description="the backbone's own if null"
    )
    batch_size: Count = 16
    head_epochs: Annotated[int, Field(ge=0)] = 30
    finetune_epochs: Annotated[int, Field(ge=0)] = 10
    patience: Count = 5
    head_learning_rate: Rate = 1e-2
    finetune_learning_rate: Rate = 2e-5
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    class_weights: bool = True
    # Greatest change of brightness, contrast and saturation by KerasCV; 0 turns it off.
    augment: Annotated[float, Field(ge=0, le=1)] = 0.2

    @model_validator(mode="after")
    def some_training(self) -> "ClassifierConfig":
        settings = self.weights.values() if isinstance(self.weights, dict) else [self.weights]
        if not self.finetune_epochs and (not self.head_epochs or "none" in settings):
            raise ValueError(
                "no training is left: classifiers.finetune_epochs is 0 and the head alone is not "
                "trained without weights or with classifiers.head_epochs 0; raise one of them"
            )
        return self


class EvaluationConfig(Section):
    """Intervals of the figures."""

    bootstrap_samples: Annotated[int, Field(ge=100)] = 1000


class ExplainConfig(Section):
    """LIME."""

    images_per_class: Count = 2
    num_samples: Annotated[int, Field(ge=10)] = 500
    segmentation: Literal["quickshift", "slic"] = "slic"
    superpixels: Annotated[int, Field(ge=2, le=2000)] = 50
    top: Count = 5


class RuntimeConfig(Section):
    """How the arithmetic is done. `auto` is resolved on the machine and recorded."""

    precision: Literal["auto", "float32", "mixed_float16", "mixed_bfloat16"] = "auto"
    jit_compile: Literal["auto"] | bool = "auto"


class Config(Section):
    """A whole experiment."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    data: DataConfig
    split: SplitConfig = SplitConfig()
    diffusion: DiffusionConfig = DiffusionConfig()
    sampling: SamplingConfig = SamplingConfig()
    classifiers: ClassifierConfig = ClassifierConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    explain: ExplainConfig = ExplainConfig()
    runtime: RuntimeConfig = RuntimeConfig()

    @model_validator(mode="after")
    def size_fits_network(self) -> "Config":
        stride = self.diffusion.patch_size * 2 ** (len(self.diffusion.widths) - 1)
        if self.data.image_size % stride:
            raise ValueError(
                f"data.image_size must be a multiple of {stride} "
                "(diffusion.patch_size * 2 ** (len(diffusion.widths) - 1)); "
                f"received {self.data.image_size}"
            )
        return self


def load_config(
    path: Path, assignments: list[str] | None = None, data: Path | None = None
) -> Config:
    """The settings in a YAML file, with single keys overridden.

    Args:
        path: the experiment file.
        assignments: ``key.path=value`` strings; the value is read as YAML.
        data: a folder of class folders that takes the place of the file's own source.

    Raises:
        ConfigError: the file or an override is not valid, naming each key at fault.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
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
        _assign(values, "data.directory", str(data))
        _assign(values, "data.phantoms", None)
    for assignment in assignments or []:
        _assign(values, *_parse(assignment))
    return parse_config(values, source=str(path))


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
            "for example --set diffusion.steps=1000."
        )
    try:
        return key, yaml.safe_load(text)
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
