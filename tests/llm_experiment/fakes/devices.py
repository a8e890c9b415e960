"""Where tests of models run: the same body on the processor and, where there is one, on a GPU."""

import pytest
import torch

from llm_experiment.config import Precision

NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU here")
NO_TWO_GPUS = pytest.mark.skipif(
    torch.cuda.device_count() < 2, reason="torch finds no two GPUs here"
)


def _on(device: str, precision: Precision):
    marks = [pytest.mark.gpu, NO_GPU] if device != "cpu" else []
    return pytest.param(device, precision, marks=marks, id=f"{device}-{precision.value}")


PLACES = [_on(device, precision) for device in ("cpu", "cuda") for precision in Precision]
"""Device and precision."""

AGREEMENT_NATS = {
    # A forward of whole transcripts and one of single tokens round differently, in every sum.
    Precision.FLOAT32: 1e-4,
    Precision.FLOAT16: 0.05,
    Precision.BFLOAT16: 0.4,
    Precision.NF4: 0.4,  # it computes in bfloat16
}
"""How far log-probabilities of the tiny models may lie from those of a plain forward."""
