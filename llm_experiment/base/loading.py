"""Loading language models and tokenizers: from safetensors, no remote code, errors of one line.

A model is loaded in one of the precisions of `config.Precision` onto the devices that a
configuration names (`find_devices`): one, or several GPUs among which accelerate divides the
layers. NF4 is made here of a model that was read in bfloat16: 4-bit NormalFloat in blocks of 64
weights, the blocks' scales themselves in 8 bits (double quantisation), by bitsandbytes. All
matrices but the embedding and the output head become NF4, those of fused experts among them, which
transformers' own loading in 4 bits would leave as they are: 96% of a Mixtral. A matrix is
expanded to bfloat16 whenever it is used.
"""

import contextlib
import gc
import importlib
import json
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.quantizers.auto import AutoHfQuantizer
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME
from transformers.utils import logging as transformers_logging

from llm_experiment.base.hugging_face import HuggingFaceBase
from llm_experiment.config import ALL_GPUS, Precision
from mightnt.allocation import keep_freed_memory
from theory.errors import ModelError

_ADAPTER: Final = "adapter_config.json"
NF4_BLOCK: Final = 64
"""Weights that share a scale."""


def compute_dtype(precision: Precision) -> torch.dtype:
    """The dtype that a model of `precision` computes in."""
    name = Precision.BFLOAT16.value if precision is Precision.NF4 else precision.value
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def load_language_model(
    name: str, *, device: str = "cpu", precision: Precision = Precision.FLOAT32
) -> HuggingFaceBase:
    """The causal language model at a local folder or hub id.

    Args:
        name: local folder or hub id.
        device: see `find_devices`.
        precision: of its weights.

    Raises:
        ModelError: in one line: no such model, a download cut short, weights that are missing
            or do not fit, no such device, not enough memory on it, a library that is missing
            (for a quantised checkpoint, say), or a model that is no causal one.
    """
    devices = find_devices(device)
    check_weights("language model", name)
    release_memory()  # of a model that was used before and does not fit beside this one
    keep_freed_memory()
    with one_line_errors("language model", name):
        where = _where_to_read(devices, precision)
        loaded: Any = AutoModelForCausalLM.from_pretrained(  # with info, a pair
            name,
            dtype=compute_dtype(precision),
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            **where,
        )
        model, info = loaded
        missing = sorted(info["missing_keys"])
        if missing:
            raise ModelError(f"its files lack {len(missing)} of its weights, such as {missing[0]}")
        return HuggingFaceBase(settle(model, devices, precision))


def _where_to_read(devices: tuple[torch.device, ...], precision: Precision) -> dict[str, Any]:
    """What tells transformers where to put weights as it reads them; nothing: host memory."""
    if len(devices) > 1:
        require("accelerate", extra="multi-gpu", purpose="a language model on several GPUs")
        free = {device.index: torch.cuda.mem_get_info(device)[0] for device in devices}
        return {"device_map": "auto", "max_memory": free}
    return {} if reads_through_host(devices, precision) else {"device_map": devices[0]}


def reads_through_host(devices: tuple[torch.device, ...], precision: Precision) -> bool:
    """Whether all weights lie in host memory, unquantised, before they are where they are to be."""
    if len(devices) > 1:
        return False
    return devices[0].type == "cpu" or precision is Precision.NF4 or find_spec("accelerate") is None


def settle(
    model: PreTrainedModel, devices: tuple[torch.device, ...], precision: Precision
) -> PreTrainedModel:
    """`model`, its weights of dtype `compute_dtype`, as it is to be used.

    Args:
        model: is changed; already divided if there are several devices.
        devices: where it is to be.
        precision: what its weights become.

    Raises:
        ModelError: bitsandbytes is missing, or NF4 on several devices.
    """
    if precision is Precision.NF4:
        if len(devices) > 1:
            raise ModelError(
                f"dtype nf4 needs one device, got {len(devices)}; name one, such as cuda:0, or "
                "choose dtype bfloat16"
            )
        quantise_nf4(model, devices[0])
    if len(devices) == 1:
        model.to(devices[0])  # type: ignore[arg-type] # transformers' wrapper hides the signature
    return model


def quantise_nf4(model: PreTrainedModel, device: torch.device) -> None:
    """Replace the weights of `nf4_weights` by NF4 on `device`, one after the other.

    Raises:
        ModelError: bitsandbytes is missing.
    """
    require("bitsandbytes", extra="quantised", purpose="dtype nf4")
    replace: Any = importlib.import_module("bitsandbytes.nn.parametrize").replace_parameter_4bit
    for module, name in nf4_weights(model):
        weight = getattr(module, name)
        # The scales must lie where the weights will be used, and do not move with them.
        setattr(module, name, nn.Parameter(weight.data.to(device), requires_grad=False))
        replace(module, name, compress_statistics=True, quant_type="nf4", blocksize=NF4_BLOCK)


def nf4_weights(model: PreTrainedModel) -> list[tuple[nn.Module, str]]:
    """The matrices of `model` (stacks of them too) outside embeddings and output head."""
    head = model.get_output_embeddings()  # type: ignore[no-untyped-call] # transformers has no types
    return [
        (module, name)
        for module in model.modules()
        if not isinstance(module, nn.Embedding) and module is not head
        for name, weight in module.named_parameters(recurse=False)
        if weight.ndim > 1
    ]


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """The tokenizer at a local folder or hub id, no remote code.

    Raises:
        ModelError: in one line: no such tokenizer, or a download cut short.
    """
    with one_line_errors("tokenizer", name):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            name, trust_remote_code=False
        )
        return tokenizer


