//! The BLAKE3 tree of an object, cut at groups of 64 KiB.
//!
//! A store keeps the chaining values of the groups, by pages of 2048, and of the pages if there is more than one; so a range
//! is verified at the price of a range. Two layouts have them: beside the data ([`Shape`]), or by themselves
//! ([`Shape::page_of_tree`], [`Shape::top_of_tree`]).
//!
//! A volume keeps an object as one run of bytes: each 128 MiB of its data are followed by a page with the chaining values of
//! their 2048 groups; the last page has as many as are needed. After it, if there is more than one page, come the chaining
//! values of the pages. An object of one group has neither: its digest says all. So the place of everything follows
//! from the object's length, and verifying a range costs the range, one page, and 32 bytes for each 128 MiB.

use blake3::hazmat::{ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};
use blake3::{Hash, Hasher};

/// Bytes verified as one.
pub const GROUP: usize = 64 * 1024;
const GROUPS_OF_PAGE: u64 = 2048;
/// Data bytes whose chaining values fill a page.
pub const PAGE_DATA: u64 = GROUPS_OF_PAGE * GROUP as u64;
const VALUE: u64 = 32;
const PAGE_BYTES: u64 = GROUPS_OF_PAGE * VALUE;

/// Where the parts of an object of this length are in its run of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    length: u64,
}

impl Shape {
    /// Of an object of this length.
    pub fn of(length: u64) -> Self {
        Self { length }
    }

    /// Groups of 64 KiB.
    pub fn groups(self) -> u64 {
        self.length.div_ceil(GROUP as u64)
    }

    /// Pages of chaining values: none for one group.
    pub fn pages(self) -> u64 {
        if self.groups() <= 1 { 0 } else { self.groups().div_ceil(GROUPS_OF_PAGE) }
    }

    /// Bytes of the whole run.
    pub fn run(self) -> u64 {
        let top = if self.pages() > 1 { self.pages() * VALUE } else { 0 };
        let values = if self.groups() > 1 { self.groups() * VALUE } else { 0 };
        self.length + values + top
    }

    /// Place of a data byte.
    pub fn data(self, offset: u64) -> u64 {
        offset + offset / PAGE_DATA * PAGE_BYTES
    }

    /// Place and length of a page.
    pub fn page(self, page: u64) -> (u64, usize) {
        let groups = (self.groups() - page * GROUPS_OF_PAGE).min(GROUPS_OF_PAGE);
        (((page + 1) * PAGE_DATA).min(self.length) + page * PAGE_BYTES, (groups * VALUE) as usize)
    }

    /// Bytes of all chaining values, one after the other: pages, then the pages' own.
    pub fn tree(self) -> u64 {
        self.run() - self.length
    }

    /// Place and length of a page among the chaining values alone.
    pub fn page_of_tree(self, page: u64) -> (u64, usize) {
        (page * PAGE_BYTES, self.page(page).1)
    }

    /// Place and length of the pages' values among the chaining values alone; `None` when there are none.
    pub fn top_of_tree(self) -> Option<(u64, usize)> {
        self.top().map(|(at, length)| (at - self.length, length))
    }

    /// Place and length of the pages' chaining values; `None` when there are none.
    pub fn top(self) -> Option<(u64, usize)> {
        (self.pages() > 1).then(|| (self.length + self.groups() * VALUE, (self.pages() * VALUE) as usize))
    }
}

/// Hashes an object on its way in; each byte once.
pub struct TreeHasher {
    group: Hasher,
    in_group: usize,
    groups: u64,
    /// Values of the page being filled.
    page: Vec<ChainingValue>,
    pages: Vec<ChainingValue>,
}

impl Default for TreeHasher {
    fn default() -> Self {
        Self::new()
    }
}

impl TreeHasher {
    /// Nothing hashed yet.
    pub fn new() -> Self {
        Self { group: Hasher::new(), in_group: 0, groups: 0, page: Vec::new(), pages: Vec::new() }
    }

