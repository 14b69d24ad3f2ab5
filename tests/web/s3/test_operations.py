"""Every S3 operation is named, by AWS's own model of the service."""

from __future__ import annotations

import re

import botocore.session
import pytest

from garage_lite.web.s3.errors import S3Error
from garage_lite.web.s3.operations import (
    BUILT,
    OPERATIONS,
    READ,
    ROUTES,
    SUB_RESOURCES,
    WRITE,
    Right,
    Scope,
    find_operation,
)

MODEL = botocore.session.get_session().get_service_model("s3")
OLD_NAMES = {
    "GetBucketLifecycle": "GetBucketLifecycleConfiguration",
    "PutBucketLifecycle": "PutBucketLifecycleConfiguration",
    "GetBucketNotification": "GetBucketNotificationConfiguration",
    "PutBucketNotification": "PutBucketNotificationConfiguration",
}
ELSEWHERE = {
    # The same request as ListBuckets, told apart by a host that is not ours.
    "ListDirectoryBuckets": "ListBuckets",
}


def request_of(name: str) -> tuple[str, Scope, set[str], set[str]]:
    """Method, scope, query parameters and headers of an operation in AWS's model."""
    operation = MODEL.operation_model(name)
    path, _, query = operation.http["requestUri"].partition("?")
    scope = Scope.OBJECT if "{Key+}" in path else Scope.BUCKET
    if path in ("/", "/WriteGetObjectResponse"):
        scope = Scope.SERVICE
    parameters = {item.partition("=")[0] for item in query.split("&") if item}
    headers = set()
    shape = operation.input_shape
    for member in shape.required_members if shape else ():
        place = shape.members[member].serialization
        if place.get("location") == "querystring":
            parameters.add(place["name"])
        if place.get("location") == "header":
            headers.add(place["name"])
    return operation.http["method"], scope, parameters, headers


@pytest.mark.parametrize("name", MODEL.operation_names)
def test_every_operation_of_aws_is_named(name: str) -> None:
    method, scope, parameters, headers = request_of(name)
    found = find_operation(method, scope, parameters, headers)
    assert found.name == OLD_NAMES.get(name) or ELSEWHERE.get(name, name)
    assert found.name in {OLD_NAMES.get(name, name), ELSEWHERE.get(name)}


def test_what_is_built_is_named() -> None:
    assert set(OPERATIONS) >= BUILT
    assert set(OPERATIONS) >= READ | WRITE
    assert len(OPERATIONS) == sum(len(place) for place in ROUTES.values())


@pytest.mark.parametrize("name", OPERATIONS)
def test_rights_follow_garages_rule(name: str) -> None:
    right = OPERATIONS[name].right
    if name in READ:
        assert right is Right.READ
        assert re.match("Get|Head|List", name)
    elif name in WRITE:
        assert right is Right.WRITE
    elif name not in ("ListBuckets", "CreateBucket"):
        assert right is Right.OWNER


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "POST", "DELETE"])
@pytest.mark.parametrize("scope", Scope)
def test_a_sub_resource_never_falls_through(scope: Scope, method: str) -> None:
    plain = [route[3] for route in ROUTES.get((scope, method), ()) if not route[0]]
    for sub_resource in SUB_RESOURCES:
        try:
            found = find_operation(method, scope, {sub_resource}, set())
        except S3Error as refused:
            assert refused.code == "MethodNotAllowed"
        else:
            assert found not in plain


def test_unknown_parameters_are_passed_over_and_unknown_methods_refused() -> None:
    assert find_operation("GET", Scope.OBJECT, {"x-id", "foo"}, set()).name == "GetObject"
    for method in ("OPTIONS", "PATCH", "TRACE", "get"):
        with pytest.raises(S3Error) as refused:
            find_operation(method, Scope.BUCKET, set(), set())
        assert refused.value.status == 405
