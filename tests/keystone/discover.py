"""Finds an agent in the catalog of a Keystone as OpenStack clients do, and lists its targets with the answer's version.

Removes the entry at the end. Reads the variables URL, ADMIN_PASSWORD (see tests/peers/keystone) and ENDPOINT, the agent's entry in the catalog.
Prints an object: url and version that keystoneauth discovered, all versions of the region, and the status and body of a
list of the targets.
"""

import json
import os

from keystoneauth1 import adapter, session
from keystoneauth1.identity import v3

identity = os.environ["URL"] + "/v3"
domain = {"user_domain_id": "default", "project_domain_id": "default"}
auth = v3.Password(identity, username="admin", password=os.environ["ADMIN_PASSWORD"], project_name="admin", **domain)
admin = session.Session(auth=auth)


def create(path, kind, body):
    return admin.post(f"{identity}/{path}", json={kind: body}).json()[kind]["id"]


service = create("services", "service", {"type": "workloads", "name": "targetwatch"})
endpoint = {"service_id": service, "interface": "public", "region_id": "one", "url": os.environ["ENDPOINT"]}
create("endpoints", "endpoint", endpoint)
# A new token, because a token contains the catalog.
auth.invalidate()
client = adapter.Adapter(admin, service_type="workloads", interface="public", min_version="1", max_version="1.latest")
found = client.get_endpoint_data()
versions = admin.get_all_version_data(interface="public", region_name="one", service_type="workloads")
answer = client.get("/backup_targets", raise_exc=False)
admin.delete(f"{identity}/services/{service}")
print(json.dumps({
    "url": found.url,
    "version": found.api_version,
    "versions": [version["version"] for version in versions["one"]["public"]["workloads"]],
    "status": answer.status_code,
    "targets": answer.json(),
}))
