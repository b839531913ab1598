//! Keys of Ed25519 in files, as reports of drills and checkpoints of the log are signed with. They are PEM, so that other tools
//! can make and read them too (`openssl genpkey -algorithm ed25519`).

use crate::commands::Failure;
use aws_lc_rs::{
    digest::{SHA256, digest},
    signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey},
};
use cairn_archive::notary::base64;
use cairn_lifecycle::Signer;
use rustls::pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer, pem::PemObject};
use std::{fs, io::Write, os::unix::fs::OpenOptionsExt, path::Path};

/// SubjectPublicKeyInfo of an Ed25519 key begins with this (RFC 8410 section 4).
const SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Who signs.
pub struct Key(Ed25519KeyPair);

impl Key {
    /// Makes one, in a file that only its owner reads; gives the public key as PEM.
    ///
    /// # Errors
    /// The file is there already, or can't be written.
    pub fn make(path: &Path) -> Result<String, Failure> {
        let key = Ed25519KeyPair::generate().map_err(|_| Failure::failed("no key could be made"))?;
        let document = key.to_pkcs8v1().map_err(|_| Failure::failed("no key could be made"))?;
        let text = pem("PRIVATE KEY", document.as_ref());
        let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let written = file.and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
        written.map_err(|error| of_file(path, error))?;
        Ok(Self(key).public_pem())
    }

    /// Reads one: PKCS#8, as PEM or DER.
    ///
    /// # Errors
    /// It can't be read, or is no such key.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let bytes = fs::read(path).map_err(|error| of_file(path, error))?;
        let from_pem = PrivatePkcs8KeyDer::from_pem_slice(&bytes).ok();
        let der = from_pem.as_ref().map_or(&bytes[..], |der| der.secret_pkcs8_der());
        let key = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der);
        key.map(Self).map_err(|_| of_file(path, "no Ed25519 key in PKCS#8"))
    }

    fn public_half(&self) -> Vec<u8> {
        [&SPKI[..], self.0.public_key().as_ref()].concat()
    }

    /// Its public half.
    pub fn public_pem(&self) -> String {
        pem("PUBLIC KEY", &self.public_half())
    }

    /// Names its public half: SHA-256 of the SubjectPublicKeyInfo.
    pub fn fingerprint(&self) -> String {
        sha256(&self.public_half())
    }
}

impl Signer for Key {
    fn public(&self) -> [u8; 32] {
        // What a key of Ed25519 has.
        self.0.public_key().as_ref().try_into().unwrap_or_default()
    }

    fn sign(&self, bytes: &[u8]) -> Vec<u8> {
        self.0.sign(bytes).as_ref().to_vec()
    }
}

/// Reads a public key: SubjectPublicKeyInfo, as PEM or DER.
///
/// # Errors
/// It can't be read, or is no such key.
pub fn read_public(path: &Path) -> Result<[u8; 32], Failure> {
    let bytes = fs::read(path).map_err(|error| of_file(path, error))?;
    let from_pem = SubjectPublicKeyInfoDer::from_pem_slice(&bytes).ok();
    let der = from_pem.as_ref().map_or(&bytes[..], |der| der.as_ref());
    let raw = der.strip_prefix(&SPKI).and_then(|raw| raw.try_into().ok());
    raw.ok_or_else(|| of_file(path, "no Ed25519 public key"))
}

/// Names a public key: SHA-256 of its SubjectPublicKeyInfo.
pub fn fingerprint(public: &[u8; 32]) -> String {
    sha256(&[&SPKI[..], public].concat())
}

/// Whether the owner of a key signed these bytes.
pub fn is_signed(public: &[u8; 32], bytes: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&ED25519, public).verify(bytes, signature).is_ok()
}

/// SHA-256 as `sha256sum` prints it.
pub fn sha256(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A failure about a file.
pub fn of_file(path: &Path, what: impl std::fmt::Display) -> Failure {
    Failure::failed(format!("{}: {what}", path.display()))
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = base64::encode(der);
    let lines: Vec<&str> = (0..text.len()).step_by(64).map(|from| &text[from..text.len().min(from + 64)]).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_other_tools_are_taken() {
        // As `openssl genpkey -algorithm ed25519` writes it: PKCS#8 without the public half (RFC 8410 section 10.3).
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key.pem");
        let text = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";
        fs::write(&path, text).unwrap();
        let public = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";
        assert_eq!(Key::read(&path).unwrap().public_pem(), public);
    }

    #[test]
    fn a_public_key_that_was_written_is_read_and_verifies() {
        let directory = tempfile::tempdir().unwrap();
        let (private, public) = (directory.path().join("key.pem"), directory.path().join("public.pem"));
        fs::write(&public, Key::make(&private).unwrap()).unwrap();
        let (key, read) = (Key::read(&private).unwrap(), read_public(&public).unwrap());
        assert_eq!((key.public(), key.fingerprint()), (read, fingerprint(&read)));
        let signature = key.sign(b"what is so");
        assert!(is_signed(&read, b"what is so", &signature) && !is_signed(&read, b"what is not", &signature));
        assert!(read_public(&private).is_err(), "a private key is none");
    }
}
