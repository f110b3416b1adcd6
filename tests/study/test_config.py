"""The experiment file: defaults, overrides and refusals."""

from pathlib import Path

import pytest
import yaml

from kerasmed.diffusion.config import DiffusionConfig
from kerasmed.diffusion.presets import PRESETS
from kerasmed.errors import ConfigError
from kerasmed.study.config import load_config, parse_config

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))
PHANTOMS = {"name": "tiny", "data": {"phantoms": {}}}


@pytest.fixture
def write(tmp_path):
    def write(text: str) -> Path:
        path = tmp_path / "experiment.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture
def experiment(write):
    return write(yaml.safe_dump(PHANTOMS))


def refusal(call, *args, **kwargs) -> str:
    """The one line that a user sees."""
    with pytest.raises(ConfigError) as caught:
        call(*args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_defaults_fill_what_the_file_leaves_out(experiment):
    config = load_config(experiment)

    assert config.seed == 0
    assert config.data.image_size == 64
    assert config.data.phantoms.family == "mri"
    assert config.split.train == config.split.test == 0.2
    assert (config.split.group_by, config.split.near_duplicate_bits) == ("patient", 32)
    assert config.data.dicom.window is None
    assert config.data.nifti.slices == (0.0, 1.0)
    assert config.sampling.solver == "unipc"
    assert config.classifiers.train_on == ["real", "synthetic", "both", "best"]


def test_values_in_the_file_win_over_defaults(write):
    config = load_config(write("name: a\nseed: 7\ndata: {source: images, image_size: 32}\n"))

    assert (config.seed, config.data.image_size) == (7, 32)
    assert config.data.source == Path("images")
    assert config.data.phantoms is None


def test_settings_survive_a_round_trip_through_plain_values(experiment):
    config = load_config(experiment, ["classifiers.weights={MobileNet: a.h5}"])

    assert parse_config(config.model_dump(mode="json"), "run.json") == config


def test_settings_may_differ_between_backbones(experiment):
    config = load_config(
        experiment,
        [
            "classifiers.backbones=[VGG16, ResNet50]",
            "classifiers.weights={VGG16: none, ResNet50: a.h5}",
            "classifiers.by_backbone={VGG16: {input_size: 64, finetune_learning_rate: 0.001}}",
        ],
    ).classifiers
    own, other = config.of_backbone("VGG16"), config.of_backbone("ResNet50")
    assert (own.weights, own.input_size, own.finetune_learning_rate) == ("none", 64, 0.001)
    assert (other.weights, other.input_size) == ("a.h5", config.input_size)
    assert other.finetune_learning_rate == config.finetune_learning_rate
    assert own.patience == other.patience == config.patience


def test_settings_cannot_be_changed_after_loading(experiment):
    config = load_config(experiment)

    with pytest.raises(ValueError, match="frozen"):
        config.seed = 1


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_experiment_loads_under_its_own_name(path):
    assert load_config(path).name == path.stem


def test_there_are_shipped_experiments():
    assert CONFIGS


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"colour": 1}, "colour"),
        ({"diffusion": {"step": 5}}, "diffusion.step"),
        ({"data": {"phantoms": {"famly": "ct"}}}, "data.phantoms.famly"),
        ({"data": {"directory": "images"}}, "data.directory"),
        ({"data": {"source": "a", "dicom": {"windows": [40, 80]}}}, "data.dicom.windows"),
        ({"data": {"source": "a", "nifti": {"slice": 3}}}, "data.nifti.slice"),
        ({"split": {"groupby": "patient"}}, "split.groupby"),
    ],
)
def test_unknown_key_is_named(values, key):
    message = refusal(parse_config, PHANTOMS | values, "my.yaml")

    assert message == f"my.yaml: unknown key {key}; remove it or correct its spelling."


def test_missing_key_is_named():
    message = refusal(parse_config, {"data": {"phantoms": {}}}, "my.yaml")

    assert message == "my.yaml: missing key name; add it."


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", -1),
        ("seed", 2**31),
        ("name", "a/b"),
        ("name", ".."),
        ("data.image_size", 8),
        ("data.image_size", 32.5),
        ("data.phantoms.family", "xray"),
        ("data.symmetry", "all"),
        ("split.test", 0.0),
        ("split.test", 1.0),
        ("split.group_by", "folder"),
        ("split.run_length", 1),
        ("split.run_length", 2.5),
        ("split.near_duplicate_bits", -1),
        ("split.near_duplicate_bits", 65),
        ("data.on_bad_image", "ignore"),
        ("data.dicom.frames", "first"),
        ("data.nifti.axis", "x"),
        ("diffusion.widths", []),
        ("diffusion.patch_size", 3),
        ("diffusion.learning_rate", 0),
        ("diffusion.learning_rate", float("nan")),
        ("diffusion.label_dropout", 1.0),
        ("sampling.solver", "euler"),
        ("sampling.steps", 1001),
        ("sampling.guidance_scale", 0),
        ("classifiers.backbones", []),
        ("explain.superpixels", 0),
        ("explain.num_samples", 9),
        ("explain.segmentation", "voronoi"),
        ("explain.sampling", "shapley"),
        ("explain.explainers", []),
        ("explain.hide", 256),
        ("runtime.precision", "float16"),
    ],
)
def test_value_out_of_range_is_named_and_shown(experiment, key, value):
    message = refusal(load_config, experiment, [f"{key}={yaml.safe_dump(value)}"])

    assert key in message
    assert f"received {value!r}" in message


