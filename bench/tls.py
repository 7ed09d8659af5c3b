"""A certificate for the TLS scenarios, made once: an elliptic-curve key, as most sites have."""

from __future__ import annotations

import subprocess
from pathlib import Path

from bench.environments import VENVS


def certificate() -> tuple[Path, Path]:
    cert, key = VENVS / "certificate.pem", VENVS / "key.pem"
    if not cert.exists():
        VENVS.mkdir(exist_ok=True)
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
        command += ["-nodes", "-subj", "/CN=localhost", "-days", "3650", "-keyout", key, "-out", cert]
        subprocess.run([str(part) for part in command], check=True, capture_output=True)
    return cert, key
