"""The HTTP face, in one process and as a command."""

import base64
import gzip
import io
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request
import zlib
from concurrent.futures import ThreadPoolExecutor

import httpx2
import hypothesis
import nibabel
import numpy as np
import pydicom
import pytest
import schemathesis
import uvicorn
from fastapi.testclient import TestClient
from PIL import Image
from schemathesis.specs.openapi.checks import positive_data_acceptance

from kerasmed.cli.main import main
from kerasmed.inference.classifier import OnnxClassifier
from kerasmed.serve.app import create_app
from kerasmed.serve.limits import Limits

RED = np.zeros((6, 6, 3), np.uint8) + np.uint8([250, 10, 40])


def _png(pixels=RED):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def _dicom(rows, columns, syntax=pydicom.uid.ExplicitVRLittleEndian, **others):
    """A header alone: whoever decodes it before looking fails otherwise."""
    dataset = pydicom.Dataset()
    for name, value in others.items():
        setattr(dataset, name, value)
    dataset.Rows, dataset.Columns = rows, columns
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = pydicom.uid.CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def _post(client, content=None, name="slice.png", **query):
    files = {"image": (name, _png() if content is None else content)}
    return client.post("/predict", files=files, params=query)


class Watched:
    """A model whose batches are noted, and wait until they may run."""

    def __init__(self, model):
        self._model = model
        self.batches: list[int] = []
        self.may_run = threading.Event()
        self.may_run.set()

    def __getattr__(self, name):
        return getattr(self._model, name)

    def warm_up(self):
        """Not counted."""

    def predict(self, images):
        self.batches.append(len(images))
        assert self.may_run.wait(20)
        return self._model.predict(images)


@pytest.fixture
def model(model_path):
    return Watched(OnnxClassifier(model_path))


@pytest.fixture
def client(model):
    with TestClient(create_app(model)) as client:
        yield client


def test_prediction_is_that_of_the_engine(client, model, tmp_path):
    (tmp_path / "red.png").write_bytes(_png())
    (expected,) = model.predict(model.read([tmp_path / "red.png"]))
    prediction = _post(client).json()
    assert prediction["predicted"] == "r"
    assert list(prediction["probabilities"]) == ["r", "g", "b"]
    np.testing.assert_allclose(list(prediction["probabilities"].values()), expected, atol=1e-6)
    assert prediction["overlay"] is None


def test_overlay_is_a_picture_of_the_image_and_its_superpixels(client):
    overlay = _post(client, lime=True).json()["overlay"]
    assert overlay.startswith("data:image/png;base64,")
    image = Image.open(io.BytesIO(base64.b64decode(overlay.partition(",")[2])))
    assert image.width == 2 * image.height


def test_page_health_and_description(client):
    assert 'type="file"' in client.get("/").text
    assert client.get("/health").json() == {
        "status": "ok", "model": "model.onnx", "provider": "CPUExecutionProvider",
    }  # fmt: skip
    assert client.get("/model").json()["class_names"] == ["r", "g", "b"]
    assert "/predict" in client.get("/openapi.json").json()["paths"]
    # The page of the interface works without a network.
    addresses = re.findall(r'(?:src|href)="([^"]+)"', client.get("/docs").text)
    assert len(addresses) >= 2
    for address in addresses:
        assert client.get(address).status_code == 200


@pytest.mark.parametrize(
    ("content", "name", "status", "message"),
    [
        (b"no image", "slice.png", 415, "Cannot read the uploaded file"),
        (b"", "slice.png", 415, "Cannot read the uploaded file"),
        (_png()[:40], "slice.png", 415, "Cannot read the uploaded file"),
        (b"no image", "slice.dcm", 415, "Cannot read the uploaded file"),
        (b"no image", "volume.nii.gz", 415, "Cannot read the uploaded file"),
        (_dicom(60, 60), "slice.dcm", 413, "at most 2,500 pixels, received 3,600"),
        (_png(), "../../etc/passwd", 200, ""),
        (_png(), "", 422, ""),
        (_png(np.zeros((60, 60, 3), np.uint8)), "big.png", 413, "at most 2,500 pixels, received 3"),
    ],
)
def test_what_is_uploaded_is_read_or_refused(model, content, name, status, message):
    with TestClient(create_app(model, Limits(max_pixels=2500))) as client:
        answer = _post(client, content, name)
    assert answer.status_code == status
    assert message in answer.text


