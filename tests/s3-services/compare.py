"""Compares the agent's reports with what boto3 finds out about the same buckets.

usage: compare.py BINARY [SERVICE]...

The rules of the comparison:
- A bucket is available exactly if boto3 can write, read and delete an object.
- A fact (versioning, object lock) is the same as boto3's. Only facts that the service does not report are not known.
- A target that is declared immutable is available exactly if a locked object can neither be deleted nor be
  unlocked early.
- After several canaries, the bucket has at most CANARIES_MAX objects, versions and delete markers more.
- The same is true after a crash and a restart of the agent.
- For a user with fewer rights, a bucket is available exactly if boto3 can write an object as that user. The report says
  that access is denied.
- A bucket whose quota is used up is offline for that reason, and available again without the quota.
"""

import base64
import datetime
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import NamedTuple, Optional

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from services import SERVICES

# Buckets of each service. Services may refuse to create the last three.
KINDS = ("plain", "versioned", "suspended", "locked")

# Buckets that users with fewer rights use.
USERS_BUCKETS = ("tests-plain", "tests-versioned")

# Number of probes with a canary of each target.
CHECKS = 7

# Maximum number of entries that the canaries of one target may leave in its bucket.
CANARIES_MAX = 5

# Time limit of a verdict, which for an immutable target includes the lock proof, in seconds.
VERDICT_TIMEOUT = 60

# Time limit of a request to the agent, in seconds.
REQUEST_TIMEOUT = 30

# Retention of the object that shows whether a lock is enforced, in seconds.
RETENTION = 60


class Truth(NamedTuple):
    """What boto3 found out about a bucket."""

    writable: bool
    keeps_versions: bool
    has_lock: bool
    # Whether a locked version can neither be deleted nor be unlocked early.
    lock_enforced: bool


class Rights(NamedTuple):
    """What boto3 may do with objects of a bucket, with the credentials of one user."""

    put: bool
    get: bool
    delete: bool


def client(service, user=None):
    access_key_id, secret_access_key = user or (service.access_key_id, service.secret_access_key)
    config = Config(
        retries={"total_max_attempts": 1},
        s3={"addressing_style": "path"},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    return boto3.client(
        "s3",
        endpoint_url=service.endpoint,
        region_name="us-east-1",
        aws_access_key_id=access_key_id,
        aws_secret_access_key=secret_access_key,
        config=config,
    )


def create_bucket(s3, kind):
    """Creates a bucket of this kind. Returns whether the service has this kind."""
    bucket = f"tests-{kind}"
    s3.create_bucket(Bucket=bucket, **({"ObjectLockEnabledForBucket": True} if kind == "locked" else {}))
    if kind == "locked":
        return has_lock(s3, bucket)
    try:
        for status in {"plain": [], "versioned": ["Enabled"], "suspended": ["Enabled", "Suspended"]}[kind]:
            s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": status})
    except ClientError:
        return False
    return True


def has_lock(s3, bucket):
    try:
        answer = s3.get_object_lock_configuration(Bucket=bucket)
    except (BotoCoreError, ClientError):
        return False
    return answer.get("ObjectLockConfiguration", {}).get("ObjectLockEnabled") == "Enabled"


def is_writable(s3, bucket):
    try:
        s3.put_object(Bucket=bucket, Key="truth", Body=b"truth")
        same = s3.get_object(Bucket=bucket, Key="truth")["Body"].read() == b"truth"
        s3.delete_object(Bucket=bucket, Key="truth")
        return same
    except ClientError:
        return False


def keeps_versions(s3, bucket):
    """Finds out by two writes of one key, since services answer ?versioning in many ways."""
    first, second = (s3.put_object(Bucket=bucket, Key="version", Body=body).get("VersionId") for body in (b"1", b"2"))
    return first != second


def is_lock_enforced(s3, bucket):
    until = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=RETENTION)
    lock = {"ObjectLockMode": "COMPLIANCE", "ObjectLockRetainUntilDate": until}
    digest = base64.b64encode(hashlib.md5(b"locked").digest()).decode()
    put = s3.put_object(Bucket=bucket, Key="locked", Body=b"locked", ContentMD5=digest, **lock)
    version = {"Bucket": bucket, "Key": "locked", "VersionId": put["VersionId"]}
    soon = {"Mode": "COMPLIANCE", "RetainUntilDate": until - datetime.timedelta(seconds=RETENTION - 5)}
    weaker = {"Mode": "GOVERNANCE", "RetainUntilDate": until}
    attempts = (
        lambda: s3.put_object_retention(Retention=soon, **version),
        lambda: s3.put_object_retention(Retention=weaker, **version),
        lambda: s3.delete_object(**version),
    )
    return not any(works(attempt) for attempt in attempts)


