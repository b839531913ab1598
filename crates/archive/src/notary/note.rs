//! Signed notes (C2SP signed-note): a text, an empty line, and lines of signatures.

use super::{TreeHash, Unproven, base64};
use sha2::{Digest as _, Sha256};

/// What a line of a signature begins with.
const DASH: &str = "\u{2014} ";
/// Signature type of Ed25519.
const ED25519: u8 = 1;

/// An Ed25519 public key under the name that its signatures bear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    /// Name: the site's.
    pub name: String,
    /// RFC 8032 section 5.1.5.
    pub bytes: [u8; 32],
}

impl PublicKey {
    /// First bytes of the hash of name and key, so that a reader knows which to try.
    pub fn id(&self) -> [u8; 4] {
        let hash: [u8; 32] = Sha256::new()
            .chain_update(&self.name)
            .chain_update([b'\n', ED25519])
            .chain_update(self.bytes)
            .finalize()
            .into();
        let [a, b, c, d, ..] = hash;
        [a, b, c, d]
    }
}

/// A signature of a note, with what says whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedBy {
    /// Name of the key.
    pub name: String,
    /// Its id.
    pub key_id: [u8; 4],
    /// Ed25519: 64 bytes.
    pub signature: Vec<u8>,
}

/// A text and who signed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// What is signed; ends with a line feed.
    pub body: String,
    /// At least one.
    pub signatures: Vec<SignedBy>,
}

/// Names a body, whoever signed it: SHA-256.
pub fn body_hash(body: &str) -> TreeHash {
    TreeHash(Sha256::digest(body).into())
}

impl Note {
    /// A body with a signature of `sign`, which is given the bytes to sign.
    pub fn signed(body: String, key: &PublicKey, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> Self {
        let signature = sign(body.as_bytes());
        Self { body, signatures: vec![SignedBy { name: key.name.clone(), key_id: key.id(), signature }] }
    }

    /// The whole text.
    pub fn to_text(&self) -> String {
        let mut text = format!("{}\n", self.body);
        for SignedBy { name, key_id, signature } in &self.signatures {
            let what = base64::encode(&[key_id.as_slice(), signature].concat());
            text += &format!("{DASH}{name} {what}\n");
        }
        text
    }

    /// Reads a whole text.
    ///
    /// # Errors
    /// `Malformed`.
    pub fn parse(text: &str) -> Result<Self, Unproven> {
        let bad = Unproven::Malformed("signed note");
        let end = text.rfind("\n\n").ok_or(bad.clone())?;
        let (body, rest) = text.split_at(end + 1);
        let lines = rest.strip_prefix('\n').and_then(|lines| lines.strip_suffix('\n')).ok_or(bad.clone())?;
        let signatures: Option<Vec<_>> = lines.split('\n').map(signature).collect();
        Ok(Self { body: body.to_owned(), signatures: signatures.ok_or(bad)? })
    }

    /// Which of the keys signed it; `check` says whether a key's signature is of these bytes.
    ///
    /// # Errors
    /// `UnknownSigner`, or `BadSignature` of a key that is one of these.
    pub fn signer<'k>(
        &self,
        keys: &'k [PublicKey],
        check: impl Fn(&[u8; 32], &[u8], &[u8]) -> bool,
    ) -> Result<&'k PublicKey, Unproven> {
        let mut found = Err(Unproven::UnknownSigner);
        for signed in &self.signatures {
            for key in keys.iter().filter(|key| key.name == signed.name && key.id() == signed.key_id) {
                if check(&key.bytes, self.body.as_bytes(), &signed.signature) {
                    return Ok(key);
                }
                found = Err(Unproven::BadSignature);
            }
        }
        found
    }
}

fn signature(line: &str) -> Option<SignedBy> {
    let (name, what) = line.strip_prefix(DASH)?.split_once(' ')?;
    let bytes = base64::decode(what)?;
    let (key_id, signature) = bytes.split_first_chunk()?;
    Some(SignedBy { name: name.to_owned(), key_id: *key_id, signature: signature.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Key and note of the package golang.org/x/mod/sumdb/note, whose format this is.
    #[test]
    fn a_note_of_another_program_is_read_and_written_as_it_was() {
        let text = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n\n\u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";
        let note = Note::parse(text).unwrap();
        assert_eq!(note.to_text(), text);
        let key = "ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
        let [ED25519, bytes @ ..] = base64::decode(key).unwrap().try_into().map(|key: [u8; 33]| key).unwrap() else {
            panic!("a key of Ed25519")
        };
        let key = PublicKey { name: "PeterNeumann".into(), bytes };
        assert_eq!(key.id(), [0xc7, 0x4f, 0x20, 0xa3]);
        let keys = [key.clone()];
        let check = |bytes: &[u8; 32], body: &[u8], signature: &[u8]| {
            *bytes == key.bytes && body == note.body.as_bytes() && signature.len() == 64
        };
        assert_eq!(note.signer(&keys, check), Ok(&key));
        assert_eq!(note.signer(&keys, |_, _, _| false), Err(Unproven::BadSignature));
        let renamed = [PublicKey { name: "Peter".into(), ..key.clone() }];
        assert_eq!(note.signer(&renamed, |_, _, _| true), Err(Unproven::UnknownSigner));
    }

    #[test]
    fn what_is_no_note_is_refused() {
        let text = Note {
            body: "a\n\nb\n".into(),
            signatures: vec![SignedBy { name: "main".into(), key_id: [1, 2, 3, 4], signature: vec![5; 64] }],
        }
        .to_text();
        assert_eq!(Note::parse(&text).unwrap().to_text(), text);
        for cut in (0..text.len()).filter(|cut| text.is_char_boundary(*cut)) {
            assert!(Note::parse(&text[..cut]).is_err(), "cut at {cut}");
        }
        for bad in ["", "\n\n", "a\n\n\n", "a\n\n- main AAAA\n", "a\n\n\u{2014} main\n", "a\n\n\u{2014} main !\n"] {
            assert!(Note::parse(bad).is_err(), "{bad:?}");
        }
    }
}
