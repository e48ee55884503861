"""The seam for engines: which one is loaded, with what, and what is refused. Without vLLM."""

from __future__ import annotations

import functools
import importlib.util
import sys
import types
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from thr_probe.collect import collect
from thr_probe.config import CollectConfig, config_dict, from_saved
from thr_probe.engine import Engine, load_engine
from thr_probe.engine_options import ENGINE_OPTIONS, MAY_CHANGE
from thr_probe.errors import DataError, PrerequisiteError, UsageError
from thr_probe.evaluate.plan import plan_evaluation
from thr_probe.evaluate.settings import EvalConfig
from thr_probe.policy import Policy, UnloadedPolicy, load_policy, load_unloaded
from thr_probe.processes import World
from thr_probe.sampling import FinishReason, Prompt, SamplingSettings, close, renew, rest
from thr_probe.sampling import vllm as engine_module
from thr_probe.sampling.engines import load_sampler
from thr_probe.sampling.hf import TransformersSampler
from thr_probe.sampling.vllm import VllmSampler, checkpoint_weights, load_vllm, prompt_seed
from thr_probe.traces import read_run
from thr_probe.train.config import TrainConfig
from thr_probe.train.setup import prepare


@functools.cache
def lab_policy() -> Policy:
    return load_policy("lab", device="cpu")


ONE = World(rank=0, size=1, local_rank=0)
EOS = 1
FIND_SPEC = importlib.util.find_spec


class FakeLLM:
    """Answers every request with the ids it was told, and writes down what it is asked."""

    def __init__(self, **given: Any) -> None:
        self.given = given
        self.calls: list[str] = []
        self.is_tried = False
        self.parameters: list[Any] = []
        self.weights: dict[str, torch.Tensor] = {}
        executor = SimpleNamespace(shutdown=lambda: self.calls.append("shutdown"))
        core = SimpleNamespace(model_executor=executor)
        self.llm_engine = SimpleNamespace(engine_core=SimpleNamespace(engine_core=core))

    def generate(self, prompts: Sequence[Any], parameters: Sequence[Any], *, use_tqdm: bool):
        assert use_tqdm is False
        if len(prompts) == 1 and prompts[0]["prompt_token_ids"] == [EOS]:
            assert parameters[0].max_tokens == 1
            self.is_tried = True
            return []
        assert self.is_tried
        self.calls.append("generate")
        self.parameters = list(parameters)
        answers = ([5, 6, EOS], "stop"), ([5, 7, 8], "length"), ([9], "abort")
        return [
            SimpleNamespace(
                outputs=[
                    SimpleNamespace(
                        token_ids=ids,
                        finish_reason=reason,
                        logprobs=SimpleNamespace(logprobs=[-0.5] * len(ids)),
                    )
                    for ids, reason in (answers * asked.n)[: asked.n]
                ]
            )
            for _, asked in zip(prompts, parameters, strict=True)
        ]

    def collective_rpc(self, method: str, kwargs: dict[str, Any]) -> None:
        self.calls.append(method)
        self.weights = dict(kwargs["weights_iterator"])

    def reset_prefix_cache(self) -> None:
        self.calls.append("reset")

    def sleep(self, level: int) -> None:
        self.calls.append(f"sleep {level}")

    def wake_up(self) -> None:
        self.calls.append("wake")


@dataclass
class FakePlatform:
    cpu: bool = True

    def is_cpu(self) -> bool:
        return self.cpu

    def is_cuda_alike(self) -> bool:
        return not self.cpu


@dataclass
class FakeVllm:
    platform: FakePlatform = field(default_factory=FakePlatform)
    error: Exception | None = None
    made: list[FakeLLM] = field(default_factory=list)


def find_vllm(monkeypatch: pytest.MonkeyPatch, spec: Any) -> None:
    """Have Python find this where it looks for vLLM."""
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: spec if name == "vllm" else FIND_SPEC(name, *rest),
    )


