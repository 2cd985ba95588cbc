"""Sends the requests of the agent's checks, with boto3 or with `aws s3api` in a shell loop.

usage: sweep.py create|boto3|shell ENDPOINT BUCKET...

create creates the buckets. The others print one JSON object: the wall time of the sweep in seconds, without
the start of the program; the processor seconds of the sweep, and with the start of the program; the peak
resident memory in KiB; and the number of requests. Credentials come from the environment.
"""

import json
import resource
import shlex
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

THREADS = 16


def client(endpoint):
    import boto3
    from botocore.config import Config

    config = Config(
        retries={"total_max_attempts": 1},
        max_pool_connections=THREADS,
        s3={"addressing_style": "path"},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    return boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", config=config)


def by_boto3(endpoint, buckets):
    from botocore.exceptions import ClientError

    s3 = client(endpoint)
    sent = []
    s3.meta.events.register("before-send.s3", lambda **_: sent.append(1) and None)

    def check(bucket):
        s3.head_bucket(Bucket=bucket)
        try:
            s3.get_object_lock_configuration(Bucket=bucket)
        except ClientError as error:
            if error.response["Error"]["Code"] != "ObjectLockConfigurationNotFoundError":
                raise
        s3.get_bucket_versioning(Bucket=bucket)

    began, busy = time.monotonic(), time.process_time()
    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(check, buckets):
            pass
    seconds, sweep = time.monotonic() - began, time.process_time() - busy
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "seconds": seconds,
        "cpu_sweep": sweep,
        "cpu_all": time.process_time(),
        "peak_kib": peak,
        "requests": len(sent),
    }


def by_shell(endpoint, buckets):
    aws = f"{shlex.quote(sys.prefix)}/bin/aws --endpoint-url {shlex.quote(endpoint)} --region us-east-1 s3api"
    script = f"""
    for bucket in {" ".join(map(shlex.quote, buckets))}; do
      {aws} head-bucket --bucket "$bucket" >/dev/null || exit 1
      {aws} get-object-lock-configuration --bucket "$bucket" >/dev/null 2>&1
      {aws} get-bucket-versioning --bucket "$bucket" >/dev/null || exit 1
    done
    """
    began = time.monotonic()
    subprocess.run(["sh", "-c", script], check=True)
    seconds = time.monotonic() - began
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = usage.ru_utime + usage.ru_stime
    return {
        "seconds": seconds,
        "cpu_sweep": busy,
        "cpu_all": busy,
        "peak_kib": usage.ru_maxrss,
        "requests": 3 * len(buckets),
    }


def main():
    command, endpoint, *buckets = sys.argv[1:]
    if command == "create":
        s3 = client(endpoint)
        for bucket in buckets:
            s3.create_bucket(Bucket=bucket)
        return
    print(json.dumps({"boto3": by_boto3, "shell": by_shell}[command](endpoint, buckets)))


main()
