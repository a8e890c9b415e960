"""The projections against the published bisection and against C, forward and with gradients."""

import ctypes
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import array_api_compat
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from mightnt.progress import track
from theory.divergences import kl_nats
from theory.projections import KLProjection, fixed_kl_mixture, geometric_projection

SHAPES = ((64, 110), (8192, 110), (64, 32000), (32, 49152), (8, 262144))
BISECTION_STEPS = 20
"""As published; alpha is then right to 1e-6."""
C_FLAGS = ("-O3", "-march=native", "-ffast-math", "-shared", "-fPIC")
SECONDS_PER_FIGURE = 2.0
SEED = 20241006


def bisect_mixture(log_a: Any, log_b: Any, kl: Any) -> tuple[Any, Any]:
    """Alpha and log x by the published number of bisections, in float64."""
    xp = array_api_compat.array_namespace(log_a)
    a, b = xp.exp(log_a), xp.exp(log_b)
    low, high = xp.zeros_like(kl), xp.ones_like(kl)
    for _ in range(BISECTION_STEPS):
        middle = 0.5 * (low + high)
        x = middle[:, None] * a + (1 - middle[:, None]) * b
        too_far = xp.sum(x * (xp.log(x) - log_b), axis=-1) > kl
        low, high = xp.where(too_far, low, middle), xp.where(too_far, middle, high)
    alpha = 0.5 * (low + high)
    return alpha, xp.log(alpha[:, None] * a + (1 - alpha[:, None]) * b)


def bisect_with_gradient(log_a: Any, log_b: Any, kl: Any) -> Any:
    """The same with derivatives, by one of Newton's steps at the detached root (torch only)."""
    with torch.no_grad():
        alpha, log_x = bisect_mixture(log_a, log_b, kl)
        slope = ((log_a.exp() - log_b.exp()) * (log_x - log_b)).sum(-1)
    a, b = log_a.exp(), log_b.exp()
    x = alpha[:, None] * a + (1 - alpha[:, None]) * b
    alpha = alpha - ((x * (x.log() - log_b)).sum(-1) - kl) / slope
    return (alpha[:, None] * a + (1 - alpha[:, None]) * b).log()


def rows(shape: tuple[int, int]) -> tuple[Any, Any, Any]:
    """Proposals a few nats from their bases, and targets over three orders of magnitude."""
    rng = np.random.default_rng(SEED)
    logits_b = 2.0 * rng.normal(size=shape)
    logits_a = logits_b + rng.normal(size=shape)
    log_a, log_b = (x - np.log(np.exp(x).sum(-1, keepdims=True)) for x in (logits_a, logits_b))
    return log_a, log_b, kl_nats(log_a, log_b) * np.geomspace(1e-3, 0.9, shape[0])


def best_seconds(run: Callable[[], object]) -> float:
    """The shortest of several runs, in processor time: other users of the machine disturb less."""
    run()
    best, stop = float("inf"), time.perf_counter() + SECONDS_PER_FIGURE
    while time.perf_counter() < stop:
        start = time.process_time()
        run()
        best = min(best, time.process_time() - start)
    return best


def backward(run: Callable[[Any, Any, Any], Any], log_a: Any, log_b: Any, kl: Any) -> object:
    """One forward and backward pass with respect to a and k."""
    log_a, kl = log_a.clone().requires_grad_(), kl.clone().requires_grad_()
    log_x = run(log_a, log_b, kl)
    return torch.autograd.grad(log_x[:, 0].sum(), (log_a, kl))


def projected(project: Callable[..., KLProjection]) -> Callable[[Any, Any, Any], Any]:
    """`project` as a function to log x, without checks."""
    return lambda log_a, log_b, kl: project(log_a, log_b, kl, unchecked=True).log_x


def c_loop() -> Callable[[Any, Any, Any], Any] | None:
    """`projection.c` as a function of NumPy arrays to log x; None without a compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    source = Path(__file__).with_name("projection.c")
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder, "projection.so")
        command = [compiler, *C_FLAGS, "-o", str(library), str(source), "-lmvec", "-lm"]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            return None
        project_rows = ctypes.CDLL(str(library)).project_rows

    def project(log_a: Any, log_b: Any, kl: Any) -> Any:
        log_x, weight = np.empty_like(log_a), np.empty_like(kl)
        memory = [ctypes.c_void_p(x.ctypes.data) for x in (log_a, log_b, kl, log_x, weight)]
        project_rows(*memory, *map(ctypes.c_long, log_a.shape))
        return log_x

    return project


def main() -> None:
    """Print milliseconds and ratios for every shape and library."""
    torch.set_num_threads(1)
    table = Table(title="projection to a given KL, ms of one core (ratio to bisection)")
    headers = ("rows x symbols", "arrays", f"{BISECTION_STEPS} bisections", "C", "linear")
    for header in (*headers, "geometric"):
        table.add_column(header, justify="right")
    in_c = c_loop()
    cases = [(shape, kind) for shape in SHAPES for kind in ("NumPy", "torch", "torch + gradient")]
    for shape, kind in track(cases, "projection"):
        inputs = rows(shape)
        if kind != "NumPy":
            inputs = tuple(torch.from_numpy(x) for x in inputs)
        methods: list[Callable[[Any, Any, Any], Any] | None] = [
            bisect_with_gradient if "gradient" in kind else bisect_mixture,
            in_c if kind == "NumPy" else None,
            projected(fixed_kl_mixture),
            projected(geometric_projection),
        ]
        seconds = [
            method
            and best_seconds(
                lambda method=method, inputs=inputs, kind=kind: (
                    backward(method, *inputs) if "gradient" in kind else method(*inputs)
                )
            )
            for method in methods
        ]
        cells = [f"{1e3 * t:.2f} ({seconds[0] / t:.1f}x)" if t else "" for t in seconds]
        table.add_row(f"{shape[0]} x {shape[1]}", kind, *cells)
    Console().print(table)
