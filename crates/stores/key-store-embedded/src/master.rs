//! The master key, under which keys are wrapped.

use crate::slot::WRAPPED;
use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    rand,
};
use cairn_archive::{KeyId, sealing::KeyBytes};
use cairn_store_api::{StoreError, StoreErrorKind};

/// Wraps and unwraps by AES-256-GCM.
pub(crate) struct Master(LessSafeKey);

impl Master {
    pub(crate) fn new(bytes: &KeyBytes) -> Result<Self, StoreError> {
        let key = UnboundKey::new(&AES_256_GCM, &bytes.0).map_err(|_| failed())?;
        Ok(Self(LessSafeKey::new(key)))
    }

    /// A key, wrapped so that it can't be taken for the one of another id.
    pub(crate) fn wrap(&self, id: KeyId, key: &KeyBytes) -> Result<[u8; WRAPPED], StoreError> {
        let (mut nonce, mut text) = ([0; NONCE_LEN], key.0);
        rand::fill(&mut nonce).map_err(|_| failed())?;
        let aad = Aad::from(*id.as_bytes());
        let tag = self.0.seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), aad, &mut text);
        let tag = tag.map_err(|_| failed())?;
        let mut wrapped = [0; WRAPPED];
        let parts = nonce.iter().chain(&text).chain(tag.as_ref());
        wrapped.iter_mut().zip(parts).for_each(|(to, from)| *to = *from);
        Ok(wrapped)
    }

    /// `None`: it was wrapped under another master key, or is of another id.
    pub(crate) fn unwrap(&self, id: KeyId, wrapped: &[u8; WRAPPED]) -> Option<KeyBytes> {
        let (nonce, text) = wrapped.split_first_chunk::<NONCE_LEN>()?;
        let mut text = text.to_vec();
        let aad = Aad::from(*id.as_bytes());
        let key = self.0.open_in_place(Nonce::assume_unique_for_key(*nonce), aad, &mut text).ok()?;
        (&*key).try_into().ok().map(KeyBytes)
    }
}

fn failed() -> StoreError {
    StoreError::new(StoreErrorKind::Internal, "a key can't be wrapped")
}