def works(attempt):
    try:
        attempt()
        return True
    except ClientError:
        return False


def truth_of(s3, bucket):
    writable = is_writable(s3, bucket)
    locked = has_lock(s3, bucket)
    return Truth(writable, keeps_versions(s3, bucket), locked, locked and is_lock_enforced(s3, bucket))


def entries(s3, bucket):
    """Number of objects in a bucket, with all versions and delete markers where the service lists these."""
    try:
        listing = s3.list_object_versions(Bucket=bucket)
        count = len(listing.get("Versions", [])) + len(listing.get("DeleteMarkers", []))
    except (BotoCoreError, ClientError):
        count = 0
    return max(count, s3.list_objects_v2(Bucket=bucket).get("KeyCount", 0))


class Agent:
    """A running daemon that probes on request."""

    def __init__(self, binary, directory, user):
        self.binary = binary
        self.directory = Path(directory)
        self.set_user(user)
        config = self.directory / "config.toml"
        config.write_text(
            f"""
[api]
listen = ["127.0.0.1:0"]
[registry]
url = "sqlite://{directory}/registry.db"
[mounts]
root = "{directory}/mounts"
mode = "none"
[probe]
s3_interval = "1h"
deadline = "10s"
slow_after = "60s"
nearly_full_percent = 100.0
[s3.canary]
retention = "7s"
[s3.lock_proof]
mode = "compliance"
[[s3.credentials]]
location = "*"
access_key_id_file = "{directory}/id"
secret_access_key_file = "{directory}/secret"
region = "us-east-1"
"""
        )
        self.start()

    def set_user(self, user):
        """Replaces the credentials. The next probe reads them."""
        access_key_id, secret_access_key = user
        (self.directory / "id").write_text(access_key_id)
        secret = self.directory / "secret"
        secret.touch(0o600)
        secret.write_text(secret_access_key)

    def start(self):
        self.log = self.directory / "log"
        with open(self.log, "wb") as log:
            environment = {**os.environ, "AWS_EC2_METADATA_DISABLED": "true"}
            command = [self.binary, "serve", "--config", self.directory / "config.toml"]
            self.process = subprocess.Popen(command, stderr=log, env=environment)
        deadline = time.monotonic() + REQUEST_TIMEOUT
        while " INFO ready " not in self.log.read_text():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the agent did not start:\n{self.log.read_text()}")
            time.sleep(0.05)
        ready = next(line for line in self.log.read_text().splitlines() if " INFO ready " in line)
        self.address = ready.split('listen="')[1].split('"')[0]

    def stop(self):
        self.process.kill()
        self.process.wait()

    def restart(self):
        """Kills the agent, as a crash does, and starts it with the same registry."""
        self.stop()
        self.start()

    def forget(self):
        """Starts the agent with an empty registry."""
        self.stop()
        for file in self.directory.glob("registry.db*"):
            file.unlink()
        self.start()

    def request(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://{self.address}{path}", data, method=method)
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=REQUEST_TIMEOUT) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def create(self, service, bucket):
        target = {"type": "s3", "s3_endpoint_url": service.endpoint, "s3_bucket": bucket, "btt_name": bucket}
        return self.request("POST", "/backup_targets", {"backup_target": target})["backup_targets"]["id"]

    def check(self, target):
        return self.request("POST", f"/backup_targets/{target}/check")

    def declare_immutable(self, target):
        """Declares a target immutable, and returns the first report with a final verdict."""
        self.request("PUT", f"/backup_targets/{target}", {"backup_target": {"immutable": 1}})
        deadline = time.monotonic() + VERDICT_TIMEOUT
        while True:
            report = self.request("GET", f"/backup_targets/{target}/checks")
            if report["verdict"] and report["reason"] != "lock_proof_pending" or time.monotonic() > deadline:
                return report
            time.sleep(0.2)


