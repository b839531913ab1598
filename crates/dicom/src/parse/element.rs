//! Elements of the root and of items.

use super::{
    At, BELOW_DATA_SET, F, OPEN, Parser, Sink, State, Step, TRUSTED_LENGTH_MAX, at,
    head::{self, Form, Head, UNDEFINED},
};
use crate::{dictionary, finding::FindingKind, tag::Tag, tags, vr::Vr};

impl<S: Sink> Parser<S> {
    /// The data set ended within a head or a value that would have been delivered whole.
    pub(super) fn finish_element(&mut self, left: &[u8]) {
        if left.len() < 8 && self.stack.is_empty() {
            self.sink.found(F::TrailingBytes, None);
        } else if let Ok(mut head) = head::read(left, self.top.form, left.len() as u64, self.sink.is_signed()) {
            if head.odd_thing == Some(F::UnknownVr) && self.stack.is_empty() && head.tag <= self.top.last {
                self.sink.found(F::TrailingBytes, None);
                self.position += left.len() as u64;
                return;
            }
            self.sink.found(F::TruncatedElement, Some(head.tag));
            if head.vr == Vr::SQ && head.length != UNDEFINED {
                // One with items would have been begun before.
                head.vr = Vr::UN;
            }
            let size = usize::from(head.size);
            if !self.is_dropped(head.tag) && head.length != UNDEFINED && left.len() >= size {
                self.sink.begin(at!(self, self.position + u64::from(head.size)), &head);
                self.sink.bytes(&left[size..]);
                self.sink.end(self.position + left.len() as u64);
            }
        } else {
            self.sink.found(F::TruncatedElement, None);
        }
        self.position += left.len() as u64;
    }

