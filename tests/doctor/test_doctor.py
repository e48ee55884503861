"""What the doctor says of sound, old, absent and broken packages, and of settings."""

from __future__ import annotations

import itertools
from importlib.metadata import PackageNotFoundError, requires

import pytest
from packaging.requirements import Requirement as Packaged
from packaging.specifiers import SpecifierSet

from thr_probe import doctor
from thr_probe.doctor import Requirement, Status, Trial, examine, import_errors, requirements


def by_name(checks):
    return {check.check: check for check in checks}


def test_requirements_are_those_that_packaging_reads():
    for line, own in zip(requires("thr_probe"), requirements(), strict=True):
        other = Packaged(line)
        assert own.name == other.name
        assert SpecifierSet(own.bounds) == other.specifier
        assert (own.extra is None) == (other.marker is None)
        if own.extra is not None:
            assert other.marker.evaluate({"extra": own.extra})


def test_versions_are_compared_as_packaging_compares_them():
    versions = ("0.9", "1.0", "1.0.0", "1.2.3", "1.10", "2.0", "2.13.0+cpu")
    bounds = (">=1.0", "<1.10", ">=1.2,<2", "==1.0", "!=1.0", ">1.2.3", "<=2.0", "~=1.2")
    for version, bound in itertools.product(versions, bounds):
        expected = SpecifierSet(bound).contains(version)
        assert doctor.satisfies(version, bound) == expected, (version, bound)


def test_broken_and_crashing_modules_are_reported_and_the_others_go_on(tmp_path, monkeypatch):
    (tmp_path / "raises_here.py").write_text("raise RuntimeError('half installed')")
    (tmp_path / "ends_here.py").write_text("import os; os._exit(9)")
    (tmp_path / "talks_here.py").write_text("print('hello')")
    monkeypatch.syspath_prepend(tmp_path)
    found = import_errors(["json", "raises_here", "ends_here", "talks_here", "not_there_at_all"])
    assert found == {
        "json": "",
        "raises_here": "RuntimeError: half installed",
        "ends_here": "the interpreter ended with code 9 while importing it",
        "talks_here": "",
        "not_there_at_all": "ModuleNotFoundError: No module named 'not_there_at_all'",
    }


@pytest.mark.parametrize(
    ("extra", "found", "error", "status", "words", "advice"),
    [
        (None, "2.0", "", Status.OK, "2.0, asked >=1.5", ""),
        (None, None, "", Status.BROKEN, "not installed", 'pip install "some>=1.5"'),
        (None, "1.4", "", Status.BROKEN, "1.4, asked >=1.5", 'pip install "some>=1.5"'),
        (None, "2.0", "OSError: x", Status.BROKEN, "2.0, OSError: x", "--force-reinstall some"),
        ("sql", None, "", Status.ABSENT, "not installed", 'pip install "thr_probe[sql]"'),
        ("sql", "1.4", "", Status.LOOK, "1.4, asked >=1.5", 'pip install "thr_probe[sql]"'),
        ("sql", "2.0", "OSError: x", Status.LOOK, "2.0, OSError: x", "--force-reinstall some"),
    ],
)
def test_a_package_of_the_base_is_needed_and_one_of_an_extra_is_not(
    monkeypatch, extra, found, error, status, words, advice
):
    monkeypatch.setattr(doctor, "_installed", lambda requirement: found)
    requirement = Requirement(name="some", bounds=">=1.5", extra=extra)
    check = doctor._package(requirement, {"some": error})
    assert (check.status, check.found) == (status, words)
    assert advice in check.advice


def test_settings_are_read_and_judged(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "999")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_ENDPOINT", "https://name:word@somewhere")
    checks = by_name(examine(quick=True))
    assert checks["threads"].status is Status.LOOK
    assert "more threads than cores" in checks["threads"].advice
    assert "HF_HUB_OFFLINE=1" in checks["hub"].found
    assert "word" not in checks["hub"].found
    assert "only cached models load" in checks["hub"].advice
    assert "can be written" in checks["current folder"].found
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert "takes 2 threads" in by_name(examine(quick=True))["threads"].advice


def test_a_folder_that_cannot_be_written_is_told_of(tmp_path):
    check = doctor._folder(tmp_path / "missing")
    assert (check.status, "cannot be written" in check.found) == (Status.LOOK, True)


def test_quick_looks_at_versions_only(monkeypatch):
    def refuse(*arguments):
        raise AssertionError("a child process was started")

    monkeypatch.setattr(doctor, "_child", refuse)
    checks = by_name(examine([Trial(check="more", function="json:dumps", advice="")], quick=True))
    assert checks["torch"].status is Status.OK
    assert not {"devices", "more"} & checks.keys()


def test_trials_run_in_a_process_of_their_own():
    good = doctor._tried(Trial(check="it", function="platform:python_version", advice="do this"))
    assert (good.status, good.advice) == (Status.OK, "")
    bad = doctor._tried(Trial(check="it", function="os:abort", advice="do this"))
    assert (bad.status, bad.advice) == (Status.BROKEN, "do this")
    raised = doctor._tried(Trial(check="it", function="json:loads", advice="do this"))
    assert raised.status is Status.BROKEN
    assert "TypeError" in raised.found


def test_a_checkout_that_was_not_installed_is_told_to_be(monkeypatch):
    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(doctor, "requires", missing)
    [check] = examine(quick=True)
    assert (check.check, check.status) == ("thr_probe", Status.BROKEN)