    /// Hashes bytes that go to the same page. Call [`Self::end_page`] between pages.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.in_group == GROUP {
                self.end_group();
            }
            let (now, later) = bytes.split_at(bytes.len().min(GROUP - self.in_group));
            self.group.update(now);
            self.in_group += now.len();
            bytes = later;
        }
    }

    fn end_group(&mut self) {
        self.page.push(self.group.finalize_non_root());
        self.groups += 1;
        self.in_group = 0;
        self.group = group_hasher(self.groups);
    }

    /// Bytes of the page, all of whose data was hashed, when more data follows it.
    pub fn end_page(&mut self) -> Vec<u8> {
        self.end_group();
        let page = std::mem::take(&mut self.page);
        self.pages.push(subtree(&page));
        page.concat()
    }

    /// Digest, and the bytes that follow the last data byte.
    pub fn finish(mut self) -> (Hash, Vec<u8>) {
        if self.groups == 0 {
            return (self.group.finalize(), Vec::new());
        }
        self.end_group();
        let mut tail = self.page.concat();
        if self.pages.is_empty() {
            return (root(&self.page), tail);
        }
        self.pages.push(subtree(&self.page));
        tail.extend(self.pages.concat());
        (root(&self.pages), tail)
    }
}

fn group_hasher(group: u64) -> Hasher {
    let mut hasher = Hasher::new();
    hasher.set_input_offset(group * GROUP as u64);
    hasher
}

/// Splits where BLAKE3 does: the left part is the largest power of two that leaves something for the right one.
fn split(values: &[ChainingValue]) -> (&[ChainingValue], &[ChainingValue]) {
    values.split_at(values.len().next_power_of_two() / 2)
}

fn subtree(values: &[ChainingValue]) -> ChainingValue {
    match values {
        [] => [0; 32],
        [one] => *one,
        _ => {
            let (left, right) = split(values);
            merge_subtrees_non_root(&subtree(left), &subtree(right), Mode::Hash)
        }
    }
}

fn root(values: &[ChainingValue]) -> Hash {
    let (left, right) = split(values);
    merge_subtrees_root(&subtree(left), &subtree(right), Mode::Hash)
}

fn values(bytes: &[u8]) -> Vec<ChainingValue> {
    bytes.as_chunks::<32>().0.to_vec()
}

/// Verified hashes of an object, as far as they were read.
pub enum Hashes {
    /// At most one group: the digest itself.
    Digest(Hash),
    /// One page, verified against the digest.
    Page(Vec<ChainingValue>),
    /// Values of the pages, verified against the digest.
    Pages(Vec<ChainingValue>),
}

impl Hashes {
    /// What can be verified with the digest alone, from the bytes that [`Shape::page`] 0 or [`Shape::top`] name.
    pub fn verify(shape: Shape, digest: &[u8; 32], bytes: &[u8]) -> Option<Self> {
        let digest = Hash::from_bytes(*digest);
        let found = values(bytes);
        match shape.pages() {
            0 => Some(Self::Digest(digest)),
            1 => (found.len() as u64 == shape.groups() && root(&found) == digest).then_some(Self::Page(found)),
            pages => (found.len() as u64 == pages && root(&found) == digest).then_some(Self::Pages(found)),
        }
    }

    /// A page of an object of several, verified.
    pub fn verify_page(&self, page: u64, bytes: &[u8]) -> Option<Vec<ChainingValue>> {
        let found = values(bytes);
        match self {
            Self::Pages(pages) => (!found.is_empty() && *pages.get(page as usize)? == subtree(&found)).then_some(found),
            Self::Digest(_) | Self::Page(_) => None,
        }
    }

    /// Memory taken.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Digest(_) => 32,
            Self::Page(values) | Self::Pages(values) => values.len() * 32,
        }
    }
}

/// Whether these are the bytes of the only group of an object.
pub fn verify_whole(digest: &Hash, bytes: &[u8]) -> bool {
    blake3::hash(bytes) == *digest
}

/// Whether these are the bytes of whole groups from `group` on, by the values of the page that they are in.
pub fn verify_groups(page: &[ChainingValue], group: u64, bytes: &[u8]) -> bool {
    bytes.chunks(GROUP).zip(group..).all(|(bytes, group)| {
        let expected = page.get((group % GROUPS_OF_PAGE) as usize);
        expected == Some(&group_hasher(group).update(bytes).finalize_non_root())
    })
}

/// Page that a data byte's group is in.
pub fn page_of(offset: u64) -> u64 {
    offset / PAGE_DATA
}

#[cfg(test)]
mod tests;
