"""Pictures for the documentation, from the demo's made-up images and from the notebooks.

    make screenshots        (after `make demo`; it needs Chromium)

It also runs the notebooks. The pictures are written to docs/images/.
"""

import base64
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from tempfile import TemporaryDirectory

import nbclient
import nbformat

DEMO = Path("runs/demo")
TARGET = Path("docs/images")
ADDRESS = "http://127.0.0.1:8765/"


def main() -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None or not (DEMO / "report.html").exists():
        sys.exit("screenshots: expected chromium and runs/demo; install it, and run `make demo`.")
    TARGET.mkdir(exist_ok=True)
    for name in ("real.png", "synthetic.png"):
        shutil.copyfile(DEMO / "figures" / name, TARGET / name)
    kerasmed = [sys.executable, "-m", "kerasmed"]
    with TemporaryDirectory() as folder:
        images = DEMO / "images" / "phantoms"
        check = [*kerasmed, "data", "check", str(images), "--out", folder]
        subprocess.run(check, check=True, stdout=subprocess.DEVNULL)
        _take(browser, (DEMO / "report.html").resolve().as_uri(), "report.png", 1100, 1150)
        _take(browser, (Path(folder) / "check.html").as_uri(), "data_check.png", 1100, 900)
    model = DEMO / "exported" / "MobileNet-real-s0.onnx"
    server = subprocess.Popen([*kerasmed, "serve", str(model), "--port", "8765"])
    try:
        _wait(ADDRESS)
        _take(browser, ADDRESS, "serve.png", 900, 500)
    finally:
        server.terminate()
        server.wait()
    for path in sorted(Path("docs/notebooks").glob("*.ipynb")):
        (TARGET / path.with_suffix(".png").name).write_bytes(_picture_of(path))


def _picture_of(notebook: Path) -> bytes:
    """The first picture of the block that is tagged `picture`."""
    ran = nbformat.read(notebook, as_version=4)
    with TemporaryDirectory() as folder:
        nbclient.NotebookClient(ran, resources={"metadata": {"path": folder}}).execute()
    (block,) = (b for b in ran.cells if "picture" in b.metadata.get("tags", []))
    pictures = [output.data["image/png"] for output in block.outputs if "data" in output]
    return base64.b64decode(pictures[0])


def _take(browser: str, address: str, name: str, width: int, height: int) -> None:
    with TemporaryDirectory() as profile:
        subprocess.run(
            [
                browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                f"--user-data-dir={profile}", f"--window-size={width},{height}",
                f"--screenshot={TARGET / name}", address,
            ],
            check=True, stderr=subprocess.DEVNULL,
        )  # fmt: skip


def _wait(address: str) -> None:
    for _ in range(60):
        try:
            urllib.request.urlopen(address)
        except OSError:
            time.sleep(1)
        else:
            return
    sys.exit(f"screenshots: no answer from {address} within a minute.")


if __name__ == "__main__":
    main()
