"""The layers below the head for thr_overhead.py: random weights, the tokens of stored states.

Prints one line of JSON: processor seconds, the median of the repeats.
"""

from __future__ import annotations

import json
import statistics
import sys

import torch
from thr_routes import seconds
from transformers import Qwen2Config, Qwen2Model


@torch.no_grad()
def main() -> None:
    """Measure what the command line's JSON asks for."""
    call = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    stored = torch.load(call["states"], mmap=True, weights_only=True)
    shape: dict[str, int] = call["layers"]
    rows_GL = stored["ids"].view(len(stored["correct"]), -1) % shape["vocab_size"]
    model = Qwen2Model(Qwen2Config(**shape)).eval()

    def run() -> None:
        for row_L in rows_GL:
            model(input_ids=row_L[None], use_cache=False)

    model(input_ids=rows_GL[:1, :32])
    layers = statistics.median(seconds(run) for _ in range(call["repeats"]))
    print(json.dumps({"layers": layers}))


if __name__ == "__main__":
    main()