@pytest.mark.parametrize(
    "key", ["sampling.guidance_scale", "diffusion.max_minutes", "diffusion.learning_rate"]
)
def test_infinity_is_refused(experiment, key):
    assert key in refusal(load_config, experiment, [f"{key}=.inf"])


def test_item_of_a_list_is_named_and_shown(experiment):
    message = refusal(load_config, experiment, ["classifiers.train_on=[real, fake]"])

    assert "classifiers.train_on.1" in message
    assert "received 'fake'" in message


def test_all_faults_are_in_one_message(experiment):
    message = refusal(load_config, experiment, ["seed=-1", "sampling.steps=0"])

    assert "seed" in message
    assert "sampling.steps" in message


def test_shares_must_leave_something_to_train():
    message = refusal(parse_config, PHANTOMS | {"split": {"train": 0.5, "test": 0.5}}, "my.yaml")

    assert "split.train + split.test must stay below 1" in message


@pytest.mark.parametrize("data", [{}, {"source": "images", "phantoms": {}}])
def test_exactly_one_data_source(data):
    message = refusal(parse_config, PHANTOMS | {"data": data}, "my.yaml")

    assert "exactly one of data.source (or --data PATH) and data.phantoms" in message


def test_image_size_must_fit_the_strides():
    message = refusal(
        parse_config, PHANTOMS | {"data": {"phantoms": {}, "image_size": 40}}, "my.yaml"
    )

    assert "data.image_size must be a multiple of 16" in message
    assert "received 40" in message


def test_stride_follows_patch_size_and_depth():
    network = {"diffusion": {"patch_size": 1, "widths": [8, 8, 8]}}
    size = {"data": {"phantoms": {}, "image_size": 20}}

    assert parse_config(PHANTOMS | network | size, "my.yaml").data.image_size == 20


def test_missing_file_is_named(tmp_path):
    path = tmp_path / "none.yaml"

    assert refusal(load_config, path).startswith(f"No experiment file at {path}")


def test_folder_instead_of_file_is_refused(tmp_path):
    assert str(tmp_path) in refusal(load_config, tmp_path)


@pytest.mark.parametrize(
    "text", ["a: [1\n", "a: b: c\n", "\t- x\n", "a: !!python/name:os.system\n"]
)
def test_not_yaml_is_refused(write, text):
    assert "is not readable YAML" in refusal(load_config, write(text))


def test_key_that_is_given_twice_is_refused(write):
    text = (
        "name: a\ndata: {source: b}\nsplit: {group_by: neighbours}\nseed: 1\nsplit: {test: 0.3}\n"
    )

    message = refusal(load_config, write(text))

    assert "the key 'split' is given twice" in message
    assert "line 5" in message


def test_run_length_that_would_do_nothing_is_refused(experiment):
    assert "applies only to split.group_by: neighbours" in refusal(
        load_config, experiment, ["split.run_length=50"]
    )
    load_config(experiment, ["split.run_length=50", "split.group_by=neighbours"])


def test_binary_file_is_refused(tmp_path):
    path = tmp_path / "picture.yaml"
    path.write_bytes(b"\x89PNG\xff\xfe")

    assert "is not readable YAML" in refusal(load_config, path)


def test_impossible_date_is_refused(write):
    assert "is not readable YAML" in refusal(load_config, write("name: 2024-13-45\n"))


@pytest.mark.parametrize(
    ("text", "kind"), [("", "NoneType"), ("- a\n", "list"), ("hello\n", "str")]
)
def test_file_without_keys_is_refused(write, text, kind):
    assert f"received {kind}" in refusal(load_config, write(text))


def test_assignment_overrides_a_value(experiment):
    config = load_config(
        experiment, ["seed=3", "diffusion.max_images=400", "diffusion.widths=[8, 16]"]
    )

    assert (config.seed, config.diffusion.max_images) == (3, 400)
    assert config.diffusion.widths == [8, 16]


@pytest.mark.parametrize("preset", PRESETS)
def test_preset_fills_what_is_not_given(experiment, preset):
    config = load_config(experiment, [f"diffusion.preset={preset}", "diffusion.blocks=7"])

    for key, value in PRESETS[preset].items():
        assert getattr(config.diffusion, key) == (7 if key == "blocks" else value)
    assert config.diffusion.blocks == 7
    assert parse_config(config.model_dump(), "again") == config


