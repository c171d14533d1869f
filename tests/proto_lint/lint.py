#!/usr/bin/env python3
"""Checks the proto files against the rules that the style guide gives for them.

    tests/proto_lint/lint.py proto

Prints one line for each finding, "file:line: rule: what is wrong", and ends with 1 when there is
any. Needs nothing but the standard library. Files of the package `grpc.*` carry names that gRPC
decides: they are checked for comments, versions and their folder, not for names.
"""

import dataclasses
import pathlib
import re
import sys

TOKEN = re.compile(
    r"(?P<comment>//[^\n]*|/\*.*?\*/)|(?P<string>\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*')"
    r"|(?P<word>[A-Za-z_][\w.]*|\.[A-Za-z_][\w.]*)|(?P<number>-?\d\w*)|(?P<mark>[^\s\w])",
    re.DOTALL,
)
UPPER_CAMEL = re.compile(r"^[A-Z][A-Za-z0-9]*$")
LOWER_SNAKE = re.compile(r"^[a-z][a-z0-9]*(_[a-z0-9]+)*$")
UPPER_SNAKE = re.compile(r"^[A-Z][A-Z0-9]*(_[A-Z0-9]+)*$")
VERSION = re.compile(r"^v[1-9]\d*((alpha|beta)\d*)?$")
# Words that are their own plural, or a plural without an s at the end.
PLURALS = {"data", "children", "people", "indices", "criteria"}


@dataclasses.dataclass
class Token:
    kind: str
    text: str
    line: int
    comment: bool = False  # A comment ends on the line above.


@dataclasses.dataclass
class Method:
    name: str
    request: str
    response: str
    streams: tuple
    line: int


def upper_snake(name):
    """FooBarV2 -> FOO_BAR_V2."""
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name).upper()


def tokens_of(text):
    """The tokens without comments; each knows whether a comment stands directly above it."""
    found, comment_ends = [], -1
    for match in TOKEN.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        if match.lastgroup == "comment":
            if found and found[-1].line == line:
                continue  # Behind something on its line: it describes nothing below.
            if match.group().strip("/* \t\n"):
                comment_ends = line + match.group().count("\n")
        else:
            above = comment_ends == line - 1
            found.append(Token(match.lastgroup, match.group(), line, above))
    return found


