"""`python -m thr_probe` is `thr-probe`."""

from thr_probe.cli import app

app(prog_name="thr-probe")
