"""A model that a ten-line oracle can compute: the double for tests of everything above the engine.

It is the real C++ engine on a scripted model, with a tokenizer of one token a byte, whose id is the byte. What it
generates are the letters a to z, unless the model's name says otherwise: `scripted:eos_every=20,step_us=1000`.

`scripted-encoder` is its like for embeddings, `scripted-reranker` and `scripted-classifier` for scores; of these only
`step_us` can be set, and a text with the token `<|im_end|>` makes them fail.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from types import MappingProxyType

from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as HfTokenizer

from cupola import __version__
from cupola.engine import native
from cupola.engine.backends.backend import OpenedModel
from cupola.engine.backends.encoder import EncoderBackend
from cupola.engine.folder import special_token_names
from cupola.engine.native_encoder import NativeEmbedder, scripted_encoder
from cupola.engine.options import EngineOptions
from cupola.engine.request import SamplingParams
from cupola.engine.sizing import encoder_config, engine_config
from cupola.errors import UsageError
from cupola.manifest import Classifier as ClassifierInfo
from cupola.manifest import Embedding as EmbeddingInfo
from cupola.manifest import KvCache, Library, Limits, Manifest, Scores, Shape, SpecialIds, Stamp
from cupola.text.chat_template import ChatTemplate
from cupola.text.tokenizer import BYTE_OF_CHARACTER, Tokenizer

SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
EOS_ID = 258  # <|im_end|>
VOCAB_SIZE = 256 + len(SPECIAL_TOKENS)
CLASSIFIERS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"scripted-reranker": ("relevance",), "scripted-classifier": ("bad", "fair", "good")}
)

CHAT_TEMPLATE = """\
{%- for message in messages %}
    {%- if message['role'] not in ['system', 'user', 'assistant', 'tool'] %}
        {{- raise_exception('Unknown role ' + message['role']) }}
    {%- endif %}
    {{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""


@dataclass(frozen=True, slots=True)
class Script:
    """What the scripted model can be told; see `cupola.engine.native.scripted` for the rule.

    Args:
        first_id: the first of the ids that it generates.
        num_ids: how many different ids it generates.
        eos_every: one history in so many is followed by the end-of-sequence id; 0 never.
        step_us: microseconds that each step takes.
        token_us: microseconds that each token of a step takes.
        fail_at_step: the step (counted from 1) that fails; 0 none.
        fail_steps: how many steps in a row fail.
    """

    first_id: int = ord("a")
    num_ids: int = 26
    eos_every: int = 0
    step_us: int = 0
    token_us: int = 0
    fail_at_step: int = 0
    fail_steps: int = 1


def parse_script(model: str) -> Script:
    """The script of a model's name: `scripted` or `scripted:knob=number,...`. UsageError: there is no such knob."""
    script = Script()
    knobs = [field.name for field in fields(Script)]
    for setting in filter(None, model.partition(":")[2].split(",")):
        knob, _, value = setting.partition("=")
        if knob not in knobs or not value.isdecimal():
            raise UsageError(
                f"`{setting}` is not a setting of the scripted model",
                hint=f"Write knob=number, with one of the knobs {', '.join(knobs)}.",
            )
        script = replace(script, **{knob: int(value)})
    if not 0 < script.num_ids <= VOCAB_SIZE - script.first_id:
        raise UsageError(f"`{model}` asks for ids outside of its vocabulary, 0 to {VOCAB_SIZE - 1}")
    return script


def open_scripted(model: str, options: EngineOptions, reason: str) -> OpenedModel:
    """Start the engine on a scripted model. UsageError: a wrong knob or an option out of range."""
    script = parse_script(model)
    manifest = scripted_manifest()
    config = engine_config(manifest, options)
    tokenizer = byte_tokenizer()
    handle = native.scripted(
        vocab_size=VOCAB_SIZE,
        first_id=script.first_id,
        num_ids=script.num_ids,
        eos_id=EOS_ID,
        eos_every=script.eos_every,
        page_size=config.page_size,
        step_us=script.step_us,
        token_us=script.token_us,
        fail_at_step=script.fail_at_step,
        fail_steps=script.fail_steps,
    )
    return OpenedModel(
        kind="scripted",
        reason=reason,
        backend=native.NativeEngine(handle, config),
        config=config,
        manifest=manifest,
        tokenizer=tokenizer,
        chat_template=ChatTemplate(CHAT_TEMPLATE, special_token_names(tokenizer, manifest.special_ids)),
        default_params=SamplingParams(),
    )


def open_scripted_encoder(model: str, options: EngineOptions, reason: str) -> OpenedModel:
    """Start a runner on a scripted encoder. UsageError: a wrong knob or an option out of range."""
    plain, name = scripted_manifest(), model.partition(":")[0]
    update: dict[str, object] = {
        "shape": plain.shape.model_copy(update={"max_context": 256}),
        "name": name,
        "kv_cache": KvCache(page_size=16, dtype="int8", page_elements=0),
    }
    labels = CLASSIFIERS.get(name)
    if labels is None:
        update["embedding"] = EmbeddingInfo(dimensions=8, pooling="mean", normalized=False)
    else:
        scores: Scores = "sigmoid" if len(labels) == 1 else "softmax"
        update["classifier"] = ClassifierInfo(labels=labels, scores=scores, pair_types=True)
    manifest = plain.model_copy(update=update)
    config = encoder_config(manifest, options)
    encoder = scripted_encoder(
        vocab_size=VOCAB_SIZE,
        dimensions=8 if labels is None else len(labels),
        max_context=config.max_context,
        max_step_tokens=config.max_step_tokens,
        max_batch=config.max_batch,
        fail_id=EOS_ID,
        step_us=parse_script(model).step_us,
    )
    embedder = NativeEmbedder(encoder, config)
    backend = EncoderBackend(embedder)
    return OpenedModel(
        "scripted", reason, backend, config, manifest, byte_tokenizer(), None, SamplingParams(), embedder
    )


def byte_tokenizer() -> Tokenizer:
    """One token a byte, whose id is the byte; then the special tokens."""
    tokenizer = HfTokenizer(models.BPE(vocab=BYTE_OF_CHARACTER, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    return Tokenizer(tokenizer)


def scripted_manifest() -> Manifest:
    """A manifest as a compiled model would have it; a token takes one byte of KV cache."""
    return Manifest(
        name="scripted",
        architecture="scripted",
        scheme="f32",
        stamp=Stamp(cupola=__version__, tvm="", tvm_ffi=""),
        libraries=(Library(file="", target={"kind": "scripted"}),),
        shape=Shape(
            vocab_size=VOCAB_SIZE,
            logit_stride=VOCAB_SIZE,
            hidden_size=1,
            num_layers=1,
            num_heads=1,
            num_kv_heads=1,
            head_dim=1,
            max_context=4096,
        ),
        kv_cache=KvCache(page_size=16, dtype="int8", page_elements=16),
        limits=Limits(max_step_tokens=512, max_batch=64),
        special_ids=SpecialIds(eos=(EOS_ID,)),
        weights=(),
        files={},
    )
