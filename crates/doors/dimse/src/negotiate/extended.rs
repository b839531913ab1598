//! Service-class-application-information of SOP Class Extended Negotiation.
//!
//! C-FIND: PS3.4 tables C.5-1 and C.5-2, one byte an option, in this order: relational queries, combined date-time
//! matching, fuzzy semantic matching of person names, time zone query adjustment, Enhanced Multi-Frame Image
//! Conversion, empty value matching, multiple value matching. C-MOVE and C-GET (C.5.2.1, C.5.3.1): relational retrieval,
//! Enhanced Multi-Frame Image Conversion. Storage: tables B.3-1 and B.3-2. All edition 2025c.

use super::{ServiceClass, policy::QueryRoot};
use crate::pdu::SopClassExtended;
use bytes::Bytes;

/// What queries and retrievals may use beyond the baseline. As requested, as offered, or as agreed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct QueryOptions {
    /// Relational queries, or relational retrieval.
    pub relational: bool,
    /// A date and a time key together name one range.
    pub combined_date_time: bool,
    /// Person names are matched leniently.
    pub fuzzy: bool,
    /// Times in queries are in the time zone that the query states.
    pub timezone: bool,
    /// A key of two quotation marks matches what is empty.
    pub empty_value: bool,
    /// A key with several values matches what has all of them.
    pub multiple_value: bool,
}

impl QueryOptions {
    /// All that this door can do.
    pub const ALL: Self = Self {
        relational: true,
        combined_date_time: true,
        fuzzy: true,
        timezone: true,
        empty_value: true,
        multiple_value: true,
    };

    /// What both want.
    pub fn and(self, other: Self) -> Self {
        Self {
            relational: self.relational && other.relational,
            combined_date_time: self.combined_date_time && other.combined_date_time,
            fuzzy: self.fuzzy && other.fuzzy,
            timezone: self.timezone && other.timezone,
            empty_value: self.empty_value && other.empty_value,
            multiple_value: self.multiple_value && other.multiple_value,
        }
    }

    /// Reads what a requestor asks for; bytes that it left out are zero.
    pub(super) fn requested(service: ServiceClass, information: &[u8]) -> Self {
        let asked = |byte: usize| information.get(byte - 1) == Some(&1);
        match service {
            ServiceClass::Find(_) => Self {
                relational: asked(1),
                combined_date_time: asked(2),
                fuzzy: asked(3),
                timezone: asked(4),
                // Byte 5 is the Enhanced Multi-Frame Image Conversion view: not offered.
                empty_value: asked(6),
                multiple_value: asked(7),
            },
            ServiceClass::Move(_) | ServiceClass::Get(_) => Self { relational: asked(1), ..Self::default() },
            ServiceClass::Verification | ServiceClass::Storage | ServiceClass::Commitment => Self::default(),
        }
    }

    /// As application information of C-FIND: seven bytes (PS3.4 section C.5.1.1).
    fn find_bytes(self) -> [u8; 7] {
        [
            self.relational.into(),
            self.combined_date_time.into(),
            self.fuzzy.into(),
            self.timezone.into(),
            0,
            self.empty_value.into(),
            self.multiple_value.into(),
        ]
    }
}

/// Storage SCP of level 2 (keeps all elements), signatures of level 3 (kept bit for bit), no coercion; every other
/// byte is reserved (PS3.4 table B.3-2).
const STORAGE: [u8; 6] = [2, 0, 3, 0, 0, 0];

/// The answer to a request, in as many bytes as were asked (who asks one byte must be answered in one, PS3.4 sections
/// C.5.1.1 and C.5.2.1): none of what was not asked for, and nothing at all for
/// services that have no extended negotiation.
pub(super) fn answer(
    service: ServiceClass,
    asked: &SopClassExtended,
    offered: QueryOptions,
) -> Option<SopClassExtended> {
    let agreed = QueryOptions::requested(service, &asked.information).and(offered);
    let length = asked.information.len();
    let bytes = match service {
        ServiceClass::Find(QueryRoot::Patient | QueryRoot::Study | QueryRoot::PatientStudyOnly) => {
            Bytes::copy_from_slice(&agreed.find_bytes()[..length.min(7)])
        }
        ServiceClass::Move(_) | ServiceClass::Get(_) => {
            Bytes::copy_from_slice(&[agreed.relational.into(), 0][..length.min(2)])
        }
        ServiceClass::Storage => Bytes::copy_from_slice(&STORAGE[..length.min(6)]),
        ServiceClass::Verification | ServiceClass::Commitment => return None,
    };
    Some(SopClassExtended { sop_class_uid: asked.sop_class_uid.clone(), information: bytes })
}
