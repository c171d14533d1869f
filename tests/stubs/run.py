#!/usr/bin/env python3
"""Generates stubs in Go, Java, JavaScript and Rust, and runs a program with them against a statehoused. See README.md beside this file.

    tests/stubs/run.py [--build FOLDER] [--only LANGUAGE]

It fetches the packages that each language pins from its registry, into FOLDER/stubs. It prints what was wrong and ends with 1 where
anything was. A language that this machine does not have is skipped, and so is one that is too old here.
"""

from __future__ import annotations

import argparse
import importlib
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from observer import Service, problems_of

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PROTO = ROOT / "proto"
BUILD_PATIENCE_S = 900.0  # Most of it is for the registries.
RUN_PATIENCE_S = 120.0  # The programs themselves are patient for 30 s.
OUTPUT_LINES = 40  # Of what went wrong.
NO_JVM_FOLDER = "-XX:-UsePerfData"  # Each JVM has one in /tmp else.


class Wrong(Exception):
    """What is wrong, in words."""


class Workshop:
    """Where one language is built: a copy of its folder, with caches that outlive it beside. Nothing is written anywhere else."""

    def __init__(self, stubs: pathlib.Path, name: str) -> None:
        self.source = stubs / name
        self._cache = stubs / "cache"
        shutil.rmtree(self.source, ignore_errors=True)
        shutil.copytree(HERE / name, self.source)
        self.environment = {**os.environ, "STATEHOUSE_PROTO": str(PROTO)}

    def cache(self, name: str) -> str:
        return str(self._cache / name)

    def run(self, *command: str | pathlib.Path, patience_s: float = BUILD_PATIENCE_S, **more: str) -> str:
        """What the command prints; it must succeed. It is ended with all that it started where it takes too long, or the run is ended."""
        text = [str(part) for part in command]
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            text,
            cwd=self.source,
            env={**self.environment, **more},
            stdout=pipe,
            stderr=pipe,
            encoding="utf-8",
            start_new_session=True,
        )
        try:
            output, errors = process.communicate(timeout=patience_s)
        except BaseException as failure:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if not isinstance(failure, subprocess.TimeoutExpired):
                raise
            raise Wrong(f"{' '.join(text)}: did not end within {patience_s:.0f} s") from None
        if process.returncode != 0:
            lines = (output + errors).splitlines()[-OUTPUT_LINES:]
            raise Wrong("\n".join([f"{' '.join(text)}: ended with {process.returncode}", *lines]))
        return output

    def protoc(self, *options: str, also: tuple[str, ...] = ()) -> None:
        """Generates what the options say from the files of the package statehouse.v1, and from others."""
        files = sorted(str(file.relative_to(PROTO)) for file in PROTO.glob("statehouse/v1/*.proto"))
        self.run("protoc", "-I", PROTO, *options, *files, *also)


# Each of these builds a language's program and returns the command that runs it.


def build_go(shop: Workshop) -> list[str]:
    shop.environment |= {
        "GOCACHE": shop.cache("go-build"),
        "GOMODCACHE": shop.cache("go-modules"),
        "GOPATH": shop.cache("go"),
        "GOFLAGS": "-mod=readonly -modcacherw -buildvcs=false",  # The cache can be removed like everything else.
        "GOTOOLCHAIN": "local",
    }
    shop.run("go", "build", "-o", "bin/", "tool")  # The plugins of protoc that go.mod pins.
    plugins = [f"--plugin=bin/{plugin}" for plugin in ("protoc-gen-go", "protoc-gen-go-grpc")]
    shop.protoc(*plugins, "--go_out=.", "--go-grpc_out=.")
    shop.run("go", "build", "-o", "bin/stubs", ".")
    return ["bin/stubs"]


def build_java(shop: Workshop) -> list[str]:
    maven = ("mvn", "-B", "-q", "-Dstyle.color=never", f"-Dmaven.repo.local={shop.cache('maven')}")
    shop.run(*maven, "compile", "dependency:build-classpath", "-Dmdep.outputFile=target/classpath")
    libraries = (shop.source / "target/classpath").read_text()
    return ["java", NO_JVM_FOLDER, "-cp", f"target/classes:{libraries}", "example.Main"]


def build_node(shop: Workshop) -> list[str]:
    shop.environment["npm_config_cache"] = shop.cache("npm")
    shop.run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
    (shop.source / "gen").mkdir()
    shop.protoc(
        "--plugin=node_modules/.bin/protoc-gen-ts",
        "--ts_out=gen",
        "--ts_opt=output_javascript,output_legacy_commonjs",
        also=("statehouse/internal/v1/rpc_status.proto", "grpc/health/v1/health.proto"),
    )
    return ["node", "main.mjs"]


