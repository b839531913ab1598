use cairn_process::units::{duration, size};
use cairn_store_api::{StoreError, StoreErrorKind, tree::GROUP};
use serde::{Deserialize, Serialize};
use std::{path::PathBuf, time::Duration};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;
/// Parts of an upload that S3 allows.
const PARTS_MAX: u64 = 10_000;
/// Smallest part that S3 allows, but for the last.
const PART_MIN: u64 = 5 * MIB;

/// Which bucket, and how much memory and patience it may take. Without `bucket` it can't be used; all else has a default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct S3Config {
    /// Where the store listens, such as `https://s3.hospital.example`; none: Amazon's, by region.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Region that requests are signed for.
    pub region: String,
    /// Bucket. One bucket and prefix is one archive's.
    pub bucket: String,
    /// Put before every name, such as `cairn/`; may be empty.
    pub prefix: String,
    /// Whether the bucket is made when it is missing.
    pub create_bucket: bool,
    /// Whether the bucket is named in the path rather than in the host's name; what most stores but Amazon's want.
    pub path_style: bool,
    /// TOML file with `access_key_id`, `secret_access_key` and perhaps `session_token`, read again every few minutes; none:
    /// the environment's `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and `AWS_SESSION_TOKEN`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials_file: Option<PathBuf>,
    /// Storage class that objects are put in, such as `STANDARD_IA` or `GLACIER_IR`; none: the bucket's own. One from which objects
    /// must be restored before they are read is refused: nothing could be read back after it was put.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_class: Option<String>,
    /// Days for which an object that a rule of the bucket has put away stays readable once it is restored.
    pub restored_days: u16,
    /// PEM file of certificate authorities that are trusted besides the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// Longest object; at most 10,000 parts.
    #[schemars(with = "String")]
    #[serde(with = "size")]
    pub object_bytes_max: u64,
    /// Objects up to this size are put at once, longer ones in parts of this size. At least 5 MiB.
    #[schemars(with = "String")]
    #[serde(with = "size")]
    pub part_bytes: u64,
    /// Parts of one object that may be on their way while the next one fills; with 0 a writer holds one part at most.
    pub parts_in_flight_max: usize,
    /// Memory for what was received and is not stored yet, over all objects; at least a part's.
    #[schemars(with = "String")]
    #[serde(with = "size")]
    pub memory_bytes_max: u64,
    /// How long a write waits for such memory before it is refused.
    #[schemars(with = "String")]
    #[serde(with = "duration")]
    pub memory_wait_max: Duration,
    /// Writers at work at one time; puts beyond are refused.
    pub writers_max: usize,
    /// Requests waiting for the head of their answer at one time.
    pub requests_max: usize,
    /// Bytes read and verified at once: a multiple of 64 KiB, at most 1 MiB. A reader holds one such buffer.
    #[schemars(with = "String")]
    #[serde(with = "size")]
    pub read_chunk_bytes: u64,
    /// Hashes kept of objects read lately, for those whose hashes are an object of their own.
    #[schemars(with = "String")]
    #[serde(with = "size")]
    pub hash_cache_bytes: u64,
    /// Objects that a listing asks for at one time: S3's own lists don't have our digests.
    pub list_in_flight_max: usize,
    /// How long a connection may take to be made.
    #[schemars(with = "String")]
    #[serde(with = "duration")]
    pub connect_timeout: Duration,
    /// How long one try of a request may take, and how long a read may wait for the next bytes.
    #[schemars(with = "String")]
    #[serde(with = "duration")]
    pub attempt_timeout: Duration,
    /// How long an operation goes on trying; of a writer each part and the finish, of a reader each chunk. Far below the age
    /// at which objects without an event are taken for orphans: an object's put may end this much later than it says.
    #[schemars(with = "String")]
    #[serde(with = "duration")]
    pub deadline: Duration,
    /// First pause before a request is tried again; each next one is up to twice as long, at random below that.
    #[schemars(with = "String")]
    #[serde(with = "duration")]
    pub backoff_min: Duration,
    /// Longest pause.
    #[schemars(with = "String")]
    #[serde(with = "duration")]
    pub backoff_max: Duration,
    /// How often leftovers are looked for and objects are counted anew.
    #[schemars(with = "String")]
    #[serde(with = "duration")]
    pub upkeep_interval: Duration,
    /// Age of uploads and hashes without an object at which they are leftovers of a process that ended. Above the time
    /// that the longest object takes to arrive.
    #[schemars(with = "String")]
    #[serde(with = "duration")]
    pub leftover_age: Duration,
}

