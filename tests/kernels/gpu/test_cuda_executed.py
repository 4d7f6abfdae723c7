"""The kernels of WebGPU's tests for CUDA, with its own instructions, executed by the interpreter of PTX.

The tests are the same (`test_gpu_*.py`): their cases, what they compare with, and how near it has to be.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import test_gpu_attention as attention
import test_gpu_attention_units as attention_units
import test_gpu_columns as columns
import test_gpu_encoder as encoder
import test_gpu_latent as latent
import test_gpu_latent_units as latent_units
import test_gpu_linear as linear
import test_gpu_matrix_units as matrix_units
import test_gpu_rows as rows
import test_gpu_sampling as sampling
from cuda_executed import ARCHITECTURES, LARGE, NEEDS_NVCC, Executed, on_cuda

from cupola.kernels.gpu import rows as row_kernels
from cupola.kernels.gpu.norm import NormSpec, add_normed, normed
from cupola.kernels.gpu.sampling import sample
from cupola.kernels.routing import Routing
from cupola.quantize.formats import Format

pytestmark = NEEDS_NVCC
EITHER = pytest.mark.parametrize("arch", ["sm_90", pytest.param("sm_80", marks=LARGE)])
BOTH = pytest.mark.parametrize("arch", [pytest.param(arch, marks=LARGE) for arch in ARCHITECTURES])

# With q3 and bfloat16 a weight on a tie is rounded to another side than NumPy's: one fma applies scale and minimum.
Q4, Q3 = (Format.Q4, "bfloat16"), (Format.Q3, "bfloat16")
OTHERS = [case for case in matrix_units.CASES if case not in (Q4, Q3)]


class TestRows:
    """Embeddings, norms, positions, routes."""

    @EITHER
    def test_norms_tables_and_routes(self, arch: str, monkeypatch: pytest.MonkeyPatch) -> None:
        on_cuda(monkeypatch, rows, arch)
        rows.test_embeddings(Format.Q4)
        rows.test_norms(centered=True)
        rows.test_cosines_and_sines_of_far_positions()
        rows.test_routes(Routing(16, 4, "sigmoid", scale=2.5, groups=4, groups_used=2, group_best=2))
        rows.test_pairs_are_sorted_by_expert(1000)

    @BOTH
    def test_others(self, arch: str, monkeypatch: pytest.MonkeyPatch) -> None:
        on_cuda(monkeypatch, rows, arch)
        for fmt in Format:
            rows.test_embeddings(fmt)
        rows.test_norms(centered=False)
        for by_head, centered in ((True, False), (True, True), (False, False)):
            rows.test_norms_of_heads(by_head, centered)
        for routing in (Routing(6, 3), Routing(5, 2, renormalised=False, shared_gate=True)):
            rows.test_routes(routing)

    @EITHER
    @pytest.mark.parametrize("dtype", ["float16", "uint16"])
    def test_norms_of_rows_of_sixteen_bits(self, dtype: str, arch: str) -> None:
        """uint16: of bfloat16, rounded to nearest."""
        rng, width = np.random.default_rng(0), 336
        x, y = rng.standard_normal((2, 3, width)).astype(np.float32) * 3
        weight, norm = rng.standard_normal(width).astype(np.float32), NormSpec(width, 1e-5)
        small, back = np.zeros((3, width), dtype), np.zeros((3, width), np.float32)
        Executed(normed(norm, "float32", dtype, 1024), arch)(x, weight, small)
        Executed(row_kernels.convert(width, dtype, "float32"), arch)(small, back)
        wide = x.astype(np.float64)
        expected = wide / np.sqrt((wide**2).mean(axis=1, keepdims=True) + 1e-5) * weight
        half_unit = 2.0**-11 if dtype == "float16" else 2.0**-8
        np.testing.assert_allclose(back, expected, rtol=half_unit * 1.01, atol=1e-6)
        z = np.full_like(x, np.nan)
        Executed(add_normed(norm, dtype, 1024), arch)(y, small, weight, z)
        wide = back.astype(np.float64)
        normed_small = wide / np.sqrt((wide**2).mean(axis=1, keepdims=True) + 1e-5) * weight
        np.testing.assert_allclose(z, y + normed_small, atol=1e-5)


class TestSampling:
    @EITHER
    def test_tokens_are_those_of_the_engines_own_sampler(self, arch: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sampling, "kernel_on", cache(lambda _: Executed(sample(sampling.ROWS), arch)))
        sampling.test_rows_are_changed_as_asked_and_reported_as_they_were()
        sampling.test_the_lower_of_equals_comes_first()
        sampling.test_what_cannot_be_sampled_is_said()
        sampling.test_tokens_are_those_of_the_engines_own_sampler(1.0)

    @BOTH
    @pytest.mark.parametrize("spread", [0.05, 4.0])
    def test_flat_and_steep_rows(self, spread: float, arch: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sampling, "kernel_on", cache(lambda _: Executed(sample(sampling.ROWS), arch)))
        sampling.test_tokens_are_those_of_the_engines_own_sampler(spread)


class TestProducts:
    """Of small tiles, which products of the usual sizes do not have."""

    @EITHER
    @pytest.mark.parametrize(("fmt", "dtype"), [Q4, *(pytest.param(*case, marks=LARGE) for case in OTHERS)])
    def test_on_units(self, fmt: Format, dtype: str, arch: str, monkeypatch: pytest.MonkeyPatch) -> None:
        on_cuda(monkeypatch, matrix_units, arch)
        matrix_units.test_products_are_those_of_numpy(fmt, dtype)

    @EITHER
    def test_pipelines_parts_halves_and_experts(self, arch: str, monkeypatch: pytest.MonkeyPatch) -> None:
        on_cuda(monkeypatch, matrix_units, arch)
        matrix_units.test_a_pipeline_is_right_however_late_copies_come()
        matrix_units.test_sums_over_parts_of_the_inputs_are_added_up()
        matrix_units.test_gated_products_meet_their_halves()
        matrix_units.test_products_of_experts_take_their_rows_by_the_order_of_pairs()

    @EITHER
    def test_in_columns(self, arch: str, monkeypatch: pytest.MonkeyPatch) -> None:
        on_cuda(monkeypatch, columns, arch)
        for case in columns.CASES if arch == "sm_80" else columns.CASES[:2]:
            columns.test_products_are_those_of_numpy(*case)
        columns.test_gated_products_meet_their_halves(8)
        columns.test_products_of_experts_go_one_by_one()
        columns.test_projections_rotate_and_append(3)

    @BOTH
    def test_without_units(self, arch: str, monkeypatch: pytest.MonkeyPatch) -> None:
        on_cuda(monkeypatch, linear, arch)
        for fmt in Format:
            linear.test_products_of_one_row_of_a_few_and_of_many(fmt)
        linear.test_gated_products("swiglu_clamped")


class TestAttention:
    @EITHER
    @pytest.mark.parametrize("name", ["all", *(pytest.param(n, marks=LARGE) for n in ("plain", "wide"))])
    def test_without_units(self, name: str, arch: str, monkeypatch: pytest.MonkeyPatch) -> None:
        on_cuda(monkeypatch, attention, arch)
        attention.test_tiles_and_parts(name)

    @BOTH
    @pytest.mark.parametrize("name", attention_units.CASES)
    def test_on_units(self, name: str, arch: str, monkeypatch: pytest.MonkeyPatch) -> None:
        on_cuda(monkeypatch, attention_units, arch)
        attention_units.test_rows_see_what_they_should(name, late=True, monkeypatch=monkeypatch)

    @BOTH
    @pytest.mark.parametrize(("heads", "page_size"), [(3, 16), (20, 8)])
    def test_latents_on_units(self, heads: int, page_size: int, arch: str, monkeypatch: pytest.MonkeyPatch) -> None:
        on_cuda(monkeypatch, latent_units, arch)
        latent_units.test_rows_see_what_they_should(heads, page_size)

    @BOTH
    def test_latents(self, arch: str, monkeypatch: pytest.MonkeyPatch) -> None:
        on_cuda(monkeypatch, latent, arch)
        latent.test_rows_go_to_their_slots_and_nowhere_else()
        latent.test_queries_are_split_scaled_and_rotated()
        latent.test_attention_by_tiles_and_by_parts()


class TestEncoders:
    @BOTH
    def test_encoders(self, arch: str, monkeypatch: pytest.MonkeyPatch) -> None:
        on_cuda(monkeypatch, encoder, arch)
        tests = encoder.TestOnADevice()
        tests.test_every_token_sees_its_whole_sequence()
        tests.test_rotation_windows_and_distances()
        tests.test_tables_in_sixteen_bits()