class Linter:
    """One file's findings. `run` walks the file once from front to back."""

    def __init__(self, path, root, text):
        self.path = path
        self.folder = path.relative_to(root).parent.as_posix()
        self.tokens = tokens_of(text)
        self.at = 0
        self.package = ""
        self.findings = []
        self.methods = []

    # Reading.

    def report(self, line, rule, what):
        self.findings.append((str(self.path), line, rule, what))

    def peek(self):
        return self.tokens[self.at] if self.at < len(self.tokens) else Token("end", "", 0)

    def take(self):
        token = self.peek()
        self.at += 1
        return token

    def skip_statement(self):
        """To behind the next ';', over anything in braces."""
        depth = 0
        while self.at < len(self.tokens):
            text = self.take().text
            depth += (text == "{") - (text == "}")
            if text == ";" and depth == 0:
                return

    @property
    def is_ours(self):
        return not self.package.startswith("grpc.")

    def need_comment(self, token, what):
        if not token.comment:
            self.report(token.line, "comment", f"{what} has no comment above it")

    def need_name(self, name, pattern, rule, what):
        if self.is_ours and not pattern.match(name.text):
            self.report(name.line, rule, f"{what} {name.text} is not written as it should be")

    # The file.

    def run(self):
        syntax = None
        while self.at < len(self.tokens):
            token = self.peek()
            if token.text == "syntax":
                self.take(), self.take()
                syntax = self.take().text.strip("\"'")
                self.skip_statement()
            elif token.text == "package":
                self.take()
                self.package = self.peek().text
                self.check_package(token.line)
                self.skip_statement()
            elif token.text in ("message", "enum", "service"):
                getattr(self, "read_" + token.text)()
            else:
                if token.text == "import":
                    self.check_import()
                self.skip_statement()
        if syntax != "proto3":
            self.report(1, "syntax", 'the file does not begin with syntax = "proto3"')
        if not self.package:
            self.report(1, "package", "the file has no package")
        return self

    def check_package(self, line):
        if self.package.replace(".", "/") != self.folder:
            self.report(line, "package", f"package {self.package} is not its folder {self.folder}")
        if not VERSION.match(self.package.split(".")[-1]):
            self.report(line, "version", f"package {self.package} does not end in a version")

    def check_import(self):
        line = self.take().line
        if self.peek().text in ("public", "weak"):
            self.report(line, "import", f"an import may not be {self.take().text}")
        if self.peek().text.strip("\"'") == "google/protobuf/empty.proto":
            self.report(line, "empty", "google.protobuf.Empty leaves no room for a field")

    def read_message(self):
        first = self.take()
        name = self.take()
        self.need_comment(first, f"message {name.text}")
        self.need_name(name, UPPER_CAMEL, "message-name", "message")
        self.take()
        self.read_fields(name.text)

    def read_fields(self, owner):
        """To behind the '}' of a message or a oneof."""
        while self.peek().text not in ("}", ""):
            token = self.peek()
            if token.text in ("message", "enum"):
                getattr(self, "read_" + token.text)()
            elif token.text == "oneof":
                self.take()
                name = self.take()
                self.need_comment(token, f"oneof {owner}.{name.text}")
                self.need_name(name, LOWER_SNAKE, "field-name", "oneof")
                self.take()
                self.read_fields(owner)
            elif token.text in ("option", "reserved", "extensions", ";"):
                self.skip_statement()
            else:
                self.read_field(owner)
        self.take()

    def read_field(self, owner):
        first = self.peek()
        label = self.take().text if first.text in ("repeated", "optional", "required") else ""
        kind = self.take()
        if kind.text == "map":
            while self.take().text != ">":
                pass
        name = self.take()
        what = f"field {owner}.{name.text}"
        self.need_comment(first, what)
        self.need_name(name, LOWER_SNAKE, "field-name", "field")
        if label == "required":
            self.report(first.line, "required", f"{what} is required for ever")
        if kind.text.lstrip(".") == "google.protobuf.Empty":
            self.report(first.line, "empty", f"{what} is an Empty")
        is_many = label == "repeated" or kind.text == "map"
        last = name.text.split("_")[-1]
        if self.is_ours and is_many and not (last.endswith("s") or last in PLURALS):
            self.report(name.line, "plural", f"{what} is repeated and has no plural name")
        self.skip_statement()

    def read_enum(self):
        first = self.take()
        name = self.take()
        self.need_comment(first, f"enum {name.text}")
        self.need_name(name, UPPER_CAMEL, "enum-name", "enum")
        self.take()
        prefix = upper_snake(name.text) + "_"
        is_first = True
        while self.peek().text not in ("}", ""):
            if self.peek().text in ("option", "reserved", ";"):
                if self.peek().text == "option" and self.tokens[self.at + 1].text == "allow_alias":
                    self.report(self.peek().line, "alias", f"enum {name.text} allows aliases")
                self.skip_statement()
                continue
            value = self.take()
            self.take()
            number = self.take().text
            self.need_comment(value, f"enum value {value.text}")
            self.need_name(value, UPPER_SNAKE, "enum-value-name", "enum value")
            if self.is_ours and not value.text.startswith(prefix):
                self.report(value.line, "enum-prefix", f"{value.text} does not begin with {prefix}")
            zero = prefix + "UNSPECIFIED"
            if self.is_ours and is_first and (number != "0" or value.text != zero):
                self.report(value.line, "enum-zero", f"the zero is not called {zero}")
            is_first = False
            self.skip_statement()
        self.take()

    def read_service(self):
        first = self.take()
        name = self.take()
        self.need_comment(first, f"service {name.text}")
        self.need_name(name, UPPER_CAMEL, "service-name", "service")
        self.take()
        while self.peek().text not in ("}", ""):
            if self.peek().text == "rpc":
                self.read_method(name.text)
            else:
                self.skip_statement()
        self.take()

    def read_type(self):
        """'(stream Type)' -> (Type, streams)."""
        self.take()
        streams = self.peek().text == "stream"
        if streams:
            self.take()
        kind = self.take().text
        self.take()
        return kind, streams

    def read_method(self, service):
        first = self.take()
        name = self.take()
        self.need_comment(first, f"call {service}.{name.text}")
        self.need_name(name, UPPER_CAMEL, "method-name", "call")
        request, request_streams = self.read_type()
        self.take()
        response, response_streams = self.read_type()
        streams = (request_streams, response_streams)
        self.methods.append(Method(name.text, request, response, streams, first.line))
        if self.peek().text == "{":
            while self.take().text not in ("}", ""):
                pass
        else:
            self.skip_statement()
        for kind in (request, response):
            if kind.lstrip(".") == "google.protobuf.Empty":
                self.report(first.line, "empty", f"call {name.text} uses Empty")
        if not self.is_ours:
            return
        if request.split(".")[-1] != name.text + "Request":
            what = f"{name.text} takes {request}, not {name.text}Request"
            self.report(first.line, "request-name", what)
        if response.split(".")[-1] != name.text + "Response":
            what = f"{name.text} returns {response}, not {name.text}Response"
            self.report(first.line, "response-name", what)


def lint_folder(root):
    """All findings below `root`, in order of file and line."""
    root = pathlib.Path(root)
    findings, used = [], {}
    for path in sorted(root.rglob("*.proto")):
        linter = Linter(path, root, path.read_text(encoding="utf-8")).run()
        findings += linter.findings
        for method in linter.methods if linter.is_ours else []:
            for kind in (method.request, method.response):
                full = kind.lstrip(".") if "." in kind else f"{linter.package}.{kind}"
                if full in used:
                    what = f"{full} already belongs to {used[full]}"
                    findings.append((str(path), method.line, "unique", what))
                used.setdefault(full, method.name)
    return sorted(findings)


def main(arguments):
    if len(arguments) != 1 or not pathlib.Path(arguments[0]).is_dir():
        print("usage: lint.py FOLDER", file=sys.stderr)
        return 64
    findings = lint_folder(arguments[0])
    for path, line, rule, what in findings:
        print(f"{path}:{line}: {rule}: {what}")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
