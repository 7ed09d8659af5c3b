"""The TLS context: which files it reads, what it asks of clients, and errors that name the settings."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from uvicorn._tls import create_ssl_context


@dataclass
class Files:
    """Certificates on disk."""

    ca: trustme.CA
    ca_file: Path
    chain: Path
    key: Path
    both: Path
    locked: Path
    other_key: Path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    root = tmp_path_factory.mktemp("tls")
    ca = trustme.CA()
    made = Files(ca, *(root / name for name in ("ca", "chain", "key", "both", "locked", "other")))
    certificate = ca.issue_cert("localhost")
    ca.cert_pem.write_to_path(made.ca_file)
    certificate.private_key_pem.write_to_path(made.key)
    certificate.private_key_and_cert_chain_pem.write_to_path(made.both)
    for blob in certificate.cert_chain_pems:
        blob.write_to_path(made.chain, append=True)
    key = load_pem_private_key(certificate.private_key_pem.bytes(), None)
    made.locked.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"hunter2"))
    )
    ca.issue_cert("localhost").private_key_pem.write_to_path(made.other_key)
    return made


def context(certfile: Path, keyfile: Path | None = None, **more: Any) -> ssl.SSLContext:
    arguments = {
        "password": None,
        "ssl_version": ssl.PROTOCOL_TLS_SERVER,
        "cert_reqs": ssl.CERT_NONE,
        "ca_certs": None,
        "ciphers": "TLSv1",
        **more,
    }
    return create_ssl_context(certfile, keyfile, **arguments)


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Both ends of a connection in memory, after the handshake."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client_end = client.wrap_bio(to_client, to_server, server_hostname="localhost")
    server_end = server.wrap_bio(to_server, to_client, server_side=True)
    waiting = [client_end, server_end]
    while waiting:
        for end in list(waiting):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            waiting.remove(end)
    return client_end, server_end


def client_context(files: Files, alpn: list[str] | None = None) -> ssl.SSLContext:
    client = ssl.create_default_context(cafile=str(files.ca_file))
    if alpn:
        client.set_alpn_protocols(alpn)
    return client


@pytest.mark.parametrize("form", ["two files", "one file", "a locked key"])
def test_certificate_serves_in_every_form(form: str, files: Files) -> None:
    made = {
        "two files": lambda: context(files.chain, files.key),
        "one file": lambda: context(files.both),
        "a locked key": lambda: context(files.chain, files.locked, password="hunter2"),
    }[form]()
    client_end, _ = shake_hands(made, client_context(files))
    assert client_end.version() in ("TLSv1.2", "TLSv1.3")


def test_client_that_offers_http_2_too_gets_http_1(files: Files) -> None:
    client_end, _ = shake_hands(context(files.both), client_context(files, ["h2", "http/1.1"]))
    assert client_end.selected_alpn_protocol() == "http/1.1"


def test_client_that_offers_nothing_we_speak_gets_no_answer_to_it(files: Files) -> None:
    client_end, _ = shake_hands(context(files.both), client_context(files, ["h2"]))
    assert client_end.selected_alpn_protocol() is None


def test_client_without_a_certificate_is_refused_where_one_is_required(files: Files) -> None:
    server = context(files.both, cert_reqs=ssl.CERT_REQUIRED, ca_certs=files.ca_file, ciphers=None)
    client = client_context(files)
    # With TLS 1.3 the client is told only after its handshake is over.
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError, match="PEER_DID_NOT_RETURN_A_CERTIFICATE"):
        shake_hands(server, client)


def test_client_certificate_is_checked_by_the_given_authorities(files: Files) -> None:
    server = context(files.both, cert_reqs=ssl.CERT_REQUIRED, ca_certs=files.ca_file)
    client = client_context(files)
    files.ca.issue_cert("client@example.org").configure_cert(client)
    _, server_end = shake_hands(server, client)
    certificate = server_end.getpeercert()
    assert certificate is not None
    assert ("email", "client@example.org") in certificate["subjectAltName"]


def test_ciphers_are_as_given(files: Files) -> None:
    names = {
        each["name"] for each in context(files.both, ciphers="ECDHE-RSA-AES128-GCM-SHA256").get_ciphers()
    }
    assert "ECDHE-RSA-AES128-GCM-SHA256" in names
    assert "ECDHE-RSA-AES256-GCM-SHA384" not in names


@pytest.mark.parametrize("ciphers", [None, ""])
def test_no_ciphers_means_those_of_python(ciphers: str | None, files: Files) -> None:
    names = [each["name"] for each in context(files.both, ciphers=ciphers).get_ciphers()]
    assert names == [each["name"] for each in ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).get_ciphers()]


@pytest.mark.parametrize(
    ("arguments", "error", "note"),
    [
        ({"certfile": "none.pem"}, FileNotFoundError, "with ssl_certfile 'none.pem' and ssl_keyfile None"),
        (
            {"certfile": "chain", "keyfile": "other_key"},
            ssl.SSLError,
            "with ssl_certfile {chain!r} and ssl_keyfile {other_key!r}: the key does not belong to the certificate.",
        ),
        (
            {"certfile": "chain", "keyfile": "locked", "password": "hunter3"},
            ssl.SSLError,
            "with ssl_certfile {chain!r} and ssl_keyfile {locked!r}: "
            + "certificate or key is not there in PEM form, or the key's password is wrong.",
        ),
        ({"certfile": "both", "ca_certs": "key"}, ssl.SSLError, "with ssl_ca_certs {key!r}"),
        ({"certfile": "both", "ciphers": "NOPE"}, ssl.SSLError, "with ssl_ciphers 'NOPE'"),
    ],
)
def test_error_names_the_settings_it_comes_from(
    arguments: dict[str, Any], error: type[OSError], note: str, files: Files
) -> None:
    paths = {name: str(path) for name, path in vars(files).items() if isinstance(path, Path)}
    given = {name: paths.get(value, value) for name, value in arguments.items()}
    with pytest.raises(error) as caught:
        context(**given)
    assert caught.value.__notes__ == [note.format(**paths)]
    assert "hunter" not in note
