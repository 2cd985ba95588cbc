"""Makes generated bodies valid where the description cannot express the rule, so that requests change something."""

import os

import schemathesis

PROJECT = "fc439373e340459fb28202b2412e26c0"


def valid_target(fields, is_new):
    # The targets are exports, on a node that shares its registry with no other one.
    fields = {key: value for key, value in fields.items() if key not in ("secret_ref", "scope")}
    if fields.get("nfs_mount_opts"):
        fields = {**fields, "nfs_mount_opts": "soft"}
    if fields.get("mount_mode"):
        fields = {**fields, "mount_mode": "none"}
    if not is_new:
        # These are fixed. The daemon refuses other values.
        fixed = ("type", "filesystem_export", "nfs_export", "s3_endpoint_url", "s3_bucket")
        return {key: value for key, value in fields.items() if key not in fixed}
    # Differs as the generated text does, and is a valid path.
    path = str(fields.get("filesystem_export")).encode("utf-8", "replace").hex()[:60]
    fields = {key: value for key, value in fields.items() if not key.startswith("s3_") and key != "nfs_export"}
    return {**fields, "type": "nfs", "filesystem_export": f"127.0.0.1:/{path}", "immutable": False, "is_default": False}


def valid_type(fields, is_new):
    if is_new:
        fields = {**fields, "backup_targets_id": os.environ["TARGETWATCH_TARGET_ID"]}
    else:
        # These are fixed. The daemon refuses other values.
        fields = {key: value for key, value in fields.items() if key not in ("backup_target_type_id", "backup_targets_id")}
    if isinstance(fields.get("project_list"), list):
        fields = {**fields, "project_list": [PROJECT for _ in fields["project_list"]]}
    return fields


@schemathesis.hook
def map_body(context, body):
    if not isinstance(body, dict):
        return body
    path, method = context.operation.path, context.operation.method.upper()
    for envelope, make_valid in (("backup_target", valid_target), ("backup_target_type", valid_type)):
        if isinstance(body.get(envelope), dict):
            is_new = method == "POST" and path in ("/backup_targets", "/backup_target_types")
            body = {**body, envelope: make_valid(body[envelope], is_new)}
    return body
