use bytes::Bytes;
use std::fmt;

/// A boundary of ours: only characters that need no quotes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Boundary(String);

impl Boundary {
    /// One that no stored bytes can hold on purpose.
    pub(crate) fn random() -> Self {
        Self(uuid::Uuid::now_v7().simple().to_string())
    }

    /// The same one for the same representation, so that ranges of it fit together. An object can't hold it: it is
    /// made from the object's own digest.
    pub(crate) fn of(entity: &str) -> Self {
        let hash = blake3::hash(entity.as_bytes());
        Self(hash.to_hex().chars().take(40).collect())
    }

    /// What stands before a part's bytes. Header names are spelt `Content-Type` and so on: viewers compare them with
    /// regard to case.
    pub(crate) fn part_head(
        &self,
        first: bool,
        content_type: &str,
        length: Option<u64>,
        location: Option<&str>,
    ) -> Bytes {
        let mut head = String::with_capacity(256);
        head.push_str(if first { "--" } else { "\r\n--" });
        head.push_str(&self.0);
        head.push_str("\r\nContent-Type: ");
        head.push_str(content_type);
        if let Some(length) = length {
            head.push_str("\r\nContent-Length: ");
            head.push_str(&length.to_string());
        }
        if let Some(location) = location {
            head.push_str("\r\nContent-Location: ");
            head.push_str(location);
        }
        head.push_str("\r\n\r\n");
        head.into()
    }

    /// What stands after the last part.
    pub(crate) fn close(&self) -> Bytes {
        format!("\r\n--{}--\r\n", self.0).into()
    }
}

impl fmt::Display for Boundary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `Content-Type` of a message whose parts are of the type `part`.
pub(crate) fn content_type(part: &str, boundary: &Boundary) -> String {
    format!("multipart/related; type=\"{part}\"; boundary={boundary}")
}
