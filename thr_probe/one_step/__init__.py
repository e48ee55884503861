"""One GRPO update on one question alone, measured beside GWHES."""

from thr_probe.one_step.run import StepTables, measure_run, run_temperature
from thr_probe.one_step.step import OneStep, Question, StepOptions, one_step

__all__ = [
    "OneStep",
    "Question",
    "StepOptions",
    "StepTables",
    "measure_run",
    "one_step",
    "run_temperature",
]
