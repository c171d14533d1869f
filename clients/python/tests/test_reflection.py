"""A client that knows nothing of the service but its address and a token, as grpcurl: the service's reflection tells it every message.

The few fields of the reflection protocol are read by hand, so that no generated file of any kind takes part.
"""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from conftest import Service

TIMEOUT_S = 10.0
REFLECTION = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")

FILE_CONTAINING_SYMBOL = 4  # Fields of ServerReflectionRequest.
LIST_SERVICES = 7
FILE_DESCRIPTOR_RESPONSE = 4  # Of ServerReflectionResponse.
LIST_SERVICES_RESPONSE = 6
ERROR_RESPONSE = 7


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def field(number: int, payload: bytes) -> bytes:
    """A length-delimited field."""
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def fields(message: bytes) -> list[tuple[int, bytes]]:
    """The length-delimited fields of a message; others are passed over."""
    found, at = [], 0

    def number() -> int:
        nonlocal at
        value, shift = 0, 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(message):
        key = number()
        if key & 7 != 2:
            number()
            continue
        length = number()
        found.append((key >> 3, message[at : at + length]))
        at += length
    return found


class Reflected:
    """Calls by names alone. The channel is the test's."""

    def __init__(self, channel: grpc.Channel, token: str, reflection: str) -> None:
        self._channel = channel
        self._metadata = (("authorization", f"Bearer {token}"),)
        self._pool = descriptor_pool.DescriptorPool()
        self._path = f"/{reflection}/ServerReflectionInfo"

    def _ask(self, request: bytes) -> list[tuple[int, bytes]]:
        call = self._channel.stream_stream(self._path)
        (answer,) = call(iter([request]), timeout=TIMEOUT_S)
        return fields(answer)

    def services(self) -> list[str]:
        answer = dict(self._ask(field(LIST_SERVICES, b"*")))
        return [dict(fields(service))[1].decode() for _, service in fields(answer[LIST_SERVICES_RESPONSE])]

    def learn(self, symbol: str) -> None:
        """Takes in the file of `symbol` and all that it needs. Raises LookupError for a symbol that the service does not know."""
        answer = dict(self._ask(field(FILE_CONTAINING_SYMBOL, symbol.encode())))
        if FILE_DESCRIPTOR_RESPONSE not in answer:
            raise LookupError(symbol)
        files = {}
        for _, text in fields(answer[FILE_DESCRIPTOR_RESPONSE]):
            file = descriptor_pb2.FileDescriptorProto.FromString(text)
            files[file.name] = file

        def add(name: str) -> None:
            file = files.pop(name, None)
            if file is None:
                return
            for needed in file.dependency:
                add(needed)
            self._pool.Add(file)

        for name in list(files):
            add(name)

    def call(self, service: str, verb: str, **values: Any) -> Any:
        method = self._pool.FindServiceByName(service).methods_by_name[verb]
        request = message_factory.GetMessageClass(method.input_type)(**values)
        response_type = message_factory.GetMessageClass(method.output_type)
        unary = self._channel.unary_unary(
            f"/{service}/{verb}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=response_type.FromString,
        )
        return unary(request, metadata=self._metadata, timeout=TIMEOUT_S)


@pytest.mark.parametrize("reflection", REFLECTION)
def test_a_client_without_any_generated_code_learns_everything_from_the_service(service: Service, reflection: str) -> None:
    with grpc.insecure_channel(service.tcp_url.split("://")[1]) as channel:
        client = Reflected(channel, service.token, reflection)
        services = client.services()
        assert {f"statehouse.v1.{name}" for name in ("Admin", "Areas", "Batches", "Dicts", "Locks", "Sessions")} <= set(services)
        client.learn("statehouse.v1.Areas")
        name = f"reflected/{reflection}"

        client.call("statehouse.v1.Areas", "CreateArea", name=name, size=64)
        for expected in (5, 10):
            added = client.call("statehouse.v1.Areas", "AddWord", name=name, pos=8, type="WORD_TYPE_U64", delta=5)
            assert added.value.unsigned_value == expected
        client.call("statehouse.v1.Areas", "DeleteArea", name=name)

        with pytest.raises(grpc.RpcError) as refused:
            client.call("statehouse.v1.Areas", "LoadWord", name=name, type="WORD_TYPE_U64")
        assert refused.value.code() == grpc.StatusCode.NOT_FOUND
        with pytest.raises(LookupError):
            client.learn("statehouse.v1.Nothing")


def test_every_service_that_is_listed_can_be_learnt(service: Service) -> None:
    with grpc.insecure_channel(service.tcp_url.split("://")[1]) as channel:
        client = Reflected(channel, service.token, REFLECTION[0])
        for name in client.services():
            Reflected(channel, service.token, REFLECTION[0]).learn(name)
