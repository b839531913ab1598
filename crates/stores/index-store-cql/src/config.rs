use cairn_process::units;
use cairn_store_api::{StoreError, StoreErrorKind};
use scylla::statement::{Consistency, SerialConsistency};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt, time::Duration};

/// How many replicas answer before a read or write counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ConsistencyLevel {
    /// A majority of the replicas of all data centres.
    Quorum,
    /// A majority of the replicas of the local data centre. All index processes must then be in that data centre.
    LocalQuorum,
    /// Every replica.
    All,
}

impl ConsistencyLevel {
    pub(crate) fn of_rows(self) -> Consistency {
        match self {
            Self::Quorum => Consistency::Quorum,
            Self::LocalQuorum => Consistency::LocalQuorum,
            Self::All => Consistency::All,
        }
    }

    pub(crate) fn of_transactions(self) -> SerialConsistency {
        match self {
            Self::LocalQuorum => SerialConsistency::LocalSerial,
            Self::Quorum | Self::All => SerialConsistency::Serial,
        }
    }
}

/// A text that is read from the configuration, and neither written out with it nor shown by `Debug`.
#[derive(Clone, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The text itself.
    pub(crate) fn text(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// Where the cluster is and how much is asked of it. Every field has a default; unknown keys are refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CqlIndexConfig {
    /// Nodes to ask for the others first, as `host:port`.
    pub contact_points: Vec<String>,
    /// Keyspace: lower case letters, digits and underscores, at most 48.
    pub keyspace: String,
    /// Copies of each row in each data centre, by the data centre's name. Used when the keyspace is made.
    pub copies_by_datacenter: BTreeMap<String, u16>,
    /// Copies of each row where no data centre is named. Used when the keyspace is made.
    pub copies: u16,
    /// The data centre that is asked first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local_datacenter: Option<String>,
    /// How many replicas answer.
    pub consistency: ConsistencyLevel,
    /// User name; none: no log-in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Password of the user.
    #[serde(skip_serializing)]
    pub password: Option<Secret>,
    /// Longest wait for a connection.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub connect_timeout: Duration,
    /// Longest wait for one answer.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub request_timeout: Duration,
    /// Time after which a call fails, attempts and pauses together.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub deadline: Duration,
    /// Longest wait for tables to be made or dropped on every node.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub schema_timeout: Duration,
    /// First pause before another attempt; it doubles up to `retry_pause_max`.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub retry_pause: Duration,
    /// Longest pause between attempts.
    #[schemars(with = "String")]
    #[serde(with = "units::duration")]
    pub retry_pause_max: Duration,
    /// Rows of one batch.
    pub batch_rows_max: u16,
    /// Bytes of one batch; a longer row goes alone.
    #[schemars(with = "String")]
    #[serde(with = "units::size")]
    pub batch_bytes_max: u32,
    /// Batches of one commit under way at the same time.
    pub batches_in_flight_max: u16,
    /// Rows asked for at once by a scan.
    pub page_rows_max: u16,
    /// Point reads of one call under way at the same time.
    pub reads_in_flight_max: u16,
}

impl Default for CqlIndexConfig {
    fn default() -> Self {
        Self {
            contact_points: vec!["127.0.0.1:9042".into()],
            keyspace: "cairn_index".into(),
            copies_by_datacenter: BTreeMap::new(),
            copies: 3,
            local_datacenter: None,
            consistency: ConsistencyLevel::LocalQuorum,
            user: None,
            password: None,
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(5),
            deadline: Duration::from_secs(15),
            schema_timeout: Duration::from_secs(60),
            retry_pause: Duration::from_millis(50),
            retry_pause_max: Duration::from_secs(1),
            batch_rows_max: 100,
            batch_bytes_max: 256 << 10,
            batches_in_flight_max: 64,
            page_rows_max: 256,
            reads_in_flight_max: 64,
        }
    }
}

impl CqlIndexConfig {
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        let invalid =
            |what: &str| Err(StoreError::new(StoreErrorKind::Invalid, format!("index store over cql: {what}")));
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        let begins = self.keyspace.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
        if !begins || self.keyspace.len() > 48 || !self.keyspace.bytes().all(plain) {
            return invalid(
                "keyspace must be of lower case letters, digits and underscores, begin with a letter, and be of at most 48",
            );
        }
        let named = |name: &String| {
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
        };
        if !self.copies_by_datacenter.keys().all(named) {
            return invalid("names of data centres are of letters, digits, dots, dashes and underscores");
        }
        if self.contact_points.is_empty()
            || self.copies == 0
            || self.copies_by_datacenter.values().any(|copies| *copies == 0)
        {
            return invalid("contact points and copies must not be none");
        }
        let bounds = [self.batch_rows_max, self.batches_in_flight_max, self.page_rows_max, self.reads_in_flight_max];
        if bounds.contains(&0) || self.batch_bytes_max == 0 {
            return invalid("bounds must not be 0");
        }
        Ok(())
    }

    /// The replication of the keyspace as CQL writes it.
    pub(crate) fn replication(&self) -> String {
        if self.copies_by_datacenter.is_empty() {
            return format!("{{'class': 'SimpleStrategy', 'replication_factor': {}}}", self.copies);
        }
        let of = self.copies_by_datacenter.iter().map(|(name, copies)| format!(", '{name}': {copies}"));
        format!("{{'class': 'NetworkTopologyStrategy'{}}}", of.collect::<String>())
    }
}

/// Longest partition key and longest clustering key.
pub(crate) const KEY_BYTES_MAX: usize = 1 << 10;
/// Longest row value.
pub(crate) const VALUE_BYTES_MAX: usize = 1 << 20;
/// Longest note.
pub(crate) const NOTE_BYTES_MAX: usize = 1 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_read_and_never_shown() {
        let password = Some(Secret("hunter2".into()));
        let config = CqlIndexConfig { user: Some("cairn".into()), password, ..CqlIndexConfig::default() };
        assert_eq!(config.password.as_ref().map(Secret::text), Some("hunter2"));
        assert!(!format!("{config:?}").contains("hunter2"));
    }

    #[test]
    fn what_goes_into_statements_is_checked() {
        assert!(CqlIndexConfig::default().check().is_ok());
        for keyspace in ["", "Upper", "a;b", "1a", &"a".repeat(49)] {
            assert!(CqlIndexConfig { keyspace: keyspace.into(), ..CqlIndexConfig::default() }.check().is_err());
        }
        let by = |name: &str| CqlIndexConfig {
            copies_by_datacenter: [(name.to_owned(), 3)].into(),
            ..CqlIndexConfig::default()
        };
        assert!(by("east'").check().is_err());
        assert!(by("east-1").check().is_ok());
        assert_eq!(by("east-1").replication(), "{'class': 'NetworkTopologyStrategy', 'east-1': 3}");
        assert!(CqlIndexConfig { batch_rows_max: 0, ..CqlIndexConfig::default() }.check().is_err());
    }
}
