"""What a detector answers when one of its branches is shown another image: what is a branch for?"""

import numpy as np
import torch
from torch import nn

from fairdf_utils.data.batches import to_device
from fairdf_utils.evaluation.scoring import scoring_copy


def swapped(
    model: nn.Module, images: np.ndarray, others: np.ndarray, branch: str, device: torch.device, batch_size: int = 256
) -> np.ndarray:
    """Logits of the answer, float32 (N, 2), to images one of whose branches is shown the other images.

    Parameters
    ----------
    model : a detector of several encoders, on `device`; stays as it is
    images, others : uint8 (N, H, H, 3); row i of the others is shown in place of row i of the images
    branch : the encoder that is shown them: "forgery", or "demographic"
    """
    detector, shown, logits = scoring_copy(model), [], []
    encoder = detector.get_submodule(branch)
    encoder.register_forward_pre_hook(lambda _, inputs: tuple(shown))  # of the copy, which is dropped
    with torch.inference_mode():
        for start in range(0, len(images), batch_size):
            own, other = (to_device(each[start : start + batch_size], device) for each in (images, others))
            shown[:] = [detector.stem(other)]
            logits.append(detector.detect(own).cpu())
    return torch.cat(logits).numpy()
