"""Configurations of detectors that are built in milliseconds."""

from fairdf_utils.model.config import TrainingConfig


def small(image_size: int = 16, **options) -> TrainingConfig:
    """A tiny backbone at `image_size` px, 16 channels wide, which reconstructs at the same size."""
    tiny = {"backbone": "tiny", "weights": "", "image_size": image_size, "width": 16, "reconstruction_size": image_size}
    return TrainingConfig(**tiny | options)
