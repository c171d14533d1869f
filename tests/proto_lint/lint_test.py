"""Each rule of lint.py fires on a file that breaks it, and on nothing else."""

import contextlib
import io
import pathlib
import re
import tempfile
import unittest

import lint

GOOD = """// A file.
syntax = "proto3";

package acme.v1;

// A service.
service Things {
  // A call.
  rpc GetThing(GetThingRequest) returns (GetThingResponse);
}

// A colour.
enum Colour {
  // Refused.
  COLOUR_UNSPECIFIED = 0;
  // Red.
  COLOUR_RED = 1;
}

// A request.
message GetThingRequest {
  reserved 7, 8;
  // A name.
  string name = 1;
  // One of two.
  oneof kind {
    // A number.
    int64 number = 2;
    // A text.
    string text = 3;
  }
}

/* A response. */
message GetThingResponse {
  // Things.
  repeated string things = 1;
  // Labels by name.
  map<string, string> labels = 2;
  // A colour.
  optional Colour colour = 3 [deprecated = true];
}
"""

# Rule, what to replace in the good file, by what.
BREAKS = [
    ("syntax", 'syntax = "proto3";', 'syntax = "proto2";'),
    ("package", "package acme.v1;", "package other.v1;"),
    ("package", "package acme.v1;\n", ""),
    ("comment", "// A service.\n", ""),
    ("comment", "  // A call.\n", ""),
    ("comment", "// A colour.\nenum", "enum"),
    ("comment", "  // Red.\n", ""),
    ("comment", "  // Red.\n", "  //\n"),
    ("comment", "  // Red.\n", "  // Red.\n\n"),
    ("comment", "// A request.\n", ""),
    ("comment", "  // A name.\n", ""),
    ("comment", "  // One of two.\n", ""),
    ("comment", "    // A text.\n", ""),
    ("comment", "  string name = 1;\n  // One of two.", "  string name = 1;  // One of two."),
    ("service-name", "service Things", "service things"),
    ("method-name", "rpc GetThing(", "rpc getThing("),
    ("request-name", "(GetThingRequest)", "(OtherRequest)"),
    ("response-name", "(GetThingResponse)", "(OtherResponse)"),
    ("empty", "(GetThingResponse)", "(google.protobuf.Empty)"),
    ("empty", "package acme.v1;", 'package acme.v1;\nimport "google/protobuf/empty.proto";'),
    ("empty", "  string name = 1;", "  google.protobuf.Empty name = 1;"),
    ("import", "package acme.v1;", 'package acme.v1;\nimport public "acme/v1/x.proto";'),
    ("message-name", "message GetThingRequest", "message get_thing_request"),
    ("field-name", "string name = 1", "string theName = 1"),
    ("field-name", "oneof kind", "oneof Kind"),
    ("plural", "repeated string things", "repeated string thing"),
    ("plural", "map<string, string> labels", "map<string, string> label"),
    ("required", "  string name = 1;", "  required string name = 1;"),
    ("enum-name", "enum Colour", "enum colour"),
    ("enum-prefix", "COLOUR_RED", "RED"),
    ("enum-value-name", "COLOUR_RED", "COLOUR_Red"),
    ("enum-zero", "COLOUR_UNSPECIFIED", "COLOUR_NONE"),
    ("enum-zero", "COLOUR_UNSPECIFIED = 0", "COLOUR_UNSPECIFIED = 2"),
    ("alias", "enum Colour {", "enum Colour {\n  option allow_alias = true;"),
    (
        "unique",
        "returns (GetThingResponse);",
        "returns (GetThingResponse);\n  // Again.\n"
        "  rpc PutThing(PutThingRequest) returns (acme.v1.GetThingResponse);",
    ),
]


class LintTest(unittest.TestCase):
    def lint(self, text, folder="acme/v1"):
        with tempfile.TemporaryDirectory() as root:
            file = pathlib.Path(root) / folder / "things.proto"
            file.parent.mkdir(parents=True)
            file.write_text(text, encoding="utf-8")
            return lint.lint_folder(root)

    def test_good_file_has_no_findings(self):
        self.assertEqual(self.lint(GOOD), [])

    def test_every_rule_fires_where_it_is_broken(self):
        for rule, old, new in BREAKS:
            with self.subTest(rule=rule, new=new):
                self.assertIn(old, GOOD)
                findings = self.lint(GOOD.replace(old, new, 1))
                self.assertIn(rule, [finding[2] for finding in findings])

    def test_every_rule_that_can_be_reported_is_tested(self):
        source = pathlib.Path(lint.__file__).read_text(encoding="utf-8")
        tested = {rule for rule, _, _ in BREAKS} | {"version"}
        for rule in tested:
            self.assertIn(f'"{rule}"', source)
        reported = set(re.findall(r"report\(\s*[\w.()]+, \"([a-z-]+)\"", source))
        reported |= set(re.findall(r"need_name\(\w+, \w+, \"([a-z-]+)\"", source))
        self.assertEqual(reported - tested, set())

    def test_unversioned_package_is_found(self):
        findings = self.lint(GOOD.replace("acme.v1", "acme"), folder="acme")
        self.assertEqual([finding[2] for finding in findings], ["version"])

    def test_findings_name_the_line(self):
        findings = self.lint(GOOD.replace("string name = 1", "string theName = 1"))
        line = GOOD[: GOOD.index("string name")].count("\n") + 1
        self.assertEqual([finding[1] for finding in findings], [line])

    def test_names_of_grpc_are_its_own_but_need_comments(self):
        text = GOOD.replace("acme.v1", "grpc.acme.v1").replace("COLOUR_RED", "RED")
        self.assertEqual(self.lint(text, folder="grpc/acme/v1"), [])
        findings = self.lint(text.replace("  // Red.\n", ""), folder="grpc/acme/v1")
        self.assertEqual([finding[2] for finding in findings], ["comment"])

    def test_no_proto_names_a_release_that_is_to_come(self):
        root = pathlib.Path(lint.__file__).resolve().parents[2]
        project = re.search(r"project\(statehouse VERSION ([\d.]+)", (root / "CMakeLists.txt").read_text(encoding="utf-8"))
        now = tuple(map(int, project.group(1).split(".")))
        named = {}
        for path in sorted((root / "proto").rglob("*.proto")):
            for since in re.findall(r"Since: ([\d.]+\d)", path.read_text(encoding="utf-8")):
                named.setdefault(since, path.name)
        self.assertIn(project.group(1), named)
        later = {since: file for since, file in named.items() if tuple(map(int, since.split("."))) > now}
        self.assertEqual(later, {})

    def test_exit_codes(self):
        out = io.StringIO()
        with tempfile.TemporaryDirectory() as root, contextlib.redirect_stdout(out):
            self.assertEqual(lint.main([root]), 0)
            (pathlib.Path(root) / "x.proto").write_text("message x {}", encoding="utf-8")
            self.assertEqual(lint.main([root]), 1)
        self.assertIn("x.proto:1: comment: message x has no comment above it", out.getvalue())
        with contextlib.redirect_stderr(io.StringIO()):
            self.assertEqual(lint.main([]), 64)
            self.assertEqual(lint.main(["/does/not/exist"]), 64)


if __name__ == "__main__":
    unittest.main()
