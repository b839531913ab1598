//! From a receive buffer to PDUs, without copying what P-DATA-TF carries.

use super::{PDU_HEADER_BYTES, PDV_HEADER_BYTES, decode_associate_ac, decode_associate_rq, parts::*, pdu_type};
use bytes::{Buf, Bytes, BytesMut};

/// What may come next; anything else is an unexpected PDU, refused by its header alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expecting {
    /// Sta2: the acceptor waits for A-ASSOCIATE-RQ.
    AssociateRq,
    /// Sta5: the requestor waits for A-ASSOCIATE-AC or -RJ.
    AssociateAnswer,
    /// Sta6 and later: P-DATA-TF and release.
    Established,
}

/// A PDU, or a piece of a P-DATA-TF.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pdu {
    /// A-ASSOCIATE-RQ
    AssociateRq(Box<AssociateRq>),
    /// A-ASSOCIATE-AC
    AssociateAc(Box<AssociateAc>),
    /// A-ASSOCIATE-RJ
    AssociateRj(AssociateRj),
    /// A-RELEASE-RQ
    ReleaseRq,
    /// A-RELEASE-RP
    ReleaseRp,
    /// A-ABORT
    Abort(Abort),
    /// Some of what a Presentation Data Value holds.
    Fragment(Fragment),
}

/// Some bytes of a command or data set.
///
/// A Presentation Data Value gives one or more of these: its bytes are handed on as they arrive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// As in the Presentation Data Value; not checked here.
    pub context_id: u8,
    /// Command (else data set): bit 0 of the message control header.
    pub is_command: bool,
    /// These are the last bytes of the command or data set: bit 1 of the message control header.
    pub is_last: bool,
    /// A slice of the receive buffer. Empty only if `is_last`.
    pub data: Bytes,
}

/// Limits on what is read, in bytes of the variable field.
#[derive(Clone, Copy, Debug)]
pub struct PduLimits {
    /// Of A-ASSOCIATE-RQ and -AC, which no negotiation bounds.
    pub associate_bytes_max: u32,
    /// Of P-DATA-TF: what we announced as our maximum length.
    pub data_bytes_max: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// At a PDU header.
    Header,
    /// In a P-DATA-TF, at a PDV header; so many bytes of the PDU are left.
    Value { pdu_left: u32 },
    /// In the fragment of a PDV; `value_left` is part of `pdu_left`.
    Fragment { pdu_left: u32, value_left: u32, context_id: u8, control: u8 },
}

/// Cuts a byte stream into PDUs. Does no input of its own: put bytes in [`PduReader::buffer`], then ask
/// [`PduReader::next_pdu`] until it has nothing more.
///
/// Memory: one buffer, grown beyond `read_bytes` only for an A-ASSOCIATE PDU, which the limits bound.
#[derive(Debug)]
pub struct PduReader {
    buf: BytesMut,
    state: State,
    expecting: Expecting,
    limits: PduLimits,
    read_bytes: usize,
}

impl PduReader {
    /// A reader in its first state. `read_bytes` is the room made for one read once the association stands.
    pub fn new(expecting: Expecting, limits: PduLimits, read_bytes: usize) -> Self {
        Self { buf: BytesMut::new(), state: State::Header, expecting, limits, read_bytes }
    }

    /// Says what may come next.
    pub fn expect(&mut self, expecting: Expecting) {
        self.expecting = expecting;
    }

    /// Whether some bytes of a PDU are here that is not complete.
    pub fn in_pdu(&self) -> bool {
        self.state != State::Header || !self.buf.is_empty()
    }

    /// Whether the last byte taken was the last of a PDU.
    pub fn at_pdu_boundary(&self) -> bool {
        matches!(self.state, State::Header | State::Value { pdu_left: 0 })
    }

    /// The buffer to append to, with room for a large read (a small one before the association stands, so that
    /// half-open peers are cheap).
    pub fn buffer(&mut self) -> &mut BytesMut {
        let wanted = if self.expecting == Expecting::Established { self.read_bytes } else { 4096 };
        if self.buf.capacity() - self.buf.len() < wanted / 4 {
            self.buf.reserve(wanted);
        }
        &mut self.buf
    }

