//! Items, delimiters and fragments, and sequences that are passed over.

use super::{
    At, F, OPEN, Parser, Sink, State, Step, TRUSTED_LENGTH_MAX, at,
    head::{self, Form, Head, ITEM, ITEM_END, SEQUENCE_END, UNDEFINED},
};
use crate::{tag::Tag, vr::Vr};

impl<S: Sink> Parser<S> {
    /// The innermost container is over by its length, or by that of one around it.
    pub(super) fn close_at_limit(&mut self) -> Step {
        if !self.top.defined {
            self.found(if self.top.is_item { F::MissingItemDelimiter } else { F::MissingSequenceDelimiter });
        }
        self.pop();
        Step::Used(0)
    }

    /// An item or delimiter tag where an element should be.
    pub(super) fn delimiter(&mut self, head: Head) -> Step {
        let at_root = self.stack.is_empty();
        match head.tag {
            ITEM_END if !at_root => {
                self.check_delimiter(head);
                if self.top.defined {
                    self.sink.found(F::UnexpectedDelimiter, Some(self.top.tag));
                } else {
                    self.position += 8;
                    self.pop();
                    self.position -= 8;
                }
                Step::Used(8)
            }
            ITEM | SEQUENCE_END if !at_root => {
                let kind = if self.top.defined { F::ContainerLengthWrong } else { F::MissingItemDelimiter };
                self.sink.found(kind, Some(self.top.tag));
                self.pop();
                Step::Used(0)
            }
            ITEM if head.length == UNDEFINED => {
                self.sink.found(F::UnexpectedItem, None);
                self.sink.begin(at!(self, self.position + 8), &Head { vr: Vr::SQ, ..head });
                self.state = State::Deep { open: 1, left: 0, form: head.form };
                Step::Used(8)
            }
            ITEM => {
                self.sink.found(F::UnexpectedItem, None);
                self.skip(u64::from(head.length));
                Step::Used(8)
            }
            _ => {
                self.sink.found(F::UnexpectedDelimiter, None);
                Step::Used(8)
            }
        }
    }

    pub(super) fn check_delimiter(&mut self, head: Head) {
        if head.length != 0 {
            self.sink.found(F::DelimiterWithLength, Some(self.top.tag));
        }
    }

    pub(super) fn item(&mut self, bytes: &[u8]) -> Step {
        let remaining = self.remaining();
        if remaining < 8 {
            return if remaining == 0 { self.close_at_limit() } else { self.skip_to_limit(F::ContainerLengthWrong) };
        }
        let Some(b) = bytes.first_chunk::<8>() else { return Step::Need(8) };
        let mut form = self.top.form;
        if (Form { big: !form.big, ..form }).tag(b).group() == 0xFFFE {
            form.big = !form.big;
            self.sink.found(F::MixedByteOrder, Some(self.top.tag));
            self.top.form = form;
        }
        let length = form.u32([b[4], b[5], b[6], b[7]]);
        let head = Head { tag: form.tag(b), vr: Vr::UN, length, size: 8, form, odd_thing: None };
        match head.tag {
            ITEM => self.open_item(head),
            SEQUENCE_END => {
                self.check_delimiter(head);
                if self.top.defined {
                    self.sink.found(F::UnexpectedDelimiter, Some(self.top.tag));
                } else {
                    self.position += 8;
                    self.pop();
                    self.position -= 8;
                }
                Step::Used(8)
            }
            ITEM_END => {
                self.sink.found(F::UnexpectedDelimiter, Some(self.top.tag));
                Step::Used(8)
            }
            // A pad byte after an odd item.
            _ if b[0] == 0 && bytes.len() >= 9 && head::is_likely(&bytes[1..], form, Tag(0xFFFE_0000)) => {
                self.sink.found(F::PadByteNotCounted, Some(self.top.tag));
                Step::Used(1)
            }
            _ if b[0] == 0 && bytes.len() < 9 && remaining > 8 => Step::Need(9),
            _ if self.top.defined => self.skip_to_limit(F::SequenceDamaged),
            _ => {
                self.sink.found(F::MissingSequenceDelimiter, Some(self.top.tag));
                self.pop();
                Step::Used(0)
            }
        }
    }

