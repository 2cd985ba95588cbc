"""Makes bodies valid in what the description cannot say of them, so that changes are made too."""

import os

import schemathesis

PROJECT = "fc439373e340459fb28202b2412e26c0"


def as_target(fields, is_new):
    if not is_new:
        # They are fixed: only another value of them is refused.
        fixed = ("type", "filesystem_export", "nfs_export", "s3_endpoint_url", "s3_bucket")
        return {key: value for key, value in fields.items() if key not in fixed}
    # As different as the text, with nothing in it that a path may not have.
    path = str(fields.get("filesystem_export")).encode("utf-8", "replace").hex()[:60]
    fields = {key: value for key, value in fields.items() if not key.startswith("s3_") and key != "nfs_export"}
    return {**fields, "type": "nfs", "filesystem_export": f"127.0.0.1:/{path}", "immutable": False, "is_default": False}


def as_type(fields, is_new):
    if is_new:
        fields = {**fields, "backup_targets_id": os.environ["TARGETWATCH_TARGET_ID"]}
    else:
        # They are fixed: only another value of them is refused.
        fields = {key: value for key, value in fields.items() if key not in ("backup_target_type_id", "backup_targets_id")}
    if isinstance(fields.get("project_list"), list):
        fields = {**fields, "project_list": [PROJECT for _ in fields["project_list"]]}
    return fields


@schemathesis.hook
def map_body(context, body):
    if not isinstance(body, dict):
        return body
    path, method = context.operation.path, context.operation.method.upper()
    for envelope, completed in (("backup_target", as_target), ("backup_target_type", as_type)):
        if isinstance(body.get(envelope), dict):
            is_new = method == "POST" and path in ("/backup_targets", "/backup_target_types")
            body = {**body, envelope: completed(body[envelope], is_new)}
    return body
