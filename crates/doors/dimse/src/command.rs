//! DIMSE command sets (PS3.7 section 9.3, annexes C and E, edition 2025c).

use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::fmt;

/// Command Field (0000,0100): which message this is (PS3.7 annex E.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CommandField(pub u16);

impl CommandField {
    /// C-STORE-RQ
    pub const C_STORE_RQ: Self = Self(0x0001);
    /// C-STORE-RSP
    pub const C_STORE_RSP: Self = Self(0x8001);
    /// C-GET-RQ
    pub const C_GET_RQ: Self = Self(0x0010);
    /// C-GET-RSP
    pub const C_GET_RSP: Self = Self(0x8010);
    /// C-FIND-RQ
    pub const C_FIND_RQ: Self = Self(0x0020);
    /// C-FIND-RSP
    pub const C_FIND_RSP: Self = Self(0x8020);
    /// C-MOVE-RQ
    pub const C_MOVE_RQ: Self = Self(0x0021);
    /// C-MOVE-RSP
    pub const C_MOVE_RSP: Self = Self(0x8021);
    /// C-ECHO-RQ
    pub const C_ECHO_RQ: Self = Self(0x0030);
    /// C-ECHO-RSP
    pub const C_ECHO_RSP: Self = Self(0x8030);
    /// C-CANCEL-RQ
    pub const C_CANCEL_RQ: Self = Self(0x0FFF);
    /// N-EVENT-REPORT-RQ
    pub const N_EVENT_REPORT_RQ: Self = Self(0x0100);
    /// N-EVENT-REPORT-RSP
    pub const N_EVENT_REPORT_RSP: Self = Self(0x8100);
    /// N-ACTION-RQ
    pub const N_ACTION_RQ: Self = Self(0x0130);
    /// N-ACTION-RSP
    pub const N_ACTION_RSP: Self = Self(0x8130);

    /// Whether this is a response: its top bit says so.
    pub fn is_response(self) -> bool {
        self.0 & 0x8000 != 0
    }

    /// The response to this request.
    pub fn response(self) -> Self {
        Self(self.0 | 0x8000)
    }
}

/// Status (0000,0900).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Status(pub u16);