    pub(super) fn open_item(&mut self, head: Head) -> Step {
        let mut end = (head.length != UNDEFINED).then(|| self.position + 8 + u64::from(head.length));
        if let Some(stated) = end.filter(|end| *end > self.top.limit) {
            if head.length <= TRUSTED_LENGTH_MAX {
                self.sink.found(F::ContainerLengthWrong, Some(self.top.tag));
                self.stretch(stated);
            } else {
                self.sink.found(F::ElementExceedsContainer, Some(self.top.tag));
                end = Some(self.top.limit);
            }
        }
        let index = self.top.index;
        self.top.index = index.saturating_add(1);
        self.open(self.top.tag, true, index, head.form, end);
        self.sink.item();
        self.state = State::Element;
        Step::Used(8)
    }

    pub(super) fn fragment(&mut self, bytes: &[u8]) -> Step {
        let remaining = self.remaining();
        let Some(b) = bytes.first_chunk::<8>().filter(|_| remaining >= 8) else {
            return if remaining >= 8 { Step::Need(8) } else { self.fragments_lost() };
        };
        let form = self.top.form;
        let length = form.u32([b[4], b[5], b[6], b[7]]);
        match form.tag(b) {
            ITEM if length != UNDEFINED => {
                let left = u64::from(length).min(remaining - 8);
                if left < u64::from(length) {
                    self.sink.found(F::ElementExceedsContainer, Some(self.top.last));
                }
                if length & 1 == 1 {
                    self.sink.found(F::OddLength, Some(self.top.last));
                }
                self.sink.fragment(self.position + 8, left as u32);
                self.state = State::Value { left, for_sink: true, in_fragments: true };
                Step::Used(8)
            }
            SEQUENCE_END => {
                if length != 0 {
                    self.sink.found(F::DelimiterWithLength, Some(self.top.last));
                }
                self.sink.encapsulated_end(self.position + 8);
                self.state = State::Element;
                Step::Used(8)
            }
            _ if b[0] == 0 && bytes.len() >= 9 && head::is_likely(&bytes[1..], form, Tag(0xFFFE_0000)) => {
                self.sink.found(F::PadByteNotCounted, Some(self.top.last));
                Step::Used(1)
            }
            _ if b[0] == 0 && bytes.len() < 9 && remaining > 8 => Step::Need(9),
            _ if head::is_likely(bytes, form, self.top.last) => {
                self.sink.found(F::MissingSequenceDelimiter, Some(self.top.last));
                self.sink.encapsulated_end(self.position);
                self.state = State::Element;
                Step::Used(0)
            }
            _ => self.fragments_lost(),
        }
    }

    /// Within fragments, something that is neither a fragment nor an end.
    pub(super) fn fragments_lost(&mut self) -> Step {
        self.sink.encapsulated_end(self.position);
        self.state = State::Element;
        if self.top.limit != OPEN {
            return self.skip_to_limit(F::SequenceDamaged);
        }
        while !self.stack.is_empty() {
            self.pop();
        }
        self.state = State::Rest;
        self.found(F::Unreadable)
    }

    pub(super) fn deep(&mut self, bytes: &[u8], open: u64, left: u64, form: Form) -> Step {
        let remaining = self.remaining();
        if open == 0 || remaining < 8 {
            self.sink.end(self.position);
            self.state = State::Element;
            return Step::Used(0);
        }
        if left > 0 {
            let n = usize::try_from(left.min(remaining)).unwrap_or(usize::MAX).min(bytes.len());
            self.state = State::Deep { open, left: left - n as u64, form };
            return if n == 0 { Step::Need(1) } else { Step::Used(n) };
        }
        let head = match head::read(bytes, form, remaining, false) {
            Ok(head) => head,
            Err(need) => return Step::Need(need),
        };
        let (open, left) = match head.tag {
            ITEM_END | SEQUENCE_END => (open - 1, 0),
            _ if head.length == UNDEFINED => (open.saturating_add(1), 0),
            _ => (open, u64::from(head.length)),
        };
        self.state = State::Deep { open, left, form };
        Step::Used(usize::from(head.size))
    }
}
