//! What puts and reads of 526 KiB cost, beside a client that knows nothing of the store, in turns: `measure_s3 ENDPOINT CREDENTIALS_FILE`.
#![allow(clippy::unwrap_used)]

use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region, RequestChecksumCalculation};
use aws_sdk_s3::{Client, Config};
use bytes::Bytes;
use cairn_archive::ObjectKey;
use cairn_object_store_s3::{S3Config, S3Store};
use cairn_process::clock::SystemClock;
use cairn_store_api::{ObjectRef, ObjectStore};
use futures_util::{StreamExt, TryStreamExt, stream};
use std::{future::Future, path::PathBuf, sync::Arc, time::Instant};

const SIZE: usize = 526 * 1024;
const COUNT: usize = 400;
const BUCKET: &str = "cairn-measure";

/// CPU time of this process in milliseconds, by the kernel's ticks of 10.
fn cpu_ms() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) * 10.0
}

async fn measure<F: Future<Output = ()>>(what: &str, in_flight: usize, run: impl Fn() -> F) {
    let (begun, cpu) = (Instant::now(), cpu_ms());
    stream::iter(0..COUNT).map(|_| run()).buffer_unordered(in_flight).collect::<Vec<()>>().await;
    let (rate, cpu) = (COUNT as f64 / begun.elapsed().as_secs_f64(), (cpu_ms() - cpu) / COUNT as f64);
    println!("{what}, {in_flight} in flight: {rate:.0}/s, {cpu:.2} ms CPU each");
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let (endpoint, file) = (arguments.next().unwrap(), PathBuf::from(arguments.next().unwrap()));
    let secrets: toml::Table = toml::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    let secret = |name: &str| secrets[name].as_str().unwrap().to_owned();
    let config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .endpoint_url(&endpoint)
        .force_path_style(true)
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .credentials_provider(Credentials::new(secret("access_key_id"), secret("secret_access_key"), None, None, "m"))
        .http_client(aws_smithy_http_client::Builder::new().build_http());
    let bare = Client::from_conf(config.build());
    let config = S3Config {
        endpoint: Some(endpoint),
        credentials_file: Some(file),
        create_bucket: true,
        ..S3Config::new(BUCKET)
    };
    let store = Arc::new(S3Store::open(config, Arc::new(SystemClock::new())).await.unwrap());
    let content = Bytes::from((0..SIZE).map(|at| (at * 7 + at / 251) as u8).collect::<Vec<u8>>());
    let digest = cairn_archive::Digest(*blake3::hash(&content).as_bytes());
    let new_key = || ObjectKey(uuid::Uuid::now_v7());
    for _ in 0..3 {
        for in_flight in [1, 8] {
            measure("bare put", in_flight, || async {
                let put =
                    bare.put_object().bucket(BUCKET).key(format!("bare/{}", new_key())).body(content.clone().into());
                put.customize().disable_payload_signing().send().await.unwrap();
            })
            .await;
            measure("put", in_flight, || async {
                let mut writer = store.put(new_key(), None).await.unwrap();
                for piece in content.chunks(16_372) {
                    writer.write(content.slice_ref(piece)).await.unwrap();
                }
                writer.finish().await.unwrap();
            })
            .await;
        }
    }
    let page = store.list(None, 1).await.unwrap();
    let object = page.objects[0].object;
    assert_eq!(object, ObjectRef { digest, length: SIZE as u64, ..object });
    for in_flight in [1, 8] {
        measure("read whole", in_flight, || async {
            let read = store.read(&object, 0..object.length).await.unwrap();
            read.try_for_each(|_| async { Ok(()) }).await.unwrap();
        })
        .await;
        measure("read 20 kB", in_flight, || async {
            let read = store.read(&object, 200_000..220_000).await.unwrap();
            read.try_for_each(|_| async { Ok(()) }).await.unwrap();
        })
        .await;
    }
    store.close().await.unwrap();
}