impl Status {
    /// Success (PS3.7 C.1.1).
    pub const SUCCESS: Self = Self(0x0000);
    /// Cancel: sub-operations or matching ended by C-CANCEL (PS3.7 C.3.1).
    pub const CANCEL: Self = Self(0xFE00);
    /// Pending: matches continue, all optional keys supported as asked (PS3.4 table C.4-1).
    pub const PENDING: Self = Self(0xFF00);
    /// Pending: one or more optional keys were not supported for existence or matching (PS3.4 table C.4-1).
    pub const PENDING_OPTIONAL_KEYS_UNSUPPORTED: Self = Self(0xFF01);
    /// Failure: processing failure (PS3.7 C.5.21).
    pub const PROCESSING_FAILURE: Self = Self(0x0110);
    /// Failure: no such SOP Instance (PS3.7 annex C.5).
    pub const NO_SUCH_SOP_INSTANCE: Self = Self(0x0112);
    /// Failure: invalid argument value (PS3.7 annex C.5).
    pub const INVALID_ARGUMENT_VALUE: Self = Self(0x0115);
    /// Failure: no such action (PS3.7 annex C.5).
    pub const NO_SUCH_ACTION: Self = Self(0x0123);
    /// Failure: duplicate Transaction UID (PS3.3 C.14.1.1).
    pub const DUPLICATE_TRANSACTION_UID: Self = Self(0x0131);
    /// Failure: resource limitation (PS3.7 annex C.5).
    pub const RESOURCE_LIMITATION: Self = Self(0x0213);
    /// Failure: no such SOP Class (PS3.7 C.5.17).
    pub const NO_SUCH_SOP_CLASS: Self = Self(0x0118);
    /// Refused: SOP Class not supported (PS3.7 C.5.23).
    pub const SOP_CLASS_NOT_SUPPORTED: Self = Self(0x0122);
    /// Refused: not authorized (PS3.7 C.5.13).
    pub const NOT_AUTHORIZED: Self = Self(0x0124);
    /// Failure: duplicate invocation, the Message ID is in use (PS3.7 C.5.4).
    pub const DUPLICATE_INVOCATION: Self = Self(0x0210);
    /// Failure: unrecognized operation (PS3.7 C.5.24).
    pub const UNRECOGNIZED_OPERATION: Self = Self(0x0211);
    /// Failure: mistyped argument (PS3.7 C.5.15).
    pub const MISTYPED_ARGUMENT: Self = Self(0x0212);
    /// Refused: out of resources (PS3.4 tables B.2-1 and C.4-1).
    pub const OUT_OF_RESOURCES: Self = Self(0xA700);
    /// Refused: out of resources, unable to calculate number of matches (PS3.4 tables C.4-2 and C.4-3).
    pub const OUT_OF_RESOURCES_MATCHES: Self = Self(0xA701);
    /// Refused: out of resources, unable to perform sub-operations (PS3.4 tables C.4-2 and C.4-3).
    pub const OUT_OF_RESOURCES_SUBOPERATIONS: Self = Self(0xA702);
    /// Refused: move destination unknown (PS3.4 table C.4-2).
    pub const MOVE_DESTINATION_UNKNOWN: Self = Self(0xA801);
    /// Error: data set, or identifier, does not match SOP Class (PS3.4 tables B.2-1, C.4-1 to C.4-3).
    pub const DOES_NOT_MATCH_SOP_CLASS: Self = Self(0xA900);
    /// Warning: coercion of data elements (PS3.4 table B.2-1).
    pub const COERCION_OF_DATA_ELEMENTS: Self = Self(0xB000);
    /// Warning: sub-operations complete, one or more failures or warnings (PS3.4 tables C.4-2 and C.4-3).
    pub const SUBOPERATIONS_WITH_FAILURES: Self = Self(0xB000);
    /// Error: cannot understand (C-STORE), unable to process (the others); first of its range.
    pub const CANNOT_UNDERSTAND: Self = Self(0xC000);

    /// Pending of either kind.
    pub fn is_pending(self) -> bool {
        matches!(self.0, 0xFF00 | 0xFF01)
    }

    /// Success, or done with a warning (PS3.7 annex C: 0001, 0107, 0116, Bxxx).
    pub fn is_done(self) -> bool {
        self.0 == 0 || self.is_warning()
    }

    /// Done with a warning.
    pub fn is_warning(self) -> bool {
        matches!(self.0, 0x0001 | 0x0107 | 0x0116 | 0xB000..=0xBFFF)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04X}H", self.0)
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Priority (0000,0700). Received, and not acted upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(u16)]
pub enum Priority {
    /// Medium
    #[default]
    Medium = 0,
    /// High
    High = 1,
    /// Low
    Low = 2,
}

/// Numbers of sub-operations (0000,1020) to (0000,1023).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct SubOperations {
    /// Still to do; left out of a final response other than Cancel.
    pub remaining: Option<u16>,
    /// Done without a warning.
    pub completed: u16,
    /// Not done.
    pub failed: u16,
    /// Done with a warning.
    pub warning: u16,
}

/// A command set, with the elements that are used here; others are skipped when read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Command Field (0000,0100)
    pub field: CommandField,
    /// Message ID (0000,0110), of a request
    pub message_id: Option<u16>,
    /// Message ID Being Responded To (0000,0120), of a response or C-CANCEL
    pub message_id_responded_to: Option<u16>,
    /// Affected SOP Class UID (0000,0002), or the Requested one (0000,0003) of a normalized service
    pub sop_class_uid: Option<String>,
    /// Affected SOP Instance UID (0000,1000), or the Requested one (0000,1001) of a normalized service
    pub sop_instance_uid: Option<String>,
    /// Event Type ID (0000,1002)
    pub event_type_id: Option<u16>,
    /// Action Type ID (0000,1008)
    pub action_type_id: Option<u16>,
    /// Priority (0000,0700)
    pub priority: Option<u16>,
    /// Whether a data set follows: Command Data Set Type (0000,0800) is not 0101H
    pub has_data_set: bool,
    /// Status (0000,0900)
    pub status: Option<Status>,
    /// Offending Element (0000,0901), tags as 32 bits
    pub offending_elements: Vec<u32>,
    /// Error Comment (0000,0902), up to 64 characters; never with a patient attribute
    pub error_comment: Option<String>,
    /// Move Destination (0000,0600)
    pub move_destination: Option<String>,
    /// Move Originator Application Entity Title (0000,1030)
    pub move_originator_ae_title: Option<String>,
    /// Move Originator Message ID (0000,1031)
    pub move_originator_message_id: Option<u16>,
    /// Numbers of sub-operations
    pub sub_operations: Option<SubOperations>,
}

