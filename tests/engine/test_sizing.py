"""How many pages, and how much context, an engine gets."""

from __future__ import annotations

import pytest

from cupola.engine.backends.scripted import scripted_manifest
from cupola.engine.options import EngineOptions
from cupola.engine.room import DeviceRoom
from cupola.engine.sizing import available_memory, engine_config, kv_bytes
from cupola.errors import UsageError
from cupola.manifest import KvCache, Limits, Manifest, Weight

MANIFEST: Manifest = scripted_manifest().model_copy(
    update={
        "kv_cache": KvCache(page_size=16, dtype="float16", page_elements=1024),
        "limits": Limits(max_step_tokens=512, max_batch=64),
    }
)
PAGE = kv_bytes(MANIFEST, 1, 0)  # 2048
CONTEXT = MANIFEST.shape.max_context  # 4096 tokens = 256 pages
PLENTY = 2**40


def test_with_memory_enough_the_pool_holds_every_running_request() -> None:
    config = engine_config(MANIFEST, EngineOptions(), PLENTY)
    assert PAGE == 2048
    assert config.num_pages == 64 * 256
    assert (config.max_context, config.max_batch, config.max_step_tokens) == (4096, 64, 512)


def test_otherwise_it_takes_a_quarter_of_what_is_available() -> None:
    config = engine_config(MANIFEST, EngineOptions(), 4 * 1000 * PAGE)
    assert config.num_pages == 1000
    assert config.max_context == CONTEXT


def test_the_context_is_no_longer_than_the_whole_pool() -> None:
    assert engine_config(MANIFEST, EngineOptions(num_pages=10), PLENTY).max_context == 160
    assert engine_config(MANIFEST, EngineOptions(), 0).num_pages == 1


def test_options_are_taken_up_to_what_was_compiled() -> None:
    options = EngineOptions(max_context=1000, max_batch=8, max_step_tokens=64, max_queue=5, num_threads=3, spin_us=7)
    config = engine_config(MANIFEST, options, PLENTY)
    assert (config.max_context, config.max_batch, config.max_step_tokens) == (1000, 8, 64)
    assert (config.max_queue, config.num_threads, config.bind_threads, config.spin_us) == (5, 3, False, 7)
    assert config.num_pages == 8 * 63  # 1000 tokens take 63 pages


def test_a_budget_in_bytes() -> None:
    assert engine_config(MANIFEST, EngineOptions(kv_cache_memory=300 * PAGE + 1), PLENTY).num_pages == 300
    # More than all requests together could use is not taken.
    assert engine_config(MANIFEST, EngineOptions(kv_cache_memory=PLENTY), PLENTY).num_pages == 64 * 256
    with pytest.raises(UsageError, match=r"`kv_cache_memory` is 2047 bytes, but one page .* 2048"):
        engine_config(MANIFEST, EngineOptions(kv_cache_memory=2047), PLENTY)


def test_a_step_has_room_for_a_token_of_each_request() -> None:
    assert engine_config(MANIFEST, EngineOptions(max_step_tokens=8), PLENTY).max_batch == 8


@pytest.mark.parametrize(
    "options",
    [
        EngineOptions(max_context=0),
        EngineOptions(max_context=4097),
        EngineOptions(max_batch=65),
        EngineOptions(max_batch=-1),
        EngineOptions(max_step_tokens=513),
        EngineOptions(num_pages=0),
        EngineOptions(max_queue=0),
        EngineOptions(num_threads=-1),
        EngineOptions(spin_us=-1),
        EngineOptions(spin_us=10**7),
    ],
)
def test_options_out_of_range_are_refused_by_name(options: EngineOptions) -> None:
    changed = next(name for name in options.__slots__ if getattr(options, name) != getattr(EngineOptions(), name))
    with pytest.raises(UsageError, match=f"`{changed}` is .*; allowed: "):
        engine_config(MANIFEST, options, PLENTY)


def test_the_systems_memory_is_known() -> None:
    assert available_memory() > 2**20


