//! Signatures of reports: Ed25519 over `report.json`, which has the hashes of the other files. The signature stands in a
//! file of its own, and keys are PEM, so that other tools can check them too:
//! `openssl pkeyutl -verify -pubin -inkey PUBLIC -rawin -in report.json -sigfile report.json.sig`.

use crate::{
    commands::Failure,
    signing::{fingerprint, is_signed, of_file, read_public, sha256},
};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// What is signed.
pub const SIGNED: &str = "report.json";
/// And its signature: 64 bytes.
pub const SIGNATURE: &str = "report.json.sig";

/// Checks a report against a key that did not come with it; gives what was checked.
///
/// # Errors
/// `Differs`: a file is not as it was signed. Others: something can't be read.
pub fn verify(directory: &Path, public_key: &Path) -> Result<Vec<String>, Failure> {
    let read = |path: PathBuf| fs::read(&path).map_err(|error| of_file(&path, error));
    let key = read_public(public_key)?;
    let (report, signature) = (read(directory.join(SIGNED))?, read(directory.join(SIGNATURE))?);
    if !is_signed(&key, &report, &signature) {
        return Err(Failure::Differs(format!("{SIGNED} is not as the owner of this key signed it")));
    }
    let report: serde_json::Value = serde_json::from_slice(&report).map_err(|error| of_file(directory, error))?;
    let files = report["files"].as_object().ok_or_else(|| Failure::Differs(format!("{SIGNED} names no files")))?;
    let mut checked = vec![format!("{SIGNED}: signed by {}", fingerprint(&key))];
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signing::Key;
    use cairn_lifecycle::Signer;

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
}
