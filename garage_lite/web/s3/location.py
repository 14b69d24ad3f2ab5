"""The URL of an object as answers give it. Rules: Garage 2.5."""

from __future__ import annotations

from urllib.parse import quote_from_bytes, urlsplit

from garage_lite.web.s3.context import S3Settings


def object_location(settings: S3Settings, bucket: str, key: bytes) -> str:
    """`public_endpoint` counts first, then `root_domain`; else the path alone."""
    path = quote_from_bytes(key, safe="/-_.~")
    root = (settings.root_domain or "").lstrip(".")
    if settings.public_endpoint:
        url = urlsplit(settings.public_endpoint)
        path_style = settings.public_endpoint_path_style
        if path_style or (path_style is None and not root):
            return f"{url.scheme}://{url.netloc}/{bucket}/{path}"
        return f"{url.scheme}://{bucket}.{url.netloc}/{path}"
    return f"https://{bucket}.{root}/{path}" if root else f"/{bucket}/{path}"
