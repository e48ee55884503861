"""The manifest: what a run is, where it came from, and whether it is complete."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Any, cast

from thr_probe import __version__
from thr_probe.errors import DataError
from thr_probe.traces.atomic import write_text
from thr_probe.traces.schema import SCHEMA_VERSION

MANIFEST_NAME = "manifest.json"
_RESTORE = "restore the file from a copy of the run"


class RunStatus(StrEnum):
    """Whether a run has all its parts."""

    INCOMPLETE = "incomplete"
    COMPLETE = "complete"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a run is. No times and no host names: equal runs have equal manifests."""

    schema_version: int = SCHEMA_VERSION
    """Version of the tables' layout."""
    tool_version: str = __version__
    """Version of thr_probe that wrote the run."""
    status: RunStatus = RunStatus.INCOMPLETE
    """Complete once every part is written."""
    model: str | None = None
    """The policy that the completions were sampled from; None where it is not known."""
    revision: str | None = None
    """Revision of the model on its hub."""
    model_digest: str | None = None
    """Digest of a sample of every weight of the model."""
    tokenizer_digest: str | None = None
    """Digest of the tokenizer that the token ids belong to."""
    dataset: str
    """The problem set as it was asked for."""
    dataset_digest: str | None = None
    """Digest of the problems' contents."""
    sampler: str
    """Engine that generated the completions."""
    verifier: str
    """Verifier that judged them."""
    seed: int | None
    """Seed of the run; None where an imported one does not say."""
    argv: tuple[str, ...] = ()
    """The command line that started the run."""
    num_prompts: int
    """Problems of the run when complete."""
    group_size: int
    """Completions per problem."""
    counts: dict[str, int] = field(default_factory=dict)
    """What was counted: parts and completions (set when the run is finished), rows skipped ..."""
    versions: dict[str, str] = field(default_factory=dict)
    """Versions of the libraries that decide the numbers."""


def manifest_json(manifest: Manifest) -> str:
    """The manifest as JSON text: sorted keys, two spaces, a final newline."""
    return json.dumps(asdict(manifest), sort_keys=True, indent=2, ensure_ascii=False) + "\n"


def write_manifest(run_path: Path, manifest: Manifest) -> None:
    """Write `manifest.json` of a run, atomically."""
    write_text(run_path / MANIFEST_NAME, manifest_json(manifest))


def read_manifest(run_path: Path) -> Manifest:
    """Read `manifest.json`; refuses folders that are no run, and unknown schema versions."""
    path = run_path / MANIFEST_NAME
    if not run_path.is_dir():
        found = "it is a file" if run_path.is_file() else "there is no such folder"
        raise DataError(
            f"{run_path} is not a run directory: {found}",
            "give the folder that thr-probe collect or import wrote",
        )
    if not path.is_file():
        raise DataError(
            f"{run_path} is not a run directory: it has no {MANIFEST_NAME}",
            "give the folder that thr-probe collect or import wrote (the one with rollouts/ in it)",
        )
    content = read_json_object(path)
    check_version(path, content.get("schema_version"))
    return _manifest_from(path, content)


def read_json_object(path: Path) -> dict[str, object]:
    """Read a JSON file that must hold an object."""
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing", _RESTORE) from error
    except (ValueError, OSError) as error:
        raise DataError(f"{path} cannot be read as JSON: {error}", _RESTORE) from error
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise DataError(f"{path}: found a JSON {kind}, expected an object", _RESTORE)
    return content


def check_version(path: Path, version: object) -> None:
    """Refuse every schema version but those this program can read."""
    if version == SCHEMA_VERSION and not isinstance(version, bool):
        return
    newer = isinstance(version, int) and version > SCHEMA_VERSION
    raise DataError(
        f"{path}: found schema version {version!r}, expected {SCHEMA_VERSION}",
        "it was written by a newer thr_probe: upgrade with pip install -U thr_probe"
        if newer
        else "it was not written by thr_probe, or was changed since: restore it from a copy",
    )


def _manifest_from(path: Path, content: Mapping[str, object]) -> Manifest:
    # keys of later versions of this schema are passed over, as unknown columns are
    values: dict[str, object] = {}
    for declared in fields(Manifest):
        if declared.name not in content:
            if declared.default is MISSING and declared.default_factory is MISSING:
                raise DataError(f"{path}: field {declared.name} is missing", _RESTORE)
            continue
        values[declared.name] = _field_value(path, declared.name, content[declared.name])
    return Manifest(**cast(dict[str, Any], values))


def _field_value(path: Path, name: str, value: object) -> object:
    expected = _FIELD_KINDS[name]
    if not isinstance(value, expected) or isinstance(value, bool):
        wanted = " or ".join("null" if kind is type(None) else kind.__name__ for kind in expected)
        raise DataError(f"{path}: field {name}: found {value!r}, expected {wanted}", _RESTORE)
    if name == "argv" and isinstance(value, list):
        return tuple(str(word) for word in value)
    if name == "status":
        if value not in list(RunStatus):
            states = " or ".join(RunStatus)
            raise DataError(f"{path}: field status: found {value!r}, expected {states}", _RESTORE)
        return RunStatus(str(value))
    return value


_FIELD_KINDS: dict[str, tuple[type, ...]] = {
    "schema_version": (int,),
    "tool_version": (str,),
    "status": (str,),
    "model": (str, type(None)),
    "revision": (str, type(None)),
    "model_digest": (str, type(None)),
    "tokenizer_digest": (str, type(None)),
    "dataset": (str,),
    "dataset_digest": (str, type(None)),
    "sampler": (str,),
    "verifier": (str,),
    "seed": (int, type(None)),
    "argv": (list,),
    "num_prompts": (int,),
    "group_size": (int,),
    "counts": (dict,),
    "versions": (dict,),
}