def differences(s3, agent, target, service, bucket, truth: Truth):
    """Compares one bucket. Yields a sentence for each wrong claim."""
    before = entries(s3, bucket)
    report = agent.check(target)
    if (report["status"] == "available") != truth.writable:
        yield f"{report['status']} ({report['reason']}: {report['message']}); writable: {truth.writable}"
    canary = next(check["outcome"] for check in report["checks"] if check["name"] == "write_canary")
    if truth.writable and canary != "passed":
        yield f"write_canary {canary}; writable: {truth.writable}"
    yield from wrong_facts(report, truth, service.unreported)
    for _ in range(CHECKS - 1):
        agent.check(target)
    left = entries(s3, bucket) - before
    if left > CANARIES_MAX:
        yield f"{left} entries left by {CHECKS} canaries, expected at most {CANARIES_MAX}"

    report = agent.declare_immutable(target)
    yield from wrong_facts(report, truth, service.unreported)
    if (report["status"] == "available") != truth.lock_enforced:
        found = f"{report['status']} ({report['reason']}: {report['message']})"
        yield f"immutable: {found}; lock enforced: {truth.lock_enforced}"
    if report["reason"] == "bucket_not_found":
        yield f"immutable: {report['message']}; the bucket exists"


def rights_of(s3, restricted, bucket):
    s3.put_object(Bucket=bucket, Key="rights", Body=b"rights")
    rights = Rights(
        works(lambda: restricted.put_object(Bucket=bucket, Key="rights", Body=b"other")),
        works(lambda: restricted.get_object(Bucket=bucket, Key="rights")["Body"].read()),
        works(lambda: restricted.delete_object(Bucket=bucket, Key="rights")),
    )
    s3.delete_object(Bucket=bucket, Key="rights")
    return rights


def differences_of_user(s3, agent, target, bucket, rights: Rights):
    """Compares a bucket that is used with fewer rights, and restarts the agent meanwhile."""
    before = entries(s3, bucket)
    for number in range(CHECKS):
        if number == CHECKS // 2:
            agent.restart()
        report = agent.check(target)
        found = f"{report['status']} ({report['reason']}: {report['message']})"
        if (report["status"] == "available") != rights.put:
            yield f"check {number + 1}: {found}"
        if rights != Rights(True, True, True) and report["reason"] != "access_denied":
            yield f"check {number + 1}: {found}, expected access_denied"
    left = entries(s3, bucket) - before
    if left > CANARIES_MAX:
        yield f"{left} entries left by {CHECKS} canaries, expected at most {CANARIES_MAX}"


def differences_of_quota(s3, agent, target, bucket, service):
    """Compares a bucket whose quota is used up, and then one without a quota."""
    service.set_quota(bucket, True)
    wait_until(lambda: not is_writable(s3, bucket), "the quota")
    report = agent.check(target)
    if (report["status"], report["reason"]) != ("offline", "quota_exceeded"):
        yield f"with a used up quota: {report['status']} ({report['reason']}: {report['message']})"
    service.set_quota(bucket, False)
    wait_until(lambda: is_writable(s3, bucket), "the end of the quota")
    report = agent.check(target)
    if report["status"] != "available":
        yield f"without a quota: {report['status']} ({report['reason']}: {report['message']})"


