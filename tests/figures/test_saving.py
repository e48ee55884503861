"""Figure files: reproducible bytes, embedded fonts, numbers and caption beside them."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from thr_probe.analysis.result import Analysis
from thr_probe.errors import DataError, UsageError
from thr_probe.figures import paper_style, plot_density, plot_retention, save_analysis, save_figure

NAMES = [
    "density.csv", "density-paper.csv", "density-diagnostic.csv", "density-concentration.csv",
    "density.json", "density.tex", "density.pdf", "density.svg", "density.png",
]  # fmt: skip

SAVE_IN_ANOTHER_PROCESS = """
import sys
from thr_probe.analysis.density import thr_density
from thr_probe.figures import plot_density, save_analysis
from thr_probe.traces import read_run
analysis = thr_density(read_run(sys.argv[1]))
save_analysis(analysis, plot_density(analysis, style="diagnostic"), sys.argv[2])
print(sorted({name.partition(".")[0] for name in sys.modules}))
"""


def test_every_number_fact_and_caption_lies_beside_the_figure(
    tmp_path: Path, density: Analysis
) -> None:
    paths = save_analysis(
        density, plot_density(density), tmp_path / "out", command="thr-probe analyze density RUN"
    )
    assert [path.name for path in paths] == NAMES
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(NAMES)
    pd.testing.assert_frame_equal(pd.read_csv(paths[0]), density.summary)
    pd.testing.assert_frame_equal(pd.read_csv(paths[1]), density.curves["paper"])
    content = json.loads(paths[4].read_text())
    assert content["command"] == "thr-probe analyze density RUN"
    assert content["facts"]["num_tokens"] == density.facts["num_tokens"]
    assert content["summary"][0]["value"] == density.summary["value"].iloc[0]
    assert paths[5].read_text() == (f"\\caption{{{density.caption}}}\n\\label{{fig:density}}\n")


def test_another_process_writes_the_same_bytes_and_never_loads_torch(
    tmp_path: Path, density: Analysis, steered_run: object
) -> None:
    save_analysis(density, plot_density(density, style="diagnostic"), tmp_path / "here")
    other = tmp_path / "there"
    done = subprocess.run(
        [sys.executable, "-c", SAVE_IN_ANOTHER_PROCESS, str(steered_run.path), str(other)],
        check=True,
        capture_output=True,
        text=True,
    )
    modules = done.stdout
    assert "'matplotlib'" in modules
    for heavy in ("torch", "transformers", "seaborn", "sklearn"):
        assert f"'{heavy}'" not in modules
    for name in NAMES:
        assert (other / name).read_bytes() == (tmp_path / "here" / name).read_bytes(), name


def test_files_carry_no_date_and_only_embedded_truetype_fonts(
    tmp_path: Path, retention: Analysis
) -> None:
    pdf, svg, png = save_figure(plot_retention(retention), tmp_path / "figure")
    content = pdf.read_bytes()
    assert b"CreationDate" not in content
    assert b"/Type3" not in content
    assert b"/FontFile2" in content
    assert "dc:date" not in svg.read_text()
    with Image.open(png) as image:
        assert image.size[0] == round(5.5 * 300)
        assert "Software" not in image.info


def test_the_users_settings_neither_reach_the_figure_nor_are_changed(density: Analysis) -> None:
    with mpl.rc_context({"font.size": 30, "axes.facecolor": "red"}):
        figure = plot_density(density)
        assert mpl.rcParams["font.size"] == 30
    assert figure.axes[0].xaxis.label.get_fontsize() == 8
    assert mpl.colors.to_hex(figure.axes[0].get_facecolor()) == "#ffffff"
    with paper_style():
        assert mpl.rcParams["pdf.fonttype"] == 42


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown figure format 'bmp'; choose among pdf, svg, png"):
        save_figure(Figure(), tmp_path / "x", formats=["pdf", "bmp"])


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, density: Analysis) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot write .*density\.csv"):
        save_analysis(density, Figure(), tmp_path / "file")
    with pytest.raises(DataError, match=r"cannot write .*figure\.png"):
        save_figure(Figure(), tmp_path / "file" / "figure", formats=["png"])


@pytest.mark.parametrize("refused", NAMES)
def test_a_full_disk_leaves_every_file_whole_and_no_temporary(
    tmp_path: Path, density: Analysis, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    for name in NAMES:
        (tmp_path / name).write_text(f"the old {name}")

    def fsync(descriptor: int) -> None:
        temporary = Path(f"/proc/self/fd/{descriptor}").readlink()
        if temporary.name.startswith(f".{refused}."):
            assert temporary.parent == tmp_path
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(DataError) as caught:
        save_analysis(density, Figure(), tmp_path)
    assert caught.value.message == f"cannot write {tmp_path / refused}: No space left on device"
    assert "--resume" not in str(caught.value.hint)
    assert "free space" in str(caught.value.hint)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(NAMES)
    position = NAMES.index(refused)
    for name in NAMES[position:]:
        assert (tmp_path / name).read_text() == f"the old {name}"
    for name in NAMES[:position]:
        assert (tmp_path / name).read_bytes() != f"the old {name}".encode()


def test_an_empty_analysis_is_saved_with_its_reason(tmp_path: Path, density: Analysis) -> None:
    empty = replace(density, curves={}, empty_reason="Nothing here.")
    paths = save_analysis(empty, plot_density(empty), tmp_path)
    assert [path.suffix for path in paths] == [".csv", ".json", ".tex", ".pdf", ".svg", ".png"]
    assert json.loads(paths[1].read_text())["empty_reason"] == "Nothing here."