def test_budget_is_reported_in_whole_numbers():
    settings = DiffusionConfig(max_minutes=2.25, max_images=1_234_567)
    assert settings.budget() == "2.25 minutes or 1,234,567 images"


@pytest.mark.parametrize("value", ["5", "null", "[cpu]"])
def test_diffusion_that_is_no_section_is_refused(experiment, value):
    assert "diffusion" in refusal(load_config, experiment, [f"diffusion={value}"])


def test_preset_that_is_none_is_refused(experiment):
    message = refusal(load_config, experiment, ["diffusion.preset=huge"])

    assert "diffusion.preset" in message
    assert "received 'huge'" in message


def test_guidance_without_dropped_labels_is_refused(experiment):
    never = "diffusion.label_dropout=0"
    load_config(experiment, [never])
    for guided in (
        "sampling.guidance_scale=2",
        "sampling.variants={guided: {guidance_scale: 2}}",
    ):
        message = refusal(load_config, experiment, [never, guided])
        assert "needs a denoiser that was also trained without labels" in message


def test_floor_above_the_ceiling_of_the_loss_weights_is_refused(experiment):
    message = refusal(load_config, experiment, ["diffusion.min_snr_floor=6"])
    assert "min_snr_floor must not exceed diffusion.min_snr_gamma; received 6.0 and 5.0" in message


@pytest.mark.parametrize("key", ["max_minutes", "max_images", "max_epochs", "patience"])
def test_budget_of_zero_is_refused(experiment, key):
    assert f"diffusion.{key}" in refusal(load_config, experiment, [f"diffusion.{key}=0"])


def test_assignment_fills_a_section_that_is_null(write):
    path = write("name: a\ndata: {phantoms: null, source: images}\n")

    config = load_config(path, ["data.source=null", "data.phantoms.family=ct"])

    assert config.data.phantoms.family == "ct"


def test_last_assignment_wins(experiment):
    assert load_config(experiment, ["seed=3", "seed=4"]).seed == 4


def test_assignment_value_may_hold_an_equals_sign(experiment):
    config = load_config(experiment, ["classifiers.weights=a=b.h5"])

    assert config.classifiers.weights == "a=b.h5"


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("diffusion.max_images", "takes key.path=value"),
        ("=3", "takes key.path=value"),
        ("", "takes key.path=value"),
        ("name.first=3", "'name' is a value"),
        ("seed=[1", "quote the value"),
        ("diffusion.stepz=3", "unknown key diffusion.stepz"),
    ],
)
def test_bad_assignment_is_refused(experiment, assignment, message):
    assert message in refusal(load_config, experiment, [assignment])


def test_data_folder_takes_the_place_of_phantoms(experiment):
    config = load_config(experiment, data=Path("images"))

    assert config.data.source == Path("images")
    assert config.data.phantoms is None


def test_data_folder_keeps_the_other_data_settings(write):
    path = write("name: a\ndata: {phantoms: {}, image_size: 32, symmetry: mirror}\n")

    config = load_config(path, data=Path("images"))

    assert (config.data.image_size, config.data.symmetry) == (32, "mirror")


def test_data_folder_serves_a_file_without_data(write):
    assert load_config(write("name: a\n"), data=Path("images")).data.source == Path("images")


def test_data_that_is_no_section_is_refused_with_a_data_folder_too(write):
    assert "data" in refusal(load_config, write("name: a\ndata: images\n"), data=Path("images"))


@pytest.mark.parametrize(
    ("assignment", "problem"),
    [
        ("diffusion.max_minutes=null", "give one of diffusion.max_minutes, diffusion.max_images"),
        ("diffusion.widths=[32, 64, 128, 190]", "must be a multiple of 4"),
        ("classifiers={weights: none, finetune_epochs: 0}", "no training is left"),
        ("classifiers={weights: none, finetune_fraction: 0.5}", "leave the lower layers"),
        (
            "classifiers={backbones: [VGG16], weights: {VGG16: none}, "
            "by_backbone: {VGG16: {finetune_epochs: 0}}}",
            "no training is left",
        ),
    ],
)
def test_settings_that_do_not_go_together_are_refused(tmp_path, assignment, problem):
    path = tmp_path / "own.yaml"
    path.write_text("name: own\ndata: {source: somewhere}\n")
    with pytest.raises(ConfigError) as refusal:
        load_config(path, [assignment])
    assert problem in str(refusal.value)


