use crate::proxy::{Fault, Proxy};
use async_trait::async_trait;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region, RequestChecksumCalculation};
use aws_sdk_s3::{Client, Config};
use cairn_conformance::object_store::{Faults, ObjectStoreBackend};
use cairn_object_store_s3::{S3Config, S3Store};
use cairn_process::clock::SystemClock;
use cairn_store_api::{ObjectStore, StoreError};
use std::{
    collections::HashMap,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

/// One for all trials: buckets are dear to some stores. Each trial has its prefix.
const BUCKET: &str = "cairn-trials";

/// Where S3 is: from the environment, else from what the engines' tool wrote.
pub(crate) struct Place {
    pub(crate) endpoint: String,
    access_key: String,
    secret_key: String,
}

impl Place {
    pub(crate) fn find() -> Self {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../target/engines/endpoints.env");
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let written: HashMap<&str, &str> = text
            .lines()
            .filter_map(|line| line.trim().trim_start_matches("export ").split_once('='))
            .map(|(name, value)| (name, value.trim_matches(['"', '\''])))
            .collect();
        let get = |name: &str| {
            let set = std::env::var(name).ok().or_else(|| written.get(name).map(|value| (*value).to_owned()));
            set.unwrap_or_else(|| panic!("no {name}: run tools/engines start"))
        };
        Self {
            endpoint: get("CAIRN_TEST_S3"),
            access_key: get("CAIRN_TEST_S3_ACCESS_KEY"),
            secret_key: get("CAIRN_TEST_S3_SECRET_KEY"),
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.endpoint.trim_start_matches("http://").trim_end_matches('/').parse().unwrap()
    }

    /// A client that knows nothing of the store.
    pub(crate) fn client(&self) -> Client {
        let config = Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .endpoint_url(&self.endpoint)
            .force_path_style(true)
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .credentials_provider(Credentials::new(&self.access_key, &self.secret_key, None, None, "trial"))
            .http_client(aws_smithy_http_client::Builder::new().build_http());
        Client::from_conf(config.build())
    }
}

/// A prefix of the trial's own.
pub(crate) struct Bucket {
    pub(crate) place: Place,
    pub(crate) prefix: String,
    credentials: tempfile::TempDir,
    /// The proxy of the store that is open; none: the store is asked directly.
    proxy: Option<Mutex<Option<Arc<Proxy>>>>,
}

impl Bucket {
    pub(crate) fn new(faults: bool) -> Self {
        let place = Place::find();
        let credentials = tempfile::tempdir().unwrap();
        let Place { access_key, secret_key, .. } = &place;
        let text = format!("access_key_id = '{access_key}'\nsecret_access_key = '{secret_key}'\n");
        std::fs::write(credentials.path().join("s3.toml"), text).unwrap();
        let prefix = format!("{}/", uuid::Uuid::now_v7().simple());
        Self { place, prefix, credentials, proxy: faults.then(Mutex::default) }
    }

    pub(crate) fn config(&self, address: SocketAddr) -> S3Config {
        S3Config {
            endpoint: Some(format!("http://{address}")),
            prefix: self.prefix.clone(),
            create_bucket: true,
            credentials_file: Some(self.credentials.path().join("s3.toml")),
            // Small, so that trials cross parts.
            part_bytes: 5 << 20,
            parts_in_flight_max: 0,
            object_bytes_max: 1 << 30,
            memory_bytes_max: 64 << 20,
            attempt_timeout: Duration::from_secs(10),
            deadline: Duration::from_secs(20),
            ..S3Config::new(BUCKET)
        }
    }

    pub(crate) async fn open_with(&self, config: S3Config) -> Result<Arc<S3Store>, StoreError> {
        Ok(Arc::new(S3Store::open(config, Arc::new(SystemClock::new())).await?))
    }

    pub(crate) fn proxy(&self) -> Arc<Proxy> {
        self.proxy.as_ref().unwrap().lock().unwrap().clone().unwrap()
    }

    /// Where the next store finds S3.
    pub(crate) async fn address(&self) -> SocketAddr {
        let Some(current) = &self.proxy else { return self.place.address() };
        let proxy = Arc::new(Proxy::start(self.place.address()).await);
        *current.lock().unwrap() = Some(proxy.clone());
        proxy.address
    }

    /// All names of the trial.
    pub(crate) async fn names(&self) -> Vec<String> {
        let (client, mut names, mut after) = (self.place.client(), Vec::new(), None);
        loop {
            let list = client.list_objects_v2().bucket(BUCKET).prefix(&self.prefix).set_start_after(after);
            let listed = list.send().await.unwrap();
            names.extend(listed.contents().iter().filter_map(|object| object.key().map(str::to_owned)));
            after = names.last().cloned();
            if !listed.is_truncated.unwrap_or(false) {
                return names;
            }
        }
    }

    /// Uploads of the trial that were begun and not ended.
    pub(crate) async fn uploads(&self) -> usize {
        let listed = self.place.client().list_multipart_uploads().bucket(BUCKET).prefix(&self.prefix).send();
        let listed = listed.await.unwrap();
        let ours = |name: Option<&str>| name.is_some_and(|name| name.starts_with(&self.prefix));
        listed.uploads().iter().filter(|upload| ours(upload.key())).count()
    }

    /// Changes the bytes of a stored object and nothing else of it.
    pub(crate) async fn change(&self, name: &str, change: impl Fn(&mut Vec<u8>) -> bool) -> bool {
        let client = self.place.client();
        let got = client.get_object().bucket(BUCKET).key(name).send().await.unwrap();
        let metadata = got.metadata.clone();
        let mut content = got.body.collect().await.unwrap().to_vec();
        let changed = change(&mut content);
        if changed {
            let put = client.put_object().bucket(BUCKET).key(name).set_metadata(metadata);
            put.body(content.into()).send().await.unwrap();
        }
        changed
    }
}

#[async_trait]
impl ObjectStoreBackend for Bucket {
    async fn open(&self) -> Result<Arc<dyn ObjectStore>, StoreError> {
        let config = self.config(self.address().await);
        Ok(self.open_with(config).await?)
    }

    fn faults(&self) -> Faults {
        // Many processes share a bucket: there is nothing to be exclusive about.
        let faults = self.proxy.is_some();
        Faults { crash: faults, full: faults, damage: true, stall: faults, exclusive: false }
    }

    /// What a machine's crash is to S3: connections that end wherever they are, and nobody behind them.
    async fn crash(&self) {
        self.proxy().end();
    }

    async fn fill(&self, full: bool) {
        let mut puts = 0;
        self.proxy().rule(move |request| {
            puts += i32::from(request.starts_with("PUT "));
            if full && request.starts_with("PUT ") && puts > 3 {
                Fault::Answer(507, "InsufficientStorage")
            } else {
                Fault::None
            }
        });
    }

    async fn damage(&self, bytes: &[u8]) {
        for name in self.names().await.into_iter().filter(|name| name.contains("/objects/")) {
            let found = self.change(&name, |content| {
                let at = content.windows(bytes.len()).position(|window| window == bytes);
                at.inspect(|at| content[*at] ^= 1).is_some()
            });
            if found.await {
                return;
            }
        }
        panic!("no object holds these bytes");
    }

    async fn stall(&self, stalled: bool) {
        self.proxy().stall(stalled);
    }
}
