//! Association PDUs from bytes. The caller has bounded the length of the whole.

use super::{item_type, parts::*};
use bytes::{Buf, Bytes};
use cairn_dicom::Uid;

type Result<T> = std::result::Result<T, PduError>;

/// Takes `length` bytes from the front, if there are as many.
fn take(buf: &mut Bytes, length: usize, what: &'static str) -> Result<Bytes> {
    if buf.len() < length {
        return Err(PduError::WrongLength(what));
    }
    Ok(buf.split_to(length))
}

fn take_u8(buf: &mut Bytes, what: &'static str) -> Result<u8> {
    take(buf, 1, what).map(|mut b| b.get_u8())
}

fn take_u16(buf: &mut Bytes, what: &'static str) -> Result<u16> {
    take(buf, 2, what).map(|mut b| b.get_u16())
}

/// A field with its length, as 16 bits, in front of it.
fn take_counted(buf: &mut Bytes, what: &'static str) -> Result<Bytes> {
    let length = take_u16(buf, what)?;
    take(buf, length.into(), what)
}

/// The next item: type, reserved byte, 16-bit length, value.
fn take_item(buf: &mut Bytes) -> Result<(u8, Bytes)> {
    let kind = take_u8(buf, "item header")?;
    take_u8(buf, "item header")?;
    Ok((kind, take_counted(buf, "item")?))
}

fn uid(value: &[u8]) -> Option<Uid> {
    Uid::from_value(value).ok()
}

/// ISO 646 text without padding; other bytes become `?`.
fn text(value: &[u8]) -> String {
    let text: String = value.iter().map(|b| if matches!(b, 0x20..=0x7e) { char::from(*b) } else { '?' }).collect();
    let padding = value.iter().rev().take_while(|b| **b == 0).count();
    text[..text.len() - padding].trim_matches(' ').to_owned()
}

struct Head {
    protocol_version: u16,
    called_ae_title: AeTitle,
    calling_ae_title: AeTitle,
}

fn take_head(body: &mut Bytes) -> Result<Head> {
    let mut head = take(body, 68, "A-ASSOCIATE PDU")?;
    let protocol_version = head.get_u16();
    head.advance(2);
    let called_ae_title = AeTitle::from_field(&head.split_to(16));
    let calling_ae_title = AeTitle::from_field(&head.split_to(16));
    Ok(Head { protocol_version, called_ae_title, calling_ae_title })
}

/// Reads the variable field (all behind the six bytes of header) of an A-ASSOCIATE-RQ.
///
/// # Errors
/// [`PduError`] where lengths do not fit together. What it asks for is for negotiation to judge.
/// # Source
/// PS3.8 section 9.3.2, edition 2025c.
pub fn decode_associate_rq(mut body: Bytes) -> Result<AssociateRq> {
    let head = take_head(&mut body)?;
    let mut request = AssociateRq {
        protocol_version: head.protocol_version,
        called_ae_title: head.called_ae_title,
        calling_ae_title: head.calling_ae_title,
        application_context: None,
        contexts: Vec::new(),
        user: UserInformation::default(),
    };
    while !body.is_empty() {
        let (kind, value) = take_item(&mut body)?;
        match kind {
            item_type::APPLICATION_CONTEXT => request.application_context = uid(&value),
            item_type::PRESENTATION_CONTEXT_RQ => {
                // More IDs than there are odd bytes: no need to look at the rest (I10).
                if request.contexts.len() == 128 {
                    return Err(PduError::InvalidValue("number of presentation contexts"));
                }
                request.contexts.push(proposed_context(value)?);
            }
            item_type::USER_INFORMATION => user_information(value, &mut request.user)?,
            _ => {}
        }
    }
    Ok(request)
}

fn proposed_context(mut value: Bytes) -> Result<ProposedContext> {
    let id = take(&mut value, 4, "presentation context item")?.get_u8();
    let mut context = ProposedContext { id, abstract_syntax: None, transfer_syntaxes: Vec::new() };
    while !value.is_empty() {
        let (kind, name) = take_item(&mut value)?;
        match kind {
            item_type::ABSTRACT_SYNTAX => context.abstract_syntax = uid(&name),
            item_type::TRANSFER_SYNTAX => context.transfer_syntaxes.extend(uid(&name)),
            _ => {}
        }
    }
    Ok(context)
}

