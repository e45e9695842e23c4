"""Knobs: one list, typed, read once, with errors that say what is allowed."""

import subprocess
import sys

import pytest

from lampion.debug.knobs import KNOBS, KnobError, Knobs, describe, knobs, override


def test_the_list_and_the_types_agree():
    names = Knobs.__annotations__
    assert list(names) == [knob.name for knob in KNOBS]
    for knob in KNOBS:
        assert type(knob.default).__name__ == names[knob.name]
        assert type(knob.parse(str(int(knob.default) if knob.default in (True, False)
                                   else knob.default))) is type(knob.default)
        assert knob.meaning and knob.allowed


@pytest.mark.parametrize("name, text, value", [
    ("debug", "3", 3), ("debug", " 6 ", 6), ("check", "1", True), ("check", "off", False),
    ("target", "AVX2", "avx2"), ("kernels", "sync", "sync"), ("cache_dir", "~/k", "~/k"),
    ("threads", "12", 12)])
def test_values_come_from_the_environment_once(monkeypatch, name, text, value):
    variable = f"LAMPION_{name.upper()}"
    monkeypatch.setenv(variable, text)
    fresh = Knobs()
    assert getattr(fresh, name) == value
    monkeypatch.delenv(variable)
    assert getattr(fresh, name) == value


@pytest.mark.parametrize("name, text, allowed", [
    ("debug", "7", "a whole number from 0 to 6"), ("debug", "much", "a whole number"),
    ("check", "2", "0 or 1"), ("target", "mmx", "native or avx512 or avx2 or sse or neon"),
    ("kernels", "on", "auto or off or sync"), ("threads", "-1", "0 to 1024")])
def test_bad_values_say_what_is_allowed(monkeypatch, name, text, allowed):
    monkeypatch.setenv(f"LAMPION_{name.upper()}", text)
    with pytest.raises(KnobError, match=f"LAMPION_{name.upper()}='{text}'.*expected.*{allowed}"):
        getattr(Knobs(), name)


def test_empty_means_default(monkeypatch):
    monkeypatch.setenv("LAMPION_DEBUG", "")
    assert Knobs().debug == 0


def test_override_sets_and_restores():
    before = knobs.debug, knobs.target
    with override(debug=4, check=True, target="avx2"):
        assert (knobs.debug, knobs.check, knobs.target) == (4, True, "avx2")
        with override(debug=1):
            assert (knobs.debug, knobs.target) == (1, "avx2")
        assert knobs.debug == 4
    assert (knobs.debug, knobs.target) == before
    with pytest.raises(KnobError, match="0 to 6"), override(target="sse", debug=9):
        pass
    assert (knobs.debug, knobs.target) == before
    with pytest.raises(KnobError, match="no knob 'colour'; there are debug, "), override(colour=1):
        pass
    with pytest.raises(AttributeError, match="no knob 'colour'"):
        knobs.colour


def test_describe_names_every_variable():
    lines = describe().splitlines()
    assert len(lines) == len(KNOBS)
    assert lines[0].startswith("LAMPION_DEBUG")


def test_import_is_cheap():
    code = ("import sys, lampion; print([m for m in sys.modules if m.startswith("
            "('lampion.codegen', 'llvmlite'))], 'lampion.debug.knobs' in sys.modules)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] True"