def _volume(slices=3):
    grey = np.stack([np.full((6, 6), 100 * i % 256, np.uint8) for i in range(slices)], axis=2)
    return gzip.compress(nibabel.Nifti1Image(grey, np.eye(4)).to_bytes(), mtime=0)


def test_a_volume_is_answered_slice_by_slice(client, model):
    answers = _post(client, _volume(), "scan.nii.gz").json()

    assert [answer["slice"] for answer in answers["slices"]] == [0, 1, 2]
    expected = model.predict(np.stack([np.full((4, 4, 3), 100 * i, np.uint8) for i in range(3)]))
    received = [list(answer["probabilities"].values()) for answer in answers["slices"]]
    np.testing.assert_allclose(received, expected, atol=1e-6)


def test_one_slice_of_a_volume_is_answered_and_explained(client):
    prediction = _post(client, _volume(), "scan.nii.gz", slice=1, lime=True).json()

    assert prediction["slice"] == 1
    assert prediction["overlay"].startswith("data:image/png;base64,")
    assert _post(client, _volume(), "scan.nii.gz", slice=3).status_code == 415
    assert "up to 2" in _post(client, _volume(), "scan.nii.gz", slice=3).json()["detail"]


def test_a_volume_of_too_many_slices_or_values_is_refused(model):
    with TestClient(create_app(model, Limits(max_pixels=360, max_slices=4))) as client:
        answers = [_post(client, _volume(count), "scan.nii.gz") for count in (4, 5, 11)]
    assert [answer.status_code for answer in answers] == [200, 413, 413]
    assert "at most 4 slices" in answers[1].text
    assert "at most 360 pixels, received 396" in answers[2].text


def test_header_that_promises_far_more_than_the_file_holds_is_refused(client):
    content = bytearray(gzip.decompress(_volume()))
    content[42:48] = np.array([30000, 30000, 30000], "<i2").tobytes()  # dim[1] to dim[3]

    answer = _post(client, bytes(content), "scan.nii")

    assert (answer.status_code, "received 27,000,000,000,000" in answer.text) == (413, True)


@pytest.mark.parametrize("name", ["IM0001", "1.2.840.10008.7", "slice.png"])
def test_dicom_is_recognised_by_its_content(client, name):
    pixels = np.full((4, 4), 100, np.uint8)
    content = _dicom(
        4, 4, BitsAllocated=8, BitsStored=8, HighBit=7, PixelRepresentation=0, SamplesPerPixel=1,
        PhotometricInterpretation="MONOCHROME2", PixelData=pixels.tobytes(),
    )  # fmt: skip

    assert _post(client, content, name).status_code == 200


def test_encoded_pixels_are_counted_without_a_meta_header_too(client):
    jpeg = io.BytesIO()
    Image.new("L", (8000, 8000)).save(jpeg, "JPEG")
    frames = pydicom.encaps.encapsulate([jpeg.getvalue()])
    first = {"SOPClassUID": pydicom.uid.CTImageStorage}  # by which a bare file is recognised
    whole = _dicom(8, 8, pydicom.uid.JPEGBaseline8Bit, PixelData=frames, **first)
    length = int.from_bytes(whole[140:144], "little")

    answer = _post(client, whole[144 + length :], "a.dcm")

    assert (answer.status_code, "received 64,000,000" in answer.text) == (413, True)


def test_slice_0_of_a_single_image_is_the_image(client):
    assert _post(client, slice=0).status_code == 200
    assert _post(client, slice=1).status_code == 415


def test_picture_with_broken_metadata_is_counted_and_read(client):
    png = _png()
    broken = b"zTXt" + b"key\0\0no zlib"
    chunk = struct.pack(">I", len(broken) - 4) + broken + struct.pack(">I", zlib.crc32(broken))

    assert _post(client, png[:33] + chunk + png[33:]).status_code == 200