    /// Elements in a row that are as the Standard wants them, without going through the general case.
    #[inline]
    pub(super) fn plain_elements(&mut self, bytes: &[u8]) -> usize {
        let room = usize::try_from(self.remaining()).unwrap_or(usize::MAX).min(bytes.len());
        let bytes = &bytes[..room];
        let mut at = 0;
        while let Some(b) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
            let tag = Tag::new(u16::from_le_bytes([b[0], b[1]]), u16::from_le_bytes([b[2], b[3]]));
            let Some(vr) = head::vr_of_letters(b[4], b[5]) else { break };
            let length = u32::from(u16::from_le_bytes([b[6], b[7]]));
            let end = at + 8 + length as usize;
            let plain = tag > self.top.last
                && tag.group() < 0xFFFC
                && tag.group() != tags::PIXEL_DATA.group()
                && !tag.is_group_length()
                && length & 1 == 0
                && length <= self.rules.whole_max[vr as usize]
                && !vr.has_long_length();
            match bytes.get(at..end) {
                Some(raw) if plain => {
                    let value = self.position + at as u64 + 8;
                    self.sink.plain(at!(self, value), tag, vr, raw);
                }
                _ => break,
            }
            self.top.last = tag;
            at = end;
        }
        at
    }

    /// As `plain_elements`, in Implicit VR Little Endian.
    #[inline]
    fn plain_implicit_elements(&mut self, bytes: &[u8]) -> usize {
        let room = usize::try_from(self.remaining()).unwrap_or(usize::MAX).min(bytes.len());
        let bytes = &bytes[..room];
        let signed = self.sink.is_signed();
        let mut at = 0;
        while let Some(b) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
            let tag = Tag::new(u16::from_le_bytes([b[0], b[1]]), u16::from_le_bytes([b[2], b[3]]));
            let length = u32::from_le_bytes([b[4], b[5], b[6], b[7]]);
            let plain = tag > self.top.last
                && tag.group() < 0xFFFC
                && !tag.is_group_length()
                && length & 1 == 0
                && length < 0x4141
                && tag.group() != tags::PIXEL_DATA.group();
            if !plain {
                break;
            }
            let vr = dictionary::vr_with_sign(tag, signed).unwrap_or(Vr::UN);
            let unclear = vr == Vr::SQ || (vr == Vr::UN && self.rules.expand_unknown);
            let whole = length <= self.rules.whole_max[vr as usize] && !unclear;
            let end = at + 8 + length as usize;
            let Some(value) = bytes.get(at + 8..end).filter(|_| whole) else { break };
            let head = Head { tag, vr, length, size: 8, form: self.top.form, odd_thing: None };
            self.sink.whole(at!(self, self.position + at as u64 + 8), &head, value);
            self.top.last = tag;
            at = end;
            if tag == tags::PIXEL_REPRESENTATION {
                break;
            }
        }
        at
    }

    pub(super) fn element(&mut self, bytes: &[u8]) -> Step {
        if let Some(tag) = self.after_odd {
            // The pad byte may be beyond the container too.
            if bytes.len() < 9 && !self.at_end {
                return Step::Need(9);
            }
            self.after_odd = None;
            let (first, then) = bytes.split_first().unwrap_or((&1, &[]));
            let (form, last) = (self.top.form, self.top.last);
            if matches!(first, 0 | b' ') && !head::is_likely(bytes, form, last) && head::is_likely(then, form, last) {
                self.sink.found(F::PadByteNotCounted, Some(tag));
                return Step::Used(1);
            }
        }
        if !self.top.form.big && self.position > 0 {
            let explicit = self.top.form.explicit;
            let used = if explicit { self.plain_elements(bytes) } else { self.plain_implicit_elements(bytes) };
            if used > 0 {
                return Step::Used(used);
            }
        }
        let remaining = self.remaining();
        if remaining < 8 {
            if remaining == 0 {
                return self.close_at_limit();
            }
            if bytes.len() < 8 && !self.at_end {
                return Step::Need(8);
            }
            // Either these bytes are junk or the container is longer than it says.
            if !head::is_likely(bytes, self.top.form, self.top.last) {
                return self.skip_to_limit(F::ContainerLengthWrong);
            }
        }
        if self.position == 0 && bytes.len() >= 8 {
            self.settle_byte_order(bytes);
        }
        let form = self.top.form;
        let left = if self.at_end { remaining.min(bytes.len() as u64) } else { remaining };
        match head::read(bytes, form, left, self.sink.is_signed()) {
            Err(need) => Step::Need(need),
            Ok(head) if head.tag.group() == 0xFFFE => self.delimiter(head),
            Ok(head) if head.tag.0 == 0 && bytes[..8].iter().all(|b| *b == 0) => self.zeros(),
            Ok(head) => self.element_with(head, bytes),
        }
    }

    /// The first element of a data set: nothing begins with a group such as 0800, unless byte order is not as declared.
    pub(super) fn settle_byte_order(&mut self, bytes: &[u8]) {
        let group = self.top.form.u16([bytes[0], bytes[1]]);
        let swapped = group.swap_bytes();
        if self.top.form.explicit && group > 0xFF && swapped <= 0x40 && swapped != 0 {
            self.top.form.big = !self.top.form.big;
            self.sink.found(F::MixedByteOrder, None);
        }
    }

    /// Eight zeros instead of an element: padding after the data set.
    pub(super) fn zeros(&mut self) -> Step {
        if self.top.limit != OPEN {
            return self.skip_to_limit(F::SequenceDamaged);
        }
        if !self.stack.is_empty() {
            self.sink.found(F::TruncatedSequence, Some(self.top.tag));
        }
        while !self.stack.is_empty() {
            self.pop();
        }
        self.state = State::Rest;
        self.found(F::TrailingBytes)
    }

    /// Elements that never reach the sink.
    pub(super) fn is_dropped(&self, tag: Tag) -> bool {
        tag.is_group_length()
            || (self.stack.is_empty() && matches!(tag.group(), 0 | 2))
            || tag == tags::DATA_SET_TRAILING_PADDING
    }

    pub(super) fn element_with(&mut self, mut head: Head, bytes: &[u8]) -> Step {
        if head.odd_thing == Some(F::UnknownVr) && self.stack.is_empty() && head.tag <= self.top.last {
            self.state = State::Rest;
            return self.found(F::Unreadable);
        }
        let is_sequence = match self.is_sequence(&mut head, bytes) {
            Ok(is_sequence) => is_sequence,
            Err(need) => return Step::Need(need),
        };
        if head.vr == Vr::SQ && !is_sequence {
            head.vr = Vr::UN;
            head.odd_thing = Some(F::NotASequence);
        }
        let misfit = self.misfit(&mut head);
        let dropped = self.is_dropped(head.tag) && head.length != UNDEFINED;
        let whole = !is_sequence && head.length <= self.rules.whole_max[head.vr as usize] && !self.is_pixel_data(&head);
        let need = usize::from(head.size) + head.length as usize;
        if whole && !dropped && bytes.len() < need {
            return Step::Need(need);
        }
        // From here on everything needed is at hand, so that the cut into pieces changes nothing.
        self.note(&head, misfit);
        if dropped {
            self.skip(u64::from(head.length));
            return Step::Used(usize::from(head.size));
        }
        self.top.last = if self.stack.is_empty() { head.tag.max(BELOW_DATA_SET) } else { head.tag };
        let value = self.position + u64::from(head.size);
        if head.length == UNDEFINED && !is_sequence {
            self.sink.encapsulated(at!(self, value), &head);
            self.state = State::Fragment;
            return Step::Used(usize::from(head.size));
        }
        if is_sequence {
            return self.sequence(head);
        }
        if head.length & 1 == 1 {
            self.sink.found(F::OddLength, Some(head.tag));
            self.after_odd = Some(head.tag);
        }
        self.deliver(&head, bytes, whole)
    }

    pub(super) fn deliver(&mut self, head: &Head, bytes: &[u8], whole: bool) -> Step {
        let size = usize::from(head.size);
        let end = size + head.length as usize;
        let at = at!(self, self.position + u64::from(head.size));
        match bytes.get(size..end) {
            Some(value) if whole => {
                self.sink.whole(at, head, value);
                Step::Used(end)
            }
            _ => {
                self.sink.begin(at, head);
                self.state = State::Value { left: u64::from(head.length), for_sink: true, in_fragments: false };
                Step::Used(size)
            }
        }
    }

    pub(super) fn is_pixel_data(&self, head: &Head) -> bool {
        self.stack.is_empty()
            && matches!(head.tag, tags::PIXEL_DATA | tags::FLOAT_PIXEL_DATA | tags::DOUBLE_FLOAT_PIXEL_DATA)
    }

    /// Whether the value is to be read as items; `Err` if more bytes are needed to tell.
    pub(super) fn is_sequence(&self, head: &mut Head, bytes: &[u8]) -> Result<bool, usize> {
        if head.length == UNDEFINED {
            return Ok(!matches!(head.vr, Vr::OB | Vr::OW));
        }
        let unknown = self.rules.expand_unknown && head.vr == Vr::UN && head.odd_thing.is_none();
        if head.vr != Vr::SQ && !unknown {
            return Ok(false);
        }
        if head.length < 8 {
            return Ok(head.length == 0 && head.vr == Vr::SQ);
        }
        let size = usize::from(head.size);
        let Some(b) = bytes.get(size..).and_then(|value| value.first_chunk::<8>()) else {
            return if self.at_end { Ok(false) } else { Err(size + 8) };
        };
        if unknown {
            let length = u32::from_le_bytes([b[4], b[5], b[6], b[7]]);
            let is_sequence = b[..4] == [0xFE, 0xFF, 0x00, 0xE0] && (length == UNDEFINED || length <= head.length - 8);
            if is_sequence {
                head.form = Form::IMPLICIT_LITTLE;
            }
            return Ok(is_sequence);
        }
        Ok(matches!(b, [0xFE, 0xFF, 0x00 | 0x0D | 0xDD, 0xE0, ..] | [0xFF, 0xFE, 0xE0, 0x00 | 0x0D | 0xDD, ..]))
    }

    pub(super) fn note(&mut self, head: &Head, misfit: Option<FindingKind>) {
        if let Some(kind) = misfit {
            let tag = if kind == F::ContainerLengthWrong { self.top.tag } else { head.tag };
            self.sink.found(kind, Some(tag));
            self.stretch(self.position + u64::from(head.size) + u64::from(head.length));
        }
        if let Some(kind) = head.odd_thing {
            self.sink.found(kind, Some(head.tag));
        }
        if self.stack.is_empty() && matches!(head.tag.group(), 0 | 2) {
            let meta = head.tag.group() == 2;
            self.sink.found(if meta { F::FileMetaInDataSet } else { F::CommandGroupInDataSet }, Some(head.tag));
        } else if head.tag == self.top.last {
            self.sink.found(F::RepeatedElement, Some(head.tag));
        } else if head.tag < self.top.last && !head.tag.is_group_length() && head.tag.group() != 1 {
            self.sink.found(F::ElementOrder, Some(head.tag));
        }
        if head.length == UNDEFINED && !matches!(head.vr, Vr::SQ | Vr::UN | Vr::OB | Vr::OW) {
            self.sink.found(F::UndefinedLengthNotAllowed, Some(head.tag));
        }
    }

    /// Where an element reaches beyond its container one of the two lengths is wrong: says which, and cuts the
    /// element if it is the element's.
    pub(super) fn misfit(&self, head: &mut Head) -> Option<FindingKind> {
        let left = self.remaining();
        if head.length == UNDEFINED || u64::from(head.length) + u64::from(head.size) <= left {
            return None;
        }
        if head.odd_thing.is_none() && head.tag > self.top.last && head.length <= TRUSTED_LENGTH_MAX {
            return Some(F::ContainerLengthWrong);
        }
        let left = left.saturating_sub(u64::from(head.size));
        head.length = u32::try_from(left).unwrap_or(head.length);
        Some(F::ElementExceedsContainer)
    }

    pub(super) fn stretch(&mut self, end: u64) {
        for container in self.stack.iter_mut().chain([&mut self.top]) {
            container.limit = container.limit.max(end);
        }
    }

    pub(super) fn sequence(&mut self, head: Head) -> Step {
        let size = usize::from(head.size);
        let at = at!(self, self.position + u64::from(head.size));
        if self.stack.len() / 2 >= self.rules.nesting_max {
            self.sink.found(F::NestingTooDeep, Some(head.tag));
            self.sink.begin(at, &Head { vr: Vr::SQ, ..head });
            if head.length == UNDEFINED {
                self.state = State::Deep { open: 1, left: 0, form: head.form };
            } else {
                self.state = State::Value { left: u64::from(head.length), for_sink: true, in_fragments: false };
            }
            return Step::Used(size);
        }
        self.sink.sequence(at, &Head { vr: Vr::SQ, ..head });
        let end = (head.length != UNDEFINED).then_some(at.value + u64::from(head.length));
        self.open(head.tag, false, 0, head.form, end);
        self.state = State::Item;
        Step::Used(size)
    }
}
