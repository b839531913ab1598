//! Signatures of reports: Ed25519 over `report.json`, which has the hashes of the other files. The signature stands in a
//! file of its own, and keys are PEM, so that other tools can check them too:
//! `openssl pkeyutl -verify -pubin -inkey PUBLIC -rawin -in report.json -sigfile report.json.sig`.

use crate::commands::Failure;
use aws_lc_rs::{
    digest::{SHA256, digest},
    signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey},
};
use rustls::pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer, pem::PemObject};
use std::{
    fs,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// What is signed.
pub const SIGNED: &str = "report.json";
/// And its signature: 64 bytes.
pub const SIGNATURE: &str = "report.json.sig";
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

    fn public(&self) -> Vec<u8> {
        [&SPKI[..], self.0.public_key().as_ref()].concat()
    }

    /// Its public half.
    pub fn public_pem(&self) -> String {
        pem("PUBLIC KEY", &self.public())
    }

    /// Names its public half: SHA-256 of the SubjectPublicKeyInfo.
    pub fn fingerprint(&self) -> String {
        sha256(&self.public())
    }

    /// Signs.
    pub fn sign(&self, bytes: &[u8]) -> Vec<u8> {
        self.0.sign(bytes).as_ref().to_vec()
    }
}

/// SHA-256 as `sha256sum` prints it.
pub fn sha256(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Checks a report against a key that did not come with it; gives what was checked.
///
/// # Errors
/// `Differs`: a file is not as it was signed. Others: something can't be read.
pub fn verify(directory: &Path, public_key: &Path) -> Result<Vec<String>, Failure> {
    let read = |path: PathBuf| fs::read(&path).map_err(|error| of_file(&path, error));
    let key = read(public_key.to_owned())?;
    let from_pem = SubjectPublicKeyInfoDer::from_pem_slice(&key).ok();
    let der = from_pem.as_ref().map_or(&key[..], |der| der.as_ref());
    let raw = der.strip_prefix(&SPKI).filter(|raw| raw.len() == 32);
    let raw = raw.ok_or_else(|| of_file(public_key, "no Ed25519 public key"))?;
    let (report, signature) = (read(directory.join(SIGNED))?, read(directory.join(SIGNATURE))?);
    if UnparsedPublicKey::new(&ED25519, raw).verify(&report, &signature).is_err() {
        return Err(Failure::Differs(format!("{SIGNED} is not as the owner of this key signed it")));
    }
    let report: serde_json::Value = serde_json::from_slice(&report).map_err(|error| of_file(directory, error))?;
    let files = report["files"].as_object().ok_or_else(|| Failure::Differs(format!("{SIGNED} names no files")))?;
    let mut checked = vec![format!("{SIGNED}: signed by {}", sha256(der))];
    for (name, hash) in files {
        // A name with a path in it is none that was written here.
        let is_plain = Path::new(name).file_name().is_some_and(|plain| plain.to_str() == Some(name));
        if !is_plain || hash.as_str() != Some(sha256(&read(directory.join(name))?).as_str()) {
            return Err(Failure::Differs(format!("{name:?} is not as it was when {SIGNED} was signed")));
        }
        checked.push(format!("{name}: as it was then"));
    }
    Ok(checked)
}

fn of_file(path: &Path, what: impl std::fmt::Display) -> Failure {
    Failure::failed(format!("{}: {what}", path.display()))
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = base64(der);
    let lines: Vec<&str> = (0..text.len()).step_by(64).map(|from| &text[from..text.len().min(from + 64)]).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// Base 64 (RFC 4648 section 4).
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let letter = |bits: u32| char::from(LETTERS[(bits & 63) as usize]);
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let at = |index: usize| u32::from(three.get(index).copied().unwrap_or_default());
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for index in 0..4 {
            text.push(if index <= three.len() { letter(bits >> (18 - 6 * index)) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed(directory: &Path) -> PathBuf {
        let (private, public) = (directory.join("key.pem"), directory.join("public.pem"));
        fs::write(&public, Key::make(&private).unwrap()).unwrap();
        fs::write(directory.join("report.md"), "what was found").unwrap();
        let report = serde_json::json!({ "files": { "report.md": sha256(b"what was found") } }).to_string();
        let key = Key::read(&private).unwrap();
        fs::write(directory.join(SIGNED), &report).unwrap();
        fs::write(directory.join(SIGNATURE), key.sign(report.as_bytes())).unwrap();
        public
    }

    #[test]
    fn base64_is_as_in_its_rfc() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn a_report_is_believed_as_it_was_signed_and_not_otherwise() {
        let directory = tempfile::tempdir().unwrap();
        let public = signed(directory.path());
        assert_eq!(verify(directory.path(), &public).unwrap().len(), 2);
        for name in ["report.md", SIGNED, SIGNATURE] {
            let path = directory.path().join(name);
            let whole = fs::read(&path).unwrap();
            for at in [0, whole.len() / 2, whole.len() - 1] {
                let mut changed = whole.clone();
                changed[at] ^= 1;
                fs::write(&path, changed).unwrap();
                assert!(matches!(verify(directory.path(), &public), Err(Failure::Differs(_))), "{name}, byte {at}");
            }
            fs::write(&path, whole).unwrap();
        }
        fs::remove_file(directory.path().join("report.md")).unwrap();
        assert!(verify(directory.path(), &public).is_err(), "a file that is gone");
    }

    #[test]
    fn another_key_did_not_sign_it_and_no_key_is_written_over() {
        let directory = tempfile::tempdir().unwrap();
        let public = signed(directory.path());
        let other = directory.path().join("other.pem");
        fs::write(&public, Key::make(&other).unwrap()).unwrap();
        assert!(matches!(verify(directory.path(), &public), Err(Failure::Differs(_))));
        assert!(Key::make(&other).is_err());
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(&other).unwrap().permissions().mode() & 0o777, 0o600);
    }

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
}