def test_values_without_a_range_are_refused_and_with_one_answered(client, model_path):
    stream = io.BytesIO()
    Image.fromarray(np.full((6, 6), 1200, np.uint16)).save(stream, "PNG")
    answer = _post(client, stream.getvalue())
    assert (answer.status_code, "--grey-range LOW,HIGH" in answer.text) == (415, True)
    with TestClient(create_app(OnnxClassifier(model_path, grey_range=(0, 4095)))) as other:
        assert _post(other, stream.getvalue()).status_code == 200


def test_dicom_that_is_far_larger_than_it_looks_is_refused(client):
    deflated = _dicom(
        4, 4, pydicom.uid.DeflatedExplicitVRLittleEndian, EncapsulatedDocument=bytes(2**26)
    )
    assert len(deflated) < 2**20
    answer = _post(client, deflated, "a.dcm")
    assert (answer.status_code, "not deflated" in answer.text) == (415, True)
    jpeg = io.BytesIO()
    Image.new("L", (8000, 8000)).save(jpeg, "JPEG")
    frames = pydicom.encaps.encapsulate([jpeg.getvalue()])
    lying = _dicom(8, 8, pydicom.uid.JPEGBaseline8Bit, PixelData=frames)
    answer = _post(client, lying, "a.dcm")
    assert (answer.status_code, "received 64,000,000" in answer.text) == (413, True)
    run_length = _dicom(
        4, 4, pydicom.uid.RLELossless, BitsAllocated=16, EncapsulatedDocument=bytes(2**21)
    )
    answer = _post(client, run_length, "a.dcm")
    assert (answer.status_code, "of the size that its header states" in answer.text) == (415, True)


