"""The operations on dicts of the conformance program."""

from __future__ import annotations

import inspect
import math
from typing import Any

import statehouse
import value_json

_MISSING: Any = object()


class Inexpressible(Exception):
    """No method of the client takes the request."""


async def settled(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


class Request:
    """The flat members of a request, as arguments of the client's methods."""

    def __init__(self, members: dict[str, Any], prefix: str = "") -> None:
        self._members = members
        self._prefix = prefix

    def has(self, name: str) -> bool:
        return self._prefix + name in self._members

    def get(self, name: str, missing: Any = None) -> Any:
        return self._members.get(self._prefix + name, missing)

    def inside(self, name: str) -> Request:
        return Request(self._members, f"{self._prefix}{name}.")

    def value(self, name: str) -> Any:
        if not self.has(name):
            raise Inexpressible  # Python has no value that is missing, nor one of bytes that mean none.
        return value_json.from_json(self.get(name))

    def all(self, name: str) -> list[Any]:
        """The items of a list of plain ones."""
        items: list[Any] = []
        while self.has(f"{name}.{len(items)}"):
            items.append(self.get(f"{name}.{len(items)}"))
        return items

    def each(self, name: str) -> list[Request]:
        """The items of a list of nested ones."""
        start = f"{self._prefix}{name}."
        numbers = {int(path[len(start) :].partition(".")[0]) for path in self._members if path.startswith(start)}
        return [self.inside(f"{name}.{number}") for number in sorted(numbers)]

    def ttl(self) -> Any:
        if self.has("ttl.none"):
            return math.inf
        if self.has("ttl.keep"):
            return statehouse.KEEP_TTL
        return self.get("ttl.duration_ms") / 1000 if self.has("ttl.duration_ms") else None

    def condition(self) -> dict[str, Any]:
        """By the names of Plan.when: absent, present, version or value."""
        for kind in ("absent", "present", "version"):
            if self.has(f"condition.{kind}"):
                return {kind: self.get(f"condition.{kind}") if kind == "version" else True}
        return {"value": self.value("condition.value")} if self.has("condition.value") else {}

    def options(self) -> dict[str, Any]:
        """Of a set."""
        condition = {f"if_{kind}": what for kind, what in self.condition().items()}
        bound = {"bound": bool(self.get("bound"))} if self.has("bound") else {}
        return {**condition, **bound, "ttl": self.ttl(), "fence": self.get("fence")}

    def delete_options(self) -> dict[str, Any]:
        options = self.options()
        del options["ttl"]
        options.pop("bound", None)  # Of what is deleted it would mean nothing.
        if options.pop("if_absent", False):
            options["if_version"] = 0
        if "if_present" in options:
            raise Inexpressible  # Deleting what is there is what deleting does.
        return options

    def numbers(self) -> dict[str, Any]:
        """Of an increment."""
        numbers = {"default": "initial", "min": "min", "max": "max", "delta": "delta"}
        options = {name: self.value(member) for name, member in numbers.items() if self.has(member)}
        if self.get("must_exist"):
            options["default"] = None
        return {**options, "ttl": self.ttl(), "fence": self.get("fence")}


def shown(found: statehouse.DictEntry | None) -> Any:
    return None if found is None else {"value": value_json.to_json(found.value)}


class DictOps:
    """Carries operations on dicts out, on a blocking or an asyncio client."""

    def __init__(self) -> None:
        self._dicts: dict[str, Any] = {}

    async def do(self, client: Any, op: str, name: str, members: dict[str, Any]) -> Any:
        """What an operation gives. `op` is in OPS."""
        request = Request(members)
        try:
            if op in CATALOGUE:
                return await getattr(self, op)(client, name, request)
            return await getattr(self, op)(self._dicts[name], request)
        except TypeError as error:
            if isinstance(error, statehouse.Error):
                raise
            raise Inexpressible from error  # It is no argument of that type.

    # Dicts as wholes.

    async def open_dict(self, client: Any, name: str, request: Request) -> None:
        self._dicts[name] = await settled(client.dict(name, create=bool(request.get("create", 1))))

    async def create_dict(self, client: Any, name: str, request: Request) -> Any:
        ttl_ms = request.get("default_ttl_ms")
        info = client.dicts.create(
            name,
            max_entries=request.get("max_entries"),
            max_bytes=request.get("max_bytes"),
            default_ttl=None if ttl_ms is None else ttl_ms / 1000,
            evict=request.get("full_policy") == "EVICT",
            exclusive=bool(request.get("exclusive", 0)),
        )
        return (await settled(info)).max_entries

    async def describe_dict(self, client: Any, name: str, request: Request) -> Any:
        return (await settled(client.dicts.describe(name))).entries

    async def delete_dict(self, client: Any, name: str, request: Request) -> None:
        await settled(client.dicts.delete(name))

    async def list_dicts(self, client: Any, name: str, request: Request) -> Any:
        return [info.name for info in await settled(client.dicts.list(prefix=request.get("prefix", "")))]

    # One dict.

    async def dict_length(self, shared: Any, request: Request) -> Any:
        return len(shared) if isinstance(shared, statehouse.SharedDict) else await shared.length()

    async def clear_dict(self, shared: Any, request: Request) -> Any:
        return await settled(shared.delete_all())

    async def delete_prefix(self, shared: Any, request: Request) -> Any:
        return await settled(shared.delete_prefix(request.get("prefix")))

    async def get_entry(self, shared: Any, request: Request) -> Any:
        key, path = request.get("key"), request.all("path_steps")
        show = request.get("show", "")
        if not path:
            found = await settled(shared.entry(key))
            if show == "has_ttl":
                return found is not None and found.ttl is not None
            if show == "is_bound":
                return found is not None and found.bound_session != 0
            return shown(found) if not show else 0 if found is None else getattr(found, show)
        try:
            return {"value": value_json.to_json(await settled(shared.fetch(key, *path)))}
        except statehouse.KeyNotFound:
            return None

    async def set_entry(self, shared: Any, request: Request) -> Any:
        key, value, options = request.get("key"), request.value("value"), request.options()
        if not request.get("return_previous"):
            return await settled(shared.set(key, value, **options))
        applied, previous = await settled(shared.exchange(key, value, **options))
        return {"applied": applied, "previous": shown(previous)}

    async def delete_entry(self, shared: Any, request: Request) -> Any:
        key, options = request.get("key"), request.delete_options()
        if not request.get("return_previous"):
            return await settled(shared.delete(key, **options))
        if any(option is not None for option in options.values()):
            raise Inexpressible  # pop() is without conditions.
        found = await settled(shared.pop(key, _MISSING))
        previous = None if found is _MISSING else {"value": value_json.to_json(found)}
        return {"applied": found is not _MISSING, "previous": previous}

    async def touch_entry(self, shared: Any, request: Request) -> Any:
        return await settled(shared.touch(request.get("key"), request.ttl()))

    async def wait_entry(self, shared: Any, request: Request) -> Any:
        timeout_ms = request.get("timeout_ms")
        options: dict[str, Any] = {
            kind: request.get(f"until.{kind}") for kind in ("version_above", "version_differs") if request.has(f"until.{kind}")
        }
        if request.has("until.absent"):
            options["absent"] = True
        if request.has("until.value"):
            options["value"] = request.value("until.value")
        if request.has("path_steps.0"):
            options["path"] = request.all("path_steps")
        key, timeout = request.get("key"), None if timeout_ms is None else timeout_ms / 1000
        try:
            found = await settled(shared.wait(key, timeout=timeout, **options))
        except statehouse.Timeout:
            return {"met": False, "entry": shown(await settled(shared.entry(key)))}
        return {"met": True, "entry": shown(found)}

    async def increment_entry(self, shared: Any, request: Request) -> Any:
        path = request.all("path_steps")
        return await settled(shared.incr(request.get("key"), path=path, **request.numbers()))

    async def edit_entry(self, shared: Any, request: Request) -> Any:
        place = shared.at(request.get("key"), *request.all("path_steps"))
        edit = request.inside("edit")
        kind = next((kind for kind in _EDITS if edit.has(kind) or edit.has(_VALUE_OF.get(kind, kind))), None)
        if kind is None:
            raise Inexpressible
        options = {name: edit.get(f"{kind}.{at}") for name, at in (("start", "index"), ("start", "start"), ("stop", "stop"))
                   if edit.has(f"{kind}.{at}")}  # fmt: skip
        values = []
        if kind == "append_string":
            values = [edit.get(kind)]
        elif kind == "append_bytes":
            values = [bytes.fromhex(edit.get(kind))]
        elif kind not in _WITHOUT_VALUE:
            values = [edit.value(_VALUE_OF.get(kind, kind))]
        edited = await settled(
            place.edit(
                kind,
                *values,
                create=bool(request.get("create_parents", 0)),
                if_version=request.get("if_version"),
                fence=request.get("fence"),
                **options,
            )
        )
        gives = kind in ("delete", "pop", "set_default")
        result = {"value": value_json.to_json(edited.result)} if gives else None
        return {"result": result, "length": edited.length}

    async def get_entries(self, shared: Any, request: Request) -> Any:
        keys = request.all("keys")
        found = await settled(shared.get_many(keys, consistent=bool(request.get("consistent", 0))))
        return [{"value": value_json.to_json(found[key])} if key in found else None for key in keys]

    async def set_entries(self, shared: Any, request: Request) -> None:
        pairs = [(each.get("key"), each.value("value")) for each in request.each("entries")]
        if len(dict(pairs)) < len(pairs):
            raise Inexpressible  # A mapping has a key once.
        options = {"ttl": request.ttl(), "fence": request.get("fence"), "bound": bool(request.get("bound"))}
        await settled(shared.set_many(dict(pairs), **options))

    async def scan_entries(self, shared: Any, request: Request) -> Any:
        items = shared.scan(request.get("prefix", ""))
        found = [item async for item in items] if hasattr(items, "__aiter__") else list(items)
        assert len(dict(found)) == len(found), "a key comes twice"
        return {key: value_json.to_json(value) for key, value in found}

    async def transact_dict(self, shared: Any, request: Request) -> Any:
        plan = statehouse.Plan()
        for compare in request.each("compares"):
            plan.when(compare.get("key"), **compare.condition())
        kinds = add_steps(plan, request.each("then_steps"))
        other_kinds = add_steps(plan.otherwise(), request.each("else_steps"))
        outcome = await settled(shared.transact(plan))
        results = []
        for kind, result in zip(kinds if outcome.compared else other_kinds, outcome.results, strict=True):
            results.append({"value": value_json.to_json(result)} if kind == "increment" else shown(result))
        return {"compared": outcome.compared, "results": results}


CATALOGUE = {"open_dict", "create_dict", "describe_dict", "delete_dict", "list_dicts"}
OPS = {name for name in vars(DictOps) if not name.startswith("_") and name != "do"}
_EDITS = (
    "set", "delete", "append", "extend", "insert", "pop", "remove", "merge", "clear", "slice", "set_default", "append_string",
    "append_bytes",
)  # fmt: skip
_VALUE_OF = {"extend": "extend.values", "insert": "insert.value", "slice": "slice.values"}
_WITHOUT_VALUE = ("delete", "pop", "clear")


def add_steps(plan: statehouse.Plan, steps: list[Request]) -> list[str]:
    """Adds steps to a plan; their kinds."""
    kinds = []
    for step in steps:
        kind = next(kind for kind in ("get", "set", "delete", "increment") if step.has(kind) or step.has(f"{kind}.key"))
        inside = step.inside(kind)
        key = inside.get("key")
        if kind == "get":
            plan.get(step.get("get"))
        elif kind == "set":
            plan.set(key, inside.value("value"), **inside.options())
        elif kind == "delete":
            plan.delete(key, **inside.delete_options())
        else:
            plan.incr(key, **inside.numbers())
        kinds.append(kind)
    return kinds