/// Why bytes are no command set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// An element does not fit in the command set.
    #[error("command element has a wrong length")]
    WrongLength,
    /// An element outside group 0000.
    #[error("command set has an element outside group 0000")]
    NotGroupZero,
    /// An element that every command set must have is not there.
    #[error("command set lacks element (0000,{0:04X})")]
    Missing(u16),
}

/// Command Data Set Type for "none" (PS3.7 annex E.1).
const NO_DATA_SET: u16 = 0x0101;

impl Command {
    /// A command set with nothing but its field.
    pub fn new(field: CommandField) -> Self {
        Self {
            field,
            message_id: None,
            message_id_responded_to: None,
            sop_class_uid: None,
            sop_instance_uid: None,
            event_type_id: None,
            action_type_id: None,
            priority: None,
            has_data_set: false,
            status: None,
            offending_elements: Vec::new(),
            error_comment: None,
            move_destination: None,
            move_originator_ae_title: None,
            move_originator_message_id: None,
            sub_operations: None,
        }
    }

    /// A request with its Message ID and SOP Class.
    pub fn request(field: CommandField, message_id: u16, sop_class_uid: &str) -> Self {
        Self { message_id: Some(message_id), sop_class_uid: Some(sop_class_uid.to_owned()), ..Self::new(field) }
    }

    /// The response to this request, with SOP Class, SOP Instance and type of event or action as they came.
    pub fn response(&self, status: Status) -> Self {
        Self {
            message_id_responded_to: self.message_id,
            sop_class_uid: self.sop_class_uid.clone(),
            sop_instance_uid: self.sop_instance_uid.clone(),
            event_type_id: self.event_type_id,
            action_type_id: self.action_type_id,
            status: Some(status),
            ..Self::new(self.field.response())
        }
    }

    /// With an Error Comment, cut to the 64 characters that fit and to ASCII.
    pub fn with_comment(mut self, comment: &str) -> Self {
        let ascii = comment.chars().map(|c| if matches!(c, ' '..='~') && c != '\\' { c } else { '?' });
        self.error_comment = Some(ascii.take(64).collect());
        self
    }

    /// Reads a command set: Implicit VR Little Endian, group 0000 alone (PS3.7 section 6.3.1).
    ///
    /// Elements may come in any order, and the group length is not believed.
    ///
    /// # Errors
    /// [`CommandError`]
    pub fn decode(mut bytes: &[u8]) -> Result<Self, CommandError> {
        let mut field = None;
        let mut data_set_type = None;
        let mut command = Self::new(CommandField(0));
        let mut counts: [Option<u16>; 4] = [None; 4];
        while !bytes.is_empty() {
            if bytes.len() < 8 {
                return Err(CommandError::WrongLength);
            }
            let (group, element, length) = (bytes.get_u16_le(), bytes.get_u16_le(), bytes.get_u32_le() as usize);
            if group != 0 {
                return Err(CommandError::NotGroupZero);
            }
            if length > bytes.len() {
                return Err(CommandError::WrongLength);
            }
            let (value, rest) = bytes.split_at(length);
            bytes = rest;
            let number = value.first_chunk().map(|two| u16::from_le_bytes(*two));
            match element {
                tag::COMMAND_FIELD => field = number,
                tag::DATA_SET_TYPE => data_set_type = number,
                tag::REMAINING..=tag::WARNING => counts[usize::from(element - tag::REMAINING)] = number,
                _ => command.take_element(element, number, value),
            }
        }
        command.field = CommandField(field.ok_or(CommandError::Missing(tag::COMMAND_FIELD))?);
        command.has_data_set = data_set_type.ok_or(CommandError::Missing(tag::DATA_SET_TYPE))? != NO_DATA_SET;
        if counts.iter().any(Option::is_some) {
            let [remaining, completed, failed, warning] = counts;
            command.sub_operations = Some(SubOperations {
                remaining,
                completed: completed.unwrap_or(0),
                failed: failed.unwrap_or(0),
                warning: warning.unwrap_or(0),
            });
        }
        Ok(command)
    }

