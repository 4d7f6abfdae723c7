"""The clamped SwiGLU of gpt-oss (OpenAI, 2025): (min(gate, limit) * sigmoid(alpha * gate)) * (clamp(up) + 1)."""

from __future__ import annotations

SWIGLU_LIMIT, SWIGLU_ALPHA = 7.0, 1.702
