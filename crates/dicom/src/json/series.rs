//! Headers one after the other. Those of one series are much alike: what a header has in common with one before it, byte
//! for byte, is copied as it was written then.

use super::{Bulk, HeaderWriter};
use crate::{CharacterSet, Tag, header::Header, tags};
use std::ops::Range;

/// Objects that are written one after the other, as [`super::write_header`] writes them.
#[derive(Debug, Default)]
pub struct HeaderSeries<'h> {
    out: Vec<u8>,
    base: Option<Base<'h>>,
}

/// The header that others are compared with.
#[derive(Debug)]
struct Base<'h> {
    header: &'h [u8],
    default: CharacterSet,
    /// The one that it names.
    named: CharacterSet,
    /// Attributes that depend on nothing but their bytes and the character set, in order.
    pieces: Vec<Piece>,
}

/// A top-level attribute.
#[derive(Debug)]
struct Piece {
    tag: Tag,
    /// Its bytes in the header.
    element: Range<usize>,
    /// What was written of it, with the comma or brace in front.
    json: Range<usize>,
}

impl<'h> HeaderSeries<'h> {
    /// Nothing written yet; with room for so many bytes.
    pub fn with_capacity(bytes: usize) -> Self {
        Self { out: Vec::with_capacity(bytes), base: None }
    }

    /// Puts a byte between two objects.
    pub fn separate(&mut self, by: u8) {
        self.out.push(by);
    }

    /// Writes one object; arguments are those of [`super::write_header`].
    pub fn write<'b>(
        &mut self,
        header: Header<'h>,
        default: CharacterSet,
        bulk: impl IntoIterator<Item = Bulk<'b>>,
        mut uri: impl FnMut(Bulk<'b>, &mut String),
    ) {
        let mut writer = HeaderWriter::new(&mut self.out, bulk.into_iter(), &mut uri);
        if !header.elements().is_sorted_by(|a, b| a.tag < b.tag) {
            return writer.object(header, default, 0);
        }
        match &self.base {
            None => self.base = Some(writer.base(header, default)),
            Some(base) => {
                let (copied, written) = writer.like(base, header, default);
                if copied < written {
                    // Of another kind: the next one is more likely to be like it.
                    self.base = None;
                }
            }
        }
    }

    /// All that was written.
    pub fn into_bytes(self) -> Vec<u8> {
        self.out
    }
}

/// Elements of the top level, in order, with their places.
fn places(header: Header<'_>) -> impl Iterator<Item = (Range<usize>, crate::header::Element<'_>)> {
    let mut elements = header.elements();
    let mut start = 0;
    std::iter::from_fn(move || {
        let element = elements.next()?;
        let end = header.as_bytes().len() - elements.left();
        Some((std::mem::replace(&mut start, end)..end, element))
    })
}

impl<'b, I, U> HeaderWriter<'_, 'b, I, U>
where
    I: Iterator<Item = Bulk<'b>>,
    U: FnMut(Bulk<'b>, &mut String),
{
    /// Writes an object whose elements are in order, and remembers where each attribute is.
    fn base<'h>(&mut self, header: Header<'h>, default: CharacterSet) -> Base<'h> {
        let (mut named, mut last, mut pieces) = (default, None, Vec::new());
        for (place, element) in places(header) {
            self.bulk_before(Some(element.tag), last);
            let (start, passed) = (self.out.len(), self.passed);
            self.element(element, &mut named, last, 0);
            last = Some(element.tag);
            // Addresses are each instance's own.
            if self.out.len() > start && self.passed == passed {
                pieces.push(Piece { tag: element.tag, element: place, json: start..self.out.len() });
            }
        }
        self.close(last);
        Base { header: header.as_bytes(), default, named, pieces }
    }

    /// Writes an object whose elements are in order, copying what the base has too. Gives the number of attributes that were
    /// copied and that were not.
    fn like(&mut self, base: &Base<'_>, header: Header<'_>, default: CharacterSet) -> (usize, usize) {
        let (mut charset, mut last, mut pieces) = (default, None, base.pieces.as_slice());
        let (mut copied, mut written, mut run) = (0, 0, 0..0);
        // Text in front of Specific Character Set is in the default one.
        let (mut same_set, mut is_named) = (default == base.default, false);
        for (place, element) in places(header) {
            if !is_named && element.tag > tags::SPECIFIC_CHARACTER_SET {
                (same_set, is_named) = (charset == base.named, true);
            }
            while let [first, rest @ ..] = pieces
                && first.tag < element.tag
            {
                pieces = rest;
            }
            let bulk_later = self.next.is_none_or(|bulk| bulk.path.first().is_some_and(|tag| *tag > element.tag.0));
            match pieces.first() {
                Some(piece)
                    if piece.tag == element.tag
                        && same_set
                        && bulk_later
                        && base.header.get(piece.element.clone()) == header.as_bytes().get(place) =>
                {
                    if element.tag == tags::SPECIFIC_CHARACTER_SET {
                        charset = base.named;
                    }
                    copied += 1;
                    if run.end == piece.json.start {
                        run.end = piece.json.end;
                    } else {
                        self.copy(std::mem::replace(&mut run, piece.json.clone()));
                    }
                }
                _ => {
                    self.copy(std::mem::take(&mut run));
                    written += 1;
                    self.element(element, &mut charset, last, 0);
                }
            }
            last = Some(element.tag);
        }
        self.copy(run);
        self.close(last);
        (copied, written)
    }

    /// Copies attributes that were written before.
    fn copy(&mut self, json: Range<usize>) {
        if !json.is_empty() {
            let lead = self.out.len();
            self.out.extend_from_within(json);
            let first = std::mem::replace(&mut self.first, false);
            if let Some(byte) = self.out.get_mut(lead) {
                *byte = if first { b'{' } else { b',' };
            }
        }
    }
}
