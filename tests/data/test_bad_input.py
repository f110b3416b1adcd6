"""Bad and odd input: each kind either works or ends in one clear line that names the culprit."""

import io
import os
import re
import signal
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kerasmed.data.config import DataConfig
from kerasmed.data.image_set import read_images
from kerasmed.data.readers import read_image
from kerasmed.errors import DataError, KerasmedError

SIZE = 16
MAX_PIXELS = 40_000
HANG_S = 2


@dataclass(frozen=True)
class Works:
    """The number of images of each class; and the last image's pixels, where they matter."""

    pixels: Any = None
    ant: int = 1
    cat: int = 1
    within: int = 0


@dataclass(frozen=True)
class Refused:
    """What the line names, below the test's folder, and a fragment of it."""

    culprit: str
    fragment: str


# Makes a source in an empty folder, and returns its path.
Make = Callable[[Path], Path]
# Writes something at a path.
Write = Callable[[Path], Any]

not_root = pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")


def case(name: str, make: Make, expected: Works | Refused, *marks, **settings):
    return pytest.param(make, expected, settings, id=name, marks=marks)


def save_grey(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (SIZE, SIZE), value).save(path)


def plain(folder: Path) -> Path:
    """Two classes of one image each, with nothing odd about them."""
    save_grey(folder / "set" / "ant" / "plain.png", 10)
    save_grey(folder / "set" / "cat" / "plain.png", 20)
    return folder / "set"


def picture(name: str, write: Write) -> Make:
    """A set in which the only image of the class `cat` is odd."""

    def make(folder: Path) -> Path:
        save_grey(folder / "set" / "ant" / "plain.png", 10)
        (folder / "set" / "cat").mkdir()
        write(folder / "set" / "cat" / name)
        return folder / "set"

    return make


def next_to_plain_files(name: str, write: Write) -> Make:
    """Something odd in an otherwise plain set."""

    def make(folder: Path) -> Path:
        source = plain(folder)
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        write(source / name)
        return source

    return make


def source(name: str, write: Write) -> Make:
    """An odd source next to a plain set."""

    def make(folder: Path) -> Path:
        plain(folder)
        write(folder / name)
        return folder / name

    return make


def holding(content: bytes) -> Write:
    return lambda path: path.write_bytes(content)


def saved(image: Image.Image | np.ndarray, **options) -> Write:
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    return lambda path: image.save(path, **options)


def encoded(image: np.ndarray, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, kind, **options)
    return stream.getvalue()


# Four squares of 8 x 8 pixels, so that at SIZE nothing is interpolated.
RED = (255, 0, 0)
SQUARES = np.array([[RED, (0, 255, 0)], [(0, 0, 255), (200, 100, 50)]], dtype=np.uint8)
SQUARES = SQUARES.repeat(8, axis=0).repeat(8, axis=1)
NOISE = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
BOTTOM = np.arange(SIZE)[:, None].repeat(SIZE, axis=1) >= 8
ALPHA = np.dstack([SQUARES, BOTTOM.astype(np.uint8) * 255])
LINE = SQUARES[:1, :1].repeat(500, axis=1)


def palette() -> Image.Image:
    """(10, 20, 30) above (250, 150, 50)."""
    image = Image.fromarray(BOTTOM.astype(np.uint8))
    image.putpalette([10, 20, 30, 250, 150, 50])
    return image


def in_palette(top: Any = (10, 20, 30), bottom: Any = (250, 150, 50)) -> np.ndarray:
    return np.where(BOTTOM[..., None], bottom, top)


def frames(**options) -> Write:
    others = [Image.fromarray(SQUARES[::-1]), Image.fromarray(255 - SQUARES)]
    return saved(SQUARES, save_all=True, append_images=others, **options)


def turned_by_a_camera() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6  # a viewer turns it by a quarter, clockwise
    return exif