/// Reads the variable field of an A-ASSOCIATE-AC.
///
/// # Errors
/// [`PduError`] where lengths do not fit together.
/// # Source
/// PS3.8 section 9.3.3, edition 2025c.
pub fn decode_associate_ac(mut body: Bytes) -> Result<AssociateAc> {
    let head = take_head(&mut body)?;
    let mut accept = AssociateAc {
        called_ae_title: head.called_ae_title,
        calling_ae_title: head.calling_ae_title,
        contexts: Vec::new(),
        user: UserInformation::default(),
    };
    while !body.is_empty() {
        let (kind, value) = take_item(&mut body)?;
        match kind {
            item_type::PRESENTATION_CONTEXT_AC => {
                if accept.contexts.len() == 128 {
                    return Err(PduError::InvalidValue("number of presentation contexts"));
                }
                accept.contexts.push(context_answer(value)?);
            }
            item_type::USER_INFORMATION => user_information(value, &mut accept.user)?,
            _ => {}
        }
    }
    Ok(accept)
}

fn context_answer(mut value: Bytes) -> Result<ContextAnswer> {
    let mut head = take(&mut value, 4, "presentation context item")?;
    let id = head.get_u8();
    head.advance(1);
    let result = ContextResult::from_code(head.get_u8());
    let mut transfer_syntax = None;
    // Not significant when rejected: PS3.8 section 9.3.3.2. Some peers then leave rubbish here.
    while result == ContextResult::Acceptance && !value.is_empty() {
        let (kind, name) = take_item(&mut value)?;
        if kind == item_type::TRANSFER_SYNTAX && transfer_syntax.is_none() {
            transfer_syntax = uid(&name);
        }
    }
    Ok(ContextAnswer { id, result, transfer_syntax })
}

fn user_information(mut value: Bytes, user: &mut UserInformation) -> Result<()> {
    while !value.is_empty() {
        let (kind, mut item) = take_item(&mut value)?;
        match kind {
            item_type::MAXIMUM_LENGTH => {
                user.maximum_length = Some(take(&mut item, 4, "maximum length item")?.get_u32());
            }
            item_type::IMPLEMENTATION_CLASS_UID => user.implementation_class_uid = Some(text(&item)),
            item_type::IMPLEMENTATION_VERSION_NAME => user.implementation_version_name = Some(text(&item)),
            item_type::ASYNCHRONOUS_OPERATIONS => {
                let mut window = take(&mut item, 4, "asynchronous operations window item")?;
                user.asynchronous_operations = Some((window.get_u16(), window.get_u16()));
            }
            item_type::ROLE_SELECTION => {
                let class = take_counted(&mut item, "role selection item")?;
                let mut roles = take(&mut item, 2, "role selection item")?;
                let (scu, scp) = (roles.get_u8() != 0, roles.get_u8() != 0);
                user.roles.extend(uid(&class).map(|sop_class_uid| RoleSelection { sop_class_uid, scu, scp }));
            }
            item_type::SOP_CLASS_EXTENDED => {
                let class = take_counted(&mut item, "extended negotiation item")?;
                let extended = uid(&class).map(|sop_class_uid| SopClassExtended { sop_class_uid, information: item });
                user.extended.extend(extended);
            }
            item_type::SOP_CLASS_COMMON_EXTENDED => user.common_extended.extend(common_extended(item)?),
            item_type::USER_IDENTITY_RQ => {
                let mut head = take(&mut item, 2, "user identity item")?;
                user.identity = Some(UserIdentity {
                    identity_type: head.get_u8(),
                    positive_response_requested: head.get_u8() != 0,
                    primary_field: take_counted(&mut item, "user identity item")?,
                    secondary_field: take_counted(&mut item, "user identity item")?,
                });
            }
            item_type::USER_IDENTITY_AC => {
                user.identity_response = Some(take_counted(&mut item, "user identity response item")?);
            }
            _ => {}
        }
    }
    Ok(())
}

fn common_extended(mut item: Bytes) -> Result<Option<SopClassCommonExtended>> {
    const WHAT: &str = "common extended negotiation item";
    let sop_class = take_counted(&mut item, WHAT)?;
    let service_class = take_counted(&mut item, WHAT)?;
    let mut related = Vec::new();
    // The last field is optional for some senders, which then leave out its length too.
    if !item.is_empty() {
        let mut list = take_counted(&mut item, WHAT)?;
        while !list.is_empty() {
            related.extend(uid(&take_counted(&mut list, WHAT)?));
        }
    }
    Ok(uid(&sop_class).zip(uid(&service_class)).map(|(sop_class_uid, service_class_uid)| SopClassCommonExtended {
        sop_class_uid,
        service_class_uid,
        related_general_sop_class_uids: related,
    }))
}
