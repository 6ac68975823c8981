"""A notice over HTTP: a POST of JSON.

Rules that hold here: any answer of 200 to 299 is success and nothing else is, redirections included; every wait has its
deadline, and of the answer's text only the beginning is read.
"""

from __future__ import annotations

import http.client
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from archive.errors import NotDelivered

READ = 200  # bytes of an answer, for the log


class _Stay(urllib.request.HTTPRedirectHandler):
    """A POST that is led elsewhere would become a GET without the message."""

    def redirect_request(self, *_: Any) -> None:
        return None


def post(url: str, body: Mapping[str, Any], *, token: str, context: ssl.SSLContext | None, timeout: float) -> str:
    """What the server said, in words. Raises NotDelivered."""
    headers = {"Content-Type": "application/json; charset=utf-8", "User-Agent": "dimse-archive"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    data = json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
    request = urllib.request.Request(url, data, headers, method="POST")  # noqa: S310 - the scheme was checked
    opener = urllib.request.build_opener(_Stay, urllib.request.HTTPSHandler(context=context))
    try:
        with opener.open(request, timeout=timeout) as answer:
            return f"answered {answer.status}"
    except urllib.error.HTTPError as error:
        with error:
            said = error.read(READ).decode("utf-8", "replace").strip()
        raise NotDelivered(f"hook answered {error.code}", said) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise NotDelivered("hook cannot be reached", _words(error)) from error


def _words(error: Exception) -> str:
    reason = getattr(error, "reason", error)
    if isinstance(reason, TimeoutError):
        return "did not answer in time"
    return (getattr(reason, "strerror", None) or str(reason) or type(reason).__name__)[:READ]