def white_is_zero(path: Path) -> None:
    """16-bit TIFF whose largest value is black; Pillow writes 1 (black is zero) as tag 262."""
    content = encoded(np.full((SIZE, SIZE), 65535, dtype=np.uint16), "TIFF")
    tag = (262).to_bytes(2, "little") + (3).to_bytes(2, "little") + (1).to_bytes(4, "little")
    assert content.count(tag + b"\1") == 1
    path.write_bytes(content.replace(tag + b"\1", tag + b"\0"))


def twelve_bits(path: Path) -> None:
    """TIFF of 12 bits a pixel, two in three bytes, all 2048; Pillow reads but cannot write such."""
    pixels = bytes.fromhex("800800") * (SIZE * SIZE // 2)
    tags = {256: SIZE, 257: SIZE, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: SIZE}
    tags[279] = len(pixels)
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    path.write_bytes(b"II*\0" + struct.pack("<I", 8 + len(pixels)) + pixels + directory)


def good(kind: str, suffix: str, write: Write, pixels: Any, *marks, within: int = 0):
    return case(kind, picture(f"odd.{suffix}", write), Works(pixels, within=within), *marks)


def deep(kind: str, suffix: str, write: Write, pixels: Any):
    make = picture(f"odd.{suffix}", write)
    return case(kind, make, Works(pixels), grey_range=(0, 65535))


def bad(kind: str, suffix: str, write: Write, fragment: str, *marks):
    culprit = f"set/cat/odd.{suffix}"
    return case(kind, picture(f"odd.{suffix}", write), Refused(culprit, fragment), *marks)


PICTURES = [
    bad("zero bytes", "png", holding(b""), "of another kind or of 0 bytes"),
    bad("text named .png", "png", holding(b"<html>404</html>"), "of another kind or of 16 bytes"),
    bad("truncated JPEG", "jpg", holding(encoded(NOISE, "JPEG")[:-200]), "file is truncated"),
    good("PNG named .jpg", "jpg", saved(SQUARES, format="PNG"), SQUARES),
    good("bytes after the end", "png", holding(encoded(SQUARES, "PNG") + b"\0" * 99), SQUARES),
    good("CMYK JPEG", "jpg", saved(Image.new("CMYK", (9, 9), (0, 255, 255, 0))), RED, within=4),
    good("palette", "png", saved(palette()), in_palette()),
    good("transparent colour", "png", saved(palette(), transparency=1), in_palette(bottom=0)),
    good("transparent colours", "png", saved(palette(), transparency=b"\0\xff"), in_palette(top=0)),
    good("RGBA", "png", saved(ALPHA), np.where(BOTTOM[..., None], SQUARES, 0)),
    good("LA", "png", saved(Image.new("LA", (9, 9), (80, 80))), 25),  # 80 * 80 / 255 = 25.1
    good("1 bit", "png", saved(BOTTOM), BOTTOM[..., None] * 255),
    good("1 bit TIFF", "tif", saved(BOTTOM), BOTTOM[..., None] * 255),
    deep("16 bits", "png", saved(BOTTOM * np.uint16(25700)), BOTTOM[..., None] * 100),
    deep("16 bits, high byte first", "tif", saved(np.full((9, 9), 25700, ">u2")), 100),
    deep("16 bits, white is zero", "tif", white_is_zero, 0),
    deep("12 bits", "tif", twelve_bits, 8),  # 2048 of 65535
    deep("32-bit float", "tif", saved(np.full((9, 9), 25700, np.float32)), 100),
    deep("32-bit integer", "tif", saved(np.full((9, 9), 25700, np.int32)), 100),
    bad("no range", "tif", saved(np.ones((9, 9), np.float32)), "data.grey_range: [LOW, HIGH]"),
    good("1 x 1", "png", saved(SQUARES[:1, :1]), RED),
    good("500 x 1", "png", saved(LINE), RED),
    good("1 x 500", "png", saved(LINE.swapaxes(0, 1)), RED),
    bad("bomb", "png", saved(Image.new("1", (300, 300))), f"expected at most {MAX_PIXELS:,} pixel"),
    good("GIF of one frame", "gif", saved(palette()), in_palette()),
    bad("animated GIF", "gif", frames(), "received 3 frames"),
    bad("animated PNG", "png", frames(), "received 3 frames"),
    bad("animated WebP", "webp", frames(lossless=True), "received 3 frames"),
    bad("TIFF of three pages", "tiff", frames(), "received 3 frames"),
    good("JPEG with a second view", "jpg", frames(format="MPO", subsampling=0), SQUARES, within=4),
    good("WebP", "webp", saved(SQUARES, lossless=True), SQUARES),
    good(
        *("photograph turned by EXIF", "jpg"),
        saved(SQUARES, exif=turned_by_a_camera(), subsampling=0),
        np.rot90(SQUARES, -1),
        within=4,
    ),
    bad("format that is not listed", "jxl", holding(b""), "has an unsupported file extension (1 "),
]

NAMES = {
    "blanks": " two  words .png",
    "quotes": """it's "one".png""",
    "newline": "two\nlines.png",
    "tab": "a\tb.png",
    "not ASCII": "größe-日本-🩻.png",
    "leading dash": "-rf.png",
    "signs": "100% {x} $HOME #3 *?.png",
    "backslash": "a\\b.png",
    "255 letters": "x" * 251 + ".png",
}


def broken(name: str):
    write = holding(encoded(NOISE, "PNG")[:-200])
    return picture(name, write), Refused(f"set/cat/{name}", "Cannot read ")


NAMED = [
    *(case(f"name: {k}", picture(v, saved(SQUARES)), Works(SQUARES)) for k, v in NAMES.items()),
    *(case(f"broken, name: {k}", *broken(v)) for k, v in NAMES.items()),
    case("name: Latin-1", picture(os.fsdecode(b"\xf6.png"), saved(SQUARES)), Works(SQUARES)),
]


def link_to(target: str) -> Write:
    """A link to something of the set."""

    def write(path: Path) -> None:
        top = next(parent for parent in path.parents if parent.name == "set")
        path.symlink_to(top / target)

    return write


def mode(bits: int) -> Write:
    return lambda path: path.chmod(bits)


def nothing(path: Path) -> None:
    pass


def one_class(folder: Path) -> Path:
    save_grey(folder / "set" / "ant" / "plain.png", 10)
    return folder / "set"


def subsets_of_a_set(folder: Path) -> Path:
    for subset in ("Training", "test"):
        save_grey(folder / "set" / subset / "ant" / "plain.png", 10)
    return folder / "set"


def good_set(kind: str, name: str, write: Write, *marks, ant: int = 1, cat: int = 1):
    return case(kind, next_to_plain_files(name, write), Works(ant=ant, cat=cat), *marks)


def bad_set(kind: str, name: str, write: Write, fragment: str, *marks):
    return case(
        kind, next_to_plain_files(name, write), Refused(f"set/{name}".strip("/."), fragment), *marks
    )


def bad_source(kind: str, name: str, write: Write, fragment: str, *marks):
    return case(kind, source(name, write), Refused(name, fragment), *marks)


FOLDERS = [
    good_set("links in a loop", "ant/up", link_to("ant")),
    good_set("link to the folder of classes", "ant/up", link_to(".")),
    good_set("link to far above", "ant/up", link_to("..")),
    good_set("link to a file", "ant/x.png", link_to("cat/plain.png"), ant=2),
    good_set("link to a folder", "cat/more", link_to("ant"), cat=2),
    bad_set("link to nothing", "ant/x.png", link_to("ant/none.png"), "is a link to nothing"),
    bad_set("link to itself", "ant/x.png", link_to("ant/x.png"), "is a link to nothing"),
    bad_set("class that is a link to nothing", "dog", link_to("none"), ""),
    bad_set("unreadable file", "cat/plain.png", mode(0), "Permission denied", not_root),
    bad_set("unreadable class", "cat", mode(0), "Permission denied", not_root),
    bad_set("unreadable set", ".", mode(0), "", not_root),
    bad_set("set that cannot be entered", ".", mode(0o444), "", not_root),
    bad_set("class that cannot be entered", "cat", mode(0o444), "", not_root),
    bad_set("FIFO", "cat/pipe.png", os.mkfifo, "is not a regular file: expected an image"),
    good_set("folder in a class", "cat/day 2/x.png", saved(SQUARES), cat=2),
    good_set("folder named x.png", "cat/x.png/y.png", saved(SQUARES), cat=2),
    good_set("empty folder named x.png", "cat/x.png", Path.mkdir),
    bad_set("class named x.png", "x.png", Path.mkdir, "is empty: expected at least one image"),
    good_set("Thumbs.db", "cat/Thumbs.db", holding(b"x")),
    good_set("hidden file", "cat/._x.png", holding(b"x")),
    good_set("hidden folder", "cat/.git/x.png", holding(b"x")),
    good_set("hidden class", ".cache/x.png", holding(b"x")),
    good_set("hidden file next to the classes", "._x.png", holding(b"x")),
    good_set("text next to the classes", "LICENCE.txt", holding(b"x")),
    bad_set("text in a class", "cat/notes.txt", holding(b"x"), "unsupported file extension (1 "),
    bad_set("image next to the classes", "x.JPG", holding(b"x"), "lies outside the class folders"),
    bad_set("volume next to the classes", "x.nii.gz", holding(b"x"), "lies outside"),
    bad_set("empty class", "dog", Path.mkdir, "is empty: expected at least one image"),
    case("one class", one_class, Refused("set", "has 1 class folder: expected")),
    case("subsets of a set", subsets_of_a_set, Refused("set", "Training, test, which are subsets")),
    bad_source("no class", "none", Path.mkdir, "has 0 class folders: expected"),
    bad_source("missing path", "none", nothing, "Nothing at"),
    bad_source("link to nothing as source", "none", lambda p: p.symlink_to("n"), "Nothing at"),
    bad_source("text as source", "a.txt", holding(b"x"), "received 'a.txt'"),
    bad_source("image as source", "a.png", saved(SQUARES), "received 'a.png'"),
    bad_source("source without suffix", "a", holding(b"x"), ""),
    bad_source("source of 300 letters", "a" * 300, nothing, ""),
    bad_source("FIFO as table", "a.csv", os.mkfifo, ""),
]

PLAIN = "path,label,patient\nset/ant/plain.png,ant,p1\nset/cat/plain.png,cat,p2\n"


def table(text: str, encoding: str = "utf-8") -> Make:
    return source("table.csv", holding(text.encode(encoding)))


def bad_table(kind: str, text: str, fragment: str, *marks, encoding: str = "utf-8"):
    return case(f"table: {kind}", table(text, encoding), Refused("table.csv", fragment), *marks)


def bad_line(kind: str, line: str, fragment: str, *marks):
    """The third line of a table that is else plain."""
    return bad_table(kind, f"{PLAIN}{line}\n", fragment, *marks)


def table_of_a_broken_picture(folder: Path) -> Path:
    path = table(PLAIN)(folder)
    (folder / "set" / "cat" / "plain.png").write_bytes(b"")
    return path


NO_IMAGE = "image 3: expected an image at "
TABLES = [
    case("table", table(PLAIN), Works(20)),
    case("table: BOM, CRLF", table("\ufeff" + PLAIN.replace("\n", "\r\n\r\n")), Works(20)),
    bad_table("empty", "", "lists no image"),
    bad_table("only a header", "path,label\n", "lists no image"),
    bad_table("no header", PLAIN[19:], "received the columns ['set/ant/plain.png', 'ant', 'p1']"),
    bad_table("missing column", PLAIN.replace("label", "class"), "['path', 'class', 'patient']"),
    bad_table("semicolons", PLAIN.replace(",", ";"), "received the columns ['path;label;patient']"),
    bad_line("missing file", "set/none.png,cat,p3", NO_IMAGE),
    bad_line("folder for a file", "set/cat,cat,p3", NO_IMAGE),
    bad_line("zero in a path", "set/\0.png,cat,p3", NO_IMAGE),
    bad_line("other kind of file", "table.csv,cat,p3", "has an unsupported file extension"),
    bad_line("file twice", "./set/cat/plain.png,ant,p3", "twice: expected each once"),
    bad_line("file twice, spelt differently", "set/ant/../cat/plain.png,ant,p3", "twice"),
    bad_line("empty path", ",cat,p3", "image 3: the column 'path' is empty"),
    bad_line("empty label", "set/x.png, ,p3", "image 3: the column 'label' is empty"),
    bad_line("empty patient", "set/x.png,cat,", "image 3: the column 'patient' is empty"),
    bad_line("short line", "set/x.png,cat", "image 3: the column 'patient' is empty"),
    bad_table("long line", PLAIN.replace(",patient", "").replace("p2", "acute"), ""),
    bad_table("column twice", PLAIN.replace("patient", "label"), ""),
    bad_line("open quote", '"set/x.png,cat,p3', "unexpected end of data"),
    bad_table("Latin-1", PLAIN.replace("p2", "é"), "can't decode byte 0xe9", encoding="latin-1"),
    bad_table("UTF-16", PLAIN, "can't decode byte 0xff", encoding="utf-16"),
    bad_table("one class", PLAIN.replace(",cat", ",ant"), "two classes, received ['ant']"),
    bad_line("path of 300 letters", "a" * 300 + ".png,cat,p3", ""),
    case(
        *("table: broken picture", table_of_a_broken_picture),
        Refused("set/cat/plain.png", "of 0 bytes"),
    ),
]
LABELLED = [
    case(
        f"table: label {label!r}",
        table(PLAIN.replace(",cat", f',"{label}"')),
        Refused("table.csv", f"image 2: expected a label of one line, received {label!r}"),
    )
    for label in ("a\nb", "a\0b")
]

GREY = np.arange(6 * SIZE * SIZE).reshape(6, SIZE, SIZE).astype(np.uint8)
LABELS = np.array([0, 1, 0, 1, 0, 1])
LAST = GREY[5][..., None]


def npz(save: Callable = np.savez, **arrays) -> Make:
    return source("set.npz", lambda path: save(path, **arrays))


def bad_npz(kind: str, fragment: str, *marks, images=GREY, labels=LABELS, **settings):
    make = npz(train_images=images, train_labels=labels)
    return case(f"npz: {kind}", make, Refused("set.npz", fragment), *marks, **settings)


def bad_labels(kind: str, labels: Any, *marks):
    fragment = "train_labels: expected one whole number per image"
    return bad_npz(kind, fragment, *marks, labels=np.array(labels))


def bad_images(kind: str, images: np.ndarray):
    return bad_npz(kind, f"received {images.dtype} {images.shape}; convert them", images=images)


def bad_archive(kind: str, content: Callable[[], bytes], *marks):
    make = source("set.npz", lambda path: path.write_bytes(content()))
    return case(f"npz: {kind}", make, Refused("set.npz", ""), *marks)


def archive(save: Callable = np.savez_compressed) -> bytes:
    """So large that its header is read without the rest."""
    noise = np.random.default_rng(0).integers(0, 256, (200, SIZE, SIZE), dtype=np.uint8)
    stream = io.BytesIO()
    save(stream, train_images=noise, train_labels=np.arange(200) % 2)
    return stream.getvalue()


def spoilt_in_the_middle(save: Callable) -> bytes:
    content = archive(save)
    return content[:40_000] + bytes(20) + content[40_020:]


def shorter_than_its_header() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive())) as whole, zipfile.ZipFile(stream, "w") as short:
        short.writestr("train_labels.npy", whole.read("train_labels.npy"))
        short.writestr("train_images.npy", whole.read("train_images.npy")[:-1])
    return stream.getvalue()