@pytest.fixture
def fake(monkeypatch) -> FakeVllm:
    """vLLM as far as the sampler knows it."""
    state = FakeVllm()
    module, platforms = types.ModuleType("vllm"), types.ModuleType("vllm.platforms")

    def make(**given: Any) -> FakeLLM:
        if state.error is not None:
            raise state.error
        state.made.append(FakeLLM(**given))
        return state.made[-1]

    module.LLM, module.SamplingParams = make, SimpleNamespace
    platforms.current_platform = state.platform
    monkeypatch.setitem(sys.modules, "vllm", module)
    monkeypatch.setitem(sys.modules, "vllm.platforms", platforms)
    find_vllm(monkeypatch, SimpleNamespace(origin="vllm/__init__.py"))
    for name in (*engine_module.QUIET_START, *engine_module.ON_A_CPU):
        monkeypatch.setenv(name, "as the user set it")
    return state


def options(**given: Any) -> dict[str, Any]:
    return config_dict(CollectConfig(**{"engine": "vllm", "device": "cpu", **given}))


def sampler_of(fake: FakeVllm, **given: Any) -> tuple[VllmSampler, FakeLLM]:
    sampler = load_sampler(options(**given), lab_policy(), max_length=200)
    assert isinstance(sampler, VllmSampler)
    return sampler, fake.made[-1]


PROMPTS = [Prompt(prompt_id="a", token_ids=[3, 4]), Prompt(prompt_id="b", token_ids=[5] * 150)]


def test_the_policy_itself_samples_unless_told():
    sampler = load_sampler(config_dict(CollectConfig()), lab_policy(), max_length=100)
    assert isinstance(sampler, TransformersSampler)
    assert sampler.batch_tokens == CollectConfig().batch_tokens


@pytest.mark.parametrize("kind", [CollectConfig, TrainConfig, EvalConfig])
def test_an_unknown_engine_is_refused_with_the_closest_one(kind):
    with pytest.raises(UsageError, match="--engine 'vlm' does not exist") as caught:
        kind(engine="vlm")
    assert "did you mean vllm?" in str(caught.value.hint)
    with pytest.raises(UsageError, match="--engine 'x' does not exist"):
        kind(engine="x")


VALUES = {"gpu_memory": 0.5, "request_timeout": 9.0, "base_url": "http://h/v1", "served_model": "m"}


@pytest.mark.parametrize(
    ("owner", "name"), [(owner, name) for owner in ENGINE_OPTIONS for name in ENGINE_OPTIONS[owner]]
)
def test_options_of_one_engine_are_refused_with_another(owner, name):
    flag = "--" + name.replace("_", "-")
    for engine in set(ENGINE_OPTIONS) - {owner}:
        with pytest.raises(UsageError, match=f"{flag} belongs to --engine {owner}, not to"):
            CollectConfig(engine=engine, **{name: VALUES.get(name, 2)})


def test_values_that_engines_cannot_take_are_refused():
    with pytest.raises(UsageError, match=r"--gpu-memory is a share between 0 and 1, got 7\.0"):
        CollectConfig(engine="vllm", gpu_memory=7.0)
    with pytest.raises(UsageError, match="--engine openai needs the address"):
        CollectConfig(engine="openai")
    with pytest.raises(UsageError, match="--request-timeout must be positive"):
        CollectConfig(engine="openai", base_url="http://h/v1", request_timeout=0.0)
    assert CollectConfig(engine="openai", base_url="http://h/v1", retries=0).retries == 0


def test_a_config_saved_before_there_were_engines_is_read(tmp_path):
    new = {"engine", *(name for names in ENGINE_OPTIONS.values() for name in names)}
    saved = {
        name: value
        for name, value in config_dict(CollectConfig()).items()
        if value is not None and name not in new
    }
    assert from_saved(CollectConfig, saved, tmp_path) == CollectConfig()


def test_a_run_may_be_resumed_from_another_place_and_at_another_speed(tmp_path, fake):
    config = CollectConfig(engine="vllm", device="cpu", max_prompts=2, group_size=3, score=False)
    assert collect(config, tmp_path / "run", load=lambda: fake_engine(fake))
    run = read_run(tmp_path / "run")
    assert run.manifest.sampler == "vllm"
    assert run.manifest.model_digest == lab_policy().weights_digest
    (table,) = run.iter_completions(["token_ids", "finish_reason"])
    assert table["finish_reason"].to_pylist() == ["stop", "length", "abort"] * 2
    faster = replace(config, max_num_seqs=7)
    assert collect(faster, tmp_path / "run", resume=True)
    with pytest.raises(UsageError, match="engine is 'vllm' there, 'transformers' here"):
        collect(replace(config, engine="transformers"), tmp_path / "run", resume=True)
    assert "served_model" not in MAY_CHANGE


