"""Whether the model hub can be reached: without network its client tries five times for each file, half a minute."""

from __future__ import annotations

import os
import socket
import sys
from urllib.parse import urlsplit

#: address of the hub, where it is not the public one
_ENDPOINT = "HF_ENDPOINT"
_SECONDS = 3.0


def do_not_wait_for_the_hub() -> None:
    """Tell the hub's client to look into its cache alone where the hub cannot be reached.

    Works before the client is imported for the first time in this process. Behind a proxy nothing is tried.
    """
    proxies = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
    if "huggingface_hub" in sys.modules or any(os.environ.get(name) for name in proxies):
        return
    url = urlsplit(os.environ.get(_ENDPOINT) or "https://huggingface.co")
    try:
        port = url.port or (80 if url.scheme == "http" else 443)
        with socket.create_connection((url.hostname or "huggingface.co", port), timeout=_SECONDS):
            return
    except OSError:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
