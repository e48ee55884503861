"""What two processes do together in the tests of module and checkpoints; run by two_processes."""

from __future__ import annotations

import errno
import json
import os
from functools import partial

import torch
from tiny_models import tiny_policy
from torch.distributed.tensor import DTensor

from thr_probe.errors import DataError
from thr_probe.processes import World
from thr_probe.train.checkpoint import Trained, checkpoint_steps, load_checkpoint, save_checkpoint
from thr_probe.train.module import build_module, push_weights

ALONE = World(rank=0, size=1, local_rank=0)
VARIANTS = {
    "tied": {"family": "qwen2", "tie_word_embeddings": True},
    "untied": {"family": "qwen2", "tie_word_embeddings": False},
    "soft-cap": {"family": "gemma2"},
}
STATE = {"num_steps": 1, "stream": {"epoch": 2, "position": 3}, "names": ["ä", None]}


def variant(name, *, seed=0, dtype=torch.float64):
    return tiny_policy(**VARIANTS[name], seed=seed, dtype=dtype)


def built(policy, world, **options):
    return build_module(
        policy, world, **({"compute_dtype": torch.float64, "recompute": False} | options)
    )


def micro_batch(number, *, rows=2, length=9):
    """Token ids, places and tokens of a batch of its own number."""
    generator = torch.Generator().manual_seed(number)
    input_ids_BL = torch.randint(3, 270, (rows, length), generator=generator)
    places_2N = torch.tensor([(b, i) for b in range(rows) for i in range(2 + b, length - 1)]).T
    token_ids_N = torch.randint(3, 270, (places_2N.shape[1],), generator=generator)
    return input_ids_BL, places_2N, token_ids_N


def loss_of(module, number, *, chunk_size=5):
    logprob_N, entropy_N, _ = module(*micro_batch(number), 0.7, chunk_size)
    weight_N = torch.linspace(-1.0, 2.0, len(logprob_N), dtype=logprob_N.dtype)
    return (weight_N * logprob_N).sum() + 0.1 * entropy_N.sum()


def update(module, optimizer, numbers, *, scale=1.0):
    optimizer.zero_grad()
    for number in numbers:
        (loss_of(module, number) * scale).backward()
    gradients = {name: whole(value.grad) for name, value in module.named_parameters()}
    optimizer.step()
    return gradients


def whole(tensor):
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor.detach().clone()


def trained(world, name, *, seed=0, numbers=None, scale=1.0, **options):
    """Module and optimiser, after an update if `numbers` are given."""
    policy = variant(name, seed=seed, dtype=options.pop("dtype", torch.float64))
    module = built(policy, world, **options)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-2, weight_decay=0.1)
    if numbers is not None:
        update(module, optimizer, numbers, scale=scale)
    return Trained(module=module, optimizer=optimizer)


def everything(held):
    """Weights and optimiser state, gathered."""
    content = {}
    for name, weight in held.module.named_parameters():
        content[name] = whole(weight)
        for entry, value in held.optimizer.state[weight].items():
            content[f"{name}/{entry}"] = whole(value)
    return content


def assert_same(actual, expected, **tolerances):
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(
            actual[name],
            value,
            **(tolerances or {"rtol": 0, "atol": 0}),
            msg=partial(_named, name),
        )


def _named(name, message):
    return f"{name}: {message}"


def gradients(world, folder):
    """Sharded: gradients and updated weights are those of one process; then pushed exactly."""
    for name in VARIANTS:
        for recompute in (False, True):
            alone, shared = trained(ALONE, name), trained(world, name, recompute=recompute)
            expected = update(alone.module, alone.optimizer, [0, 1, 2, 3])
            # FSDP takes the mean over the processes
            own = [2 * world.rank, 2 * world.rank + 1]
            actual = update(shared.module, shared.optimizer, own, scale=world.size)
            assert_same(actual, expected, rtol=1e-6, atol=1e-6)
        _pushed(shared, name)
        _pushed_between_passes(world, name)


def _pushed(held, name):
    snapshot = variant(name, seed=1)
    push_weights(held.module, snapshot)
    for weight_name, weight in held.module.model.named_parameters():
        target = snapshot.model.get_parameter(weight_name)
        torch.testing.assert_close(target.detach(), whole(weight), rtol=0, atol=0)


def _pushed_between_passes(world, name):
    """After a forward pass that has no backward pass, weights are still in their own precision."""
    module = built(variant(name, dtype=torch.float32), world, compute_dtype=torch.bfloat16)
    with torch.no_grad():
        module(*micro_batch(0), 0.7, 5)
    snapshot, source = (variant(name, seed=seed, dtype=torch.float32) for seed in (1, 0))
    push_weights(module, snapshot)
    assert_same(dict(snapshot.model.named_parameters()), dict(source.model.named_parameters()))


def checkpoints(world, folder):
    """Saved by two and loaded by two: bit for bit; the expected content is left for one process."""
    for name in VARIANTS:
        run = folder / name
        held = trained(world, name, numbers=[world.rank], dtype=torch.float32)
        expected = everything(held)
        save_checkpoint(run, held, STATE, policy=variant(name), world=world)
        if world.is_first:
            torch.save(expected, folder / f"{name}.pt")
        other = trained(world, name, seed=1, numbers=[7], dtype=torch.float32)
        assert load_checkpoint(run, other, world=world) == STATE
        assert_same(everything(other), expected)
        # what was saved by one process
        assert load_checkpoint(folder / f"{name}-alone", other, world=world) == STATE
        assert_same(everything(other), torch.load(folder / f"{name}-alone.pt"))


def failures(world, folder):
    """One process cannot write, or not read: both say so, and nothing hangs."""
    held = trained(world, "tied", numbers=[world.rank])
    policy = variant("tied")
    save_checkpoint(folder, held, STATE, policy=policy, world=world)
    real_sync, told = os.fsync, []
    for failing in range(world.size):
        if world.rank == failing:
            os.fsync = _full_disk
        try:
            save_checkpoint(folder, held, {"num_steps": 2}, policy=policy, world=world)
        except DataError as error:
            told.append(error.message)
        os.fsync = real_sync
        assert checkpoint_steps(folder) == [1]
        world.wait()  # the first process may still be removing what was half-written
    assert [path.name for path in (folder / "checkpoints").glob("step-*")] == ["step-000001"]
    world.wait()
    if world.rank == 1:
        _damage(folder)
    world.wait()
    try:
        load_checkpoint(folder, held, world=world)
    except DataError as error:
        told.append(error.message)
    (folder / f"told-{world.rank}.json").write_text(json.dumps(told))


def _full_disk(_descriptor):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _damage(folder):
    """The second shard's header says nothing any more; its size is the same."""
    [path] = (folder / "checkpoints" / "step-000001" / "state").glob("shard-00002-*")
    content = path.read_bytes()
    path.write_bytes(b"\0" * 64 + content[64:])