def fake_engine(fake: FakeVllm) -> Engine:
    config = CollectConfig(engine="vllm", device="cpu", max_prompts=2, score=False)
    return load_engine(config, ONE, scores=False)


def test_a_run_that_only_samples_does_not_load_the_weights_twice(fake):
    engine = fake_engine(fake)
    assert isinstance(engine.policy, UnloadedPolicy)
    policy = lab_policy()
    for name in ("weights_digest", "tokenizer_digest", "max_length", "eos_ids", "name", "revision"):
        assert getattr(engine.policy, name) == getattr(policy, name), name
    text = "What is 12 + 7?"
    ids = policy.encode_prompt(text)
    assert engine.policy.encode_prompt(text) == ids
    assert engine.policy.decode(ids) == policy.decode(ids)
    assert engine.policy.token_rows(ids) == policy.token_rows(ids)
    # 1024 + 3072 tokens are more than the lab's policy takes
    assert fake.made[-1].given["max_model_len"] == policy.max_length
    scored = load_engine(CollectConfig(engine="vllm", device="cpu"), ONE, scores=True)
    assert not isinstance(scored.policy, UnloadedPolicy)


def test_a_policy_without_weights_is_refused_as_one_with_them(tmp_path):
    with pytest.raises(PrerequisiteError, match="no model directory"):
        load_unloaded(str(tmp_path / "none"))
    with pytest.raises(DataError, match=r"holds no config\.json"):
        load_unloaded(str(tmp_path))


def test_the_engine_starts_from_the_policys_files_with_its_dtype(fake, monkeypatch):
    _, llm = sampler_of(fake, max_num_seqs=5)
    assert llm.given["model"].endswith("lab/policy")
    assert llm.given["dtype"] == "float32"
    assert llm.given["logprobs_mode"] == "processed_logprobs"
    assert llm.given["max_num_seqs"] == 5
    assert llm.given["max_model_len"] == 200
    assert "distributed_executor_backend" not in llm.given
    assert "max_num_seqs" not in sampler_of(fake)[1].given
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert sampler_of(fake)[1].given["distributed_executor_backend"] == "external_launcher"
    with pytest.raises(UsageError, match="--tensor-parallel 2 under torchrun"):
        sampler_of(fake, tensor_parallel=2)


def test_on_a_gpu_memory_is_shared_as_told(fake):
    fake.platform.cpu = False
    policy = replace(load_unloaded("lab"), device=torch.device("cuda"), dtype=torch.bfloat16)
    load_vllm(policy, options(), max_length=100, gpu_share=0.6)
    given = fake.made[-1].given
    assert (given["gpu_memory_utilization"], given["dtype"]) == (0.6, "bfloat16")
    assert given["enable_sleep_mode"] is True
    assert "enforce_eager" not in given
    load_vllm(policy, options(gpu_memory=0.3), max_length=100, gpu_share=0.6)
    assert fake.made[-1].given["gpu_memory_utilization"] == 0.3
    third = replace(policy, device=torch.device("cuda:3"))
    with pytest.raises(PrerequisiteError, match="takes the first GPU it sees, not cuda:3"):
        load_vllm(third, options(), max_length=100, gpu_share=0.6)


def test_a_vllm_for_another_device_is_refused(fake):
    fake.platform.cpu = False
    with pytest.raises(PrerequisiteError, match="not built for CPUs"):
        sampler_of(fake)
    fake.platform.cpu = True
    policy = replace(load_unloaded("lab"), device=torch.device("cuda"))
    with pytest.raises(PrerequisiteError, match="built for CPUs, and the policy is on a GPU"):
        load_vllm(policy, options(), max_length=100, gpu_share=0.6)


def test_a_missing_or_broken_vllm_is_told_apart(fake, monkeypatch):
    for spec in (None, SimpleNamespace(origin=None)):
        find_vllm(monkeypatch, spec)
        with pytest.raises(PrerequisiteError, match="which is not installed") as caught:
            sampler_of(fake)
        assert 'pip install "thr_probe[vllm]"' in str(caught.value.hint)
    find_vllm(monkeypatch, SimpleNamespace(origin="vllm/__init__.py"))

    def broken(name: str) -> Any:
        raise RuntimeError("operator torchvision::nms does not exist\nmore")

    monkeypatch.setattr(engine_module.importlib, "import_module", broken)
    with pytest.raises(
        PrerequisiteError, match=r"cannot be imported: .*torchvision::nms"
    ) as caught:
        engine_module.vllm_module()
    assert "pip uninstall torchvision" in str(caught.value.hint)


