"""Replaying the work of a function on a GPU: one launch in place of thousands.

A position of a large model is some thousands of small operations, and telling a GPU to do each
takes the processor about as long as doing them takes the GPU. A CUDA graph records the operations
once, with the addresses of their tensors, and replays them all at one command. So shapes and
addresses must not change, and nothing may wait for the device.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


class ReplayedFunction:
    """A function of one tensor, recorded as a CUDA graph.

    Args:
        function: to tensors, with fixed shapes; may change tensors in place, but reads no values.
        argument: one to record it with, on a CUDA device.
        state: the tensors that `function` changes in place and reads again; recording leaves them
            as they are.

    Raises:
        RuntimeError: torch cannot record the function.
    """

    def __init__(
        self,
        function: Callable[[Tensor], tuple[Tensor, ...]],
        argument: Tensor,
        *,
        state: Sequence[Tensor],
    ) -> None:
        self._argument = argument.clone()
        saved = [tensor.clone() for tensor in state]
        # Libraries set themselves up in a first call, which must not be recorded.
        aside = torch.cuda.Stream(argument.device)  # type: ignore[no-untyped-call]  # untyped
        aside.wait_stream(torch.cuda.current_stream(argument.device))
        with torch.cuda.stream(aside):
            function(self._argument)
        torch.cuda.current_stream(argument.device).wait_stream(aside)
        for tensor, value in zip(state, saved, strict=True):
            tensor.copy_(value)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._results = function(self._argument)

    def __call__(self, argument: Tensor) -> tuple[Tensor, ...]:
        """What the function makes of `argument`, of the shape that it was recorded with."""
        self._argument.copy_(argument)
        self._graph.replay()
        return tuple(result.clone() for result in self._results)
