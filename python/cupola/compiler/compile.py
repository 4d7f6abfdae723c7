"""`compile_model`: a checkpoint and a configuration in, a compiled folder out, whole or not at all."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cupola.compiler.calibrate import Calibrated, calibrate
from cupola.compiler.config import CompileConfig
from cupola.compiler.library import functions_of
from cupola.compiler.plan import Plan, plan_decoder, plan_encoder
from cupola.compiler.progress import OnProgress, Progress
from cupola.compiler.target import GpuTarget, Target
from cupola.errors import StorageError, UsageError
from cupola.manifest import FILE_NAME, Library, Limits, Manifest, SpecialIds, Stamp
from cupola.models import registry
from cupola.models.encoder_parameters import declare as declare_encoder
from cupola.models.encoder_spec import EncoderSpec
from cupola.models.parameters import declare as declare_decoder
from cupola.models.spec import DecoderSpec
from cupola.quantize.formats import Format
from cupola.quantize.parameter import Parameter, Source
from cupola.quantize.schemes import SCHEMES, choose_format
from cupola.weights.checkpoint import Checkpoint, TensorInfo
from cupola.weights.convert import check_sources, convert
from cupola.weights.sentence_transformers import settings_of

LIBRARY = "lib.so"
GENERATION_CONFIG = "generation_config.json"


def compile_model(
    checkpoint: Checkpoint, config: CompileConfig, targets: Sequence[Target], folder: Path, on_progress: OnProgress
) -> Manifest:
    """Compiles into `folder`, which appears only when it is complete.

    Args:
        checkpoint: the opened model.
        targets: at least one. Each gets a library; they share the weights.
        folder: where to; an existing compiled folder there is replaced, anything else is refused.

    Raises:
        ModelError: the checkpoint is inconsistent, or of an architecture that is not supported.
        StorageError: the folder cannot be written.
        UsageError: `folder` exists and is not a compiled model, or the targets cannot share weights and pages.
    """
    _check_output(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise StorageError(f"cannot write to `{folder.parent}`: {error.strerror}") from error
    try:
        manifest = _compile_into(work, checkpoint, config, targets, on_progress)
        _publish(work, folder)
        return manifest
    except OSError as error:
        raise StorageError(f"cannot write `{folder}`: {error.strerror}", hint="is the disk full?") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _compile_into(
    work: Path, checkpoint: Checkpoint, config: CompileConfig, targets: Sequence[Target], on_progress: OnProgress
) -> Manifest:
    architecture, spec = registry.read(checkpoint.config, config.model.max_context)
    config = config.resolved(architecture.task)
    parameters = chosen_parameters(spec, checkpoint, config.model.quant)
    calibrated = _calibrated(spec, checkpoint, parameters, config, on_progress)
    parameters = calibrated.parameters

    def planned(target: Target) -> Plan:
        if isinstance(spec, EncoderSpec):
            return plan_encoder(spec, parameters, settings_of(checkpoint), config, target)
        return plan_decoder(spec, parameters, config, target)

    plans = [planned(target) for target in targets]
    plan = plans[0]
    checkpoint.write_text_files(work)
    libraries, weight_names = _build(work, targets, plans, on_progress)
    ordered = [parameters[name] for name in weight_names]
    weights = convert(
        checkpoint,
        ordered,
        work,
        lambda done, total: on_progress(Progress("convert", done, total)),
        importance=calibrated.importance,
        words=isinstance(targets[0], GpuTarget),
    )

    manifest = Manifest(
        name=checkpoint.name,
        architecture=architecture.name,
        scheme=config.scheme,
        stamp=Stamp.current(),
        functions=functions_of(targets[0]),
        libraries=libraries,
        shape=plan.shape,
        kv_cache=plan.kv_cache,
        embedding=plan.embedding,
        classifier=plan.classifier,
        calibration=calibrated.record,
        limits=Limits(max_step_tokens=plan.limits.max_step_tokens, max_batch=plan.limits.max_batch),
        special_ids=_special_ids(work),
        weights=weights,
        files=_hashes(work, on_progress),
    )
    (work / FILE_NAME).write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return manifest


def _calibrated(
    spec: DecoderSpec | EncoderSpec,
    checkpoint: Checkpoint,
    parameters: dict[str, Parameter],
    config: CompileConfig,
    on_progress: OnProgress,
) -> Calibrated:
    if isinstance(spec, DecoderSpec):
        return calibrate(checkpoint, spec, parameters, config.quantize, on_progress)
    if config.quantize.calibrate or config.quantize.budgeted:
        raise UsageError(f"{checkpoint.name} predicts no tokens, so it cannot be calibrated", hint="leave quantize out")
    return Calibrated(parameters, {}, None)


def _build(
    work: Path, targets: Sequence[Target], plans: Sequence[Plan], on_progress: OnProgress
) -> tuple[tuple[Library, ...], tuple[str, ...]]:
    """The libraries, one a target, and the order of the weights, which is the same in all of them."""
    for target, plan in zip(targets, plans, strict=True):
        if (plan.kv_cache, isinstance(target, GpuTarget)) != (plans[0].kv_cache, isinstance(targets[0], GpuTarget)):
            raise UsageError(
                f"{targets[0].name} and {target.name} need other pages or weights, so they cannot share a folder",
                hint="compile a folder for each",
            )
    libraries: list[Library] = []
    orders: set[tuple[str, ...]] = set()
    for done, (target, plan) in enumerate(zip(targets, plans, strict=True)):
        on_progress(Progress("compile", done, len(targets)))
        file = LIBRARY if len(targets) == 1 else f"lib-{target.label}.so"
        built = plan.build(work / file)
        libraries.append(Library(file=file, target=target.describe(), memory=dict(built.memory)))
        orders.add(built.weight_names)
    on_progress(Progress("compile", len(targets), len(targets)))
    (order,) = orders
    return tuple(libraries), order


def chosen_parameters(spec: DecoderSpec | EncoderSpec, checkpoint: Checkpoint, quant: str) -> dict[str, Parameter]:
    """The model's parameters with the formats that the scheme and the checkpoint's own formats give them."""
    if isinstance(spec, EncoderSpec):
        declared = tuple(declare_encoder(spec, checkpoint.tensors))
    else:
        declared = tuple(declare_decoder(spec, checkpoint.tensors))
    check_sources(checkpoint, declared)
    chosen = {}
    for parameter in declared:
        infos = [_held(checkpoint, source) for source in parameter.sources]
        chosen[parameter.name] = replace(parameter, format=choose_format(parameter.role, infos, SCHEMES[quant]))
    return chosen


def _held(checkpoint: Checkpoint, source: Source) -> TensorInfo:
    """What there is of a source: of a transposed one floats, since its groups are none of the parameter's."""
    info = checkpoint.tensors[source.name]
    return replace(info, shape=source.one, format=Format.F32) if source.transposed else info


