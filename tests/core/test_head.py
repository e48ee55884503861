"""The chunked head against full logits, and its residual against autograd."""

from __future__ import annotations

import numpy as np
import pytest
import reference
import torch

from thr_probe.core.head import Head, distribution, head_pass

close = torch.testing.assert_close


def test_logprob_and_entropy_are_those_of_the_full_distribution(case):
    for chunk_size in (1, 5, 1024):
        result = head_pass(
            case.group.hidden_ND, case.group.token_ids_N, case.head, chunk_size=chunk_size
        )
        for n, (hidden, token) in enumerate(
            zip(case.group.hidden_ND.numpy(), case.group.token_ids_N.tolist(), strict=True)
        ):
            pi = reference.probabilities(case.weight, hidden, **case.keywords)
            np.testing.assert_allclose(result.logprob_N[n], np.log(pi[token]), rtol=1e-10)
            np.testing.assert_allclose(result.entropy_N[n], -(pi * np.log(pi)).sum(), rtol=1e-10)


def test_the_residual_is_the_gradient_of_the_log_probability(case):
    head, hidden_ND, ids = case.head, case.group.hidden_ND, case.group.token_ids_N
    product_NV = (hidden_ND @ head.weight_VD.T).requires_grad_()
    logits_NV = head.scale * product_NV
    if head.bias_V is not None:
        logits_NV = logits_NV + head.bias_V
    if head.softcap is not None:
        logits_NV = head.softcap * torch.tanh(logits_NV / head.softcap)
    logprob_NV = torch.log_softmax(logits_NV / head.temperature, dim=1)
    logprob_NV.gather(1, ids[:, None]).sum().backward()
    close(distribution(hidden_ND, head).residual(ids), product_NV.grad, rtol=1e-10, atol=1e-12)


def test_the_residual_of_a_sure_token_keeps_its_digits_in_float32():
    head = Head(torch.tensor([[20.0], [0.0]]))
    residual = distribution(torch.ones(1, 1), head).residual(torch.tensor([0]))
    np.testing.assert_allclose(residual[0, 0], np.exp(-20) / (1 + np.exp(-20)), rtol=1e-6)


def test_float32_and_bf16_states_are_accumulated_in_float32(plain_case):
    for dtype in (torch.float32, torch.bfloat16):
        result = head_pass(
            plain_case.group.hidden_ND.to(dtype),
            plain_case.group.token_ids_N,
            Head(plain_case.head.weight_VD.to(dtype)),
        )
        assert result.logprob_N.dtype == result.entropy_N.dtype == torch.float32


@pytest.mark.parametrize("softcap", [None, 5.0])
def test_a_peaked_distribution_has_no_entropy(softcap):
    head = Head(torch.tensor([[1e4], [0.0]]), softcap=softcap, temperature=0.01)
    result = head_pass(torch.ones(1, 1), torch.tensor([0]), head)
    np.testing.assert_allclose(result.entropy_N, 0, atol=1e-6)
    np.testing.assert_allclose(result.logprob_N, 0, atol=1e-6)


def test_a_saturated_softcap_keeps_the_digits_of_its_slope_in_float32():
    generator = torch.Generator().manual_seed(0)
    weight_VD = torch.randn(7, 4, generator=generator)
    hidden_ND = 40 * torch.randn(20, 4, generator=generator)
    ids = torch.randint(7, (20,), generator=generator)
    exact = distribution(hidden_ND.double(), Head(weight_VD.double(), softcap=5.0)).residual(ids)
    single = distribution(hidden_ND, Head(weight_VD, softcap=5.0)).residual(ids)
    assert (exact.abs() < 1e-9).any()
    # the argument of the cap, up to 30, is rounded to float32 before it is exponentiated
    close(single.double(), exact, rtol=1e-4, atol=1e-30)
