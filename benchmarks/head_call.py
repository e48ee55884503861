"""One timed call of a row of `head.py`, in a process that does nothing else.

Called by head.py with a line of JSON; prints one.
"""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from clocks import now
from head_rows import ROWS, Row
from torch import Tensor

WARM_UP = 64
"""Tokens of a call that is not timed: it compiles, and fills the libraries' buffers."""

Call = Callable[[Tensor, torch.nn.Linear, Tensor], Mapping[str, object]]


def main() -> None:
    """Time the call that the command line's JSON asks for."""
    torch.set_num_threads(1)
    print(json.dumps(call_row(**json.loads(sys.argv[1]))))


def call_row(
    row: str, shape: Mapping[str, int], *, backward: bool, device: str
) -> dict[str, object]:
    """Seconds on both clocks, the bytes it took beyond its inputs, and what it found."""
    call = _gradients(ROWS[row]) if backward else _forward(ROWS[row])
    hidden_ND, layer, ids_N = _inputs(shape, device)
    call(hidden_ND[:WARM_UP], layer, ids_N[:WARM_UP])
    gc.collect()
    before = _forget_peak(device)
    begin = now()
    found = call(hidden_ND, layer, ids_N)
    taken = now() - begin
    return {
        "wall": taken.wall,
        "cpu": taken.cpu,
        "extra": _peak(device) - before,
        "found": {name: _plain(value) for name, value in found.items()},
    }


def _inputs(shape: Mapping[str, int], device: str) -> tuple[Tensor, torch.nn.Linear, Tensor]:
    """States and weights of a policy that is sure of some tokens and not of others."""
    generator = torch.Generator().manual_seed(0)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    hidden_ND = torch.randn(shape["N"], shape["D"], generator=generator).mul_(4 / shape["D"] ** 0.5)
    layer = torch.nn.Linear(1, 1, bias=False)
    weight_VD = torch.randn(shape["V"], shape["D"], generator=generator)
    layer.weight = torch.nn.Parameter(weight_VD.to(device, dtype))
    ids_N = torch.randint(shape["V"], (shape["N"],), generator=generator)
    return hidden_ND.to(device, dtype), layer, ids_N.to(device)


def _forward(row: Row) -> Call:
    @torch.no_grad()
    def call(hidden_ND: Tensor, layer: torch.nn.Linear, ids_N: Tensor) -> Mapping[str, object]:
        logprob_N, entropy_N = row.forward(hidden_ND, layer, ids_N)
        _wait(hidden_ND)
        return {"logprob": logprob_N, "entropy": entropy_N}

    return call


def _gradients(row: Row) -> Call:
    def call(hidden_ND: Tensor, layer: torch.nn.Linear, ids_N: Tensor) -> Mapping[str, object]:
        hidden_ND = hidden_ND.detach().requires_grad_()
        layer.weight.grad = None
        loss = row.mean_loss(hidden_ND, layer, ids_N)
        loss.backward()
        _wait(hidden_ND)
        assert hidden_ND.grad is not None
        assert layer.weight.grad is not None
        return {
            "loss": loss,
            "gradient of h": hidden_ND.grad.float().norm(dim=1),
            "gradient of W": layer.weight.grad[: len(ids_N)].float().norm(dim=1),
        }

    return call


def _wait(tensor: Tensor) -> None:
    if tensor.is_cuda:
        torch.cuda.synchronize()


def _plain(value: object) -> object:
    return value.detach().float().tolist() if isinstance(value, Tensor) else value


def _forget_peak(device: str) -> int:
    """Bytes held now; the peak is counted from here on."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    # 5 sets the peak of this process back to what it holds (Linux)
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _peak(device: str) -> int:
    return torch.cuda.max_memory_allocated() if device == "cuda" else _status("VmHWM")


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


if __name__ == "__main__":
    main()
