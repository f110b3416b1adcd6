"""Sizes of the diffusion model, each with a recipe that suits it."""

from typing import Any

# Differences from the defaults of DiffusionConfig, which are the preset "cpu". Without augmentation
# the larger networks memorise a few hundred images (docs/experiments/diffusion_model.md).
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
