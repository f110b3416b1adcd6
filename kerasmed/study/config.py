"""The experiment file: every setting of a study, its default and its range.

Relative paths in the file start at the working directory.
"""

from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import Field, ModelWrapValidatorHandler, ValidationError, model_validator

from kerasmed.audit.config import AuditConfig, EvaluationConfig, WorthConfig
from kerasmed.classify.config import ClassifierConfig
from kerasmed.data.config import DataConfig, SplitConfig
from kerasmed.diffusion.config import FACTOR, DiffusionConfig, SamplingConfig
from kerasmed.errors import ConfigError
from kerasmed.explain.config import ExplainConfig
from kerasmed.export.config import ExportConfig
from kerasmed.parallel.config import RuntimeConfig
from kerasmed.settings import NAME, Section, describe_problems
from kerasmed.study.cascade_config import UpscalingConfig, fitting_widths


class Config(Section):
    """A whole experiment."""

    name: Annotated[str, Field(pattern=NAME)]
    """Name of the study, and of its run folder below `runs/`."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Fixes all random choices."""
    data: DataConfig
    split: SplitConfig = SplitConfig()
    diffusion: DiffusionConfig = DiffusionConfig()
    upscaler: UpscalingConfig = UpscalingConfig()
    sampling: SamplingConfig = SamplingConfig()
    classifiers: ClassifierConfig = ClassifierConfig()
    export: ExportConfig = ExportConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    worth: WorthConfig = WorthConfig()
    audit: AuditConfig = AuditConfig()
    explain: ExplainConfig = ExplainConfig()
    runtime: RuntimeConfig = RuntimeConfig()

    @property
    def base_size(self) -> int:
        """Height and width of the images that the diffusion model draws."""
        if self.sampling.source is not None:
            return self.data.image_size  # nothing is drawn
        return self.upscaler.base_size(self.data.image_size)

    @property
    def is_cascade(self) -> bool:
        """Whether an upscaler enlarges what the diffusion model draws."""
        return self.base_size != self.data.image_size

    @model_validator(mode="wrap")
    @classmethod
    def networks_fit_size(cls, values: Any, validated: ModelWrapValidatorHandler[Self]) -> Self:
        """Refuse an image size that a network cannot halve at each of its levels.

        Where the file names no widths, levels that small images do not allow are left out first.
        """
        config = validated(values)
        given = values.get("diffusion", {}) if isinstance(values, dict) else None
        if config.is_cascade and isinstance(given, dict) and "widths" not in given:
            widths = fitting_widths(config.diffusion, config.base_size)
            config = validated({**values, "diffusion": {**given, "widths": widths}})
        if not config.is_cascade:
            config.diffusion.check_image_size(config.data.image_size)
            return config
        config.upscaler.check_image_size(config.data.image_size)
        try:
            config.diffusion.check_image_size(config.base_size, f"data.image_size / {FACTOR}")
        except ValueError as error:
            raise ValueError(f"{error}, or set upscaler.use: never") from None
        return config

    @model_validator(mode="after")
    def guidance_was_trained_for(self) -> "Config":
        """Refuse guidance for a denoiser that never learned without labels."""
        sets = [None, *self.sampling.variants]
        scales = [self.sampling.of_set(name).guidance_scale for name in sets]
        if not self.diffusion.label_dropout and any(scale != 1.0 for scale in scales):
            raise ValueError(
                "a guidance_scale other than 1 needs a denoiser that was also trained without "
                f"labels: diffusion.label_dropout is 0, the guidance scales are {scales}; change "
                "one of the two"
            )
        return self

    @model_validator(mode="after")
    def draws_can_be_compared(self) -> "Config":
        """Refuse to compare draws with real images where no network has learned any features."""
        sets = [self.sampling.of_set(name) for name in (None, *self.sampling.variants)]
        asked = {f"sampling.keep: {of_set.keep}" for of_set in sets if of_set.keep != "all"}
        if any(of_set.guidance_scale == "auto" for of_set in sets):
            asked.add("sampling.guidance_scale: auto")
        backbones = self.classifiers.backbones
        learned = [b for b in backbones if self.classifiers.of_backbone(b).weights != "none"]
        if asked and not (learned or self.audit.extractors):
            raise ValueError(
                f"{min(asked)} compares images in the features of a pretrained network, and the "
                "settings name none: give classifiers.weights, or name a network or an ONNX file "
                "in audit.extractors"
            )
        return self


class _EachKeyOnce(yaml.SafeLoader):
    """Refuses a key that is given twice; YAML would silently drop the first."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in keys:
                raise yaml.constructor.ConstructorError(
                    problem=f"the key {key.value!r} is given twice", problem_mark=key.start_mark
                )
            keys.add(key.value)
        return super().construct_mapping(node, deep)


def load_config(
    path: Path, assignments: list[str] | None = None, data: Path | None = None
) -> Config:
    """The settings in a YAML file, with single keys overridden.

    Args:
        path: the experiment file.
        assignments: ``key.path=value`` strings; the value is read as YAML.
        data: folder, .csv or .npz that replaces the source given in the file.

    Raises:
        ConfigError: the file or an override is not valid; the message names each faulty key.
    """
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _EachKeyOnce)
    except FileNotFoundError:
        raise ConfigError(
            f"No experiment file at {path}: expected a YAML file; configs/ has examples."
        ) from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} is not readable YAML: {_one_line(error)}; correct it.") from None
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
    """Validated settings from plain values, changed by ``key.path=value`` strings.

    Raises:
        ConfigError: a value or an override is not valid; ``source`` says where they came from.
    """
    for assignment in assignments or []:
        _assign(values, *_parse(assignment))
    return parse_config(values, source)


def parse_config(values: dict[str, Any], source: str) -> Config:
    """Validated settings from plain values; errors name them by ``source``."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{source}: {describe_problems(error)}") from None


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


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