def test_image_that_pillow_would_not_open_is_too_large(client, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    answer = _post(client, _png(np.zeros((20, 20, 3), np.uint8)))
    assert (answer.status_code, "at most 50,000,000 pixels" in answer.text) == (413, True)


def test_body_that_does_not_come_is_not_waited_for(model):
    app = create_app(model, Limits(body_seconds=0.5, max_waiting=1))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        _wait_for(lambda: server.started)
        address = server.servers[0].sockets[0].getsockname()
        with socket.create_connection(address, timeout=10) as slow:
            slow.sendall(
                b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n"
                b"Content-Type: multipart/form-data; boundary=b\r\n\r\n--b"
            )
            assert b" 408 " in slow.recv(1000).splitlines()[0]
        # Its place is free again.
        files = {"image": ("slice.png", _png())}
        answer = httpx2.post(f"http://127.0.0.1:{address[1]}/predict", files=files)
        assert answer.status_code == 200
    finally:
        server.should_exit = True
        thread.join(20)


def test_other_names_for_this_machine_are_refused(model):
    with TestClient(create_app(model, hosts=("127.0.0.1", "localhost"))) as client:
        for host, status in (("localhost:8000", 200), ("127.0.0.1", 200), ("evil.example", 400)):
            assert client.get("/health", headers={"Host": host}).status_code == status


def test_request_without_an_image_is_refused(client):
    assert client.post("/predict").status_code == 422
    assert client.post("/predict", files={"other": ("a.png", _png())}).status_code == 422


def test_large_bodies_are_refused_declared_or_not(model):
    with TestClient(create_app(model, Limits(max_body=1000))) as client:
        declared = _post(client, bytes(2000))
        chunks = (bytes(500) for _ in range(4))
        headers = {"content-type": "multipart/form-data; boundary=x"}
        not_declared = client.post("/predict", content=chunks, headers=headers)
        assert _post(client).status_code == 200
    for answer in (declared, not_declared):
        assert answer.status_code == 413
        assert "expected at most 1,000 bytes" in answer.json()["detail"]


def _wait_for(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_waits_becomes_one_batch_and_too_much_is_refused(model):
    model.may_run.clear()
    with (
        TestClient(create_app(model, Limits(max_waiting=6, max_batch=4))) as client,
        ThreadPoolExecutor(6) as pool,
    ):
        first = pool.submit(_post, client)
        _wait_for(lambda: model.batches == [1])
        others = [pool.submit(_post, client) for _ in range(5)]
        gate = client.app.middleware_stack.app
        _wait_for(lambda: _waiting(gate) == 6)
        refused = _post(client)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        time.sleep(0.3)  # the last of them may still be on its way from the gate to the queue
        model.may_run.set()
        assert {answer.result().status_code for answer in [first, *others]} == {200}
    assert model.batches == [1, 4, 1]


def test_explanations_have_a_bound_of_their_own(model, monkeypatch):
    begun, may_end = threading.Event(), threading.Event()

    def explain(*_):
        begun.set()
        assert may_end.wait(20)
        return "data:image/png;base64,", []

    monkeypatch.setattr("kerasmed.serve.app._draw_explanation", explain)
    with (
        TestClient(create_app(model, Limits(max_explaining=1))) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        first = pool.submit(_post, client, lime=True)
        assert begun.wait(20)
        assert _post(client, lime=True).status_code == 503
        assert _post(client).status_code == 200
        may_end.set()
        assert first.result().status_code == 200
        assert _post(client, lime=True).status_code == 200


def _waiting(app):
    while not hasattr(app, "_under_way"):
        app = app.app
    return app._under_way


def test_a_batch_that_fails_does_not_stop_the_next(model, monkeypatch):
    failures = iter([RuntimeError("once")])
    run = model.predict

    def fail_once(images):
        for failure in failures:
            raise failure
        return run(images)

    monkeypatch.setattr(model, "predict", fail_once)
    with TestClient(create_app(model), raise_server_exceptions=False) as client:
        assert _post(client).status_code == 500
        assert _post(client).status_code == 200


@pytest.fixture
def live_schema(model):
    """The OpenAPI page of a server in another thread."""
    server = uvicorn.Server(
        uvicorn.Config(create_app(model, Limits(lime_samples=20)), port=0, log_level="critical")
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    _wait_for(lambda: server.started)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield schemathesis.openapi.from_url(f"http://127.0.0.1:{port}/openapi.json")
    server.should_exit = True
    thread.join(20)


def test_nothing_that_is_sent_makes_it_fail(live_schema):
    for operation in live_schema.get_all_operations():
        _fuzz(operation.ok())


def _fuzz(operation):
    @hypothesis.settings(
        max_examples=25, deadline=None, derandomize=True, database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )  # fmt: skip
    @hypothesis.given(case=operation.as_strategy())
    def run(case):
        response = case.call()
        assert response.status_code < 500
        # The description cannot say that a file must hold an image.
        case.validate_response(response, excluded_checks=[positive_data_acceptance])

    run()


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_command_serves_until_it_is_stopped(model_path):
    port = _free_port()
    command = [
        sys.executable,
        "-m",
        "kerasmed",
        "serve",
        str(model_path),
        "--port",
        str(port),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert f"http://127.0.0.1:{port} serves model.onnx" in process.stdout.readline()

        def answers():
            try:
                address = f"http://127.0.0.1:{port}/health"
                return urllib.request.urlopen(address, timeout=1).status == 200
            except OSError:
                return False

        _wait_for(answers)
        address = f"http://127.0.0.1:{port}"
        with ThreadPoolExecutor(1) as pool, httpx2.Client(base_url=address, timeout=60) as client:
            client.get("/health")  # so that the next request is sent at once
            slow = pool.submit(
                client.post, "/predict?lime=true", files={"image": ("a.png", _png())}
            )
            time.sleep(0.2)
            process.send_signal(signal.SIGTERM)
            assert slow.result().json()["overlay"]
        process.wait(20)


def test_port_in_use_is_refused(model_path, capfd):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["serve", str(model_path), "--port", str(port)]) == 2
    assert f"Cannot listen on 127.0.0.1:{port}: Address already in use" in capfd.readouterr().err