def test_every_key_of_data_and_split_may_be_set(experiment):
    config = load_config(
        experiment,
        [
            "split.group_by=neighbours", "split.run_length=12", "split.near_duplicate_bits=null",
            "data.class_names=[healthy, ill]", "data.dicom.window=[40, 400]",
            "data.dicom.frames=split", "data.nifti.axis=sagittal", "data.nifti.slices=[0.2, 0.8]",
            "data.nifti.range=volume", "data.grey_range=[-1000, 400]", "data.nan_value=-1000",
            "data.official_split=keep", "data.masks=keep", "split.patient=ignore",
        ],
        data=Path("set.npz"),
    )  # fmt: skip

    assert (config.split.group_by, config.split.run_length) == ("neighbours", 12)
    assert config.split.near_duplicate_bits is None
    assert config.data.class_names == ["healthy", "ill"]
    assert (config.data.dicom.window, config.data.dicom.frames) == ((40, 400), "split")
    assert (config.data.nifti.axis, config.data.nifti.slices) == ("sagittal", (0.2, 0.8))
    assert (config.data.grey_range, config.data.nan_value) == ((-1000, 400), -1000)
    assert (config.data.nifti.range, config.split.patient) == ("volume", "ignore")
    assert (config.data.official_split, config.data.masks) == ("keep", "keep")
    assert parse_config(config.model_dump(mode="json"), "run.json") == config


def test_pattern_may_be_set_with_its_way_of_grouping(experiment):
    config = load_config(experiment, ["split.group_by=pattern", r"split.pattern=(P\d+)_"])

    assert config.split.pattern == r"(P\d+)_"


@pytest.mark.parametrize(
    ("assignments", "problem"),
    [
        (["split.group_by=pattern"], "split.pattern and split.group_by: pattern go together"),
        (["split.pattern=(a)"], "split.pattern and split.group_by: pattern go together"),
        (
            ["split.group_by=pattern", "split.pattern=(a"],
            "split.pattern is not a regular expression",
        ),
        (
            ["split.group_by=pattern", r"split.pattern=P\d+"],
            r"split.pattern must have one group in parentheses around the patient's name; "
            r"received 'P\\d+'",
        ),
        (["split.group_by=pattern", "split.pattern=(?:a)"], "must have one group in parentheses"),
        (["data.class_names=[a, b]"], "data.class_names applies only to an .npz"),
        (["data.nifti.slices=[0.5, 0.5]"], "data.nifti.slices must go up; received [0.5, 0.5]"),
        (["data.grey_range=[9, 1]"], "data.grey_range must go up; received [9.0, 1.0]"),
    ],
)
def test_keys_of_data_and_split_that_do_not_go_together_are_refused(
    experiment, assignments, problem
):
    assert problem in refusal(load_config, experiment, assignments, data=Path("images"))


@pytest.mark.parametrize(
    ("assignment", "key", "received"),
    [
        ("data.dicom.window=[40, 0]", "data.dicom.window", "received 0"),
        ("data.dicom.window=[40, -80]", "data.dicom.window", "received -80"),
        ("data.dicom.window=[40]", "data.dicom.window", ""),
        ("data.dicom.window=40", "data.dicom.window", "received 40"),
        ("data.dicom.window=[.inf, 80]", "data.dicom.window", "received inf"),
        ("data.nifti.slices=[-0.1, 0.5]", "data.nifti.slices", "received -0.1"),
        ("data.nifti.slices=[0, 1.5]", "data.nifti.slices", "received 1.5"),
        ("data.nifti.slices=[0, 0.5, 1]", "data.nifti.slices", ""),
        ("data.grey_range=[.nan, 5]", "data.grey_range", "received nan"),
        ("data.class_names=ill", "data.class_names", "received 'ill'"),
        ("data.class_names=[1, 2]", "data.class_names", "received 1"),
    ],
)
def test_value_of_the_wrong_shape_is_named(experiment, assignment, key, received):
    message = refusal(load_config, experiment, [assignment], data=Path("set.npz"))

    assert key in message
    assert received in message


@pytest.mark.parametrize("source", ["images", "table.csv", "scan.npz.zip"])
def test_class_names_go_with_an_npz_alone(source):
    data = {"source": source, "class_names": ["a", "b"]}

    message = refusal(parse_config, {"name": "x", "data": data}, "my.yaml")

    assert "data.class_names applies only to an .npz, whose labels are numbers; remove it" in (
        message
    )


def test_class_names_go_with_an_npz_in_capitals():
    data = {"source": "SET.NPZ", "class_names": ["a", "b"]}

    assert parse_config({"name": "x", "data": data}, "my.yaml").data.class_names == ["a", "b"]


@pytest.mark.parametrize(
    "classifiers", [{"train_on": ["real", "real"]}, {"backbones": ["VGG16", "VGG16"]}]
)
def test_networks_and_regimes_are_named_once(classifiers):
    with pytest.raises(ConfigError, match="expected each once, received"):
        parse_config({"name": "x", "data": {"source": "s"}, "classifiers": classifiers}, "x")
