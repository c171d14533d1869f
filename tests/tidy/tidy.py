#!/usr/bin/env python3
"""Checks what a compiler does not: include arrows, unregistered tests, banned calls, line length, leftover notes.

    tests/tidy/tidy.py            prints file:line: what is wrong and what to do; exit 1 when there is anything

The function-length rule is a ratchet: tests/tidy/long_functions.txt lists the functions that are longer than 70 lines, and an
entry that is no longer true fails too.
"""
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
CPP_COLUMNS_MAX = 100
OTHER_COLUMNS_MAX = 140  # Protos, scripts, Python, and the languages of tests/stubs.
TAB_COLUMNS = 4
FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 600

# What each folder may include of ours; its own folder is always allowed.
ARROWS = {
    "engine/base": [],
    "engine/os": ["engine/base"],
    "engine/shm": ["engine/base", "engine/os"],
    "engine/value": ["engine/base"],
    "engine/state": ["engine/base", "engine/os", "engine/shm", "engine/value"],
    "engine/attach": ["engine/base"],
    "service": ["engine", "service", "statehouse"],
    "clients/c": ["engine", "clients/c", "statehouse"],
    "clients/cpp": ["statehouse", "clients/cpp", "clients/c/conformance"],
    # endpoint.h and engine/os: the doctor looks at what every client of the host looks at, and tries what the engine uses.
    "clients/cli": ["clients/cpp", "clients/cli", "clients/c/src/endpoint.h", "statehouse", "service/auth/token_file.h", "engine/base",
                    "engine/os", "engine/value"],
    "clients/python": ["engine", "clients/c", "clients/python"],
}

BANS = [
    (r"(?<!asm )\bvolatile\b", ["engine/state/area_words.cc", "engine/os/os_test.cc"], "use std::atomic"),
    (r"\b(rand|srand)\(", [], "use a seeded std::mt19937"),
    (r"\bsleep_for\b|\busleep\(|(?<![\w.])sleep\(", [], "poll with a deadline"),
    (r"\bsprintf\(|\bstrcpy\(|\bstrcat\(", [], "use std::string"),
    (r"\bFIXME\b|\bXXX\b", ["tests/tidy/tidy.py"], "finish it"),
    (r"\bTODO\b(?!\(#\d+\))", ["tests/tidy/tidy.py"], "write TODO(#issue)"),
    # A kernel may refuse to make a namespace.
    (r"\bGTEST_SKIP\b|pytest\.mark\.skip\b", ["tests/tidy/tidy.py", "tests/integration/lock_namespaces_test.cc"],
     "a skipped test proves nothing"),
]

OTHER_FILES = ["*.py", "*.pyi", "*.proto", "*.sh", "CMakeLists.txt", "*/CMakeLists.txt", "*.go", "*.java", "*.mjs", "*.rs", "*/go.mod",
               "*/pom.xml", "*/package.json", "*.toml"]
LOCK_FILES = ["*/Cargo.lock", "*/go.sum", "*/package-lock.json"]  # Written by tools, who know no limits.

FOREIGN = re.compile(r"https?://(registry|proxy|repo1?|static|deb|files|index)\.")


def tracked(*patterns):
    names = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard", *patterns],
                           check=True, capture_output=True, text=True).stdout.split("\n")
    return [name for name in names if name and (ROOT / name).is_file()]


def folder_rule(name):
    best = None
    for folder in ARROWS:
        if name.startswith(folder + "/") and (best is None or len(folder) > len(best)):
            best = folder
    return best


def check_arrows(name, lines):
    if name.endswith("_test.cc") or "/testing/" in name or "/test_" in name:
        return
    rule = folder_rule(name)
    if rule is None:
        return
    for number, line in enumerate(lines, 1):
        match = re.match(r'\s*#include "((engine|service|clients|tests|statehouse)/[^"]+)"', line)
        if match is None:
            continue
        target = match.group(1)
        allowed = ARROWS[rule] + [rule]
        if not any(target == a or target.startswith(a + "/") for a in allowed):
            yield f"{name}:{number}: {rule} may not include {target}; the arrows are in tests/tidy/tidy.py"


