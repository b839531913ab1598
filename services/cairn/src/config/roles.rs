//! From the operator's configuration to what each part takes, and the checks that need several sections at once.

use super::{
    AeConfig, ColdKind, CommitmentReport, Config, ConfigError, ObjectsKind, ServiceName,
    ae::{check_ae_title, host_and_port, titles},
};
use cairn_dicom::CharacterSet;
use cairn_dimse::{
    Destination,
    negotiate::{CallingAes, CommitmentTerms, PeerProfile, Policy, Services},
    pdu::AeTitle,
};
use cairn_ingest::IngestConfig;
use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::Arc,
};

impl Config {
    /// Checks what one section alone can't tell.
    ///
    /// # Errors
    /// [`ConfigError`] that names the key.
    pub fn check(&self) -> Result<(), ConfigError> {
        let wrong = |key: String, message: String| Err(ConfigError::new(key, message));
        if self.site.name.parse::<cairn_archive::SiteId>().is_err() {
            return wrong("site.name".into(), "1 to 64 letters, digits, dots, hyphens and underscores".into());
        }
        for title in [&self.dicom.ae_title].into_iter().chain(&self.dicom.other_ae_titles).chain(self.ae.keys()) {
            check_ae_title(title).map_err(|message| ConfigError::new("AE title", message))?;
        }
        for (title, ae) in &self.ae {
            let key = |field: &str| format!("ae.{title}.{field}");
            if let Some(Err(message)) = ae.address.as_deref().map(host_and_port) {
                return wrong(key("address"), message);
            }
            if let Err(message) = ae.transfer_syntax_uids() {
                return wrong(key("transfer_syntaxes"), message);
            }
            if let Err(message) = ae.titles_seen() {
                return wrong(key("sees_rejected"), message);
            }
        }
        titles(&self.http.dicomweb.sees_rejected)
            .map_err(|message| ConfigError::new("http.dicomweb.sees_rejected", message))?;
        if self.data.partitions == 0 {
            return wrong("data.partitions".into(), "at least 1".into());
        }
        self.stores.check()?;
        self.tiers.check()?;
        self.copies.check()?;
        self.check_buckets()?;
        self.check_replication()?;
        self.check_grpc()?;
        self.check_reach()
    }

    /// No two object stores are in one place of a bucket. What is moved from one to the other is taken from the first: of one under
    /// two names it would be gone. Another endpoint is no proof, because one S3 may have many names.
    pub(super) fn check_buckets(&self) -> Result<(), ConfigError> {
        let is_s3 = self.stores.objects == ObjectsKind::S3;
        let stores = [
            ("s3", is_s3, &self.s3),
            ("tiers.s3", self.tiers.cold == ColdKind::S3, &self.tiers.s3),
            ("copies.s3", self.copies.to == ColdKind::S3, &self.copies.s3),
        ];
        let mut places = BTreeMap::new();
        for (key, _, s3) in stores.into_iter().filter(|(_, is_used, _)| *is_used) {
            if let Some(other) = places.insert((&s3.bucket, &s3.prefix), key) {
                let message = format!("bucket and prefix are those of `[{other}]`: another bucket, or another prefix");
                return Err(ConfigError::new(key, message));
            }
        }
        Ok(())
    }

    /// Other sites have names and addresses, and none is this one.
    fn check_replication(&self) -> Result<(), ConfigError> {
        for (site, peer) in &self.replication.peers {
            let key = |field: &str| format!("replication.peers.{site}{field}");
            if site.parse::<cairn_archive::SiteId>().is_err() {
                return Err(ConfigError::new(
                    key(""),
                    "a site's name is 1 to 64 letters, digits, dots, hyphens and underscores",
                ));
            }
            if *site == self.site.name {
                return Err(ConfigError::new(key(""), "this is the name of this site itself: site.name"));
            }
            peer.check().map_err(|message| ConfigError::new(key(""), message))?;
            if peer.addresses.is_empty() {
                return Err(ConfigError::new(
                    key(".addresses"),
                    "the HOST:PORT of at least one gRPC listener of the site",
                ));
            }
        }
        Ok(())
    }

