"""The S3 data plane. A request's way: operations, signature, body, a handler, an answer."""
