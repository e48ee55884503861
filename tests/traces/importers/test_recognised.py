from __future__ import annotations

from pathlib import Path

import pytest

from thr_probe.importing.formats import FORMATS, find_source, load_importer

FIXTURES = Path(__file__).parent / "fixtures"
FOLDERS = {
    "inspect": ["inspect"],
    "lighteval": ["lighteval"],
    "lm_eval": ["lm-eval"],
    "nemo_rl": ["nemo-rl"],
    "prime_rl": ["prime-rl"],
    "slime": ["slime"],
    "trl": ["trl"],
    "verifiers": ["verifiers"],
    "verl": ["verl"],
}


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_files_of_a_program_are_those_of_one_format(folder):
    fitting = [
        name
        for name in FORMATS
        if name != "generic" and load_importer(name).find(FIXTURES / folder)
    ]
    assert fitting == FOLDERS[folder]
    assert find_source([FIXTURES / folder], None).importer.name == fitting[0]


def test_every_file_alone_is_recognised_too():
    for folder, (name,) in FOLDERS.items():
        for path in load_importer(name).find(FIXTURES / folder):
            assert find_source([path], None).importer.name == name
