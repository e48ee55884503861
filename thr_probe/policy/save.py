"""Save a policy as a model directory: the counterpart of loading one."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from thr_probe.policy.load import quiet
from thr_probe.policy.policy import Policy


def save_policy(policy: Policy, folder: Path) -> None:
    """Write weights (safetensors), config, generation config and tokenizer of a policy.

    The directory loads with `load_policy` and with transformers alone; it is not written in one
    step.

    Raises:
        OSError: the operating system refused.
    """
    with quiet(), _refusals_as_os_errors():
        cast("Any", policy.model).save_pretrained(folder)
        cast("Any", policy.tokenizer).save_pretrained(folder)


@contextmanager
def _refusals_as_os_errors() -> Iterator[None]:
    """Raise the operating system's refusals as what they are.

    safetensors and tokenizers write in Rust: their errors (of its own class the one, a bare
    Exception the other) carry the system's number in the text only.
    """
    try:
        yield
    except Exception as error:
        number = re.search(r"\(os error (\d+)\)", str(error))
        if isinstance(error, OSError) or number is None:
            raise
        code = int(number.group(1))
        raise OSError(code, os.strerror(code)) from error
