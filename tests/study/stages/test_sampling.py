"""Copies that a denoiser draws are not kept."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kerasmed.errors import ConfigError, DataError, StageError
from kerasmed.metrics.copies import Copy
from kerasmed.study import drawing, synthetic_set
from kerasmed.study.config import Config, parse_config
from kerasmed.study.engine import perform
from kerasmed.study.inputs import load_split, read_synthetic
from kerasmed.study.release.write import release
from kerasmed.study.run_folder import RunFolder
from kerasmed.study.stages import STAGES
from kerasmed.study.stages.audit import _copy_filter, audit_synthetic
from kerasmed.study.stages.sampling import draw_samples, draw_shard


@pytest.fixture
def run(run_copy, model_path) -> RunFolder:
    shutil.copyfile(model_path, run_copy / "features.onnx")
    return RunFolder(run_copy)


@pytest.fixture
def config(run):
    """The settings of a run whose main set alone has yet to be drawn again."""
    manifest = run.synthetic / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"steps": 3', '"steps": 4'))
    return parse_config(run.record()["config"], "test")


def calls_copies(monkeypatch, is_copy):
    """Puts a search in place that calls the n-th image looked at a copy if ``is_copy(n)``."""
    looked_at = iter(range(10_000))

    class Filter:
        def find(self, images: np.ndarray) -> list[Copy | None]:
            return [Copy(0.9, 0.5, 3) if is_copy(next(looked_at)) else None for _ in images]

    monkeypatch.setattr(synthetic_set, "CopyFilter", lambda *_: Filter())
    monkeypatch.setattr(synthetic_set, "calibrate", lambda *_: {"threshold": 0.5})


def pixels_of(run: RunFolder) -> dict[str, bytes]:
    return {path.name + path.parent.name: path.read_bytes() for path in run.synthetic.glob("*/*")}


def pixels_in(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def times_of(run: RunFolder) -> dict[Path, int]:
    """When each image was written."""
    return {path: path.stat().st_mtime_ns for path in run.synthetic.rglob("*.png")}


def test_copies_are_drawn_again_and_listed(run, config, monkeypatch):
    before = pixels_of(run)
    real_copies = json.loads((run.synthetic / "manifest.json").read_text())["rejected"]
    drawn_again = {"".join(note["image"].split("/")[::-1]) for note in real_copies}
    calls_copies(monkeypatch, lambda n: n in (0, 5))

    result = draw_samples(config, run)

    rejected = json.loads((run.synthetic / "manifest.json").read_text())["rejected"]
    assert result["rejected"] == len(rejected) == 2
    for note in rejected:
        assert note["attempt"] == 0
        assert (note["similarity"], note["threshold"]) == (0.9, 0.5)
    after = pixels_of(run)
    changed = {name for name in before if before[name] != after[name]}
    assert before.keys() == after.keys()
    assert len(changed - drawn_again) == 2
    assert {path.name for path in run.synthetic.iterdir()} == {
        "clear",
        "ground_glass",
        "manifest.json",
    }


def test_notes_on_copies_survive_a_kill_while_they_are_moved(run, config, monkeypatch):
    calls_copies(monkeypatch, lambda n: n in (0, 5))
    unlink = Path.unlink

    def killed(path, **options):
        unlink(path, **options)
        if path.name.startswith("rejected-"):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            draw_samples(config, run)

    assert draw_samples(config, run)["rejected"] == 2


def test_set_that_another_process_begins_meanwhile_stays(run, config):
    begun = run.synthetic.with_name("synthetic.unfinished")
    one, other = (synthetic_set.SyntheticSet(config, run, None) for _ in range(2))
    other._begin()
    (begun / "clear" / "000000.png").write_bytes(b"drawn")
    one._begin()
    assert (begun / "clear" / "000000.png").read_bytes() == b"drawn"


def test_first_draw_that_cannot_be_read_is_drawn_again(run, config, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(synthetic_set, "calibrate", killed)
        with pytest.raises(KeyboardInterrupt):
            draw_samples(config, run)
    first = next(run.root.rglob(".first_draws/0-000003.png"))
    first.write_bytes(first.read_bytes()[:20])

    assert draw_samples(config, run)["images"] == {"clear": 22, "ground_glass": 22}


def test_class_may_be_called_as_the_notes_on_copies_are(run, config, monkeypatch):
    image_set, *others = synthetic_set.load_grouped_split(config, run)
    named = dataclasses.replace(image_set, class_names=("rejected", "wanted"))
    monkeypatch.setattr(synthetic_set, "load_grouped_split", lambda *_: (named, *others))
    calls_copies(monkeypatch, lambda n: n == 0)

    result = draw_samples(config, run)
    assert result["rejected"] == 1
    assert result["images"]["rejected"] == result["images"]["wanted"] > 1


def test_kill_between_two_sets_draws_none_of_the_first_again(run, config, monkeypatch):
    values = config.model_dump()
    values["sampling"] |= {"copy_filter": False, "variants": {"half": {"times_real": 0.5}}}
    sweep = parse_config(values, "test")
    draw = synthetic_set.SyntheticSet.draw

    def killed(drawing, *shard):
        if drawing.target != run.synthetic:
            raise KeyboardInterrupt
        return draw(drawing, *shard)

    with monkeypatch.context() as patch:
        patch.setattr(synthetic_set.SyntheticSet, "draw", killed)
        with pytest.raises(KeyboardInterrupt):
            draw_samples(sweep, run)
    written = times_of(run)

    draw_samples(sweep, run)
    assert written == times_of(run)


def test_denoiser_that_draws_nothing_but_copies_is_refused(run, config, monkeypatch):
    before = pixels_of(run)
    calls_copies(monkeypatch, lambda n: True)

    with pytest.raises(StageError, match="each of 20 draws was a copy of a training image") as e:
        draw_samples(config, run)
    assert f"Delete {run.synthetic}.unfinished" in str(e.value)
    assert pixels_of(run) == before


def test_sets_of_a_sweep_lie_beside_the_main_one_and_leave_with_their_names(run, config):
    def with_variants(variants: dict) -> Config:
        values = config.model_dump()
        values["sampling"] |= {"copy_filter": False, "variants": variants}
        return parse_config(values, "test")

    sweep = with_variants({"half": {"times_real": 0.5}, "finer": {"steps": 6}})
    result = draw_samples(sweep, run)

    main_set, half, finer = (
        sorted(run.synthetic_set(name).rglob("*.png")) for name in (None, "half", "finer")
    )
    assert (len(half), len(finer)) == (len(main_set) // 2, len(main_set))
    of_main, of_half, of_finer = map(pixels_in, (main_set[0], half[0], finer[0]))
    np.testing.assert_array_equal(of_half, of_main)
    assert not np.array_equal(of_finer, of_main)
    assert result["variants"]["half"]["images"] == {"clear": 11, "ground_glass": 11}

    draw_samples(with_variants({"half": {"times_real": 0.5}}), run)
    assert [folder.name for folder in run.synthetic_set("half").parent.iterdir()] == ["half"]


def test_set_that_is_there_is_kept_until_it_or_its_settings_change(run):
    config = parse_config(run.record()["config"], "test")
    image = next(run.synthetic.rglob("*.png"))
    written = image.stat().st_mtime_ns

    draw_samples(config, run)
    assert image.stat().st_mtime_ns == written

    image.write_bytes(next(run.synthetic.rglob("*1.png")).read_bytes())
    draw_samples(config, run)
    assert image.stat().st_mtime_ns > written


@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_set_that_cannot_be_read_is_drawn_again(run, damage):
    config = parse_config(run.record()["config"], "test")
    before = pixels_of(run)
    if damage == "cut":
        image = next(run.synthetic.rglob("*.png"))
        image.write_bytes(image.read_bytes()[:50])
    else:
        shutil.rmtree(run.synthetic / "clear")

    draw_samples(config, run)
    assert pixels_of(run) == before


def test_damaged_image_of_an_unfinished_set_is_reported_with_the_way_out(run, config):
    assert draw_shard(config, run) == 0
    image = next(run.synthetic.with_name("synthetic.unfinished").rglob("*.png"))
    image.write_bytes(image.read_bytes()[:50])

    with pytest.raises(
        DataError, match=r"remove it\. `kerasmed sample CONFIG` then draws it again"
    ):
        draw_samples(config, run)
    image.unlink()
    assert draw_samples(config, run)["images"] == {"clear": 22, "ground_glass": 22}


def test_set_in_its_place_is_whole_whenever_the_process_is_killed(run, config, monkeypatch):
    rename = Path.rename

    def killed(path, target):
        rename(path, target)
        if target == run.synthetic:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            draw_samples(config, run)
    written = times_of(run)

    draw_samples(config, run)
    assert written == times_of(run)


def test_draws_that_set_the_threshold_are_not_made_twice(run, config, monkeypatch):
    generate, asked = drawing.generate_images, []

    def counted(denoiser, pixels, wanted, *rest):
        asked.extend(wanted)
        return generate(denoiser, pixels, wanted, *rest)

    monkeypatch.setattr(drawing, "generate_images", counted)
    draw_samples(config, run)
    assert len(asked) == len(set(asked)) >= len(pixels_of(run))


def test_processes_divide_the_draws_that_set_the_threshold(run, config, monkeypatch):
    values = config.model_dump()
    values["sampling"]["batch_size"] = 4
    config = parse_config(values, "test")
    generate, asked, opened = drawing.generate_images, [], []
    monkeypatch.setattr(drawing, "generate_images", lambda *a: asked.extend(a[2]) or generate(*a))
    opens = drawing.open_denoiser
    monkeypatch.setattr(drawing, "open_denoiser", lambda *a: opened.append(1) or opens(*a))
    write, written = drawing.write_marked_png, []

    def killed(path, *arguments):
        write(path, *arguments)
        written.append(path)
        if len(written) == 12:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(drawing, "write_marked_png", killed)
        with pytest.raises(KeyboardInterrupt):
            draw_shard(config, run, 2, 2)
    assert len(asked) == 12

    assert draw_shard(config, run, 1, 2) > 0
    assert draw_shard(config, run, 2, 2) == 0
    draw_samples(config, run)
    drawn_again = [image for image in asked if image[2]]
    assert len(asked) == len(set(asked)) == 44 + len(drawn_again)
    assert len(opened) <= 3
    assert not list(run.root.rglob(".first_draws"))


def test_processes_that_begin_at_once_do_not_draw_the_same(run, config, monkeypatch):
    values = config.model_dump()
    values["sampling"]["batch_size"] = 4
    config = parse_config(values, "test")
    asked = []

    def killed(denoiser, pixels, wanted, *rest):
        asked.append(tuple(wanted))
        raise KeyboardInterrupt

    monkeypatch.setattr(drawing, "generate_images", killed)
    for index in (1, 2, 3):
        with pytest.raises(KeyboardInterrupt):
            draw_shard(config, run, index, 3)
    assert len(set(asked)) == 3
    assert {len(batch) for batch in asked} == {4}


def test_file_that_is_no_variant_stays(run, config):
    run.variants.mkdir(exist_ok=True)
    (run.variants / ".DS_Store").write_bytes(b"")
    draw_samples(config, run)
    assert (run.variants / ".DS_Store").exists()


def test_filter_that_is_off_looks_for_nothing(run, config, monkeypatch):
    calls_copies(monkeypatch, lambda n: True)
    off = config.model_copy(
        update={"sampling": config.sampling.model_copy(update={"copy_filter": False})}
    )

    assert draw_samples(off, run)["rejected"] == 0


def keeping(config, run, keep: str, **more) -> Config:
    """Settings that choose among draws by their mean colours; CNNs of tiny studies see little."""
    values = config.model_dump()
    values["sampling"] |= {"keep": keep, **more}
    values["audit"]["extractors"] = [str(run.root / "features.onnx")]
    return parse_config(values, "test")


def test_draws_that_classifiers_doubt_are_drawn_again_and_listed(run, config, monkeypatch):
    before = pixels_of(run)
    asked = []

    def doubts(self, images, labels):
        asked.append(labels)
        return [0.1 if len(asked) == 1 and i in (0, 3) else None for i in range(len(images))]

    monkeypatch.setattr("kerasmed.study.kept_draws.RealImages.doubts", doubts)
    calls_copies(monkeypatch, lambda n: n == 0)
    result = draw_samples(keeping(config, run, "confirmed"), run)
    notes = json.loads((run.synthetic / "manifest.json").read_text())["rejected"]
    assert result["rejected"] == len(notes) == 2
    reasons = {note["image"].split("/")[1]: note["reason"] for note in notes}
    assert sorted(reasons.values()) == ["a copy of a training image", "not confirmed"]
    assert [note["probability"] for note in notes if note["reason"] == "not confirmed"] == [0.1]
    assert before.keys() == pixels_of(run).keys()
    assert _copy_filter(run)["rejected"] == 1


def test_classifiers_that_learned_from_real_images_decide(run, config):
    """All images kept are of their class, to the classifiers, as often as asked for."""
    asking = keeping(config, run, "confirmed", keep_probability=0.2)
    draw_samples(asking, run)
    drawing = synthetic_set.SyntheticSet(asking, run, None)
    images = read_synthetic(asking, run)
    assert drawing._real_images.doubts(images.images, images.labels) == [None] * len(images)
    assert drawing.is_finished()
    other = keeping(config, run, "confirmed", keep_probability=0.1)
    assert not synthetic_set.SyntheticSet(other, run, None).is_finished()


def test_class_that_is_never_confirmed_is_refused(run, config, monkeypatch):
    monkeypatch.setattr(
        "kerasmed.study.kept_draws.RealImages.doubts",
        lambda self, images, labels: [0.2 if label == 1 else None for label in labels],
    )
    with pytest.raises(StageError, match=r"of 20 draws 20 were not confirmed.*keep_probability"):
        draw_samples(keeping(config, run, "confirmed"), run)


@pytest.mark.parametrize("keep", ["confirmed", "soft", "coverage"])
def test_choosing_draws_without_a_pretrained_network_is_refused(config, keep):
    values = config.model_dump()
    values["sampling"]["variants"] = {"sure": {"keep": keep}}
    with pytest.raises(
        ConfigError, match=rf"keep: {keep} .*give classifiers\.weights, or name a n"
    ):
        parse_config(values, "test")


def test_soft_labels_are_what_classifiers_of_real_images_say(run, config):
    before = pixels_of(run)
    asking = keeping(config, run, "soft")
    draw_samples(asking, run)
    images, drawing = read_synthetic(asking, run), synthetic_set.SyntheticSet(asking, run, None)
    assert before.keys() == pixels_of(run).keys()
    expected = drawing._real_images.probabilities(images.images).astype(np.float32)
    np.testing.assert_array_equal(images.probabilities, expected)
    assert np.ptp(expected) > 0.005  # the tiny CNN knows little
    np.testing.assert_allclose(expected.sum(axis=1), 1, rtol=1e-6)
    assert drawing.is_finished()
    table = run.synthetic / "probabilities.csv"
    table.write_text(table.read_text().replace(",0.", ",0.1", 1))
    assert not drawing.is_finished()


@pytest.mark.parametrize(
    "change", [lambda lines: lines[:-1], lambda lines: ["image,a,b", *lines[1:]]]
)
def test_soft_labels_that_do_not_fit_are_refused(run, config, change):
    asking = keeping(config, run, "soft")
    draw_samples(asking, run)
    table = run.synthetic / "probabilities.csv"
    table.write_text("\n".join(change(table.read_text().splitlines())))
    with pytest.raises(StageError, match=r"probabilities.csv does not fit the set: expected a row"):
        read_synthetic(asking, run)


def test_set_that_covers_has_its_size_and_the_nearest_draws(run, config):
    """Every image kept is one of the draws, and on average nearer to the training images."""
    asking = keeping(config, run, "coverage", candidates=4)
    drawing = synthetic_set.SyntheticSet(asking, run, None)
    drawing.draw()
    draws = drawing._read()
    drawing.finish()
    images = read_synthetic(asking, run)
    assert len(draws) == 4 * len(images)
    assert set(images.counts().values()) == {drawing._per_class}
    rows = {file.sha256: row for row, file in enumerate(draws.files)}
    kept = np.array([rows[file.sha256] for file in images.files])
    real = drawing._real_images
    features = real._network.features(draws.images)
    nearest = np.linalg.norm(features[:, None] - real._features[None], axis=2)
    of_class = draws.labels[:, None] == real._labels[None]
    nearest = np.where(of_class, nearest, np.inf).min(axis=1)
    assert nearest[kept].mean() < nearest.mean()
    assert drawing.is_finished()


def test_choice_that_was_interrupted_goes_on(run, config):
    asking = keeping(config, run, "coverage", candidates=2)
    drawing = synthetic_set.SyntheticSet(asking, run, None)
    drawing.draw()
    next(drawing._folder.rglob("*.png")).unlink()  # as if it was killed while it deleted draws
    again = synthetic_set.SyntheticSet(asking, run, None)
    assert again.draw() == 0
    again.finish()
    assert again.is_finished()


def test_process_that_was_killed_at_the_very_end_only_renames(run, config):
    """The draws that a set does not keep are gone by then, and are not missed."""
    asking = keeping(config, run, "coverage", candidates=2)
    drawing = synthetic_set.SyntheticSet(asking, run, None)
    drawing.draw()
    drawing.finish()
    drawing.target.rename(drawing._folder)
    again = synthetic_set.SyntheticSet(asking, run, None)
    assert again.draw() == 0
    again.finish()
    assert len(read_synthetic(asking, run)) == 2 * again._per_class
    assert again.is_finished()
    manifest = json.loads((run.synthetic / "manifest.json").read_text())
    assert manifest["drawn"] == 4 * again._per_class + len(manifest["rejected"])


def test_candidates_without_a_choice_are_refused(config):
    values = config.model_dump()
    values["sampling"]["variants"] = {"more": {"candidates": 5}}
    with pytest.raises(ConfigError, match=r"candidates is for sampling\.keep: coverage"):
        parse_config(values, "test")


def guided(config, run, **more) -> Config:
    """Settings that choose the guidance scale by the features of a CNN of the study."""
    return keeping(config, run, more.pop("keep", "all"), guidance_scale="auto", **more)


@pytest.mark.parametrize(
    ("named", "scale", "tried"),
    [
        ([0.4, 0.6, 0.9], 1.5, 3),  # real images are named rightly in 0.8
        ([0.85], 1.0, 1),
        ([0.4, 0.6, 0.7, 0.5, 0.4, 0.3, 0.2], 1.5, 7),
    ],
)
def test_guidance_is_the_least_at_which_draws_are_named_as_real_images_are(
    run, config, monkeypatch, named, scale, tried
):
    answers, scales = iter(named), []
    real = synthetic_set.RealImages
    monkeypatch.setattr(real, "named_as_labelled", lambda *_: next(answers))
    monkeypatch.setattr(real, "sensitivity", 0.8)
    generate = drawing.generate_images

    def watched(*arguments):
        scales.append(arguments[8])
        return generate(*arguments)

    monkeypatch.setattr(drawing, "generate_images", watched)
    asking = guided(config, run)
    draw_samples(asking, run)
    chosen = json.loads((run.synthetic / "manifest.json").read_text())["guidance"]
    assert (chosen["scale"], chosen["real"]) == (scale, 0.8)
    assert list(chosen["named_as_labelled"].values()) == named
    assert len(set(scales[:tried])) == tried
    assert set(scales[tried:]) == {scale}
    assert synthetic_set.SyntheticSet(asking, run, None).is_finished()


def test_processes_agree_on_the_guidance_that_one_has_chosen(run, config, monkeypatch):
    asking = guided(config, run)
    draw_shard(asking, run, 1, 2)
    monkeypatch.setattr("kerasmed.study.synthetic_set.choose_guidance", None)
    assert draw_shard(asking, run, 2, 2) == 0
    assert draw_samples(asking, run)["images"]


def test_guidance_by_real_images_needs_a_pretrained_network(config):
    values = config.model_dump()
    values["sampling"]["guidance_scale"] = "auto"
    with pytest.raises(ConfigError, match=r"guidance_scale: auto compares images in the features"):
        parse_config(values, "test")


def varied(config, strength: float, **more):
    values = config.model_dump()
    values["sampling"] |= {"start": "real", "strength": strength, "steps": 10, **more}
    return parse_config(values, "test")


def test_each_training_image_of_a_class_is_varied_in_turn(run, config):
    image_set, split = load_split(config, run)
    by_name = {file.name: i for i, file in enumerate(image_set.files)}
    asking = varied(config, 0.5, per_class=22)
    assert draw_samples(asking, run)["rejected"] == 0
    varied_from = json.loads((run.synthetic / "manifest.json").read_text())["varied_from"]
    originals = {path: by_name[name] for path, name in varied_from.items()}
    assert set(originals.values()) <= set(split["train"].tolist())
    for label, name in enumerate(image_set.class_names):
        of_class = [at for path, at in originals.items() if path.startswith(f"{name}/")]
        assert len(of_class) == 22
        assert all(image_set.labels[at] == label for at in of_class)
        assert len(set(of_class)) == min(22, (image_set.labels[split["train"]] == label).sum())


def test_variations_are_not_private_and_not_released(run, config, tmp_path):
    asking = varied(config, 0.3)
    perform(STAGES["sampling"], asking, run)
    audit_synthetic(asking, run)
    *_, private = json.loads((run.evaluation / "verdicts.json").read_text())
    assert private["light"] == "red"
    assert "each image is a variation of a training image" in private["answer"]
    with pytest.raises(StageError, match="holds variations of training images"):
        release(run, tmp_path / "set")
