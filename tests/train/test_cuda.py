"""Training on a GPU: bfloat16 passes, float32 weights; skipped without CUDA."""

from __future__ import annotations

import math

import pytest
from train_runs import config_of, records, tensors

from thr_probe.lab import policy_directory
from thr_probe.train.engine import train


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize(
    "flags", [{"p": -0.1}, {"method": "grpo", "cov": "kl-cov"}, {"objective": "gspo-token"}]
)
@pytest.mark.filterwarnings("ignore:--objective gspo.*hardly ever clips")
def test_a_run_on_cuda_is_finite_resumes_and_moves_the_weights(flags, dtype, tmp_path):
    config = config_of(device="cuda", dtype=dtype, **flags)
    assert train(config, tmp_path / "r")
    steps = [line for line in records(tmp_path / "r") if line["kind"] == "step"]
    assert len(steps) == config.steps
    for line in steps:
        assert math.isfinite(line["loss"])
        assert 0 < line["grad_norm"] < 100
        # the copy that samples and the trained module round alike, but not bit for bit
        assert 0.3 < line["ratio_min"] <= line["ratio_max"] < 3
    before, after = tensors(policy_directory()), tensors(tmp_path / "r" / "model")
    assert any((after[name].float() - before[name].float()).abs().max() > 1e-6 for name in after)


@pytest.mark.gpu
def test_float32_on_cuda_takes_the_same_first_step_as_the_cpu(tmp_path):
    config = config_of(steps=1, p=-0.1)
    train(config, tmp_path / "cpu")
    train(config_of(steps=1, p=-0.1, device="cuda", dtype="float32"), tmp_path / "cuda")
    lines = [
        next(line for line in records(tmp_path / name) if line["kind"] == "step")
        for name in ("cpu", "cuda")
    ]
    assert lines[0]["prompts_kept"] == lines[1]["prompts_kept"]
    # a draw may fall on the other side of a rounding: shares agree, not bits
    for name in ("entropy", "grad_norm", "reward_generated"):
        assert lines[1][name] == pytest.approx(lines[0][name], rel=0.3)
