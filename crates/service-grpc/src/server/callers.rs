//! Whether a caller is the site that it says it is, by the names of its certificate.

use cairn_archive::SiteId;
use rustls_pki_types::{CertificateDer, ServerName};
use std::{collections::BTreeMap, sync::Arc};
use tonic::{Request, Status};
use webpki::EndEntityCert;

/// The names of which a site's certificate must have one. That it chains to the authority was checked before.
#[derive(Clone, Debug, Default)]
pub struct SiteCertificates(Option<Arc<BTreeMap<SiteId, Vec<String>>>>);

impl SiteCertificates {
    /// These sites alone, each by one of its names: DNS names or IP addresses.
    pub fn of(names: BTreeMap<SiteId, Vec<String>>) -> Self {
        Self(Some(Arc::new(names)))
    }

    /// Nobody's certificate is looked at.
    pub fn unchecked() -> Self {
        Self(None)
    }

    /// Whether the caller is this site.
    ///
    /// # Errors
    /// `PermissionDenied`, with the name that was expected.
    pub(super) fn check<T>(&self, request: &Request<T>, site: &SiteId) -> Result<(), Status> {
        let Some(known) = &self.0 else { return Ok(()) };
        // Who is no peer is told so by the service itself.
        let Some(names) = known.get(site) else { return Ok(()) };
        match has_name(request, names) {
            true => Ok(()),
            false => Err(Status::permission_denied(format!(
                "the caller's certificate does not name site {site}: it has to have the DNS name {}",
                names.join(" or ")
            ))),
        }
    }

    /// Whether the caller is one of the sites.
    ///
    /// # Errors
    /// `PermissionDenied`.
    pub(super) fn check_any<T>(&self, request: &Request<T>) -> Result<(), Status> {
        let Some(known) = &self.0 else { return Ok(()) };
        match known.values().any(|names| has_name(request, names)) {
            true => Ok(()),
            false => {
                Err(Status::permission_denied("the caller's certificate names no site that is a peer of this one"))
            }
        }
    }
}

fn has_name<T>(request: &Request<T>, names: &[String]) -> bool {
    let certificates = request.peer_certs();
    let certificate = certificates.as_ref().and_then(|chain| chain.first());
    certificate.is_some_and(|certificate| names.iter().any(|name| is_named(certificate, name)))
}

fn is_named(certificate: &CertificateDer<'_>, name: &str) -> bool {
    let Ok(certificate) = EndEntityCert::try_from(certificate) else { return false };
    let Ok(name) = ServerName::try_from(name) else { return false };
    certificate.verify_is_valid_for_subject_name(&name).is_ok()
}
