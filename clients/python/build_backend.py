"""Packs the wheel (PEP 517) from the modules beside this file and the extension that CMake built.

STATEHOUSE_EXTENSION names that extension, for example build/python/statehouse/_local.cpython-311-x86_64-linux-gnu.so. The
generated messages are taken from the folder v1 beside it.
"""

from __future__ import annotations

import base64
import hashlib
import os
import pathlib
import sysconfig
import tomllib
import zipfile
from typing import Any

HERE = pathlib.Path(__file__).resolve().parent
# The oldest time that a zip file can hold: the same input gives the same bytes.
ZIP_TIME = (1980, 1, 1, 0, 0, 0)


def get_requires_for_build_wheel(config_settings: dict[str, Any] | None = None) -> list[str]:
    return []


def build_wheel(
    wheel_directory: str,
    config_settings: dict[str, Any] | None = None,
    metadata_directory: str | None = None,
) -> str:
    project = tomllib.loads((HERE / "pyproject.toml").read_text())["project"]
    extension = find_extension()
    files = package_files(extension)
    tag = wheel_tag()
    stem = f"{project['name']}-{project['version']}"
    info = f"{stem}.dist-info"
    files[f"{info}/METADATA"] = metadata(project)
    files[f"{info}/WHEEL"] = (
        f"Wheel-Version: 1.0\nGenerator: statehouse\nRoot-Is-Purelib: false\nTag: {tag}\n".encode()
    )
    files[f"{info}/RECORD"] = record(files, f"{info}/RECORD")
    wheel = f"{stem}-{tag}.whl"
    with zipfile.ZipFile(
        pathlib.Path(wheel_directory) / wheel, "w", zipfile.ZIP_DEFLATED
    ) as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, ZIP_TIME)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = (0o755 if name.endswith(".so") else 0o644) << 16
            archive.writestr(entry, content)
    return wheel


def build_sdist(sdist_directory: str, config_settings: dict[str, Any] | None = None) -> str:
    raise SystemExit(
        "statehouse is built together with the service: run CMake in the repository, set "
        "STATEHOUSE_EXTENSION and build a wheel"
    )


def find_extension() -> pathlib.Path:
    value = os.environ.get("STATEHOUSE_EXTENSION")
    if not value:
        raise SystemExit(
            "STATEHOUSE_EXTENSION is not set: build the target sh_python with CMake, then set it to "
            "build/python/statehouse/_local.<abi>.so"
        )
    extension = pathlib.Path(value).resolve()
    if not extension.is_file():
        raise SystemExit(f"STATEHOUSE_EXTENSION names {extension}, which is no file")
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    if extension.name != f"_local{suffix}":
        raise SystemExit(
            f"{extension.name} is not for this Python, which loads _local{suffix}; build with its "
            "headers (-DPython3_EXECUTABLE=…)"
        )
    return extension


def package_files(extension: pathlib.Path) -> dict[str, bytes]:
    """Path in the wheel -> content."""
    files = {}
    for path in sorted((HERE / "statehouse").rglob("*")):
        if path.suffix in (".py", ".pyi", ".typed") or path.name == "py.typed":
            files[path.relative_to(HERE).as_posix()] = path.read_bytes()
    generated = sorted((extension.parent / "v1").glob("*_pb2.py*"))
    if not generated:
        raise SystemExit(f"no generated messages in {extension.parent / 'v1'}; build sh_python")
    for path in generated:
        if path.suffix in (".py", ".pyi"):
            files[f"statehouse/v1/{path.name}"] = path.read_bytes()
    files[f"statehouse/{extension.name}"] = extension.read_bytes()
    return files


def metadata(project: dict[str, Any]) -> bytes:
    lines = [
        "Metadata-Version: 2.1",
        f"Name: {project['name']}",
        f"Version: {project['version']}",
        f"Summary: {project['description']}",
        f"Requires-Python: {project['requires-python']}",
        *(f"Requires-Dist: {requirement}" for requirement in project["dependencies"]),
    ]
    return ("\n".join(lines) + "\n").encode()


def wheel_tag() -> str:
    version = sysconfig.get_config_var("py_version_nodot")
    platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    return f"cp{version}-cp{version}-{platform}"


def record(files: dict[str, bytes], own_name: str) -> bytes:
    lines = []
    for name, content in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        lines.append(f"{name},sha256={digest},{len(content)}")
    lines.append(f"{own_name},,")
    return ("\n".join(lines) + "\n").encode()
