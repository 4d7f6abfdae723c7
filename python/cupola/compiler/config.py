"""The compile configuration: one TOML file, read into frozen values with every key checked."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from cupola.errors import UsageError
from cupola.manifest import Task

# A decoder's token costs the bytes of its weights; an encoder's does not, and its vectors shall be the checkpoint's.
AUTO_QUANT: Mapping[Task, str] = MappingProxyType({"generate": "q4", "embed": "q16", "classify": "q16"})


def _names(value: object) -> object:
    """A TOML string or list of strings as a tuple."""
    return tuple(value) if isinstance(value, list) else (value,) if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_names)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class TargetConfig(_Section):
    """What code is generated for."""

    kind: Literal["llvm", "cuda", "rocm", "metal", "vulkan", "webgpu", "opencl"] = "llvm"
    cpu: Names = ("auto",)
    isa: Literal["auto", "avx512", "vnni", "avx2", "i8mm", "dotprod", "plain"] = "auto"
    arch: Names = ()
    dtype: Literal["auto", "float16", "bfloat16", "float32"] = "auto"


class ModelConfig(_Section):
    """How the model is stored."""

    quant: Literal["auto", "f32", "f16", "bf16", "q16", "q8", "q4", "q3"] = "auto"
    max_context: int = Field(default=0, ge=0)


class QuantizeConfig(_Section):
    """How weights are rounded where the scheme leaves a choice."""

    calibrate: str = ""
    bits: float = Field(default=0.0, ge=0.0, le=32.0)
    target_size: str = ""

    @property
    def budgeted(self) -> bool:
        """Whether formats are chosen by their bytes and not by the scheme."""
        return self.bits > 0 or bool(self.target_size)


class KvCacheConfig(_Section):
    """The pages of keys and values."""

    page_size: Literal[8, 16, 32, 64] = 16
    dtype: Literal["auto", "float16", "float32", "int16", "int8"] = "auto"


class LimitsConfig(_Section):
    """Upper bounds of one step."""

    max_step_tokens: int = Field(default=512, ge=1, le=1 << 20)
    max_batch: int = Field(default=128, ge=1, le=1 << 16)


class CompileConfig(_Section):
    """All of `compile_configs/*.toml`."""

    target: TargetConfig = TargetConfig()
    model: ModelConfig = ModelConfig()
    quantize: QuantizeConfig = QuantizeConfig()
    kv_cache: KvCacheConfig = KvCacheConfig()
    limits: LimitsConfig = LimitsConfig()

    @property
    def scheme(self) -> str:
        """How weights are stored, in a word."""
        return "mixed" if self.quantize.budgeted else self.model.quant

    def resolved(self, task: Task) -> CompileConfig:
        """The same configuration, with the scheme that suits a model for this task where none was chosen."""
        return self if self.model.quant != "auto" else self.with_quant(AUTO_QUANT[task])

    def with_target(self, target: TargetConfig) -> CompileConfig:
        """The same configuration for other machines."""
        return self.model_copy(update={"target": target})

    def with_quant(self, quant: str | None) -> CompileConfig:
        """The same configuration with another scheme.

        Raises:
            UsageError: there is no such scheme.
        """
        if quant is None:
            return self
        return _parse({**self.model_dump(), "model": {**self.model.model_dump(), "quant": quant}}, "--quant")

    def with_quantize(self, **options: str | float | None) -> CompileConfig:
        """The same configuration with other values of `quantize`; None leaves one as it is.

        Raises:
            UsageError: a value is not allowed.
        """
        given = {key: value for key, value in options.items() if value is not None}
        values = {**self.model_dump(), "quantize": {**self.quantize.model_dump(), **given}}
        return _parse(values, "the command line") if given else self


def load(path: Path) -> CompileConfig:
    """Reads a TOML file.

    Raises:
        UsageError: the file is missing, is no TOML, or has an unknown key or a value that is not allowed.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read the configuration `{path}`: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"`{path}` is not valid TOML: {error}") from error
    return _parse(values, str(path))


def _parse(values: dict[str, object], where: str) -> CompileConfig:
    try:
        return CompileConfig.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise UsageError(f"{where}: unknown key `{key}`", hint=f"known keys: {', '.join(_keys())}") from error
        raise UsageError(f"{where}: `{key}` is {first['input']!r}: {first['msg'].lower()}") from error


def _keys() -> list[str]:
    sections = CompileConfig.model_fields
    return [f"{name}.{key}" for name, field in sections.items() for key in field.annotation.model_fields]  # type: ignore[union-attr]
