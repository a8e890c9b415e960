"""What would make a processor wait for its GPU, found without a GPU.

Tensors on torch's `meta` device have shapes and no data: reading a value raises there, as do
operations whose result's shape depends on values. What a GPU would have to wait for besides,
copies from the processor and masks as indices, raises here.
"""

import contextlib

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_FROM_NUMBERS = {torch.tensor, torch.as_tensor, torch.asarray, Tensor.new_tensor}


class WaitsForDeviceError(Exception):
    """An operation for which a processor waits for its GPU."""


class _Operations(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        made = func(*args, **(kwargs or {}))
        devices = {x.device.type for x in given if x.ndim}
        devices |= {x.device.type for x in tree_leaves(made) if isinstance(x, Tensor)}
        if len(devices) > 1:
            raise WaitsForDeviceError(f"{func.name()} has operands on {sorted(devices)}")
        is_index = func.name() in ("aten::index.Tensor", "aten::index_put_", "aten::index_put")
        if is_index and any(x.dtype == torch.bool for x in tree_leaves(args[1]) if x is not None):
            raise WaitsForDeviceError(f"{func.name()} has a mask as index")
        return made


class _Constructors(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if func in _FROM_NUMBERS and made.device.type != "cpu" and made is not args[0]:
            raise WaitsForDeviceError(f"{func.__name__} copies numbers to {made.device}")
        return made


@contextlib.contextmanager
def nothing_waits():
    """Raise where a processor would wait for the device of the tensors, here `meta`."""
    with _Operations(), _Constructors():
        yield
