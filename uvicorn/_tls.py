"""The TLS context of a configuration."""

from __future__ import annotations

import os
import ssl

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
    context.load_cert_chain(certfile, keyfile, (lambda: password) if password is not None else None)
    context.verify_mode = ssl.VerifyMode(cert_reqs)
    if ca_certs:
        context.load_verify_locations(ca_certs)
    if ciphers:
        context.set_ciphers(ciphers)
    # RFC 7301: a client that offers only what we do not speak is told so in the handshake.
    context.set_alpn_protocols(["http/1.1"])
    return context