def test_on_a_device_the_weights_lie_beside_the_pages() -> None:
    weight = Weight(name="w", file="f", format="f32", dtype="float32", shape=(1000, 25))  # 100,000 bytes
    manifest = MANIFEST.model_copy(update={"weights": (weight,)})
    room = DeviceRoom(available=100_000 + 1000 * PAGE, largest=None)
    assert engine_config(manifest, EngineOptions(), 0, room).num_pages == 900
    working = manifest.library.model_copy(update={"memory": {"decode": 20 * PAGE, "forward": 30 * PAGE}})
    beside = manifest.model_copy(update={"libraries": (working,)})
    assert engine_config(beside, EngineOptions(), 0, room).num_pages == 810
    assert engine_config(manifest, EngineOptions(), 0, DeviceRoom(100, None)).num_pages == 1
    # Where nobody knows what is free: a GiB, which is more than all requests need here.
    assert engine_config(manifest, EngineOptions(), 0, DeviceRoom(None, None)).num_pages == 64 * 256
    assert engine_config(manifest, EngineOptions(kv_cache_memory=50 * PAGE), 0, room).num_pages == 50


def test_the_pages_of_a_layer_are_one_tensor_of_the_device() -> None:
    room = DeviceRoom(available=None, largest=300 * MANIFEST.kv_cache.page_bytes + 1)
    assert engine_config(MANIFEST, EngineOptions(), 0, room).num_pages == 300
    assert engine_config(MANIFEST, EngineOptions(num_pages=300), 0, room).num_pages == 300
    with pytest.raises(UsageError, match=r"`num_pages` is 301; allowed: 1 to 300, since .* at most 614401 bytes"):
        engine_config(MANIFEST, EngineOptions(num_pages=301), 0, room)


def test_who_asks_for_more_than_a_tensor_holds_is_told_so() -> None:
    room = DeviceRoom(available=None, largest=300 * MANIFEST.kv_cache.page_bytes)
    config = engine_config(MANIFEST, EngineOptions(), 0, room)
    assert (config.num_pages, config.pages_bound) == (
        300,
        "the pages of a layer are one tensor of the device, which has at most 614400 bytes",
    )
    assert engine_config(MANIFEST, EngineOptions(kv_cache_memory=300 * PAGE), 0, room).pages_bound == ""
    with pytest.raises(UsageError, match=rf"`kv_cache_memory` is .* pages take at most {300 * PAGE}, since .* 614400"):
        engine_config(MANIFEST, EngineOptions(kv_cache_memory=301 * PAGE), 0, room)
    few = DeviceRoom(available=None, largest=20 * MANIFEST.kv_cache.page_bytes)
    assert engine_config(MANIFEST, EngineOptions(), 0, few).max_context == 320
    with pytest.raises(UsageError, match="`max_context` is 321, but pages hold at most 320 tokens, since"):
        engine_config(MANIFEST, EngineOptions(max_context=321), 0, few)


def test_kernels_of_a_gpu_reach_every_element_of_a_layers_pages() -> None:
    room, most = DeviceRoom(available=None, largest=None), 2**21 - 1  # of 1024 elements
    assert engine_config(MANIFEST, EngineOptions(num_pages=most), 0, room).num_pages == most
    with pytest.raises(UsageError, match=f"`num_pages` is {2**21}; allowed: 1 to {most}, .* elements .* in int32"):
        engine_config(MANIFEST, EngineOptions(num_pages=2**21), 0, room)
    assert engine_config(MANIFEST, EngineOptions(num_pages=2**21), PLENTY).num_pages == 2**21  # on a processor


# Three of four layers see 64 tokens: 4 pages behind the first token of a page, one before, one to grow into.
WINDOWS = MANIFEST.model_copy(
    update={
        "shape": MANIFEST.shape.model_copy(update={"num_layers": 4}),
        "kv_cache": MANIFEST.kv_cache.model_copy(update={"window": 64, "window_layers": (0, 1, 2)}),
    }
)
WINDOW_PAGES = 2 * (64 * 6 + 512 // 16 + 1)  # of all who run, of one step, one to copy from; and as many for prefixes


def test_layers_with_a_window_take_no_more_than_they_can_use() -> None:
    config = engine_config(WINDOWS, EngineOptions(), PLENTY)
    assert (config.num_pages, config.num_window_pages) == (64 * 256, WINDOW_PAGES)


def test_the_memory_that_windows_save_becomes_pages() -> None:
    memory = 5000 * PAGE
    config = engine_config(WINDOWS, EngineOptions(kv_cache_memory=memory), PLENTY)
    assert config.num_pages == 5000 - 3 * WINDOW_PAGES
    assert kv_bytes(WINDOWS, config.num_pages, config.num_window_pages) == memory


def test_with_little_memory_every_layer_has_the_same_pages() -> None:
    config = engine_config(WINDOWS, EngineOptions(kv_cache_memory=400 * PAGE), PLENTY)
    assert (config.num_pages, config.num_window_pages) == (100, 100)
