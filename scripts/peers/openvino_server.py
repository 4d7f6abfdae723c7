"""openvino-genai's continuous batching behind `/v1/completions`; runs in build/peers/openvino.

    python scripts/peers/openvino_server.py FOLDER --port N [--threads 2] [--max-batch 16] [--tokens 40960]

Its prefix cache is on. What is not named here is as the library has it: 8-bit keys and values, at most 256 tokens a
step.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import openvino
import openvino_genai
from completions import Options, Output, Request, read_options, serve

_BLOCK = 32  # tokens of a block of its cache on a CPU


@dataclass(slots=True)
class OpenVino:
    """The pipeline, and the handles of the requests in it."""

    pipeline: openvino_genai.ContinuousBatchingPipeline
    patience: float = 0.0
    handles: dict[Request, openvino_genai.GenerationHandle] = field(default_factory=dict)
    added: int = 0

    @classmethod
    def load(cls, options: Options) -> OpenVino:
        scheduler = openvino_genai.SchedulerConfig()
        scheduler.max_num_seqs = options.max_batch
        scheduler.num_kv_blocks = -(-options.tokens // _BLOCK)
        scheduler.enable_prefix_caching = True
        properties = {"INFERENCE_NUM_THREADS": options.threads}
        return cls(openvino_genai.ContinuousBatchingPipeline(options.folder, scheduler, "CPU", properties))

    def add(self, request: Request) -> None:
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens = request.max_tokens
        config.ignore_eos = request.ignore_eos
        config.do_sample = False
        ids = openvino.Tensor(np.array([request.ids], np.int64))
        self.handles[request] = self.pipeline.add_request(self.added, ids, config)
        self.added += 1

    def step(self) -> list[Output]:
        self.pipeline.step()
        outputs = []
        for request, handle in list(self.handles.items()):
            # The status comes first: what is read after it is complete.
            finished = handle.get_status() != openvino_genai.GenerationStatus.RUNNING
            ids = (
                [token for output in handle.read().values() for token in output.generated_ids]
                if handle.can_read()
                else []
            )
            if finished:
                del self.handles[request]
            if ids or finished:
                outputs.append(Output(request, ids, finished))
        return outputs


def main() -> None:
    serve(read_options("openvino-genai as an OpenAI-compatible server."), OpenVino.load)


if __name__ == "__main__":
    main()
