//! Association PDUs to bytes.

use super::{item_type, parts::*, pdu_type};
use bytes::{BufMut, Bytes, BytesMut};

/// `1.2.840.10008.3.1.1.1`, the DICOM Application Context Name (PS3.7 annex A.2.1).
pub(crate) const DICOM_APPLICATION_CONTEXT: &str = "1.2.840.10008.3.1.1.1";

/// Appends a PDU: header, then what `fill` writes, with the length put in afterwards.
fn pdu(kind: u8, fill: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut out = BytesMut::with_capacity(512);
    out.put_slice(&[kind, 0, 0, 0, 0, 0]);
    fill(&mut out);
    let length = u32::try_from(out.len() - 6).unwrap_or(u32::MAX);
    out[2..6].copy_from_slice(&length.to_be_bytes());
    out.freeze()
}

/// Appends an item with its 16-bit length. An item that would not fit is left out whole rather than cut: only
/// user data of ours can be that long, and none is.
fn item(out: &mut BytesMut, kind: u8, fill: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.put_slice(&[kind, 0, 0, 0]);
    fill(out);
    match u16::try_from(out.len() - start - 4) {
        Ok(length) => out[start + 2..start + 4].copy_from_slice(&length.to_be_bytes()),
        Err(_) => out.truncate(start),
    }
}

/// Appends a field with its 16-bit length in front. Longer values are cut at what the length can say.
fn counted(out: &mut BytesMut, value: &[u8]) {
    let value = &value[..value.len().min(u16::MAX.into())];
    out.put_u16(value.len().try_into().unwrap_or(u16::MAX));
    out.put_slice(value);
}

fn head(out: &mut BytesMut, version: u16, called: &AeTitle, calling: &AeTitle) {
    out.put_u16(version);
    out.put_u16(0);
    out.put_slice(&called.to_field());
    out.put_slice(&calling.to_field());
    out.put_bytes(0, 32);
    item(out, item_type::APPLICATION_CONTEXT, |out| out.put_slice(DICOM_APPLICATION_CONTEXT.as_bytes()));
}

/// A whole A-ASSOCIATE-RQ (PS3.8 section 9.3.2), always with DICOM's own application context.
pub fn encode_associate_rq(request: &AssociateRq) -> Bytes {
    pdu(pdu_type::ASSOCIATE_RQ, |out| {
        head(out, request.protocol_version, &request.called_ae_title, &request.calling_ae_title);
        for context in &request.contexts {
            item(out, item_type::PRESENTATION_CONTEXT_RQ, |out| {
                out.put_slice(&[context.id, 0, 0, 0]);
                if let Some(uid) = &context.abstract_syntax {
                    item(out, item_type::ABSTRACT_SYNTAX, |out| out.put_slice(uid.as_str().as_bytes()));
                }
                for uid in &context.transfer_syntaxes {
                    item(out, item_type::TRANSFER_SYNTAX, |out| out.put_slice(uid.as_str().as_bytes()));
                }
            });
        }
        user_information(out, &request.user);
    })
}

/// A whole A-ASSOCIATE-AC (PS3.8 section 9.3.3).
pub fn encode_associate_ac(accept: &AssociateAc) -> Bytes {
    pdu(pdu_type::ASSOCIATE_AC, |out| {
        head(out, 1, &accept.called_ae_title, &accept.calling_ae_title);
        for context in &accept.contexts {
            item(out, item_type::PRESENTATION_CONTEXT_AC, |out| {
                out.put_slice(&[context.id, 0, context.result.code(), 0]);
                // Old peers want the sub-item even where it is not significant.
                let uid = context.transfer_syntax.as_ref().map_or("1.2.840.10008.1.2", |uid| uid.as_str());
                item(out, item_type::TRANSFER_SYNTAX, |out| out.put_slice(uid.as_bytes()));
            });
        }
        user_information(out, &accept.user);
    })
}

fn user_information(out: &mut BytesMut, user: &UserInformation) {
    item(out, item_type::USER_INFORMATION, |out| {
        if let Some(length) = user.maximum_length {
            item(out, item_type::MAXIMUM_LENGTH, |out| out.put_u32(length));
        }
        if let Some(uid) = &user.implementation_class_uid {
            item(out, item_type::IMPLEMENTATION_CLASS_UID, |out| out.put_slice(uid.as_bytes()));
        }
        if let Some((invoked, performed)) = user.asynchronous_operations {
            item(out, item_type::ASYNCHRONOUS_OPERATIONS, |out| {
                out.put_u16(invoked);
                out.put_u16(performed);
            });
        }
        for role in &user.roles {
            item(out, item_type::ROLE_SELECTION, |out| {
                counted(out, role.sop_class_uid.as_str().as_bytes());
                out.put_slice(&[role.scu.into(), role.scp.into()]);
            });
        }
        if let Some(name) = &user.implementation_version_name {
            item(out, item_type::IMPLEMENTATION_VERSION_NAME, |out| out.put_slice(name.as_bytes()));
        }
        for extended in &user.extended {
            item(out, item_type::SOP_CLASS_EXTENDED, |out| {
                counted(out, extended.sop_class_uid.as_str().as_bytes());
                out.put_slice(&extended.information);
            });
        }
        for common in &user.common_extended {
            item(out, item_type::SOP_CLASS_COMMON_EXTENDED, |out| {
                counted(out, common.sop_class_uid.as_str().as_bytes());
                counted(out, common.service_class_uid.as_str().as_bytes());
                let mut related = BytesMut::new();
                for uid in &common.related_general_sop_class_uids {
                    counted(&mut related, uid.as_str().as_bytes());
                }
                counted(out, &related);
            });
        }
        if let Some(identity) = &user.identity {
            item(out, item_type::USER_IDENTITY_RQ, |out| {
                out.put_slice(&[identity.identity_type, identity.positive_response_requested.into()]);
                counted(out, &identity.primary_field);
                counted(out, &identity.secondary_field);
            });
        }
        if let Some(response) = &user.identity_response {
            item(out, item_type::USER_IDENTITY_AC, |out| counted(out, response));
        }
    });
}

/// A whole A-ASSOCIATE-RJ (PS3.8 section 9.3.4).
pub fn encode_associate_rj(reject: AssociateRj) -> Bytes {
    pdu(pdu_type::ASSOCIATE_RJ, |out| out.put_slice(&[0, reject.result, reject.source, reject.reason]))
}

/// A whole A-RELEASE-RQ or A-RELEASE-RP (PS3.8 sections 9.3.6 and 9.3.7), by its PDU type.
pub fn encode_release(kind: u8) -> Bytes {
    pdu(kind, |out| out.put_u32(0))
}

/// A whole A-ABORT (PS3.8 section 9.3.8).
pub fn encode_abort(abort: Abort) -> Bytes {
    pdu(pdu_type::ABORT, |out| out.put_slice(&[0, 0, abort.source, abort.reason]))
}
