//! Who signs. The key is of the executable; this crate has no cryptography of its own.

/// An Ed25519 key.
pub trait Signer: Send + Sync {
    /// Its public half (RFC 8032 section 5.1.5).
    fn public(&self) -> [u8; 32];

    /// Signs: 64 bytes.
    fn sign(&self, bytes: &[u8]) -> Vec<u8>;
}
