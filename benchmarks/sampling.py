"""Time and quality of sampling: solvers and precisions of ours, and two other packages.

    python benchmarks/sampling.py CONFIG --data DIR --weights PATH --run RUN --rival-python PATH

RUN is the folder of a study whose denoiser is trained. Each row draws as many images as the role
`train` holds and is judged as in benchmarks/recipe.py; times are scaled to 400 images. The script
makes the int8 denoiser from RUN's float32 one: static, per channel, calibrated on the noisy states
of 32 other images. The rivals are timed with untrained networks, so their quality is not judged:
denoising-diffusion-pytorch's 1000 steps from ten of them, and diffusers' DPM-Solver++ at as many
steps as ours over a U-Net of our shape.
"""

import contextlib
import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from recipe import Judge, draw, judged_parser

from kerasmed.diffusion.denoisers import open_denoiser
from kerasmed.diffusion.generate import Denoiser, generate_images
from kerasmed.diffusion.solvers import sampling_timesteps
from kerasmed.inference.denoiser import OnnxDenoiser
from kerasmed.inference.pixels import PixelRange
from kerasmed.runtime.hardware import machine
from kerasmed.runtime.versions import versions
from kerasmed.study.config import load_config
from kerasmed.study.run_folder import RunFolder

IMAGES = 400


class States(CalibrationDataReader):
    """Inputs of the denoiser while it draws a few images."""

    def __init__(self, denoiser: Denoiser, pixels: PixelRange, size: int, num_classes: int):
        self.states: list[dict[str, np.ndarray]] = []

        def recorded(x_t, timesteps, labels):
            self.states.append({"noisy_images": x_t, "timesteps": timesteps, "labels": labels})
            return denoiser(x_t, timesteps, labels)

        wanted = [(i % num_classes, i) for i in range(32)]
        timesteps = sampling_timesteps(15)
        list(
            generate_images(recorded, pixels, wanted, num_classes, size, 1, "unipc", timesteps, 1.0)
        )

    def get_next(self):
        return self.states.pop() if self.states else None


def to_int8(source: Path, target: Path, states: States) -> None:
    prepared = target.with_suffix(".prepared.onnx")
    source = source.resolve()
    with contextlib.chdir(target.parent):  # it leaves a file of weights in the working directory
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
    quantize_static(
        str(prepared),
        str(target),
        states,
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        op_types_to_quantize=["Conv", "MatMul"],
    )
    # The quantiser drops the metadata.
    model = onnx.load(target)
    properties = {entry.key: entry.value for entry in onnx.load(source).metadata_props}
    onnx.helper.set_model_props(model, properties)
    onnx.save(model, target)


def main() -> None:
    parser = judged_parser(__doc__)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--rival-python")
    parser.add_argument("--slow", action="store_true", help="our own 1000-step DDPM too")
    arguments = parser.parse_args()
    print(json.dumps({**machine(), **versions()}))
    config = load_config(arguments.config, arguments.set, arguments.data)
    run = RunFolder(arguments.run)
    judge = Judge(config, run, arguments.weights)
    size, num_classes = judge.train.image_size, len(judge.train.class_names)
    float32 = run.diffusion / "denoiser.onnx"
    denoiser, pixels = open_denoiser(float32)

    def row(name: str, path: Path, solver: str, steps: int, scale: float = 1.0) -> float:
        options = {"timesteps": sampling_timesteps(steps), "guidance_scale": scale}
        opened = (OnnxDenoiser(path), pixels)
        images, labels, taken = draw(judge, opened, config.seed, solver=solver, **options)
        seconds = taken * IMAGES / len(images)
        verdict = judge.verdict(images, labels)
        line = {"row": name, "solver": solver, "steps": steps, "guidance": scale}
        print(json.dumps({**line, "seconds": round(seconds, 1), **verdict}), flush=True)
        return seconds

    with tempfile.TemporaryDirectory() as folder:
        int8 = Path(folder) / "int8.onnx"
        to_int8(float32, int8, States(denoiser, pixels, size, num_classes))
        ours = row("float32", float32, "unipc", 15)
        row("int8", int8, "unipc", 15)
    for solver, steps, scale in (
        ("unipc", 10, 1.0),
        ("dpmpp_2m", 15, 1.0),
        ("dpmpp_2m", 25, 1.0),
        ("ddim", 25, 1.0),
        ("unipc", 15, 1.5),
    ):
        row("float32", float32, solver, steps, scale)
    if arguments.slow:
        row("float32", float32, "ddpm", 1000)
    if arguments.rival_python:
        shape = f"{config.diffusion.widths}, {config.diffusion.blocks}"
        for name, call in (
            ("denoising-diffusion-pytorch, 1000 steps", f"ddpm_seconds({size}, {IMAGES})"),
            *(
                (
                    f"diffusers, DPM-Solver++, 15 steps, {'bfloat16' if bfloat16 else 'float32'}",
                    f"dpm_solver_seconds({size}, {IMAGES}, 15, {shape}, {bfloat16})",
                )
                for bfloat16 in (False, True)
            ),
        ):
            code = (
                f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); "
                f"import rivals; print(rivals.{call})"
            )
            command = [arguments.rival_python, "-c", code]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            seconds = float(done.stdout.splitlines()[-1])
            print(f"{name}: {seconds:.1f} s, {seconds / ours:.2f} times ours")


if __name__ == "__main__":
    main()
