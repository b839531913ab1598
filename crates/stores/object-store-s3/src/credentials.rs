//! Who we are to the store: from a file or the environment, read again now and then, so that keys can be exchanged while
//! the archive runs. The secret is in no log and no error.

use aws_sdk_s3::config::{Credentials, ProvideCredentials};
use serde::Deserialize;
use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// Credentials are read again after this time.
const VALID: Duration = Duration::from_secs(300);

#[derive(Debug)]
pub(crate) enum Source {
    File(PathBuf),
    Environment,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Secrets {
    access_key_id: String,
    secret_access_key: String,
    session_token: Option<String>,
}

/// The reason names file and key, never what the file holds.
fn from_file(path: &Path) -> Result<Secrets, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    toml::from_str(&text).map_err(|_| {
        format!("{} needs access_key_id, secret_access_key and at most session_token, as TOML strings", path.display())
    })
}

fn from_environment() -> Result<Secrets, String> {
    let get = |name: &str| std::env::var(name).map_err(|_| format!("environment has no {name}"));
    Ok(Secrets {
        access_key_id: get("AWS_ACCESS_KEY_ID")?,
        secret_access_key: get("AWS_SECRET_ACCESS_KEY")?,
        session_token: get("AWS_SESSION_TOKEN").ok(),
    })
}

impl Source {
    /// Reads them now. Blocking.
    pub(crate) fn read(&self) -> Result<Credentials, String> {
        let (secrets, name) = match self {
            Self::File(path) => (from_file(path)?, "file"),
            Self::Environment => (from_environment()?, "environment"),
        };
        let until = SystemTime::now() + VALID;
        let Secrets { access_key_id, secret_access_key, session_token } = secrets;
        Ok(Credentials::new(access_key_id, secret_access_key, session_token, Some(until), name))
    }
}

impl ProvideCredentials for Source {
    fn provide_credentials<'a>(&'a self) -> aws_credential_types::provider::future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        // A few hundred bytes of a local file.
        let read = self.read().map_err(aws_credential_types::provider::error::CredentialsError::not_loaded);
        aws_credential_types::provider::future::ProvideCredentials::ready(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_read_from_a_file_and_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s3.toml");
        std::fs::write(&path, "access_key_id = 'AKIA'\nsecret_access_key = 'very-secret'\n").unwrap();
        let source = Source::File(path.clone());
        let credentials = source.read().unwrap();
        assert_eq!((credentials.access_key_id(), credentials.secret_access_key()), ("AKIA", "very-secret"));
        assert!(!format!("{source:?} {credentials:?}").contains("very-secret"));
        std::fs::write(&path, "access_key_id = 'AKIA'\nsecret_access_key = very-secret\n").unwrap();
        assert!(!source.read().unwrap_err().contains("very-secret"));
    }
}
