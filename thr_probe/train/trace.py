"""The rollouts and THR of a training step, in the trace that every analysis reads.

One part per stored step, written by the first process in the step's order, so that the files do not
depend on the number of processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from thr_probe.processes import World
from thr_probe.resume import SCORE_ID
from thr_probe.score import score_rows
from thr_probe.traces import write_part
from thr_probe.traces.layout import part_indices, part_path
from thr_probe.train.scoring import ScoredGroup

TABLES = ("rollouts", f"scores/{SCORE_ID}")


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTrace:
    """Where the stored steps of a run go."""

    run_path: Path
    """The run."""
    every: int
    """Steps between stored ones; 0: none."""
    verifier: str
    """Its name."""
    world: World
    """The processes."""

    def stores(self, step: int) -> bool:
        """Whether a step is stored."""
        return self.every > 0 and step % self.every == 0

    def num_parts(self, num_steps: int) -> int:
        """Parts of the first steps."""
        return 0 if self.every == 0 else -(-num_steps // self.every)

    def write(self, step: int, groups: Sequence[ScoredGroup]) -> None:
        """Store this and the other processes' kept groups of a step; every process calls it."""
        own = []
        for scored in groups:
            assert scored.scores is not None, "a stored step has THR"
            prompt_id = scored.group.task.problem.prompt_id
            scores = score_rows(scored.scores, prompt_id, step=step)
            tables = (scored.group.rows(verifier=self.verifier, step=step), scores)
            own.append((scored.group.order, tables))
        gathered = (item for part in self.world.gather(own) for item in part)
        listed = sorted(gathered, key=lambda item: item[0])
        if self.world.is_first:
            for place, table in enumerate(TABLES):
                rows = [row for _, tables in listed for row in tables[place]]
                write_part(self.run_path, table, step // self.every, rows, overwrite=True)


def truncate_parts(run_path: Path, num_parts: int) -> None:
    """Remove the parts of steps that a resumed run will do again."""
    for table in TABLES:
        for index in part_indices(run_path, table):
            if index >= num_parts:
                part_path(run_path, table, index).unlink()