    /// Plaintext stays on this machine unless the configuration says otherwise.
    fn check_grpc(&self) -> Result<(), ConfigError> {
        let plaintext = self.tls.is_none() && !self.grpc.plaintext_beyond_loopback;
        let remedy = "beyond loopback this needs [tls], or grpc.plaintext_beyond_loopback = true for a network that \
                      nobody else is on";
        if plaintext && !self.grpc.listen.ip().is_loopback() {
            return Err(ConfigError::new("grpc.listen", remedy));
        }
        let peers = &self.peers;
        let services = [
            ("peers.ingest", &peers.ingest),
            ("peers.index", &peers.index),
            ("peers.retrieval", &peers.retrieval),
            ("peers.lifecycle", &peers.lifecycle),
            ("peers.replication", &peers.replication),
        ];
        let services = services.map(|(key, addresses)| (key.to_owned(), addresses));
        let sites = self.replication.peers.iter();
        let sites = sites.map(|(site, peer)| (format!("replication.peers.{site}.addresses"), &peer.addresses));
        for (key, addresses) in services.into_iter().chain(sites) {
            for address in addresses {
                let (host, _) = host_and_port(address).map_err(|message| ConfigError::new(&key, message))?;
                let here = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
                if plaintext && !here {
                    return Err(ConfigError::new(&key, format!("{address}: {remedy}")));
                }
            }
        }
        Ok(())
    }

    /// A listener that others can reach needs a list of who may call, or the word that anyone may.
    fn check_reach(&self) -> Result<(), ConfigError> {
        let open = |listen: &SocketAddr| !listen.ip().is_loopback();
        if open(&self.dicom.listen) && self.ae.is_empty() && self.dicom.accept_unknown_callers.is_none() {
            let message = "beyond loopback this needs [ae.TITLE] sections, or accept_unknown_callers = true \
                           (--accept-unknown-callers) to take any calling AE title";
            return Err(ConfigError::new("dicom.listen", message));
        }
        if open(&self.http.listen) && !self.http.accept_any_client {
            let message = "beyond loopback this needs http.accept_any_client = true (--accept-any-http-client): there is no login yet";
            return Err(ConfigError::new("http.listen", message));
        }
        Ok(())
    }

    /// Whether calling AE titles without a section of their own are admitted.
    pub fn unknown_callers_accepted(&self) -> bool {
        self.dicom.accept_unknown_callers.unwrap_or(self.dicom.listen.ip().is_loopback())
    }

    /// Who may call, and for what.
    pub fn dimse_policy(&self) -> Policy {
        let title = |text: &String| AeTitle::new(text);
        let own = [&self.dicom.ae_title].into_iter().chain(&self.dicom.other_ae_titles);
        let peers = self.ae.iter().filter_map(|(name, ae)| Some((title(name)?, Arc::new(peer_profile(ae)))));
        Policy {
            called_ae_titles: own.filter_map(title).collect(),
            calling: if self.unknown_callers_accepted() { CallingAes::Any } else { CallingAes::Known },
            peers: peers.collect(),
            unknown_storage_classes: self.dicom.accept_unknown_storage_classes,
            patient_study_only: self.dicom.patient_study_only,
            ..Policy::default()
        }
    }

    /// Where C-MOVE sends, by AE title.
    pub fn destinations(&self) -> HashMap<AeTitle, Destination> {
        let destination = |ae: &AeConfig| Some(Destination { address: ae.address.clone()? });
        self.ae.iter().filter_map(|(title, ae)| Some((AeTitle::new(title)?, destination(ae)?))).collect()
    }

    /// The ingest role's configuration with a profile for each Application Entity.
    pub fn ingest_config(&self) -> IngestConfig {
        let mut config = self.ingest.clone();
        for (title, ae) in &self.ae {
            config.profiles.entry(title.clone()).or_insert_with(|| ae.ingest_profile());
        }
        config
    }
}

fn peer_profile(ae: &AeConfig) -> PeerProfile {
    let services = match &ae.services {
        None => Services::ALL,
        Some(named) => Services {
            verification: true,
            storage: named.contains(&ServiceName::Store),
            find: named.contains(&ServiceName::Find),
            move_: named.contains(&ServiceName::Move),
            get: named.contains(&ServiceName::Get),
            commitment: named.contains(&ServiceName::Commitment),
        },
    };
    PeerProfile {
        addresses: ae.addresses.clone(),
        services,
        transfer_syntaxes: ae.transfer_syntax_uids().unwrap_or_default(),
        only_these_transfer_syntaxes: ae.only_these_transfer_syntaxes,
        sees_rejected: ae.titles_seen().unwrap_or_default(),
        default_character_set: character_set(ae),
        commitment: CommitmentTerms {
            confirmed_sites: ae.commitment_sites,
            on_same_association: ae.commitment_report == CommitmentReport::SameAssociation,
        },
    }
}

/// The character set that queries of this AE are read in where they name none.
fn character_set(ae: &AeConfig) -> CharacterSet {
    let value = ae.default_character_set.as_deref().unwrap_or_default();
    CharacterSet::parse(value.as_bytes(), CharacterSet::DEFAULT).0
}