def one_array() -> bytes:
    stream = io.BytesIO()
    np.save(stream, GREY)
    return stream.getvalue()


NAMED_CLASSES = {"class_names": ["ant", "cat"]}
ARCHIVES = [
    case(
        *("npz", npz(train_images=GREY, train_labels=LABELS), Works(LAST, ant=3, cat=3)),
        **NAMED_CLASSES,
    ),
    case(
        "npz: compressed, a column of floats as labels",
        npz(np.savez_compressed, val_images=GREY, val_labels=LABELS[:, None] / 1.0),
        Works(LAST, ant=3, cat=3),
        **NAMED_CLASSES,
    ),
    bad_npz("pickled labels", "Object arrays cannot be loaded", labels=LABELS.astype(object)),
    bad_images("pickled images", np.array([[1], [1, 2]] * 3, dtype=object)),
    bad_labels("NaN label", [0, 1, np.nan, 1, 0, 1]),
    bad_labels("infinite label", [0, 1, np.inf, 1, 0, 1]),
    bad_npz("huge label", "", labels=np.array([0, 1, 1e300, 1, 0, 1])),
    bad_labels("half a label", LABELS / 2),
    bad_labels("names as labels", [*"ababab"]),
    bad_labels("several labels an image", np.eye(6, dtype=int)),
    bad_labels("one number for all labels", 3),
    bad_npz("no image", "expected one whole number", images=GREY[:0], labels=LABELS[:0]),
    bad_npz("negative label", "expected labels 0 to 0 (as many as", labels=LABELS - 1),
    bad_npz("label out of range", "expected labels 0 to 1", labels=LABELS * 2, **NAMED_CLASSES),
    bad_npz("bad class name", "of one line, received 'a\\nb'", class_names=["a\nb", "c"]),
    bad_npz("empty class name", "", class_names=["", "c"]),
    bad_npz("one class", "expected at least two classes, received ['0']", labels=LABELS * 0),
    bad_images("float images", GREY / 255),
    bad_images("16-bit images", GREY.astype(np.uint16)),
    bad_images("four channels", GREY[..., None].repeat(4, axis=3)),
    bad_images("channels first", GREY[:, None].repeat(3, axis=1)),
    bad_images("flat images", GREY.reshape(6, -1)),
    bad_images("images without pixels", GREY[:, :0]),
    bad_npz("fewer labels than images", "received 6 train_images and 5 labels", labels=LABELS[:5]),
    bad_npz("Fortran order", "expected C order, received F", images=np.asfortranarray(GREY)),
    case("npz: other keys", npz(x=GREY, y=LABELS), Refused("set.npz", "received ['x', 'y']")),
    case(
        "npz: no labels", npz(train_images=GREY), Refused("set.npz", "train_labels is not a file")
    ),
    case("npz: no array", npz(), Refused("set.npz", "received []")),
    bad_archive("zero bytes", bytes),
    bad_archive("truncated", lambda: archive()[:-500]),
    bad_archive("not a zip file", lambda: b"not a zip archive at all"),
    bad_archive(".npy named .npz", one_array),
    bad_archive("spoilt in the middle", lambda: spoilt_in_the_middle(np.savez)),
    bad_archive("spoilt, compressed", lambda: spoilt_in_the_middle(np.savez_compressed)),
    bad_archive("shorter than its header", shorter_than_its_header),
]