    fn take_element(&mut self, element: u16, number: Option<u16>, value: &[u8]) {
        let text = || Some(text(value));
        match element {
            tag::AFFECTED_SOP_CLASS_UID | tag::REQUESTED_SOP_CLASS_UID => self.sop_class_uid = text(),
            tag::AFFECTED_SOP_INSTANCE_UID | tag::REQUESTED_SOP_INSTANCE_UID => self.sop_instance_uid = text(),
            tag::MESSAGE_ID => self.message_id = number,
            tag::MESSAGE_ID_RESPONDED_TO => self.message_id_responded_to = number,
            tag::MOVE_DESTINATION => self.move_destination = text(),
            tag::EVENT_TYPE_ID => self.event_type_id = number,
            tag::ACTION_TYPE_ID => self.action_type_id = number,
            tag::PRIORITY => self.priority = number,
            tag::STATUS => self.status = number.map(Status),
            tag::OFFENDING_ELEMENT => {
                let tags = value.chunks_exact(4).take(256);
                self.offending_elements = tags
                    .map(|t| {
                        let half = |at: usize| u32::from(u16::from_le_bytes([t[at], t[at + 1]]));
                        half(0) << 16 | half(2)
                    })
                    .collect();
            }
            tag::ERROR_COMMENT => self.error_comment = text(),
            tag::MOVE_ORIGINATOR_AE_TITLE => self.move_originator_ae_title = text(),
            tag::MOVE_ORIGINATOR_MESSAGE_ID => self.move_originator_message_id = number,
            _ => {}
        }
    }

    /// The command set as Implicit VR Little Endian, in ascending order, with its group length.
    pub fn encode(&self) -> Bytes {
        let mut out = Elements(BytesMut::with_capacity(256));
        out.0.put_bytes(0, GROUP_LENGTH_BYTES);
        // Operations of normalized services are asked of an instance; all else is about one (PS3.7 section 10.3).
        let requested = self.field == CommandField::N_ACTION_RQ;
        let (class, instance) = match requested {
            true => (tag::REQUESTED_SOP_CLASS_UID, tag::REQUESTED_SOP_INSTANCE_UID),
            false => (tag::AFFECTED_SOP_CLASS_UID, tag::AFFECTED_SOP_INSTANCE_UID),
        };
        out.uid(class, self.sop_class_uid.as_deref());
        out.number(tag::COMMAND_FIELD, Some(self.field.0));
        out.number(tag::MESSAGE_ID, self.message_id);
        out.number(tag::MESSAGE_ID_RESPONDED_TO, self.message_id_responded_to);
        out.text(tag::MOVE_DESTINATION, self.move_destination.as_deref());
        out.number(tag::PRIORITY, self.priority);
        out.number(tag::DATA_SET_TYPE, Some(if self.has_data_set { 0x0001 } else { NO_DATA_SET }));
        out.number(tag::STATUS, self.status.map(|s| s.0));
        if !self.offending_elements.is_empty() {
            let tags = self.offending_elements.iter().flat_map(|t| {
                let ([a, b], [c, d]) = (((t >> 16) as u16).to_le_bytes(), (*t as u16).to_le_bytes());
                [a, b, c, d]
            });
            out.value(tag::OFFENDING_ELEMENT, &tags.collect::<Vec<u8>>(), 0);
        }
        out.text(tag::ERROR_COMMENT, self.error_comment.as_deref());
        out.uid(instance, self.sop_instance_uid.as_deref());
        out.number(tag::EVENT_TYPE_ID, self.event_type_id);
        out.number(tag::ACTION_TYPE_ID, self.action_type_id);
        if let Some(counts) = self.sub_operations {
            out.number(tag::REMAINING, counts.remaining);
            out.number(tag::COMPLETED, Some(counts.completed));
            out.number(tag::FAILED, Some(counts.failed));
            out.number(tag::WARNING, Some(counts.warning));
        }
        out.text(tag::MOVE_ORIGINATOR_AE_TITLE, self.move_originator_ae_title.as_deref());
        out.number(tag::MOVE_ORIGINATOR_MESSAGE_ID, self.move_originator_message_id);
        out.finish()
    }
}

