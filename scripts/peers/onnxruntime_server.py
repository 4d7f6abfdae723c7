"""onnxruntime-genai's engine behind `/v1/completions`; runs in build/peers/onnxruntime.

    python scripts/peers/onnxruntime_server.py FOLDER --port N [--threads 2] [--max-batch 16]

On a CPU its engine batches statically: what arrives while a batch runs waits for the end of all of it. So the first
requests after a pause wait a moment for others. It has no prefix cache.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import numpy as np
import onnxruntime_genai as genai
from completions import Options, Output, Request, read_options, serve


@dataclass(slots=True)
class OnnxRuntime:
    """The engine, and the requests in it."""

    engine: genai.Engine
    events: genai.EngineEventBuffer
    patience: float = 0.005
    running: dict[genai.Request, Request] = field(default_factory=dict)

    @classmethod
    def load(cls, options: Options) -> OnnxRuntime:
        config = genai.Config(str(options.folder))
        session = {"intra_op_num_threads": options.threads}
        config.overlay(json.dumps({"model": {"decoder": {"session_options": session}}}))
        config.overlay(json.dumps({"engine": {"static_batching": {"max_batch_size": options.max_batch}}}))
        engine = genai.Engine(genai.Model(config))
        return cls(engine, engine.create_event_buffer(4 * options.max_batch))

    def add(self, request: Request) -> None:
        options = genai.RequestOptions()
        options.set_max_session_tokens(len(request.ids) + request.max_tokens)
        native = self.engine.create_request(options=options)
        turn = genai.TurnOptions(native)
        turn.set_do_sample(False)
        turn.set_max_generated_tokens(request.max_tokens)
        if request.ignore_eos:
            turn.set_min_generated_tokens(request.max_tokens)
        native.begin_turn(np.array(request.ids, np.int32), turn)
        self.running[native] = request

    def step(self) -> list[Output]:
        outputs = []
        for event in self.engine.run(self.events):
            flags = event.flags.value
            ids = [event.token] if flags & genai.EngineEventFlags.TOKEN.value else []
            finished = bool(flags & (genai.EngineEventFlags.TURN_FINISHED.value | genai.EngineEventFlags.FAILED.value))
            outputs.append(Output(self.running[event.request], ids, finished))
            if finished:
                del self.running[event.request]
                event.request.close()
        return outputs


def main() -> None:
    serve(read_options("onnxruntime-genai as an OpenAI-compatible server."), OnnxRuntime.load)


if __name__ == "__main__":
    main()
