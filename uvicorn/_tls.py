"""The TLS context of a configuration."""

from __future__ import annotations

import contextlib
import os
import ssl
from collections.abc import Generator

PathOrText = str | os.PathLike[str]


def create_ssl_context(
    certfile: PathOrText,
    keyfile: PathOrText | None,
    password: str | None,
    ssl_version: int,
    cert_reqs: int,
    ca_certs: PathOrText | None,
    ciphers: str | None,
) -> ssl.SSLContext:
    """A server context. The certificate's file may hold the chain and the key as well.

    Raises:
        OSError, ssl.SSLError: A file cannot be read, or its content does not fit.
    """
    context = ssl.SSLContext(ssl_version)
    with _told(f"with ssl_certfile {certfile!r} and ssl_keyfile {keyfile!r}", certificate=True):
        context.load_cert_chain(certfile, keyfile, (lambda: password) if password is not None else None)
    context.verify_mode = ssl.VerifyMode(cert_reqs)
    if ca_certs:
        with _told(f"with ssl_ca_certs {ca_certs!r}"):
            context.load_verify_locations(ca_certs)
    if ciphers:
        with _told(f"with ssl_ciphers {ciphers!r}"):
            context.set_ciphers(ciphers)
    # RFC 7301: a client that offers HTTP/2 as well learns in the handshake that it is not spoken here.
    context.set_alpn_protocols(["http/1.1"])
    return context


@contextlib.contextmanager
def _told(settings: str, certificate: bool = False) -> Generator[None, None, None]:
    """Adds to an error which settings it comes from: OpenSSL names none."""
    try:
        yield
    except OSError as exc:
        hint = _hint(exc) if certificate else ""
        exc.add_note(f"{settings}: {hint}" if hint else settings)
        raise


def _hint(exc: OSError) -> str:
    """What OpenSSL's words mean, where they say little."""
    reason = getattr(exc, "reason", None)
    if reason == "KEY_VALUES_MISMATCH":
        return "the key does not belong to the certificate."
    if isinstance(exc, ssl.SSLError) and reason is None:
        return "certificate or key is not there in PEM form, or the key's password is wrong."
    return ""
