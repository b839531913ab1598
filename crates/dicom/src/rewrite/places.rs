//! Where the top-level elements of a data set stand.

use crate::{
    finding::FindingKind,
    parse::{
        At, Sink,
        head::{Form, Head, UNDEFINED},
    },
    tag::Tag,
    tags,
    vr::Vr,
};
use std::{collections::BTreeMap, ops::Range};

/// Runs of elements that are told apart; beyond them group lengths stay where they are.
const SLOTS_MAX: usize = 1 << 16;
/// From this group on nothing is looked at.
const GROUP_OF_PIXELS: u16 = 0x7FE0;
/// Bytes of the end of a sequence or item.
const DELIMITER_BYTES: u64 = 8;

/// A part of the data set to give out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    /// As it stands.
    Kept(Range<u64>),
    /// An element that is written anew, or is where it belongs.
    Place(Tag),
}

/// An element that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) element: Range<u64>,
    /// The items of a sequence that is written as the data set around it.
    pub(super) items: Option<Range<u64>>,
}

/// What an element under way is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Value,
    Sequence { is_as_around: bool, is_delimited: bool },
    Fragments,
}

struct Open {
    tag: Tag,
    start: u64,
    value: u64,
    kind: Kind,
}

/// Notes where elements stand.
pub(super) struct Places {
    wanted: Vec<Tag>,
    next: usize,
    pub(super) slots: Vec<Slot>,
    pub(super) found: BTreeMap<Tag, Found>,
    pub(super) charset: Vec<u8>,
    pub(super) form: Option<Form>,
    /// From where on everything is given out as it stands.
    pub(super) rest: Option<u64>,
    end: u64,
    open: Option<Open>,
}

impl Places {
    /// `wanted` ascend.
    pub(super) fn new(wanted: Vec<Tag>) -> Self {
        Self {
            wanted,
            next: 0,
            slots: Vec::new(),
            found: BTreeMap::new(),
            charset: Vec::new(),
            form: None,
            rest: None,
            end: 0,
            open: None,
        }
    }

    /// No more is looked at: places of what is still wanted come last.
    pub(super) fn finish(&mut self) -> u64 {
        let left = self.wanted.get(self.next..).unwrap_or_default();
        self.slots.extend(left.iter().map(|tag| Slot::Place(*tag)));
        self.next = self.wanted.len();
        self.rest.unwrap_or(self.end)
    }

    fn is_looking(&self, at: At<'_>) -> bool {
        at.is_root() && self.rest.is_none()
    }

    fn begun(&mut self, at: At<'_>, head: &Head, kind: Kind) {
        if !self.is_looking(at) {
            return;
        }
        let start = at.value - u64::from(head.size);
        if head.tag.group() >= GROUP_OF_PIXELS {
            self.rest = Some(start);
            return;
        }
        self.form.get_or_insert(head.form);
        self.open = Some(Open { tag: head.tag, start, value: at.value, kind });
    }

    fn ended(&mut self, position: u64) {
        let Some(Open { tag, start, value, kind }) = self.open.take() else { return };
        let items = match kind {
            Kind::Sequence { is_as_around: true, is_delimited } => {
                let end = if is_delimited { position.saturating_sub(DELIMITER_BYTES) } else { position };
                Some(value..end.max(value))
            }
            _ => None,
        };
        self.stands(tag, Found { element: start..position, items });
    }

    fn stands(&mut self, tag: Tag, found: Found) {
        self.end = found.element.end;
        while let Some(next) = self.wanted.get(self.next).filter(|next| **next < tag) {
            self.slots.push(Slot::Place(*next));
            self.next += 1;
        }
        if let Ok(at) = self.wanted.binary_search(&tag) {
            // Of one that stands twice the first counts, and both are written anew.
            self.found.entry(tag).or_insert(found);
            if at == self.next {
                self.slots.push(Slot::Place(tag));
                self.next += 1;
            }
            return;
        }
        let are_many = self.slots.len() >= SLOTS_MAX;
        match self.slots.last_mut() {
            // What lies between them are group lengths, which would not be right any more.
            Some(Slot::Kept(range)) if range.end == found.element.start || are_many => range.end = found.element.end,
            _ => self.slots.push(Slot::Kept(found.element)),
        }
    }
}

impl Sink for Places {
    fn whole(&mut self, at: At<'_>, head: &Head, value: &[u8]) {
        if head.tag == tags::SPECIFIC_CHARACTER_SET && self.is_looking(at) {
            self.charset = value.to_vec();
        }
        self.begun(at, head, Kind::Value);
        if at.is_root() {
            self.ended(at.value + value.len() as u64);
        }
    }

    fn plain(&mut self, at: At<'_>, tag: Tag, vr: Vr, raw: &[u8]) {
        let value = raw.get(8..).unwrap_or_default();
        let form = Form { explicit: true, big: false };
        self.whole(at, &Head { tag, vr, length: value.len() as u32, size: 8, form, odd_thing: None }, value);
    }

    fn begin(&mut self, at: At<'_>, head: &Head) {
        self.begun(at, head, Kind::Value);
    }

    fn bytes(&mut self, _: &[u8]) {}

    fn end(&mut self, position: u64) {
        if self.open.as_ref().is_some_and(|open| open.kind == Kind::Value) {
            self.ended(position);
        }
    }

    fn sequence(&mut self, at: At<'_>, head: &Head) {
        let is_as_around = self.form.is_none_or(|form| form == head.form);
        self.begun(at, head, Kind::Sequence { is_as_around, is_delimited: head.length == UNDEFINED });
    }

    fn item(&mut self) {}

    fn item_end(&mut self) {}

    fn sequence_end(&mut self, root: bool, position: u64) {
        if root {
            self.ended(position);
        }
    }

    fn encapsulated(&mut self, at: At<'_>, head: &Head) {
        self.begun(at, head, Kind::Fragments);
    }

    fn fragment(&mut self, _: u64, _: u32) {}

    fn encapsulated_end(&mut self, position: u64) {
        if self.open.as_ref().is_some_and(|open| open.kind == Kind::Fragments) {
            self.ended(position);
        }
    }

    fn is_signed(&self) -> bool {
        false
    }

    fn found(&mut self, _: FindingKind, _: Option<Tag>) {}
}