def differences_after_restart(s3, agent, targets):
    """Compares all buckets again after a crash of the agent."""
    agent.restart()
    for bucket, (target, truth) in targets.items():
        before = entries(s3, bucket)
        agent.request("PUT", f"/backup_targets/{target}", {"backup_target": {"immutable": 0}})
        report = agent.check(target)
        if (report["status"] == "available") != truth.writable:
            yield f"{bucket}: {report['status']} ({report['reason']}: {report['message']})"
        left = entries(s3, bucket) - before
        if left > CANARIES_MAX:
            yield f"{bucket}: {left} entries left, expected at most {CANARIES_MAX}"


def wait_until(condition, what):
    deadline = time.monotonic() + VERDICT_TIMEOUT
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what} has no effect after {VERDICT_TIMEOUT} s")
        time.sleep(0.2)


def wrong_facts(report, truth: Truth, unreported):
    facts = (("versioning", truth.keeps_versions), ("object_lock", truth.has_lock))
    for fact, true in facts:
        expected: Optional[bool] = None if fact in unreported else true
        reported = report.get(fact)
        if reported != expected:
            yield f"{fact} is {reported}, expected {expected}, in truth {true}"


def compare(name, binary):
    """Compares all buckets of a service. Returns the number of wrong claims."""
    wrong = 0
    # Not below /tmp: Swift needs extended attributes, which a tmpfs has only from Linux 6.6 on.
    with tempfile.TemporaryDirectory(prefix=f"targetwatch-{name}-", dir="/var/tmp") as directory:
        with SERVICES[name](directory) as service, tempfile.TemporaryDirectory() as agent_directory:
            s3 = client(service)
            agent = Agent(binary, agent_directory, (service.access_key_id, service.secret_access_key))
            try:
                for what, truth, found in comparisons(s3, agent, service):
                    result = "not offered" if found is None else "WRONG" if found else "right"
                    print(f"{name} {what}: {result} {truth or ''}".rstrip())
                    found = found or []
                    for sentence in found:
                        print(f"  {sentence}")
                    wrong += len(found)
            finally:
                agent.stop()
    return wrong


def comparisons(s3, agent, service):
    """Yields what is compared, the truth about it, and the wrong claims, or None if the service does not offer it."""
    targets = {}
    for kind in KINDS:
        bucket = f"tests-{kind}"
        if not create_bucket(s3, kind):
            yield kind, None, None
            continue
        truth = truth_of(s3, bucket)
        target = agent.create(service, bucket)
        targets[bucket] = target, truth
        yield kind, truth, list(differences(s3, agent, target, service, bucket, truth))
    yield "restart", None, list(differences_after_restart(s3, agent, targets))
    bucket = "tests-plain"
    target, _ = targets[bucket]
    found = list(differences_of_quota(s3, agent, target, bucket, service)) if service.offers_quota else None
    yield "quota", None, found
    service.grant([bucket for bucket in targets if bucket in USERS_BUCKETS])
    s3 = client(service)
    for bucket, (target, _) in targets.items():
        for name, user in service.users.items() if bucket in USERS_BUCKETS else ():
            rights = rights_of(s3, client(service, user), bucket)
            if not service.checks_digests:
                agent.forget()
                target = agent.create(service, bucket)
            agent.set_user(user)
            yield f"{name} of {bucket}", rights, list(differences_of_user(s3, agent, target, bucket, rights))


def main():
    # The services have their own sessions, so a signal to this process group does not end them. The exit of this program does.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda received, _: sys.exit(128 + received))
    binary, *names = sys.argv[1:]
    unknown = set(names) - set(SERVICES)
    if unknown:
        sys.exit(f"tests/s3-services/run: unknown service {', '.join(unknown)}: expected {', '.join(SERVICES)}")
    wrong = sum(compare(name, binary) for name in names or SERVICES)
    if wrong:
        sys.exit(f"tests/s3-services/run: {wrong} wrong claims of the agent")


main()
