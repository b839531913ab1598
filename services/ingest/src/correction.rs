//! Corrections of attributes, and what operators take back.

use crate::{
    append::{Appender, Context},
    service::Service,
};
use bytes::Bytes;
use cairn_archive::{
    Position,
    correction::{BadCorrection, check, encode},
    events::{AttributesCorrected, CorrectionProtected, CorrectionRevoked, Event},
};
use cairn_service_api::{
    Error, ErrorKind, Index,
    correction::{Correction, CorrectionRevocation},
    index::{Detail, Selection},
};
use futures_util::StreamExt;
use prost::Message;

/// Bytes of a reason at most.
const REASON_BYTES_MAX: usize = 4 << 10;

impl Service {
    /// Records a correction.
    pub(crate) async fn correct(&self, correction: Correction) -> Result<Position, Error> {
        self.appender.check_clock()?;
        check(&correction.elements).map_err(invalid)?;
        check_reason(&correction.reason)?;
        if let Some(index) = &self.index {
            self.check_is_there(index.as_ref(), &correction).await?;
        }
        let protected = CorrectionProtected { elements: encode(&correction.elements), reason: correction.reason };
        let uid = |uid: Option<cairn_dicom::Uid>| uid.map(|uid| uid.to_string()).unwrap_or_default();
        let event = Event::AttributesCorrected(Box::new(AttributesCorrected {
            tenant: correction.tenant,
            study_instance_uid: correction.study.to_string(),
            series_instance_uid: uid(correction.series),
            sop_instance_uid: uid(correction.instance),
            protected: protected.encode_to_vec().into(),
            key_id: String::new(),
            corrected_by: correction.by,
        }));
        Ok(self.appender.append(&event, Context::default()).await?.position)
    }

    /// A correction of what is not there is mostly a mistyped UID.
    async fn check_is_there(&self, index: &dyn Index, correction: &Correction) -> Result<(), Error> {
        self.wait_for_all_of(index, &correction.study).await?;
        let selection = Selection {
            tenant: correction.tenant.clone(),
            studies: vec![correction.study.clone()],
            series: correction.series.iter().cloned().collect(),
            instances: correction.instance.iter().cloned().collect(),
            all_versions: true,
            ..Selection::default()
        };
        match index.instances(selection, Detail::Location).await?.next().await.transpose()? {
            Some(_) => Ok(()),
            None => Err(Error::new(ErrorKind::NotFound, "there is no instance under these UIDs")),
        }
    }
}

pub(crate) fn invalid(bad: BadCorrection) -> Error {
    let error = Error::new(ErrorKind::Invalid, bad.to_string());
    match bad.tag() {
        Some(tag) => error.about(tag),
        None => error,
    }
}

pub(crate) fn check_reason(reason: &str) -> Result<(), Error> {
    if reason.len() <= REASON_BYTES_MAX {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Invalid, format!("a reason has at most {REASON_BYTES_MAX} bytes")))
}

/// Takes back the correction that stands at a position of this site's log.
pub(crate) async fn revoke(appender: &Appender, revocation: CorrectionRevocation) -> Result<Position, Error> {
    appender.check_clock()?;
    check_reason(&revocation.reason)?;
    let Some((id, Event::AttributesCorrected(corrected))) = appender.event_at(&revocation.position).await? else {
        return Err(Error::new(ErrorKind::NotFound, format!("there is no correction at {}", revocation.position)));
    };
    let event = Event::CorrectionRevoked(Box::new(CorrectionRevoked {
        tenant: corrected.tenant,
        study_instance_uid: corrected.study_instance_uid,
        correction_event_ids: vec![Bytes::copy_from_slice(id.as_bytes())],
        revoked_by: revocation.by,
        reason: revocation.reason.into_bytes().into(),
        key_id: String::new(),
    }));
    let context = Context { causation: Some(id), ..Context::default() };
    Ok(appender.append(&event, context).await?.position)
}