def build_rust(shop: Workshop) -> list[str]:
    # What this user's own configuration says of registries counts here, too.
    homes = pathlib.Path(os.environ.get("CARGO_HOME", pathlib.Path.home() / ".cargo"))
    configuration = [f"--config={file}" for file in [homes / "config.toml"] if file.is_file()]
    shop.environment |= {"CARGO_HOME": shop.cache("cargo"), "CARGO_TARGET_DIR": shop.cache("cargo-target")}
    shop.run("cargo", "build", "--locked", "--quiet", *configuration)
    return [shop.cache("cargo-target") + "/debug/stubs"]


@dataclass(frozen=True)
class Tool:
    """A program that a language needs, and how it tells its version."""

    command: tuple[str, ...]
    version: str  # A pattern for what it prints.
    needed: tuple[pathlib.Path, str] | str  # The file and the pattern that say which version is needed, or the version.

    def lack(self) -> str:
        """Why it cannot be used here, or ""."""
        if shutil.which(self.command[0]) is None:
            return f"{self.command[0]} is not on this machine"
        answer = subprocess.run(self.command, check=False, capture_output=True, text=True)
        told = (answer.stdout + answer.stderr).strip()
        if answer.returncode != 0:
            return f"{' '.join(self.command)} does not run on this machine: {told}"
        found = re.search(self.version, told)
        if isinstance(self.needed, str):
            needed = self.needed
        else:
            file, pattern = self.needed
            stated = re.search(pattern, file.read_text())
            if stated is None:
                raise Wrong(f"{file}: nothing there fits {pattern}")
            needed = stated.group(1)
        if found is None:
            raise Wrong(f"{' '.join(self.command)} tells no version: {told}")
        if numbers(found.group(1)) < numbers(needed):
            return f"{self.command[0]} {found.group(1)} is too old; {needed} is needed"
        return ""


def numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


@dataclass(frozen=True)
class Language:
    name: str
    tools: tuple[Tool, ...]
    build: Callable[[Workshop], list[str]]


NUMBERS = r"(\d+(?:\.\d+)*)"
LANGUAGES = {
    "go": Language("Go", (Tool(("go", "version"), f"go{NUMBERS}", (HERE / "go/go.mod", f"(?m)^go {NUMBERS}")),), build_go),
    "java": Language(
        "Java",
        (
            Tool(
                ("javac", f"-J{NO_JVM_FOLDER}", "-version"),
                f"javac {NUMBERS}",
                (HERE / "java/pom.xml", f"<maven.compiler.release>{NUMBERS}"),
            ),
            Tool(("mvn", "-version"), f"Maven {NUMBERS}", "3.6.3"),
        ),
        build_java,
    ),
    "node": Language(
        "Node",
        (
            Tool(("node", "--version"), f"v{NUMBERS}", (HERE / "node/package.json", f'"node": ">={NUMBERS}"')),
            Tool(("npm", "--version"), NUMBERS, "8"),
        ),
        build_node,
    ),
    "rust": Language(
        "Rust", (Tool(("cargo", "--version"), f"cargo {NUMBERS}", (HERE / "rust/Cargo.toml", f'rust-version = "{NUMBERS}"')),), build_rust
    ),
}


def check(shop: Workshop, command: list[str], name: str, service: Service) -> None:
    """Runs a program, which must do what is expected of it, say so, and leave what is expected."""
    before = service.calls()
    where: Mapping[str, str] = {"STATEHOUSE_ADDRESS": service.address, "STATEHOUSE_TOKEN": service.token, "STATEHOUSE_NAME": name}
    printed = shop.run(*command, patience_s=RUN_PATIENCE_S, **where)
    problems = problems_of(printed, service, name, before)
    if problems:
        raise Wrong("\n".join(problems))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    parser.add_argument("--only", choices=LANGUAGES, help="one language")
    arguments = parser.parse_args()
    build = arguments.build.resolve()
    os.environ["MAVEN_OPTS"] = f"{os.environ.get('MAVEN_OPTS', '')} {NO_JVM_FOLDER}"
    sys.path.insert(0, str(build / "python"))
    importlib.import_module("statehouse")  # What the observer needs; not to be missed after minutes of building.
    passed, failed, skipped = [], [], []
    with Service(build / "bin/statehoused") as service:
        for folder, language in LANGUAGES.items():
            if arguments.only not in (None, folder):
                continue
            began = time.monotonic()
            try:
                lacks = [lack for tool in language.tools if (lack := tool.lack())]
                if lacks:
                    skipped.append(language.name)
                    print(f"{language.name}: skipped: {'; '.join(lacks)}", flush=True)
                    continue
                shop = Workshop(build / "stubs", folder)
                command = language.build(shop)
                built = time.monotonic()
                check(shop, command, f"stubs/{folder}", service)
                passed.append(language.name)
                print(f"{language.name}: passed; built in {built - began:.0f} s, ran {time.monotonic() - built:.1f} s", flush=True)
            except Wrong as wrong:
                failed.append(language.name)
                print(f"{language.name}: FAILED\n{wrong}", flush=True)
    print(f"{len(passed)} passed, {len(failed)} failed" + (f", {len(skipped)} skipped" if skipped else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
