"""The shell: parse, call one library function, print where the files went."""

from thr_probe.cli.app import app

__all__ = ["app"]