def _special_ids(work: Path) -> SpecialIds:
    """Special ids out of generation_config.json, which every checkpoint reader writes."""
    path = work / GENERATION_CONFIG
    values = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    eos = values.get("eos_token_id")
    eos_ids = tuple(eos) if isinstance(eos, list) else () if eos is None else (eos,)
    return SpecialIds(bos=values.get("bos_token_id"), eos=eos_ids, pad=values.get("pad_token_id"))


def _hashes(work: Path, on_progress: OnProgress) -> dict[str, str]:
    paths = sorted(path for path in work.iterdir() if path.is_file())
    hashes = {}
    for done, path in enumerate(paths):
        on_progress(Progress("hash", done, len(paths)))
        with path.open("rb") as file:
            hashes[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    on_progress(Progress("hash", len(paths), len(paths)))
    return hashes


def _check_output(folder: Path) -> None:
    if folder.exists() and not (folder / FILE_NAME).is_file() and (folder.is_file() or any(folder.iterdir())):
        raise UsageError(f"`{folder}` exists and is not a compiled model", hint="name another folder with -o")


def _publish(work: Path, folder: Path) -> None:
    """Puts the finished folder in place; a compiled model that was there is replaced."""
    if folder.exists():
        shutil.rmtree(folder)
    work.chmod(0o755)
    work.rename(folder)
