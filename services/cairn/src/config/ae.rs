//! Application Entities: who may call, what is assumed of them, where C-MOVE and reports of storage commitment go.

use cairn_archive::rejection::{RejectionTitle, Titles};
use cairn_dicom::Uid;
use cairn_ingest::config::{ProfileConfig, ResendPolicyConfig};
use serde::{Deserialize, Serialize};
use std::{net::IpAddr, str::FromStr};

/// One Application Entity. Everything is optional: `[ae.CT1]` alone admits it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AeConfig {
    /// Addresses that it may call from; none: any.
    pub addresses: Vec<IpAddr>,
    /// Services offered to it. Unset: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub services: Option<Vec<ServiceName>>,
    /// Transfer syntaxes preferred for storage, best first, as UIDs; others follow in the default order.
    pub transfer_syntaxes: Vec<String>,
    /// Take no transfer syntax but the ones named.
    pub only_these_transfer_syntaxes: bool,
    /// `HOST:PORT` that C-MOVE sends to under this title, and that reports of storage commitment go to. Unset: not a
    /// destination.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Issuer of Patient ID where its data sets name none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer_of_patient_id: Option<String>,
    /// Character set where its data sets name none: a value of Specific Character Set (PS3.3 C.12.1.1.2).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_character_set: Option<String>,
    /// Time zone where its data sets name none, as Timezone Offset From UTC (`+0100`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// What happens when an instance differs from the one that is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resend_policy: Option<ResendPolicyConfig>,
    /// Other sites that must hold an instance before it hears of success.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confirmed_sites: Option<u32>,
    /// Titles of rejection notes, as Code Values in DCM, that hide nothing from it: in C-FIND, C-MOVE and C-GET it sees what is
    /// rejected under these alone. IHE lets what is rejected for quality reasons (113001) be seen.
    pub sees_rejected: Vec<String>,
    /// Other sites that must hold an instance before it is committed to this AE.
    pub commitment_sites: u32,
    /// On which association it is told what is committed.
    pub commitment_report: CommitmentReport,
}

/// On which association a requester of storage commitment is told of the decision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CommitmentReport {
    /// On one that the archive opens to `address`; without an address requests are refused.
    #[default]
    NewAssociation,
    /// On its own while that stands, else on one that the archive opens to `address`.
    SameAssociation,
}

/// A service that can be offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ServiceName {
    /// C-STORE
    Store,
    /// C-FIND
    Find,
    /// C-MOVE
    Move,
    /// C-GET
    Get,
    /// Storage commitment
    Commitment,
}

impl AeConfig {
    /// What ingest assumes of it.
    pub fn ingest_profile(&self) -> ProfileConfig {
        ProfileConfig {
            issuer_of_patient_id: self.issuer_of_patient_id.clone(),
            default_character_set: self.default_character_set.clone(),
            time_zone: self.time_zone.clone(),
            resend_policy: self.resend_policy,
            confirmed_sites: self.confirmed_sites,
            ..ProfileConfig::default()
        }
    }

    /// The titles that hide nothing from it.
    ///
    /// # Errors
    /// The text that is no title's code.
    pub fn titles_seen(&self) -> Result<Titles, String> {
        titles(&self.sees_rejected)
    }

    /// The transfer syntaxes as UIDs.
    ///
    /// # Errors
    /// The text that is no UID.
    pub fn transfer_syntax_uids(&self) -> Result<Vec<Uid>, String> {
        self.transfer_syntaxes.iter().map(|text| text.parse().map_err(|_| format!("{text:?} is no UID"))).collect()
    }
}

/// Titles of rejection notes by their codes.
///
/// # Errors
/// The text that is none.
pub fn titles(codes: &[String]) -> Result<Titles, String> {
    let none = |code: &String| format!("{code:?} is no title of a rejection note: 113001, 113037, 113038 or 113039");
    codes.iter().map(|code| RejectionTitle::of_code(code).ok_or_else(|| none(code))).collect()
}

/// A C-MOVE destination as the command line gives it: `AE=HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// AE title.
    pub ae_title: String,
    /// `HOST:PORT`.
    pub address: String,
}

impl FromStr for Destination {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (ae_title, address) = text.split_once('=').ok_or("expected AE=HOST:PORT")?;
        check_ae_title(ae_title)?;
        host_and_port(address)?;
        Ok(Self { ae_title: ae_title.into(), address: address.into() })
    }
}

/// Whether a text can be an AE title: 1 to 16 printable characters, no backslash, not only spaces (PS3.5 section 6.2).
///
/// # Errors
/// Why not.
pub fn check_ae_title(title: &str) -> Result<(), String> {
    let printable = |b: u8| (0x20..0x7F).contains(&b) && b != b'\\';
    if title.is_empty() || title.len() > 16 || !title.bytes().all(printable) || title.trim() != title {
        return Err(format!("{title:?} is no AE title: 1 to 16 printable characters, without spaces around"));
    }
    Ok(())
}

/// Splits `HOST:PORT`.
///
/// # Errors
/// Why it is none.
pub fn host_and_port(address: &str) -> Result<(String, u16), String> {
    let (host, port) = address.rsplit_once(':').ok_or_else(|| format!("{address:?} is not HOST:PORT"))?;
    let port = port.parse().map_err(|_| format!("{address:?} has no port number"))?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() {
        return Err(format!("{address:?} has no host"));
    }
    Ok((host.into(), port))
}
