"""A function's passes over a large vocabulary fused into few, by torch's compiler.

Solving for a step's policy takes hundreds of operations on one number a token each. Done one by
one they move some hundred times the memory that their arguments have. The compiler makes loops of
them that keep what they need in registers; it changes no order of operations within a row but
that of sums. It needs a compiler for the device (Triton on a GPU), and a minute at the first call.
"""

import warnings
from collections.abc import Callable
from typing import Generic, ParamSpec, TypeVar

import torch

ParametersT = ParamSpec("ParametersT")
ResultT = TypeVar("ResultT")


class FusedFunction(Generic[ParametersT, ResultT]):
    """`function`, compiled when it is first called; as it is, after a warning, if that fails.

    Args:
        function: of tensors and constants; must not read a tensor's values.
    """

    def __init__(self, function: Callable[ParametersT, ResultT]) -> None:
        self._plain = function
        self._call: Callable[ParametersT, ResultT] | None = None

    def __call__(self, *args: ParametersT.args, **kwargs: ParametersT.kwargs) -> ResultT:
        """What `function` returns."""
        if self._call is None:
            self._call = torch.compile(self._plain, fullgraph=True)
        if self._call is self._plain:
            return self._plain(*args, **kwargs)
        try:
            with warnings.catch_warnings():
                # The compiler sees through caches of array_api_compat's, and says so.
                warnings.simplefilter("ignore")
                return self._call(*args, **kwargs)
        except torch._dynamo.exc.TorchDynamoException as error:
            self._call = self._plain
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            warnings.warn(
                f"{self._plain.__name__} is not fused, which is slow: {reason}", stacklevel=2
            )
            return self._plain(*args, **kwargs)