@pytest.fixture(autouse=True)
def small_bombs(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", MAX_PIXELS)


@pytest.fixture(autouse=True)
def no_hang():
    """What waits for ever fails."""

    def fail(*_):
        pytest.fail(f"still waiting after {HANG_S} s")

    before = signal.signal(signal.SIGALRM, fail)
    signal.setitimer(signal.ITIMER_REAL, HANG_S)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def folder(tmp_path):
    """An empty folder; what a test closes in it is opened again, for pytest to remove."""
    yield tmp_path
    for name in ("set", "set/cat"):
        if (tmp_path / name).is_dir():
            (tmp_path / name).chmod(0o755)


def assert_clear_line(error: KerasmedError, culprit: Path) -> None:
    """One line of words around the name of the culprit, which is the user's own."""
    assert str(culprit) in str(error)
    line = str(error).replace(str(culprit), "CULPRIT")
    assert re.fullmatch(r"[A-Z].{30,900}[.)]", line), line
    assert "  " not in line
    assert "unsafely" not in line


@pytest.mark.parametrize(
    ("make", "expected", "settings"),
    [*PICTURES, *NAMED, *FOLDERS, *TABLES, *LABELLED, *ARCHIVES],
)
def test_bad_input_works_or_is_refused_in_one_line(make, expected, settings, folder):
    data = DataConfig(source=make(folder), image_size=SIZE, **settings)

    if isinstance(expected, Refused):
        with pytest.raises(KerasmedError) as caught:
            read_images(data, folder / "cache" / "x")
        assert_clear_line(caught.value, folder / expected.culprit)
        assert expected.fragment in str(caught.value)
        del caught  # what was left open warns now
        return

    images = read_images(data, folder / "cache" / "x")
    assert images.counts() == {"ant": expected.ant, "cat": expected.cat}
    assert images.skipped == ()
    if expected.pixels is not None:
        pixels = np.broadcast_to(expected.pixels, (SIZE, SIZE, 3))
        np.testing.assert_allclose(images.images[-1].astype(int), pixels, atol=expected.within)


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """One to four bytes changed; one file in four cut off besides."""
    changed = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        changed[rng.integers(len(changed))] = rng.integers(256)
    return bytes(changed[: rng.integers(1, len(changed))] if rng.integers(4) == 0 else changed)


@pytest.mark.filterwarnings("ignore")  # as on the command line
@pytest.mark.parametrize(
    ("suffix", "kind", "options"),
    [
        ("jpg", "JPEG", {"exif": turned_by_a_camera()}),
        ("jpg", "JPEG", {"progressive": True}),
        ("png", "PNG", {"exif": turned_by_a_camera()}),
        ("bmp", "BMP", {}),
        ("gif", "GIF", {}),
        ("webp", "WEBP", {}),
        ("tif", "TIFF", {}),
        ("tif", "TIFF", {"compression": "tiff_lzw"}),
    ],
)
def test_mutated_picture_is_read_or_refused(tmp_path, suffix, kind, options):
    content = encoded(NOISE, kind, **options)
    rng = np.random.default_rng(0)
    path = tmp_path / f"a.{suffix}"
    outcomes = {"read": 0, "refused": 0}
    for _ in range(40):
        path.write_bytes(mutated(content, rng))
        try:
            image = read_image(path, SIZE)
        except DataError as error:
            assert_clear_line(error, path)
            outcomes["refused"] += 1
        else:
            assert (image.shape, image.dtype) == ((SIZE, SIZE, 3), np.uint8)
            outcomes["read"] += 1
    assert outcomes["refused"] > 0


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_mutated_npz_is_read_or_refused(tmp_path, save):
    content = archive(save)
    rng = np.random.default_rng(0)
    path = tmp_path / "set.npz"
    for _ in range(40):
        changed = bytearray(content)
        changed[rng.integers(300) * rng.choice([1, -1])] = rng.integers(256)
        path.write_bytes(changed)
        try:
            images = read_images(DataConfig(source=path, image_size=SIZE), tmp_path / "cache" / "x")
        except DataError as error:
            assert_clear_line(error, path)
        else:
            assert len(images) == 200
