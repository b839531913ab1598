//! How row values are written: varints, length-prefixed bytes, fixed arrays.

use crate::{
    fold::EventOrder,
    hlc::Hlc,
    ids::{EventId, SiteId},
};

/// Why a row's value does not read. Says nothing of the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// The bytes end early or say what cannot be.
    #[error("index row of {0} is malformed")]
    Malformed(&'static str),
    /// Written by a build with another encoding.
    #[error("index row of {0} has another version")]
    Version(&'static str),
}

/// Writes a row's value.
#[derive(Default)]
pub(crate) struct Writer(pub(crate) Vec<u8>);

impl Writer {
    pub(crate) fn version(version: u8) -> Self {
        let mut out = Vec::with_capacity(256);
        out.push(version);
        Self(out)
    }

    pub(crate) fn u8(&mut self, value: u8) -> &mut Self {
        self.0.push(value);
        self
    }

    pub(crate) fn varint(&mut self, mut value: u64) -> &mut Self {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
        self
    }

    pub(crate) fn fixed(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.varint(bytes.len() as u64).fixed(bytes)
    }

    pub(crate) fn text(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes())
    }

    pub(crate) fn order(&mut self, order: &EventOrder) -> &mut Self {
        self.varint(order.hlc.wall_ms).varint(u64::from(order.hlc.counter));
        self.text(order.site.as_str()).fixed(order.id.as_bytes())
    }
}

/// Reads a row's value.
pub(crate) struct Reader<'a> {
    left: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    /// Checks the version byte.
    pub(crate) fn new(bytes: &'a [u8], version: u8, what: &'static str) -> Result<Self, RowError> {
        match bytes.split_first() {
            Some((found, left)) if *found == version => Ok(Self { left, what }),
            Some(_) => Err(RowError::Version(what)),
            None => Err(RowError::Malformed(what)),
        }
    }

    /// Of a part of a value.
    pub(crate) fn unversioned(bytes: &'a [u8], what: &'static str) -> Self {
        Self { left: bytes, what }
    }

    /// What is not read yet.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.left
    }

    pub(crate) fn bad(&self) -> RowError {
        RowError::Malformed(self.what)
    }

    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8], RowError> {
        let (taken, left) = self.left.split_at_checked(length).ok_or(self.bad())?;
        self.left = left;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], RowError> {
        self.take(N)?.try_into().map_err(|_| self.bad())
    }

    pub(crate) fn u8(&mut self) -> Result<u8, RowError> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn varint(&mut self) -> Result<u64, RowError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            value |= u64::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.bad())
    }

    pub(crate) fn number<T: TryFrom<u64>>(&mut self) -> Result<T, RowError> {
        self.varint()?.try_into().map_err(|_| self.bad())
    }

    /// A count of things that take at least one byte each: never more than bytes are left.
    pub(crate) fn count(&mut self) -> Result<usize, RowError> {
        let count: usize = self.number()?;
        if count > self.left.len() { Err(self.bad()) } else { Ok(count) }
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], RowError> {
        let length = self.number()?;
        self.take(length)
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, RowError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| self.bad())
    }

    pub(crate) fn event_id(&mut self) -> Result<EventId, RowError> {
        EventId::from_slice(self.take(16)?).map_err(|_| self.bad())
    }

    pub(crate) fn order(&mut self) -> Result<EventOrder, RowError> {
        let hlc = Hlc { wall_ms: self.varint()?, counter: self.number()? };
        let site: SiteId = self.text()?.parse().map_err(|_| self.bad())?;
        Ok(EventOrder { hlc, site, id: self.event_id()? })
    }

    pub(crate) fn end(&self) -> Result<(), RowError> {
        if self.left.is_empty() { Ok(()) } else { Err(self.bad()) }
    }
}
