"""Checkpoints of a small run as tests write and compare them."""

from __future__ import annotations

import errno
import os

import torch
from trained_pairs import ALONE, STATE, variant

from thr_probe.train.checkpoint import (
    save_checkpoint,
)
from thr_probe.train.module import push_weights


def save(run, held, num_steps=1, **options):
    policy = variant("tied", dtype=torch.float32)
    push_weights(held.module, policy)
    saved = STATE | {"num_steps": num_steps}
    save_checkpoint(run, held, saved, policy=policy, world=ALONE, **options)


def content(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def full_disk(*_arguments, **_options):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