impl Default for S3Config {
    fn default() -> Self {
        Self {
            endpoint: None,
            region: "us-east-1".into(),
            bucket: String::new(),
            prefix: String::new(),
            create_bucket: false,
            path_style: true,
            credentials_file: None,
            storage_class: None,
            restored_days: 7,
            ca_file: None,
            object_bytes_max: 64 * GIB,
            part_bytes: 8 * MIB,
            parts_in_flight_max: 2,
            memory_bytes_max: 256 * MIB,
            memory_wait_max: Duration::from_secs(30),
            writers_max: 1024,
            requests_max: 128,
            read_chunk_bytes: 256 * KIB,
            hash_cache_bytes: 8 * MIB,
            list_in_flight_max: 16,
            connect_timeout: Duration::from_secs(3),
            attempt_timeout: Duration::from_secs(20),
            deadline: Duration::from_secs(60),
            backoff_min: Duration::from_millis(50),
            backoff_max: Duration::from_secs(5),
            upkeep_interval: Duration::from_secs(3600),
            leftover_age: Duration::from_secs(2 * 24 * 3600),
        }
    }
}

impl S3Config {
    /// The defaults, with this bucket.
    pub fn new(bucket: impl Into<String>) -> Self {
        Self { bucket: bucket.into(), ..Self::default() }
    }

    pub(crate) fn check(&self) -> Result<(), StoreError> {
        let invalid = |what: &str| Err(StoreError::new(StoreErrorKind::Invalid, format!("S3 configuration: {what}")));
        if self.bucket.is_empty() {
            return invalid("bucket is missing");
        }
        if self.storage_class.as_deref().is_some_and(|class| matches!(class, "GLACIER" | "DEEP_ARCHIVE")) {
            return invalid(
                "storage_class: from GLACIER and DEEP_ARCHIVE nothing can be read back; a rule of the bucket may move objects there later",
            );
        }
        if self.restored_days == 0 {
            return invalid("restored_days must be at least 1");
        }
        if self.part_bytes < PART_MIN || self.part_bytes > GIB {
            return invalid("part_bytes must be at least 5 MiB and at most 1 GiB");
        }
        if self.object_bytes_max > PARTS_MAX * self.part_bytes {
            return invalid("object_bytes_max must be at most 10,000 parts");
        }
        if self.memory_bytes_max < self.part_bytes || self.memory_bytes_max > 1024 * GIB {
            return invalid("memory_bytes_max must be at least part_bytes, at most 1 TiB");
        }
        let group = GROUP as u64;
        if self.read_chunk_bytes == 0 || !self.read_chunk_bytes.is_multiple_of(group) || self.read_chunk_bytes > MIB {
            return invalid("read_chunk_bytes must be a multiple of 64 KiB, at most 1 MiB");
        }
        let counts = [self.writers_max, self.requests_max, self.list_in_flight_max];
        if counts.contains(&0) || self.writers_max > 1 << 20 || self.requests_max > 1 << 20 {
            return invalid("writers_max, requests_max and list_in_flight_max must be at least 1");
        }
        let times = [self.connect_timeout, self.attempt_timeout, self.deadline, self.backoff_min, self.upkeep_interval];
        if times.contains(&Duration::ZERO)
            || self.backoff_max < self.backoff_min
            || self.attempt_timeout > self.deadline
        {
            return invalid(
                "times must be longer than nothing, backoff_min at most backoff_max, attempt_timeout at most deadline",
            );
        }
        Ok(())
    }
}
