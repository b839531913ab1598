//! Names in the bucket, and what is written beside an object in its metadata.
//!
//! S3 takes 2 KiB of metadata. An object whose hashes fit has all there: one request stores it, and the answer to any read
//! has what verifies it.

use aws_smithy_types::base64;
use cairn_archive::{Digest, ObjectKey};
use cairn_store_api::tree::Shape;
use std::collections::HashMap;

/// Groups whose chaining values fit into metadata, with all else: 40 * 32 bytes in base64 are 1,708.
pub(crate) const GROUPS_IN_METADATA: u64 = 40;

const BLAKE3: &str = "cairn-blake3";
const ENDED: &str = "cairn-put-ended-ms";
const WRITER: &str = "cairn-writer";
const TREE: &str = "cairn-tree";

/// Metadata of an object, or of its hashes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Meta {
    /// Who wrote it: one value for each writer, so that it knows its own.
    pub(crate) writer: String,
    /// Digest and time at which the put ended; unknown when an upload in parts begins.
    pub(crate) facts: Option<Facts>,
    /// Chaining values, if they are here.
    pub(crate) tree: Option<Vec<u8>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) digest: Digest,
    pub(crate) ended_ms: u64,
}

fn digest(text: &str) -> Option<Digest> {
    let bytes: Vec<u8> = base64::decode(text).ok()?;
    Digest::from_slice(&bytes).ok()
}

impl Meta {
    pub(crate) fn encode(&self) -> HashMap<String, String> {
        let mut map = HashMap::from([(WRITER.to_owned(), self.writer.clone())]);
        if let Some(facts) = &self.facts {
            map.insert(BLAKE3.to_owned(), base64::encode(facts.digest.0));
            map.insert(ENDED.to_owned(), facts.ended_ms.to_string());
        }
        if let Some(tree) = &self.tree {
            map.insert(TREE.to_owned(), base64::encode(tree));
        }
        map
    }

    /// `None`: no object of ours.
    pub(crate) fn decode(map: Option<&HashMap<String, String>>) -> Option<Self> {
        let map = map?;
        let writer = map.get(WRITER)?.clone();
        let facts = match (map.get(BLAKE3), map.get(ENDED)) {
            (Some(blake3), Some(ended)) => Some(Facts { digest: digest(blake3)?, ended_ms: ended.parse().ok()? }),
            _ => None,
        };
        let tree = map.get(TREE).map(base64::decode).transpose().ok()?;
        Some(Self { writer, facts, tree })
    }

    /// Whether the hashes of an object of this length, with this metadata, are an object of their own.
    pub(crate) fn has_tree_beside(&self, length: u64) -> bool {
        self.tree.is_none() && Shape::of(length).pages() > 0
    }
}

/// Names of what is in the bucket.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    objects: String,
    trees: String,
    probe: String,
}

impl Names {
    pub(crate) fn new(prefix: &str) -> Self {
        let name = |what: &str| format!("{prefix}{what}");
        Self { objects: name("objects/"), trees: name("trees/"), probe: name("probe") }
    }

    pub(crate) fn objects(&self) -> &str {
        &self.objects
    }

    pub(crate) fn trees(&self) -> &str {
        &self.trees
    }

    pub(crate) fn probe(&self) -> &str {
        &self.probe
    }

    pub(crate) fn object(&self, key: ObjectKey) -> String {
        format!("{}{key}", self.objects)
    }

    /// Hashes have their writer in their name: of two with one key each has its own, and that of the object counts.
    pub(crate) fn tree(&self, key: ObjectKey, writer: &str) -> String {
        format!("{}{key}-{writer}", self.trees)
    }

    pub(crate) fn key_of_object(&self, name: &str) -> Option<ObjectKey> {
        name.strip_prefix(&self.objects)?.parse().ok()
    }

    /// Key and writer of hashes.
    pub(crate) fn of_tree<'a>(&self, name: &'a str) -> Option<(ObjectKey, &'a str)> {
        const KEY: usize = 36;
        let rest = name.strip_prefix(&self.trees)?;
        Some((rest.get(..KEY)?.parse().ok()?, rest.get(KEY..)?.strip_prefix('-')?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_reads_back_and_fits_into_what_s3_takes() {
        let facts = Some(Facts { digest: Digest([7; 32]), ended_ms: 1_800_000_000_000 });
        let tree = Some(vec![0x5a; (GROUPS_IN_METADATA * 32) as usize]);
        let meta = Meta { writer: "0".repeat(32), facts, tree };
        let map = meta.encode();
        let bytes: usize = map.iter().map(|(key, value)| key.len() + value.len()).sum();
        assert!(bytes <= 2048, "{bytes} bytes");
        assert_eq!(Meta::decode(Some(&map)), Some(meta));
        assert_eq!(Meta::decode(Some(&HashMap::new())), None);
        let mut wrong = map.clone();
        wrong.insert(BLAKE3.to_owned(), "AAAA".to_owned());
        assert_eq!(Meta::decode(Some(&wrong)), None);
    }

    #[test]
    fn names_read_back() {
        let names = Names::new("site/");
        let key: ObjectKey = "0197c9a6-0000-7000-8000-000000000001".parse().unwrap();
        assert_eq!(names.key_of_object(&names.object(key)), Some(key));
        assert_eq!(names.of_tree(&names.tree(key, "abc")), Some((key, "abc")));
        assert_eq!(names.of_tree(&names.object(key)), None);
        assert_eq!(names.key_of_object("site/objects/else"), None);
    }
}
