"""What config.json says about how a folder's weights are quantized, and which tensors make which weights.

Owns the names of methods, and what is refused of each. The layouts are `stored_tensors`'.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cupola.errors import ModelError, UnsupportedError
from cupola.weights.mxfp4_tensors import BLOCKS, SCALES, Mxfp4Stack
from cupola.weights.safetensors_files import HINT_AGAIN, SafetensorsFiles
from cupola.weights.stored_tensors import (
    AwqIntegers,
    GptqIntegers,
    PackedIntegers,
    PlainTensor,
    ScaledFloats,
    ScaledIntegers,
    StoredTensor,
    is_float8,
)

KEYS = ("quantization_config", "compression_config")  # the latter is what early compressed-tensors wrote
_METHODS = ("fp8", "fbgemm_fp8", "modelopt", "gptq", "awq", "compressed-tensors", "mxfp4")
_HINT = f"Cupola reads {', '.join(_METHODS)}; or use the original checkpoint: Cupola quantizes as it compiles."
_GPTQ_OFFSETS = {"gptq": 1, "": 1, "gptq_v2": 0}  # its first version stores a zero point less 1
_COMPRESSED = (
    *("dense", "pack-quantized", "int-quantized", "float-quantized", "naive-quantized"),
    "mixed-precision",  # of the others, each checked by itself
)
_SCALES = ("weight_scale_inv", "weight_scale")
_BESIDE = frozenset(
    (
        *("weight_scale_inv", "weight_scale", "weight_zero_point", "weight_shape", "weight_g_idx", "weight_packed"),
        *("input_scale", "input_zero_point", "output_scale", "activation_scale", "activation_scale_inv"),
        *("input_scale_ub", "k_scale", "v_scale", "q_scale", "qweight", "qzeros", "scales", "g_idx"),
    )
)
Table = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class FolderQuantization:
    """How a folder's matrices are stored.

    Args:
        method: `quant_method`; "" where the folder holds plain floats.
        block: outputs and inputs that share a scale, for 8-bit floats in blocks.
        zero_offset, symmetric: of GPTQ; see `GptqIntegers`.
    """

    method: str = ""
    block: tuple[int, int] | None = None
    zero_offset: int = 0
    symmetric: bool = False


def read_quantization(config: Table, where: Path) -> FolderQuantization:
    """The quantization that a config.json declares.

    Raises:
        UnsupportedError: one that Cupola does not read, by its name.
    """
    table = next((config[key] for key in KEYS if isinstance(config.get(key), Mapping)), None)
    if not isinstance(table, Mapping):
        return FolderQuantization()
    method = str(table.get("quant_method", ""))
    if method in ("fp8", "fbgemm_fp8"):
        return FolderQuantization(method, _block(table.get("weight_block_size"), where))
    if method == "modelopt":
        _allow(where, "quant_algo", table.get("quant_algo"), ("FP8",))
        return FolderQuantization(method)
    if method == "gptq":
        bits = table.get("bits")
        _allow(where, "bits", bits, (2, 4, 8))
        kind = str(table.get("checkpoint_format") or "")
        _allow(where, "checkpoint_format", kind, tuple(_GPTQ_OFFSETS))
        return FolderQuantization(method, None, _GPTQ_OFFSETS[kind], table.get("sym") is True)
    if method == "awq":
        _allow(where, "bits", table.get("bits", table.get("w_bit", 4)), (4,))
        _allow(where, "version", str(table.get("version", "gemm")).lower(), ("gemm",))
        return FolderQuantization(method)
    if method == "mxfp4":
        return FolderQuantization(method)
    if method == "compressed-tensors":
        return _compressed(table, where)
    raise UnsupportedError(f"{where} says that the weights are quantized with {method!r}", hint=_HINT)


def arrange(files: SafetensorsFiles, quantization: FolderQuantization) -> dict[str, StoredTensor]:
    """Every weight of the folder under the name that it has where nothing is quantized.

    Raises:
        ModelError: a tensor that belongs to a quantized matrix is missing or of a wrong shape.
        UnsupportedError: integers of a number of bits that Cupola does not read.
    """
    found: dict[str, StoredTensor] = {}
    for name in files.entries:
        layer, _, part = name.rpartition(".")
        try:
            stored = _stored(files, quantization, layer, part)
        except KeyError as error:
            raise ModelError(f"the folder has {name}, but no {error.args[0]}", hint=HINT_AGAIN) from error
        if stored is not None:
            found[stored.info.name] = stored
        elif not quantization.method or not _is_beside(quantization, part):
            found[name] = PlainTensor(files, name)
    return found


def _is_beside(how: FolderQuantization, part: str) -> bool:
    """Whether a tensor of this name belongs to a quantized one."""
    return part.endswith(SCALES) if how.method == "mxfp4" else part in _BESIDE


def _stored(files: SafetensorsFiles, how: FolderQuantization, layer: str, part: str) -> StoredTensor | None:
    """The quantized matrix whose values the tensor `layer.part` holds, or None."""
    if not how.method:
        return None
    if how.method == "mxfp4":
        stack = f"{layer}.{part}".removesuffix(BLOCKS)
        return Mxfp4Stack(files, stack) if part.endswith(BLOCKS) else None
    if part == "weight_packed":
        return PackedIntegers(files, layer)
    if part == "qweight":
        if how.method == "awq":
            return AwqIntegers(files, layer)
        return GptqIntegers(files, layer, how.zero_offset, how.symmetric)
    name = f"{layer}.{part}"
    if part != "weight" or not (is_float8(files, name) or files.dtype(name) == "I8"):
        return None
    scale = next((f"{layer}.{suffix}" for suffix in _SCALES if f"{layer}.{suffix}" in files), None)
    if scale is None:
        raise KeyError(f"{layer}.{_SCALES[-1]}")
    kind = ScaledFloats if is_float8(files, name) else ScaledIntegers
    return kind(files, name, scale, how.block)


def _compressed(table: Table, where: Path) -> FolderQuantization:
    _allow(where, "format", table.get("format", "dense"), _COMPRESSED)
    sparsity, transforms = table.get("sparsity_config"), table.get("transform_config")
    if isinstance(sparsity, Mapping) and sparsity.get("format", "dense") != "dense":
        raise UnsupportedError(f"{where} has sparse weights in the format {sparsity['format']!r}", hint=_HINT)
    if isinstance(transforms, Mapping) and transforms.get("config_groups"):
        raise UnsupportedError(f"{where} has weights that belong to transformed activations", hint=_HINT)
    groups = table.get("config_groups")
    blocks = set()
    for group in groups.values() if isinstance(groups, Mapping) else ():
        weights = group.get("weights") if isinstance(group, Mapping) else None
        if not isinstance(weights, Mapping):
            continue
        if isinstance(group.get("format"), str):
            _allow(where, "format", group["format"], _COMPRESSED)
        bits, kind = weights.get("num_bits"), weights.get("type", "int")
        _allow(where, "num_bits", bits, (8,) if kind == "float" else (2, 4, 8))
        _allow(where, "type", kind, ("int", "float"))
        _allow(where, "strategy", weights.get("strategy"), ("tensor", "channel", "group", "block", None))
        if (block := _block(weights.get("block_structure"), where)) is not None:
            blocks.add(block)
    if len(blocks) > 1:
        raise UnsupportedError(f"{where} has blocks of several sizes: {sorted(blocks)}", hint=_HINT)
    return FolderQuantization("compressed-tensors", blocks.pop() if blocks else None)


def _block(value: object, where: Path) -> tuple[int, int] | None:
    match value:
        case None:
            return None
        case [int(rows), int(inputs)] if rows > 0 and inputs > 0:
            return rows, inputs
    raise UnsupportedError(f"{where} has scales for blocks of {value!r}; they must be two numbers", hint=_HINT)


def _allow(where: Path, key: str, value: object, allowed: tuple[object, ...]) -> None:
    if value not in allowed:
        known = ", ".join(repr(one) for one in allowed if one not in (None, ""))
        raise UnsupportedError(f"{where} has quantized weights with {key} {value!r}; Cupola reads {known}", hint=_HINT)
