"""Any synthetic set is judged: from Python and by `kerasmed judge`."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from conftest import phantom_set
from PIL import Image

import kerasmed as km
from kerasmed.cli.main import main
from kerasmed.data.image_set import ImageSet
from kerasmed.errors import InputError
from kerasmed.study import judging
from kerasmed.study.config import parse_config


class Network:
    """Right about most images, and describes them by their mean colours."""

    def predict(self, images: ImageSet) -> np.ndarray:
        right = np.eye(len(images.class_names))[images.labels]
        return np.where((np.arange(len(images)) % 7 == 0)[:, None], 1 - right, right)

    def features(self, images) -> np.ndarray:
        pixels = images.images if isinstance(images, ImageSet) else images
        return np.asarray(pixels).reshape(len(pixels), 8, -1).mean(axis=2).astype(np.float32)


@pytest.fixture
def trained(monkeypatch) -> list:
    """Instead of CNNs, networks that learn nothing; the list has what each was trained on."""
    images = []

    def train(backbone, of_regime, *_):
        images.append((backbone, of_regime))
        return Network()

    monkeypatch.setattr(judging, "_train", train)
    return images


@pytest.fixture(scope="module")
def phantoms() -> ImageSet:
    return phantom_set(per_class=140)


@pytest.fixture(scope="module")
def roles(phantoms):
    return phantoms[np.arange(len(phantoms)) % 5 > 0].split(train=0.35, test=0.2)


@pytest.fixture(scope="module")
def fresh(phantoms) -> ImageSet:
    """Further phantoms, as a perfect generator would draw them."""
    return phantoms[np.arange(len(phantoms)) % 5 == 0]


def judged(roles, synthetic, **options):
    return km.judge(roles, synthetic, weights="none", **options)


def test_every_cnn_is_trained_on_either_set_with_each_seed(roles, fresh, trained, tmp_path):
    verdicts = judged(roles, fresh, classifiers=["MobileNet", "VGG16"], seeds=2)

    assert [backbone for backbone, _ in trained] == ["MobileNet"] * 4 + ["VGG16"] * 4
    assert [images for _, images in trained][:2] == [roles.train, fresh]
    assert verdicts["useful"].light in ("green", "grey")
    assert verdicts.results["usefulness"]["networks"][0]["seeds"] == 2
    assert (
        "may be too good" in verdicts["faithful"].answer
    )  # no weights, so only features of the CNN
    assert verdicts["faithful"].light != "green"
    assert "takes its file" in verdicts["private"].answer
    assert repr(verdicts).startswith("Verdicts(useful ")

    verdicts.to_directory(tmp_path / "out")

    page = (tmp_path / "out" / "report.html").read_text()
    assert "data:image/png;base64" in page
    for verdict in verdicts.answers:
        assert f'class="verdict {verdict.light}"' in page
    written = json.loads((tmp_path / "out" / "evaluation" / "verdicts.json").read_text())
    assert [answer["question"] for answer in written] == ["useful", "faithful", "private"]


def test_copies_of_test_images_make_private_red_and_refuse_an_answer_on_useful(
    roles, fresh, trained
):
    pixels = np.array(fresh.images)
    pixels[:2] = roles.test.images[:2, :, ::-1]
    leaked = ImageSet.from_arrays(pixels, fresh.labels, fresh.class_names)

    verdicts = judged(roles, leaked)

    assert verdicts["private"].light == "red"
    assert "2 images have the pixels of a real image of the role test" in (
        verdicts["private"].answer
    )
    assert verdicts["useful"].light == "grey"
    assert "2 synthetic images have the pixels of test images" in verdicts["useful"].answer
    assert not trained


def test_generator_that_may_have_learned_from_the_images_gets_amber_at_best(
    roles, fresh, trained, monkeypatch
):
    known, assumed = (
        judged(roles, fresh, seeds=2, train_is_known=is_known) for is_known in (True, False)
    )

    assert "only assumed" not in known["useful"].answer + known["private"].answer
    for question in ("useful", "private"):
        assert "only assumed" in assumed[question].answer
        assert assumed[question].light != "green"


def test_sets_that_do_not_go_together_are_refused(roles, fresh):
    large = phantom_set(per_class=5, size=32)
    with pytest.raises(InputError, match="images of 16 pixels, as the real ones, received 32"):
        judged(roles, large)
    other = ImageSet.from_arrays(np.asarray(fresh.images), ["x", "y"] * (len(fresh) // 2))
    with pytest.raises(InputError, match=r"expected the classes of the real images.*'x', 'y'"):
        judged(roles, other)


def test_settings_that_are_wrong_or_do_nothing_are_refused(roles, fresh):
    with pytest.raises(InputError, match=r"judge: .*epochs"):
        judged(roles, fresh, epochs=3)
    with pytest.raises(InputError, match=r"drop \['synthetic_weight'\]"):
        judged(roles, fresh, synthetic_weight=2.0)
    weights = {"MobileNetV2": "none"}  # of the CNN, and of no extractor
    assert km.judge(roles, fresh, classifiers=[], extractors=[], weights=weights)


def test_one_class_is_judged_but_for_usefulness(phantoms, trained):
    one = ImageSet.from_arrays(np.asarray(phantoms.images), [0] * len(phantoms))
    roles = one[:220].split(train=0.4, test=0.2)

    verdicts = judged(roles, one[220:])

    assert "one class, so there is nothing to classify" in verdicts["useful"].answer
    assert verdicts["private"].light != "red"
    assert not trained


@pytest.fixture
def folders(phantoms, roles, fresh, tmp_path):
    phantoms.to_directory(tmp_path / "real")
    roles.train.to_directory(tmp_path / "learned")
    fresh.to_directory(tmp_path / "synthetic")
    return tmp_path


def run(folders, *arguments) -> int:
    return main([
        "judge", *arguments, "--out", str(folders / "out"),
        "--set", "data.image_size=16", "--set", "classifiers.weights=none",
        "--set", "split.train=0.35",
    ])  # fmt: skip


def test_command_leaves_out_real_images_that_the_generator_learned_from(
    folders, trained, capsys, roles
):
    real, synthetic, learned = (str(folders / n) for n in ("real", "synthetic", "learned"))

    # The synthetic images are among the real ones here.
    assert run(folders, real, synthetic, "--train", learned) == 0

    output = capsys.readouterr()
    assert "images that the generator learned from" in output.err + output.out
    assert "Private: red" in output.out
    assert "Useful: grey" in output.out
    assert (folders / "out" / "report.html").exists()
    assert run(folders, real, synthetic) == 2
    assert "which holds something" in capsys.readouterr().err


def test_a_tenth_of_what_the_generator_learned_from_validates(folders, roles, monkeypatch):
    monkeypatch.setattr(judging, "judge", lambda roles, *_, **__: roles)
    sections = {"data": {"source": "real", "image_size": 16}, "diffusion": {"widths": [8]}}
    config = parse_config({"name": "judged", **sections}, "test")
    paths = (folders / "real", folders / "synthetic", folders / "learned")
    received = judging.judge_folders(*paths, config)
    learned = len(roles.train)
    assert len(received.train) + len(received.validation) == learned
    assert 0.05 < len(received.validation) / learned < 0.15


def test_patients_that_the_generator_learned_from_are_left_out(phantoms):
    files = [replace(file, patient=f"P{i // 4}") for i, file in enumerate(phantoms.files)]
    images = replace(phantoms, files=tuple(files))
    data = {"source": "real", "image_size": 16}
    config = parse_config({"name": "judged", "data": data, "diffusion": {"widths": [8]}}, "test")
    learned = images[np.arange(len(images)) % 8 == 0]  # one of every second patient
    others = images[np.arange(len(images)) % 8 != 0]

    left = judging._not_among(others, learned, config)

    assert {file.patient for file in left.files} == {f"P{i}" for i in range(1, 70, 2)}
    with pytest.raises(InputError, match=r"received none.*split\.patient=ignore"):
        judging._not_among(images[1:3], learned, config)


def test_patients_of_two_tables_are_recognised(folders, phantoms, monkeypatch):
    monkeypatch.setattr(judging, "judge", lambda roles, *_, **__: roles)
    phantoms.to_directory(folders / "all")
    images = sorted((folders / "all").glob("*/*.png"))
    rows = [f"{path},{path.parent.name},P{i // 4}" for i, path in enumerate(images)]
    others = [row for i, row in enumerate(rows) if i % 8]
    for name, chosen in (("learned", rows[::8]), ("real", others)):
        (folders / f"{name}.csv").write_text("\n".join(["path,label,patient", *chosen]))
    data = {"source": "real", "image_size": 16}
    config = parse_config({"name": "judged", "data": data, "diffusion": {"widths": [8]}}, "test")

    received = judging.judge_folders(
        folders / "real.csv", folders / "synthetic", folders / "learned.csv", config
    )

    left = len(received.test) + len(received.reserve)
    assert left == sum(i // 4 % 2 for i in range(len(images)))


def test_all_sets_are_shown_in_the_range_of_the_first(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for name, brightest in (("real", 4000), ("synthetic", 1000)):
        for i in range(40):
            path = tmp_path / name / "ab"[i % 2] / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, brightest, (16, 16), dtype=np.uint16)).save(path)
    received = {}
    monkeypatch.setattr(judging, "judge", lambda roles, other, *_, **__: received.update(s=other))
    data = {"source": "real", "image_size": 16}
    config = parse_config({"name": "judged", "data": data, "diffusion": {"widths": [8]}}, "test")

    judging.judge_folders(tmp_path / "real", tmp_path / "synthetic", None, config)

    assert 25 < received["s"].images.mean() < 40


def test_official_test_images_test_and_need_not_be_in_what_was_learned(folders, roles, monkeypatch):
    monkeypatch.setattr(judging, "judge", lambda roles, *_, **__: roles)
    shutil.rmtree(folders / "real")
    roles.test.to_directory(folders / "real" / "test")
    (roles.reserve + roles.validation).to_directory(folders / "real" / "train")
    data = {"source": "real", "image_size": 16, "official_split": "keep"}
    config = parse_config({"name": "judged", "data": data, "diffusion": {"widths": [8]}}, "test")
    paths = (folders / "real", folders / "synthetic", folders / "learned")
    received = judging.judge_folders(*paths, config)
    subsets = {file.path.parts[-3] for file in received.test.files}
    assert subsets == {"test"}
    assert len(received.train) + len(received.validation) == len(roles.train)


def test_command_without_the_training_images_says_what_it_assumes(folders, trained, capsys):
    shutil.rmtree(folders / "synthetic")
    more = phantom_set(per_class=170)
    more[np.arange(340) % 170 >= 140].to_directory(folders / "synthetic")

    assert run(folders, str(folders / "real"), str(folders / "synthetic")) == 0

    output = capsys.readouterr().out
    assert "It is only assumed that the generator did not learn from these images" in output
    assert len(trained) == 6


def test_unlabelled_images_are_taken_for_one_class(folders, trained, capsys):
    flat = folders / "flat"
    flat.mkdir()
    for i, path in enumerate(sorted((folders / "synthetic").glob("*/*.png"))):
        path.rename(flat / f"{i}.png")

    assert run(folders, str(folders / "real"), str(flat)) == 0

    output = capsys.readouterr()
    assert "Unlabelled images: all count as one class" in output.out + output.err
    assert "Useful: grey" in output.out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["missing", "synthetic"], "missing"),
        (["real", "synthetic", "--set", "diffusion.widths=[8]"], "--set with judge takes data."),
        (["real", "synthetic", "--set", "classifiers.backbones=[MobilNet]"], "MobilNet"),
        (
            ["real", "synthetic", "--set", "classifiers.equal_steps=false"],
            "classifiers.equal_steps",
        ),
    ],
)
def test_bad_input_is_one_line(folders, arguments, expected, capsys, monkeypatch):
    monkeypatch.chdir(folders)

    assert main(["judge", *arguments, "--out", "out", "--set", "data.image_size=16"]) == 2

    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("kerasmed: ")
    assert expected in error
    assert not (folders / "out").exists()
