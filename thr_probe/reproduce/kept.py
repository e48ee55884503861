"""What the pieces of one replication must have in common, kept in its folder."""

from __future__ import annotations

import tomllib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import tomli_w

from thr_probe.errors import DataError, UsageError
from thr_probe.reproduce.settings import SHARED, ReproduceConfig
from thr_probe.traces.atomic import make_folder, write_text

SETTINGS_NAME = "reproduce.toml"


def keep_settings(root: Path, config: ReproduceConfig) -> None:
    """Write down what all rows have in common; a later piece must have the same.

    Raises:
        UsageError: an option that differs from the one of the earlier pieces.
        DataError: what was written down cannot be read.
    """
    values = asdict(config)
    wanted = {name: values[name] for name in SHARED}
    saved = read_settings(root)
    for name, value in (saved or wanted).items():
        if wanted.get(name) != value:
            flag = "--" + name.replace("_", "-")
            raise UsageError(
                f"{root} was begun with {flag} {value!r}, not {wanted.get(name)!r}",
                "rows are compared with each other: give the same options, or another folder",
            )
    if saved is None:
        make_folder(root)
        write_text(root / SETTINGS_NAME, tomli_w.dumps(wanted))


def read_settings(root: Path) -> dict[str, Any] | None:
    """What all rows have in common; None where nothing was begun.

    Raises:
        DataError: the file cannot be read.
    """
    path = root / SETTINGS_NAME
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as TOML: {error}") from error
