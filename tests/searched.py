"""A tenant of a running server that is stored to and searched."""

from typing import Any

import requests


class Searched:
    """A tenant of the running archive."""

    def __init__(self, base: str, tenant: str) -> None:
        self.base = base
        self.headers = {"x-tenant": tenant}

    def store(self, data: bytes) -> int:
        kind = 'multipart/related; type="application/dicom"; boundary="guid"'
        body = b"--guid\r\nContent-Type: application/dicom\r\n\r\n" + data + b"\r\n--guid--"
        url, headers = f"{self.base}/studies", {**self.headers, "content-type": kind}
        return requests.post(url, data=body, headers=headers, timeout=60).status_code

    def get(self, path: str, **headers: str) -> requests.Response:
        return requests.get(f"{self.base}/{path}", headers={**self.headers, **headers}, timeout=60)

    def rows(self, path: str) -> list[dict[str, Any]]:
        answer = self.get(path)
        assert answer.status_code in (200, 204), (path, answer.status_code, answer.text)
        rows: list[dict[str, Any]] = answer.json() if answer.status_code == 200 else []
        return rows

    def found(self, path: str, tag: str = "0020000D") -> list[str]:
        return [row[tag]["Value"][0] for row in self.rows(path)]
