//! What the file of a key store is made of: slots of one length, each within one sector of a disk.

use cairn_archive::KeyId;

/// Length of a slot in bytes.
pub(crate) const SLOT: usize = 128;
const BODY: usize = 96;
/// Of this layout.
const VERSION: u8 = 1;
/// A key under the master key: nonce, ciphertext and tag.
pub(crate) const WRAPPED: usize = 12 + 32 + 16;

/// A slot as it is in the file.
pub(crate) type Bytes = [u8; SLOT];

/// What a slot says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Said {
    /// The first one: which master key the store is under.
    Head([u8; WRAPPED]),
    /// A key.
    Key([u8; WRAPPED]),
    /// A key is destroyed, whose slot this was; `None`: it was never here.
    Destroyed(Option<u64>),
    /// Nothing: a key was here, or the writing of one was cut off.
    Nothing,
    /// A key is not here, and is not waited for.
    Abandoned,
}

/// A slot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Slot {
    /// The key's id; in the first slot that of the store.
    pub(crate) id: KeyId,
    /// Number of the first slot that was made durable together with this one.
    pub(crate) batch: u64,
    pub(crate) said: Said,
}

impl Slot {
    pub(crate) fn encode(&self) -> Bytes {
        let (kind, wrapped, number) = match &self.said {
            Said::Head(wrapped) => (1, Some(wrapped), 0),
            Said::Key(wrapped) => (2, Some(wrapped), 0),
            // The first slot is no key's.
            Said::Destroyed(slot) => (3, None, slot.unwrap_or_default()),
            Said::Nothing => (4, None, 0),
            Said::Abandoned => (5, None, 0),
        };
        let mut body = vec![kind, VERSION, 0, 0];
        body.extend_from_slice(self.id.as_bytes());
        body.extend(self.batch.to_le_bytes());
        body.extend(u64::to_le_bytes(number));
        body.extend_from_slice(wrapped.unwrap_or(&[0; WRAPPED]));
        let sum = crc32c::crc32c(&body);
        let mut bytes = [0; SLOT];
        bytes.iter_mut().zip(body.into_iter().chain(sum.to_le_bytes())).for_each(|(to, from)| *to = from);
        bytes
    }

    /// `None`: it is damaged, or was not written whole.
    pub(crate) fn decode(bytes: &Bytes) -> Option<Self> {
        let (body, rest) = bytes.split_first_chunk::<BODY>()?;
        let (sum, rest) = rest.split_first_chunk::<4>()?;
        if crc32c::crc32c(body) != u32::from_le_bytes(*sum) || rest.iter().any(|byte| *byte != 0) {
            return None;
        }
        let ([kind, VERSION, ..], rest) = body.split_first_chunk::<4>()? else { return None };
        let (id, rest) = rest.split_first_chunk::<16>()?;
        let (batch, rest) = rest.split_first_chunk::<8>()?;
        let (number, wrapped) = rest.split_first_chunk::<8>()?;
        let (wrapped, number) = (wrapped.try_into().ok()?, u64::from_le_bytes(*number));
        let said = match kind {
            1 => Said::Head(wrapped),
            2 => Said::Key(wrapped),
            3 => Said::Destroyed((number > 0).then_some(number)),
            4 => Said::Nothing,
            5 => Said::Abandoned,
            _ => return None,
        };
        Some(Self { id: KeyId::from_slice(id).ok()?, batch: u64::from_le_bytes(*batch), said })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_read_as_they_were_written_and_not_when_a_bit_is_another() {
        let id = KeyId(uuid::Uuid::from_u128(7));
        for said in [
            Said::Head([1; WRAPPED]),
            Said::Key([2; WRAPPED]),
            Said::Destroyed(Some(9)),
            Said::Destroyed(None),
            Said::Nothing,
            Said::Abandoned,
        ] {
            let slot = Slot { id, batch: 3, said };
            let bytes = slot.encode();
            assert_eq!(Slot::decode(&bytes), Some(slot));
            for bit in 0..SLOT * 8 {
                let mut other = bytes;
                other[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(Slot::decode(&other), None, "bit {bit}");
            }
        }
        assert_eq!(Slot::decode(&[0; SLOT]), None);
    }
}
