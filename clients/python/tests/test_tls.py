"""TLS: the service on an address of its own, and clients with and without what it asks for."""

from __future__ import annotations

import asyncio
import pathlib
import subprocess
from collections.abc import Iterator

import pytest
from conftest import Service, run_service

import statehouse
from statehouse import _async_batch_link, _batch_link, _batch_stream, aio, errors

REFUSED_S = 2.0  # How long a client tries that is not let in.


def make_key(folder: pathlib.Path, name: str, *arguments: str) -> None:
    """name.key, and with -x509 name.pem, else name.csr."""
    output = f"{name}.pem" if "-x509" in arguments else f"{name}.csr"
    command = ["openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", f"{name}.key"]
    subprocess.run([*command, "-subj", f"/CN={name}", "-out", output, *arguments], cwd=folder, check=True, capture_output=True)


def sign(folder: pathlib.Path, name: str) -> None:
    (folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1")
    command = ["openssl", "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"]
    subprocess.run(
        [*command, "-extfile", "names", "-days", "2", "-out", f"{name}.pem"], cwd=folder, check=True, capture_output=True
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    made = tmp_path_factory.mktemp("tls")
    make_key(made, "ca", "-x509", "-days", "2")
    for name in ("service", "client"):
        make_key(made, name)
        sign(made, name)
    return made


@pytest.fixture(scope="module")
def mutual(folder: pathlib.Path) -> Iterator[Service]:
    files = [f"--tls-certificate={folder}/service.pem", f"--tls-key={folder}/service.key", f"--tls-client-ca={folder}/ca.pem"]
    with run_service(folder, *files) as running:
        yield running


def url_of(service: Service, folder: pathlib.Path, *names: str) -> str:
    """With the files of these query keys."""
    files = {"ca_file": "ca.pem", "certificate_file": "client.pem", "key_file": "client.key"}
    return service.tcp_url + "?" + "&".join(f"{name}={folder / files[name]}" for name in names)


def test_who_has_the_files_is_served(mutual: Service, folder: pathlib.Path) -> None:
    assert mutual.tcp_url.startswith("statehouse+tls://")
    url = url_of(mutual, folder, "ca_file", "certificate_file", "key_file")
    with statehouse.connect(url, token=mutual.token) as c:
        assert c.area("a", size=64).add_u64(0, 3) == 3

    async def read() -> int:
        async with await aio.connect(url, token=mutual.token) as c:
            return await (await c.area("a")).load_u64(0)

    assert asyncio.run(read()) == 3


def test_files_may_come_from_the_environment(
    mutual: Service, folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STATEHOUSE_TLS_CA_FILE", str(folder / "ca.pem"))
    monkeypatch.setenv("STATEHOUSE_TLS_CERTIFICATE_FILE", str(folder / "client.pem"))
    monkeypatch.setenv("STATEHOUSE_TLS_KEY_FILE", str(folder / "client.key"))
    with statehouse.connect(mutual.tcp_url, token=mutual.token) as c:
        assert c.dict("d").incr("n") == 1


def test_who_lacks_one_is_not_let_in(mutual: Service, folder: pathlib.Path) -> None:
    plain = mutual.tcp_url.replace("statehouse+tls://", "statehouse://")
    for url in (url_of(mutual, folder, "ca_file"), url_of(mutual, folder, "certificate_file", "key_file"), plain):
        with statehouse.connect(url, token=mutual.token, timeout=REFUSED_S) as c:
            with pytest.raises(errors.Unavailable) as refused:
                c.status()
            assert ("certificate" in str(refused.value)) == (url != plain)


def test_batches_go_encrypted(mutual: Service, folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def connects_plainly(*_: object) -> None:
        raise AssertionError("a connection without TLS")

    monkeypatch.setattr(_batch_link.socket, "create_connection", connects_plainly)
    url = url_of(mutual, folder, "ca_file", "certificate_file", "key_file")
    with statehouse.connect(url, token=mutual.token) as c:
        c.dict("batched")
        for i in range(2 * _batch_stream.BEGINS_AFTER + 2):
            batch = c.batch()
            batch.dict("batched").incr("n")
            assert batch.run() == [i + 1]

    async def awaited() -> None:
        async with aio.connect(url, token=mutual.token) as far:
            for i in range(2 * _batch_stream.BEGINS_AFTER + 2):
                batch = far.batch()
                batch.dict("batched").incr("n")
                assert await batch.run() == [2 * _batch_stream.BEGINS_AFTER + 3 + i]

    monkeypatch.setattr(_async_batch_link, "_connected", connects_plainly)
    asyncio.run(awaited())


def test_unix_sockets_go_without(mutual: Service) -> None:
    for door in ("local", "network"):
        with mutual.connect(door) as c:
            assert c.status().daemon_pid > 0


def test_files_without_tls_are_refused(folder: pathlib.Path) -> None:
    with pytest.raises(errors.InvalidArgument, match="statehouse\\+tls"):
        statehouse.connect(f"statehouse://127.0.0.1:1?ca_file={folder}/ca.pem")
