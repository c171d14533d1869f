"""The wheel holds the package, the generated messages and the extension, and works from where it is unpacked."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import zipfile

import pytest

import statehouse._local

PROJECT = pathlib.Path(__file__).resolve().parent.parent


def build(folder: pathlib.Path, extension: str | None) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "STATEHOUSE_EXTENSION"}
    if extension is not None:
        environment["STATEHOUSE_EXTENSION"] = extension
    program = "import sys, build_backend; print(build_backend.build_wheel(sys.argv[1]))"
    return subprocess.run(
        [sys.executable, "-B", "-c", program, str(folder)],
        cwd=PROJECT,
        env={**environment, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
    )


def test_an_unpacked_wheel_is_the_whole_package(tmp_path: pathlib.Path) -> None:
    if not (pathlib.Path(statehouse._local.__file__).parent / "v1").is_dir():
        pytest.fail("the extension under test does not lie beside the generated messages")
    built = build(tmp_path, statehouse._local.__file__)
    assert built.returncode == 0, built.stderr
    with zipfile.ZipFile(tmp_path / built.stdout.strip()) as wheel:
        names = wheel.namelist()
        wheel.extractall(tmp_path / "site")
    for name in ("__init__.py", "py.typed", "_local.pyi", "v1/area_pb2.py", "v1/dict_pb2.py", "_tracked.py", "compat/uwsgi.py"):
        assert f"statehouse/{name}" in names
    assert len(names) == len(set(names))
    program = (
        "import statehouse, statehouse.aio, statehouse.compat.managers, statehouse.compat.uwsgi, sys\n"
        "from statehouse.v1 import area_pb2, admin_pb2, batch_pb2, dict_pb2, entry_pb2, error_pb2, transaction_pb2, value_pb2\n"
        "print(statehouse.__file__)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-B", "-c", program],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == str(tmp_path / "site/statehouse/__init__.py")


def test_a_missing_or_foreign_extension_is_a_clear_error(tmp_path: pathlib.Path) -> None:
    assert "STATEHOUSE_EXTENSION is not set" in build(tmp_path, None).stderr
    assert "no file" in build(tmp_path, str(tmp_path / "none.so")).stderr
    foreign = tmp_path / "_local.cpython-39-x86_64-linux-gnu.so"
    foreign.touch()
    assert "not for this Python" in build(tmp_path, str(foreign)).stderr
