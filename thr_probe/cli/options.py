"""Flags made from a config dataclass, so that a flag and its config key cannot drift apart."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import Field, fields
from typing import Annotated, Any

import typer

from thr_probe.config import PANELS, Config, declared_types


def flags_of(kind: type[Config]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorator: one flag per field of the config, handed to the command as keywords.

    A flag that is not given arrives as None; `resolve_config` then looks at the environment, the
    config file and the default. The command takes `**flags` and keeps its own parameters.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own: list[inspect.Parameter] = [
            parameter
            for parameter in inspect.signature(command, eval_str=True).parameters.values()
            if parameter.kind is not inspect.Parameter.VAR_KEYWORD
        ]
        types = declared_types(kind)
        listed = sorted(fields(kind), key=lambda item: PANELS.index(item.metadata["panel"]))
        made: list[inspect.Parameter] = [_parameter(item, types[item.name]) for item in listed]
        parameters = [
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in [*own, *made]
        ]

        def run(**values: Any) -> None:
            command(**values)

        run.__name__, run.__doc__ = command.__name__, command.__doc__
        # inspect, and so typer, looks here first
        run.__dict__["__signature__"] = inspect.Signature(parameters)
        run.__annotations__ = {item.name: item.annotation for item in parameters}
        return run

    return decorate


def _parameter(item: Field[Any], wanted: type) -> inspect.Parameter:
    flag = "--" + item.name.replace("_", "-")
    names = [f"{flag}/--no-{flag[2:]}"] if wanted is bool else [flag]
    meaning = item.metadata["help"]
    # typer would show the default of the flag, which is None: the config decides
    if wanted is not bool and item.default not in {None, ""}:
        meaning = f"{meaning} Default: {item.default}."
    option = typer.Option(
        *names,
        *item.metadata["flags"],
        help=meaning,
        show_default=False,
        rich_help_panel=item.metadata["panel"],
    )
    return inspect.Parameter(
        item.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[wanted | None, option],
    )