/// Text without the padding around it; bytes beyond ASCII become `?`.
fn text(value: &[u8]) -> String {
    let end = value.iter().rposition(|b| !matches!(b, 0 | b' ')).map_or(0, |i| i + 1);
    let text: String =
        value[..end].iter().map(|b| if matches!(b, 0x20..=0x7e) { char::from(*b) } else { '?' }).collect();
    text.trim_start_matches(' ').to_owned()
}

/// Element numbers of group 0000 (PS3.7 annex E).
mod tag {
    pub(super) const AFFECTED_SOP_CLASS_UID: u16 = 0x0002;
    pub(super) const REQUESTED_SOP_CLASS_UID: u16 = 0x0003;
    pub(super) const COMMAND_FIELD: u16 = 0x0100;
    pub(super) const MESSAGE_ID: u16 = 0x0110;
    pub(super) const MESSAGE_ID_RESPONDED_TO: u16 = 0x0120;
    pub(super) const MOVE_DESTINATION: u16 = 0x0600;
    pub(super) const PRIORITY: u16 = 0x0700;
    pub(super) const DATA_SET_TYPE: u16 = 0x0800;
    pub(super) const STATUS: u16 = 0x0900;
    pub(super) const OFFENDING_ELEMENT: u16 = 0x0901;
    pub(super) const ERROR_COMMENT: u16 = 0x0902;
    pub(super) const AFFECTED_SOP_INSTANCE_UID: u16 = 0x1000;
    pub(super) const REQUESTED_SOP_INSTANCE_UID: u16 = 0x1001;
    pub(super) const EVENT_TYPE_ID: u16 = 0x1002;
    pub(super) const ACTION_TYPE_ID: u16 = 0x1008;
    pub(super) const REMAINING: u16 = 0x1020;
    pub(super) const COMPLETED: u16 = 0x1021;
    pub(super) const FAILED: u16 = 0x1022;
    pub(super) const WARNING: u16 = 0x1023;
    pub(super) const MOVE_ORIGINATOR_AE_TITLE: u16 = 0x1030;
    pub(super) const MOVE_ORIGINATOR_MESSAGE_ID: u16 = 0x1031;
}

const GROUP_LENGTH_BYTES: usize = 12;

struct Elements(BytesMut);

impl Elements {
    fn value(&mut self, element: u16, value: &[u8], pad: u8) {
        self.0.put_u16_le(0);
        self.0.put_u16_le(element);
        self.0.put_u32_le((value.len() + value.len() % 2) as u32);
        self.0.put_slice(value);
        self.0.put_bytes(pad, value.len() % 2);
    }

    fn uid(&mut self, element: u16, value: Option<&str>) {
        if let Some(value) = value {
            self.value(element, value.as_bytes(), 0);
        }
    }

    fn text(&mut self, element: u16, value: Option<&str>) {
        if let Some(value) = value {
            self.value(element, value.as_bytes(), b' ');
        }
    }

    fn number(&mut self, element: u16, value: Option<u16>) {
        if let Some(value) = value {
            self.value(element, &value.to_le_bytes(), 0);
        }
    }

    fn finish(mut self) -> Bytes {
        let length = (self.0.len() - GROUP_LENGTH_BYTES) as u32;
        let mut group_length = &mut self.0[..GROUP_LENGTH_BYTES];
        group_length.put_u32_le(0);
        group_length.put_u32_le(4);
        group_length.put_u32_le(length);
        self.0.freeze()
    }
}

#[cfg(test)]
mod tests;