    /// The next PDU or piece of one in the buffer; nothing if more bytes are needed.
    ///
    /// # Errors
    /// [`PduError`]; the stream can't be read on after it.
    pub fn next_pdu(&mut self) -> Result<Option<Pdu>, PduError> {
        loop {
            match self.state {
                State::Header => match self.header()? {
                    Step::NeedMore => return Ok(None),
                    Step::Pdu(pdu) => return Ok(Some(pdu)),
                    Step::Moved => {}
                },
                State::Value { pdu_left: 0 } => self.state = State::Header,
                State::Value { pdu_left } => {
                    if !self.value_header(pdu_left)? {
                        return Ok(None);
                    }
                }
                State::Fragment { pdu_left, value_left, context_id, control } => {
                    let length = self.buf.len().min(value_left as usize);
                    if length == 0 && value_left > 0 {
                        return Ok(None);
                    }
                    let data = self.buf.split_to(length).freeze();
                    let (pdu_left, value_left) = (pdu_left - length as u32, value_left - length as u32);
                    self.state = match value_left {
                        0 => State::Value { pdu_left },
                        _ => State::Fragment { pdu_left, value_left, context_id, control },
                    };
                    let is_last = control & 2 != 0 && value_left == 0;
                    if !data.is_empty() || is_last {
                        let is_command = control & 1 != 0;
                        return Ok(Some(Pdu::Fragment(Fragment { context_id, is_command, is_last, data })));
                    }
                }
            }
        }
    }

    fn header(&mut self) -> Result<Step, PduError> {
        let Some(&kind) = self.buf.first() else { return Ok(Step::NeedMore) };
        self.check_kind(kind)?;
        if self.buf.len() < PDU_HEADER_BYTES {
            return Ok(Step::NeedMore);
        }
        let length = (&self.buf[2..6]).get_u32();
        self.check_length(kind, length)?;
        if kind == pdu_type::P_DATA_TF {
            self.buf.advance(PDU_HEADER_BYTES);
            self.state = State::Value { pdu_left: length };
            return Ok(Step::Moved);
        }
        let whole = PDU_HEADER_BYTES + length as usize;
        if self.buf.len() < whole {
            self.buf.reserve((whole - self.buf.len()).min(64 * 1024));
            return Ok(Step::NeedMore);
        }
        self.buf.advance(PDU_HEADER_BYTES);
        // Copied, so that strings read from it do not hold the receive buffer.
        let mut body = Bytes::copy_from_slice(&self.buf[..length as usize]);
        self.buf.advance(length as usize);
        Ok(Step::Pdu(match kind {
            pdu_type::ASSOCIATE_RQ => Pdu::AssociateRq(Box::new(decode_associate_rq(body)?)),
            pdu_type::ASSOCIATE_AC => Pdu::AssociateAc(Box::new(decode_associate_ac(body)?)),
            pdu_type::RELEASE_RQ => Pdu::ReleaseRq,
            pdu_type::RELEASE_RP => Pdu::ReleaseRp,
            pdu_type::ASSOCIATE_RJ => {
                body.advance(1);
                Pdu::AssociateRj(AssociateRj { result: body.get_u8(), source: body.get_u8(), reason: body.get_u8() })
            }
            _ => {
                body.advance(2);
                Pdu::Abort(Abort { source: body.get_u8(), reason: body.get_u8() })
            }
        }))
    }

    fn check_kind(&self, kind: u8) -> Result<(), PduError> {
        let expected = match kind {
            pdu_type::ABORT => true,
            pdu_type::ASSOCIATE_RQ => self.expecting == Expecting::AssociateRq,
            pdu_type::ASSOCIATE_AC | pdu_type::ASSOCIATE_RJ => self.expecting == Expecting::AssociateAnswer,
            pdu_type::P_DATA_TF | pdu_type::RELEASE_RQ | pdu_type::RELEASE_RP => {
                self.expecting == Expecting::Established
            }
            _ => return Err(PduError::UnrecognizedPdu(kind)),
        };
        if expected { Ok(()) } else { Err(PduError::UnexpectedPdu(kind)) }
    }

    fn check_length(&self, kind: u8, length: u32) -> Result<(), PduError> {
        let (least, limit) = match kind {
            pdu_type::ASSOCIATE_RQ | pdu_type::ASSOCIATE_AC => (68, self.limits.associate_bytes_max),
            pdu_type::P_DATA_TF => (PDV_HEADER_BYTES as u32, self.limits.data_bytes_max),
            _ => (4, 4),
        };
        if length > limit {
            return Err(PduError::TooLong { pdu_type: kind, length, limit });
        }
        if length < least { Err(PduError::WrongLength("PDU")) } else { Ok(()) }
    }

    /// Reads a PDV header; false if it is not all here.
    fn value_header(&mut self, pdu_left: u32) -> Result<bool, PduError> {
        if pdu_left < PDV_HEADER_BYTES as u32 {
            return Err(PduError::WrongLength("presentation data value item"));
        }
        if self.buf.len() < PDV_HEADER_BYTES {
            return Ok(false);
        }
        let length = self.buf.get_u32();
        if length < 2 || length > pdu_left - 4 {
            return Err(PduError::WrongLength("presentation data value item"));
        }
        let (context_id, control) = (self.buf.get_u8(), self.buf.get_u8());
        let pdu_left = pdu_left - PDV_HEADER_BYTES as u32;
        self.state = State::Fragment { pdu_left, value_left: length - 2, context_id, control };
        Ok(true)
    }
}

enum Step {
    NeedMore,
    Moved,
    Pdu(Pdu),
}