def read_configuration(kind: str, name: str) -> PreTrainedConfig:
    """The configuration of the model at a local folder or hub id, without its weights.

    Args:
        kind: what the model is for, to say so in an error.
        name: local folder or hub id.

    Raises:
        ModelError: in one line: no such model, or one of an unknown architecture.
    """
    with one_line_errors(kind, name):
        if (Path(name) / _ADAPTER).is_file():
            _check_safetensors(Path(name))
        config: PreTrainedConfig = AutoConfig.from_pretrained(name, trust_remote_code=False)
        return config


def check_quantisation(kind: str, name: str, config: PreTrainedConfig) -> None:
    """Raise unless this machine can read weights that another library has quantised, if they are.

    Args:
        kind: what the model is for, to say so in an error.
        name: local folder or hub id.
        config: of the model.

    Raises:
        ModelError: in one line: an unknown method (as GPTQ and AWQ are named), or a library or
            device that it needs is missing.
    """
    quantised = getattr(config, "quantization_config", None)
    if quantised is not None:
        with one_line_errors(kind, name):
            AutoHfQuantizer.from_config(quantised, pre_quantized=True).validate_environment()


def check_weights(kind: str, name: str) -> None:
    """Raise unless the weights in a local folder are there and whole.

    Only the files' headers are read, which say how long the files have to be. What a hub would
    send is not known before it is loaded.

    Raises:
        ModelError: in one line: a file is missing or was cut short.
    """
    folder = Path(name)
    if not folder.is_dir():
        return
    with one_line_errors(kind, name):
        _check_safetensors(folder)
        index = folder / SAFE_WEIGHTS_INDEX_NAME
        files = {SAFE_WEIGHTS_NAME}
        if index.is_file():
            files = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        for file in sorted(files):
            with safe_open(folder / file, framework="pt"):
                pass


def _check_safetensors(folder: Path) -> None:
    """Raise if a folder holds something else than a whole model in safetensors.

    Raises:
        ModelError: it is an adapter, or its weights are pickles.
    """
    if any(folder.glob("*.safetensors")) and not (folder / _ADAPTER).is_file():
        return
    if (folder / _ADAPTER).is_file():
        raise ModelError(
            "it is an adapter of another model and not a whole one; merge it (in peft: "
            "merge_and_unload()) and save what that gives"
        )
    if any(folder.glob("pytorch_model*.bin")):
        raise ModelError(
            "its weights are pickles (pytorch_model.bin), which may run code and are refused; "
            "load it where you trust it and write it anew with save_pretrained, which makes "
            "safetensors"
        )


def find_devices(device: str) -> tuple[torch.device, ...]:
    """The devices that `device` names, such as `cpu`, `cuda`, `cuda:0,cuda:1` or `auto`.

    Raises:
        ModelError: no such device here, or several that are not GPUs.
    """
    if device == ALL_GPUS:
        if not torch.cuda.is_available():
            raise ModelError(
                f"device {ALL_GPUS} spreads the language model over all GPUs and this machine has "
                "none that torch can use; choose device cpu"
            )
        device = ",".join(f"cuda:{index}" for index in range(torch.cuda.device_count()))
    found = tuple(find_device(name) for name in device.split(","))
    if len(found) > 1 and any(place.type != "cuda" or place.index is None for place in found):
        raise ModelError(
            f"several devices must be numbered GPUs such as cuda:0,cuda:1, got {device}"
        )
    return found


def find_device(device: str | torch.device) -> torch.device:
    """`device`, if this machine has it, a GPU with its number.

    Raises:
        ModelError: no such device here.
    """
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise ModelError(
            f"device {device} cannot be used on this machine ({_first_line(error)}); "
            "choose device cpu"
        ) from error


def release_memory() -> None:
    """Give back the memory of what nothing refers to any more, on GPUs too."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def require(library: str, *, extra: str, purpose: str) -> None:
    """Raise unless an optional library is installed.

    Raises:
        ModelError: it is not; the message says which extra of this package brings it.
    """
    if find_spec(library) is None:
        raise ModelError(
            f"{purpose} needs {library}; install it with: pip install mightnt[{extra}]"
        )


@contextlib.contextmanager
def one_line_errors(kind: str, name: str) -> Iterator[None]:
    """What loading may raise, as a `ModelError` of one line; progress bars only on a terminal."""
    try:
        if _looks_like_folder(name) and not Path(name).is_dir():
            raise ModelError("there is no such folder")
        with bars_on_terminals():
            yield
    except ImportError as error:  # of a checkpoint that was quantised by another library
        raise ModelError(
            f"cannot load the {kind} {name}: it needs a library that is not here or does not fit "
            f"({_first_line(error)}); install that, or name a checkpoint that is not quantised"
        ) from error
    except (
        OSError,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        RuntimeError,
        SafetensorError,
    ) as error:
        raise ModelError(
            f"cannot load the {kind} {name}: {_first_line(error)}; name a complete local folder "
            "or a hub id that this machine can reach"
        ) from error


@contextlib.contextmanager
def bars_on_terminals() -> Iterator[None]:
    """Let transformers show its progress bars on a terminal only."""
    bars = transformers_logging.is_progress_bar_enabled()
    if not sys.stderr.isatty():
        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # untyped
    try:
        yield
    finally:
        if bars:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]  # untyped


def _looks_like_folder(name: str) -> bool:
    """Hub ids are `name` or `owner/name`."""
    return name.startswith((".", "/", "~")) or name.count("/") > 1


def _first_line(error: BaseException) -> str:
    lines: list[Any] = str(error).strip().splitlines() or [type(error).__name__]
    return str(lines[0]).rstrip(".;: ")
