"""Certificates for brokers and clients of the tests, made on the spot."""

from __future__ import annotations

from pathlib import Path

import trustme
from cryptography.hazmat.primitives import serialization


class Certificates:
    """A certificate authority, and PEM files it has signed.

    Args:
        folder: where the files go.
    """

    def __init__(self, folder: Path) -> None:
        self._authority = trustme.CA()
        self._folder = folder
        self.trusted = folder / "ca.pem"
        self._authority.cert_pem.write_to_path(self.trusted)

    def store(self, name: str, *identities: str) -> Path:
        """Write key and certificate of `identities` into one PEM file, as Kafka wants them: the key in PKCS#8."""
        certificate = self._authority.issue_cert(*identities)
        key = serialization.load_pem_private_key(certificate.private_key_pem.bytes(), password=None).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        chain = b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
        path = self._folder / f"{name}.pem"
        path.write_bytes(key + chain)
        return path