def check_lines(name, lines, columns_max):
    for number, line in enumerate(lines, 1):
        columns = len(line.expandtabs(TAB_COLUMNS))
        if columns > columns_max and not re.search(r"https?://", line):
            yield f"{name}:{number}: {columns} columns, at most {columns_max}"
        for pattern, exempt, instead in BANS:
            if name not in exempt and re.search(pattern, line):
                yield f"{name}:{number}: {pattern!r} is banned: {instead}"
    yield from check_hosts(name, lines)
    if len(lines) > FILE_LINES_MAX:
        yield f"{name}: {len(lines)} lines, at most {FILE_LINES_MAX}: split it"


def check_hosts(name, lines):
    for number, line in enumerate(lines, 1):
        if FOREIGN.search(line):
            yield f"{name}:{number}: names a package registry's host"


def check_registered():
    builds = "\n".join((ROOT / name).read_text() for name in tracked("CMakeLists.txt", "*/CMakeLists.txt"))
    for name in tracked("*_test.cc"):
        if re.search(r"(?<![\w-])" + re.escape(pathlib.PurePath(name).name) + r"\b", builds) is None:
            yield f"{name}: is in no CMakeLists.txt, so it never runs"


def check_package():
    """Every file of the Python package is one that the build copies."""
    copied = set(re.findall(r"^\s+(statehouse/\S+)$", (ROOT / "clients/python/CMakeLists.txt").read_text(), re.MULTILINE))
    for name in tracked("clients/python/statehouse/*.py", "clients/python/statehouse/compat/*.py"):
        module = name.removeprefix("clients/python/")
        if module not in copied and not module.startswith("statehouse/v1/"):  # Those are generated.
            yield f"clients/python/CMakeLists.txt: {module} is missing"


def long_functions(name, lines):
    """Functions as clang-format lays them out: they begin at column 0 and end with '}' at column 0."""
    start = None
    for number, line in enumerate(lines, 1):
        if re.match(r"[\w:~<>&*\[\]]", line) and line.rstrip().endswith("{") and not re.match(
                r"(namespace|class|struct|enum|extern|union|const |constexpr |static constexpr|#)", line):
            start = number
        elif line.startswith("}") and start is not None:
            if number - start + 1 > FUNCTION_LINES_MAX:
                title = re.sub(r"\(.*", "", lines[start - 1]).split()[-1]
                yield f"{name} {title}", number - start + 1
            start = None


def main():
    problems = []
    seen_long = set()
    for name in tracked("*.cc", "*.h", "*.hpp", "*.c"):
        lines = (ROOT / name).read_text().split("\n")
        problems += check_arrows(name, lines)
        problems += check_lines(name, lines, CPP_COLUMNS_MAX)
        seen_long.update(title for title, _ in long_functions(name, lines))
    for name in tracked(*OTHER_FILES):
        problems += check_lines(name, (ROOT / name).read_text().split("\n"), OTHER_COLUMNS_MAX)
    for name in tracked(*LOCK_FILES):
        problems += check_hosts(name, (ROOT / name).read_text().split("\n"))
    problems += check_registered()
    problems += check_package()
    ratchet = ROOT / "tests/tidy/long_functions.txt"
    listed = {line for line in ratchet.read_text().split("\n") if line and not line.startswith("#")}
    problems += [f"{title}: longer than {FUNCTION_LINES_MAX} lines" for title in sorted(seen_long - listed)]
    problems += [f"tests/tidy/long_functions.txt: {title} is no longer too long; remove it"
                 for title in sorted(listed - seen_long)]
    for problem in problems:
        print(problem)
    print(f"tidy: {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
