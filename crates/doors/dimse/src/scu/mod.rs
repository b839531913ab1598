//! What we ask of other archives, as SCU: to store instances (C-STORE), to say what they have (C-FIND), and to give it
//! (C-GET, C-MOVE). PS3.4 annexes B and C, PS3.7 section 9, edition 2025c. And what we tell those who asked for storage
//! commitment (N-EVENT-REPORT), over associations of ours: PS3.4 annex J.

mod commitment;
mod get;
mod query;
mod store;

pub use commitment::report_commitment;
pub use get::{GetScu, Given, Taker};
pub use query::{Moved, QueryScu};
pub use store::{StoreAnswer, StoreScu};

use crate::{
    Association, AssociationError, Implementation, Limits, Status,
    pdu::{AeTitle, RoleSelection},
    requestor::{Request, connect},
    services::plan::Contexts,
};
use cairn_dicom::{TransferSyntax, Uid};
use cairn_service_api::Error;
use query::skip;

/// Study Root Query/Retrieve Information Model, FIND, MOVE and GET (PS3.4 annex C.6.2).
const STUDY_ROOT_FIND: &str = "1.2.840.10008.5.1.4.1.2.2.1";
const STUDY_ROOT_MOVE: &str = "1.2.840.10008.5.1.4.1.2.2.2";
const STUDY_ROOT_GET: &str = "1.2.840.10008.5.1.4.1.2.2.3";

/// Where another archive is, and who we are to it.
#[derive(Clone, Debug)]
pub struct Remote {
    /// Host and port.
    pub address: String,
    /// Its AE title.
    pub called: AeTitle,
    /// Ours.
    pub calling: AeTitle,
    /// Bounds and timeouts.
    pub limits: Limits,
    /// What we say we are.
    pub implementation: Implementation,
}

/// Why an archive did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ScuError {
    /// There is no association, or it broke; another one may do.
    #[error(transparent)]
    Association(#[from] AssociationError),
    /// It answered with a failure.
    #[error("{0} failed with status {1}")]
    Failed(&'static str, Status),
    /// It does not speak the service class.
    #[error("the archive accepts no presentation context for {0}")]
    NotSpoken(&'static str),
    /// It answered what can't be read, or more than is taken.
    #[error("{0}")]
    Unusable(&'static str),
    /// What was to be sent could not be had.
    #[error(transparent)]
    Source(#[from] Error),
}

impl ScuError {
    /// Whether the same may succeed over another association.
    pub fn is_of_the_connection(&self) -> bool {
        matches!(self, Self::Association(error) if !matches!(error, AssociationError::Rejected(_)))
            || matches!(self, Self::Association(AssociationError::Rejected(rejected)) if rejected.result == 2)
    }
}

impl Remote {
    async fn associate(&self, contexts: Contexts, roles: Vec<RoleSelection>) -> Result<Association, AssociationError> {
        let transport = connect(&self.address, &self.limits).await?;
        let request =
            Request { calling_ae_title: self.calling.clone(), called_ae_title: self.called.clone(), contexts, roles };
        Association::request(transport, &request, &self.limits, &self.implementation).await
    }

    /// C-ECHO over an association of its own.
    ///
    /// # Errors
    /// [`ScuError`]
    pub async fn echo(&self) -> Result<Status, ScuError> {
        let class = uid("1.2.840.10008.1.1")?;
        let mut association = self.associate(vec![(class, plain())], Vec::new()).await?;
        let status = association.echo().await?;
        association.release().await?;
        Ok(status)
    }
}

/// The transfer syntaxes that every query and uncompressed object can go in.
fn plain() -> Vec<Uid> {
    let plain = [TransferSyntax::EXPLICIT_VR_LITTLE_ENDIAN, TransferSyntax::IMPLICIT_VR_LITTLE_ENDIAN];
    plain.iter().filter_map(|syntax| syntax.uid().parse().ok()).collect()
}

fn uid(text: &str) -> Result<Uid, ScuError> {
    text.parse().map_err(|_| ScuError::Unusable("SOP Class UID can not be used"))
}