def test_a_model_that_vllm_does_not_run_is_told_in_a_sentence(fake):
    fake.error = ValueError(
        "1 validation error for ModelConfig\n  Value error, Model architectures ['X'] are not "
        "supported for now."
    )
    with pytest.raises(PrerequisiteError, match=r"cannot run lab: .*\['X'\] are not supported"):
        sampler_of(fake)
    fake.error = ValueError("Free memory on device is less than desired GPU memory utilization")
    with pytest.raises(PrerequisiteError) as caught:
        sampler_of(fake)
    assert "--gpu-memory" in str(caught.value.hint)


def test_every_prompt_has_its_own_seed_and_its_own_room(fake):
    sampler, llm = sampler_of(fake)
    settings = SamplingSettings(group_size=3, max_new_tokens=100, temperature=0.7, top_p=0.9)
    groups = sampler.sample(PROMPTS, settings)
    first, second = llm.parameters
    assert (first.max_tokens, second.max_tokens) == (100, 50)
    assert first.seed == prompt_seed(0, "a") != second.seed
    assert 0 <= first.seed < 2**48
    assert (first.n, first.temperature, first.top_p) == (3, 0.7, 0.9)
    assert first.stop_token_ids == [EOS]
    assert [item.finish_reason for item in groups[0]] == [
        FinishReason.STOP,
        FinishReason.LENGTH,
        FinishReason.ABORT,
    ]
    assert groups[0][1].logprobs == (-0.5,) * 3


def test_greedy_completions_are_sampled_once_and_have_no_nucleus(fake):
    sampler, llm = sampler_of(fake)
    groups = sampler.sample(PROMPTS[:1], SamplingSettings(group_size=3, temperature=0.0, top_p=0.4))
    (asked,) = llm.parameters
    assert (asked.n, asked.top_p, asked.seed) == (1, 1.0, None)
    assert groups == [[groups[0][0]] * 3]


def test_new_weights_are_pushed_before_the_next_completions_and_once(fake):
    sampler, llm = sampler_of(fake)
    settings = SamplingSettings(group_size=1)
    sampler.sample(PROMPTS, settings)
    assert llm.calls == ["generate"]
    renew(sampler)
    renew(sampler)
    sampler.sample(PROMPTS, settings)
    sampler.sample(PROMPTS, settings)
    assert llm.calls == ["generate", "reload_weights", "reset", "generate", "generate"]
    expected = lab_policy().model.state_dict()
    assert set(llm.weights) == set(expected)
    for name, weight in checkpoint_weights(lab_policy()):
        torch.testing.assert_close(llm.weights[name], weight, rtol=0, atol=0)


def test_memory_is_given_back_between_calls_where_it_can_be(fake):
    sampler, llm = sampler_of(fake)
    rest(sampler)
    assert llm.calls == []  # a CPU shares its memory anyway
    sampler.sleeps = True
    rest(sampler)
    rest(sampler)
    sampler.sample(PROMPTS, SamplingSettings(group_size=1))
    assert llm.calls == ["sleep 1", "wake", "generate"]
    close(sampler)
    assert llm.calls[-1] == "shutdown"


def test_a_sampler_with_the_policys_own_weights_needs_none_of_this():
    sampler = TransformersSampler(policy=lab_policy())
    renew(sampler)
    rest(sampler)
    close(sampler)


def test_training_refuses_what_cannot_follow_the_weights(tmp_path):
    config = TrainConfig(engine="openai", base_url="http://h/v1")
    with pytest.raises(UsageError, match="--engine openai cannot train"):
        prepare(config, tmp_path, ONE)
    with pytest.raises(UsageError, match="--tensor-parallel 2: in training"):
        prepare(TrainConfig(engine="vllm", tensor_parallel=2), tmp_path, ONE)


def test_evaluation_hands_the_engine_on_to_its_runs(tmp_path):
    config = EvalConfig(engine="vllm", max_num_seqs=3, samples=4)
    tasks = plan_evaluation("lab", config, tmp_path).tasks
    assert {(task.config.engine, task.config.max_num_seqs) for task in tasks} == {("vllm", 3)}
