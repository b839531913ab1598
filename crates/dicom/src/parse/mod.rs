//! A flat, resumable, lenient parser of data sets: bytes in any pieces go in, elements come out at a [`Sink`].
//!
//! No recursion, and nothing is allocated from a length that a data set claims: memory is the stack of open
//! sequences (bounded by [`Rules::nesting_max`]) and the bytes of one head or short value that a piece boundary cut.

mod element;
pub(crate) mod head;
mod items;
pub(crate) mod swap;
pub(crate) mod write;

use head::{Form, Head};

use crate::{finding::FindingKind, tag::Tag, transfer_syntax::Encoding, vr::Vr};
use FindingKind as F;

/// No end is known.
const OPEN: u64 = u64::MAX;
/// Nothing of group 0002 or below belongs in a data set.
const BELOW_DATA_SET: Tag = Tag::new(0x0002, 0xFFFF);
/// A container is taken to be wrong, rather than an element in it, up to this length of the element.
const TRUSTED_LENGTH_MAX: u32 = 0xFFFF;

/// What a parser needs to know.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    /// Sequences open at once; deeper ones are passed over.
    pub(crate) nesting_max: usize,
    /// By [`Vr`]: the longest value delivered in one piece.
    pub(crate) whole_max: [u32; Vr::ALL.len()],
    /// Whether an unknown value that begins with an item is read as a sequence.
    pub(crate) expand_unknown: bool,
}

/// An open sequence or item.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Container {
    /// The sequence's tag, also in its items.
    pub(crate) tag: Tag,
    /// Sequence: items begun so far. Item: its 0-based index.
    pub(crate) index: u32,
    pub(crate) is_item: bool,
    defined: bool,
    /// Offset where it must be over.
    limit: u64,
    form: Form,
    /// Last element seen.
    last: Tag,
}

/// Where an element stands.
#[derive(Clone, Copy)]
pub(crate) struct At<'a> {
    /// The containers around the innermost, the root first.
    pub(crate) stack: &'a [Container],
    /// The innermost container.
    pub(crate) top: Option<&'a Container>,
    /// Offset of the value.
    pub(crate) value: u64,
}

impl<'a> At<'a> {
    pub(crate) fn is_root(self) -> bool {
        self.stack.is_empty()
    }

    /// Open sequences and items, outermost first.
    pub(crate) fn containers(self) -> impl Iterator<Item = &'a Container> {
        self.stack.iter().chain(self.top).skip(1)
    }
}

/// Takes what a parser finds, in order. Group lengths, groups 0000 and 0002 and trailing padding never arrive.
pub(crate) trait Sink {
    /// A value in one piece.
    fn whole(&mut self, at: At<'_>, head: &Head, value: &[u8]);
    /// As `whole`, for an element in Explicit VR Little Endian with 16-bit length; `raw` is all of it.
    fn plain(&mut self, at: At<'_>, tag: Tag, vr: Vr, raw: &[u8]);
    /// A value that comes in pieces: `bytes` repeatedly, then `end`. Of undefined length only if it is a sequence
    /// below the nesting limit, which has no `bytes`.
    fn begin(&mut self, at: At<'_>, head: &Head);
    fn bytes(&mut self, bytes: &[u8]);
    /// `position` is the offset after the value; fewer bytes than announced came if the data set broke off.
    fn end(&mut self, position: u64);
    fn sequence(&mut self, at: At<'_>, head: &Head);
    fn item(&mut self);
    fn item_end(&mut self);
    /// `root`: whether no container is open any more.
    fn sequence_end(&mut self, root: bool, position: u64);
    /// A value in fragments: for each `fragment`, `bytes`, `end`.
    fn encapsulated(&mut self, at: At<'_>, head: &Head);
    fn fragment(&mut self, value: u64, length: u32);
    fn encapsulated_end(&mut self, position: u64);
    /// Pixel Representation as far as known: whether "US or SS" is SS.
    fn is_signed(&self) -> bool;
    fn found(&mut self, kind: FindingKind, tag: Option<Tag>);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// An element of the root or of an item.
    Element,
    /// An item or the end of a sequence.
    Item,
    /// A fragment or the end of an encapsulated value.
    Fragment,
    Value {
        left: u64,
        for_sink: bool,
        in_fragments: bool,
    },
    /// Passing over a sequence of undefined length: how many ends are missing, bytes of a value still to pass.
    Deep {
        open: u64,
        left: u64,
        form: Form,
    },
    /// What follows is not read.
    Rest,
}

/// Where an element with its value at this offset stands; a macro because the sink is borrowed beside it.
macro_rules! at {
    ($parser:ident, $value:expr) => {
        At { stack: &$parser.stack, top: Some(&$parser.top), value: $value }
    };
}

use at;

enum Step {
    Used(usize),
    Need(usize),
}

pub(crate) struct Parser<S> {
    pub(crate) sink: S,
    rules: Rules,
    stack: Vec<Container>,
    /// The innermost container, or the root.
    top: Container,
    state: State,
    position: u64,
    /// Bytes of a head or value cut by the end of a piece, and how many are wanted.
    carry: Vec<u8>,
    need: usize,
    /// The last value had an odd length.
    after_odd: Option<Tag>,
    /// No more bytes will come.
    at_end: bool,
}

impl<S: Sink> Parser<S> {
    pub(crate) fn new(encoding: Encoding, rules: Rules, sink: S) -> Self {
        let form = Form::from(encoding);
        let top =
            Container { tag: Tag(0), index: 0, is_item: true, defined: false, limit: OPEN, form, last: BELOW_DATA_SET };
        Self {
            sink,
            rules,
            stack: Vec::new(),
            top,
            state: State::Element,
            position: 0,
            carry: Vec::new(),
            need: 0,
            after_odd: None,
            at_end: false,
        }
    }

    /// The last top-level element seen.
    pub(crate) fn last_at_root(&self) -> Tag {
        self.stack.first().map_or(self.top.last, |root| root.last)
    }

    pub(crate) fn push(&mut self, mut piece: &[u8]) {
        while !piece.is_empty() {
            if self.carry.is_empty() {
                let used = self.run(piece);
                piece = piece.get(used..).unwrap_or_default();
                self.carry.extend_from_slice(piece);
                return;
            }
            let had = self.carry.len();
            let taken = self.need.saturating_sub(had).min(piece.len());
            self.carry.extend_from_slice(&piece[..taken]);
            if self.carry.len() < self.need {
                return;
            }
            let mut carry = std::mem::take(&mut self.carry);
            let used = self.run(&carry);
            if used >= had {
                // What is left of the carry is still at hand in the piece.
                piece = &piece[used - had..];
                carry.clear();
            } else {
                piece = &piece[taken..];
                carry.drain(..used);
            }
            self.carry = carry;
        }
    }

    /// The data set is over: closes everything. Returns the length of the data set.
    pub(crate) fn end(&mut self) -> u64 {
        self.at_end = true;
        let left = std::mem::take(&mut self.carry);
        let used = self.run(&left);
        let left = left.get(used..).unwrap_or_default();
        self.finish_state(left);
        if !self.stack.is_empty() {
            self.sink.found(F::TruncatedSequence, Some(self.top.tag));
        }
        while !self.stack.is_empty() {
            self.pop();
        }
        self.state = State::Rest;
        self.position
    }

    fn finish_state(&mut self, left: &[u8]) {
        match self.state {
            State::Value { for_sink, in_fragments, .. } => {
                self.sink.found(if in_fragments { F::TruncatedPixelData } else { F::TruncatedElement }, None);
                if for_sink {
                    self.sink.end(self.position);
                }
                if in_fragments {
                    self.sink.encapsulated_end(self.position);
                }
            }
            State::Fragment => {
                self.position += left.len() as u64;
                self.sink.found(F::TruncatedPixelData, None);
                self.sink.encapsulated_end(self.position);
            }
            State::Deep { open, .. } => {
                self.position += left.len() as u64;
                if open > 0 {
                    self.sink.found(F::TruncatedSequence, None);
                }
                self.sink.end(self.position);
            }
            State::Element if !left.is_empty() => self.finish_element(left),
            State::Element | State::Item | State::Rest => self.position += left.len() as u64,
        }
    }

    fn run(&mut self, piece: &[u8]) -> usize {
        let mut at = 0;
        loop {
            let bytes = piece.get(at..).unwrap_or_default();
            match self.step(bytes) {
                Step::Used(n) => {
                    at += n;
                    self.position += n as u64;
                }
                Step::Need(n) => {
                    debug_assert!(n > bytes.len());
                    self.need = n;
                    return at;
                }
            }
        }
    }

    fn step(&mut self, bytes: &[u8]) -> Step {
        match self.state {
            State::Element => self.element(bytes),
            State::Item => self.item(bytes),
            State::Fragment => self.fragment(bytes),
            State::Value { left, for_sink, in_fragments } => self.value(bytes, left, for_sink, in_fragments),
            State::Deep { open, left, form } => self.deep(bytes, open, left, form),
            State::Rest if bytes.is_empty() => Step::Need(1),
            State::Rest => Step::Used(bytes.len()),
        }
    }

    fn found(&mut self, kind: FindingKind) -> Step {
        self.sink.found(kind, self.top.is_item.then_some(self.top.last).filter(|tag| *tag > BELOW_DATA_SET));
        Step::Used(0)
    }

    fn remaining(&self) -> u64 {
        if self.top.limit == OPEN { OPEN } else { self.top.limit.saturating_sub(self.position) }
    }

    fn pop(&mut self) {
        let was = self.top;
        let Some(outer) = self.stack.pop() else { return };
        self.top = outer;
        if was.is_item {
            self.sink.item_end();
            self.state = State::Item;
        } else {
            self.sink.sequence_end(self.stack.is_empty(), self.position);
            self.state = State::Element;
        }
    }

    /// Opens a container that ends at `end`, or at a delimiter.
    fn open(&mut self, tag: Tag, is_item: bool, index: u32, form: Form, end: Option<u64>) {
        self.stack.push(self.top);
        self.top = Container {
            tag,
            index,
            is_item,
            defined: end.is_some(),
            limit: end.unwrap_or(OPEN).min(self.top.limit),
            form,
            last: Tag(0),
        };
    }

    fn skip_to_limit(&mut self, kind: FindingKind) -> Step {
        let tag = Some(self.top.tag).filter(|tag| tag.0 != 0);
        self.sink.found(kind, tag);
        let left = self.remaining();
        self.skip(left)
    }

    fn skip(&mut self, left: u64) -> Step {
        if left > 0 {
            self.state = State::Value { left, for_sink: false, in_fragments: false };
        }
        Step::Used(0)
    }

    fn value(&mut self, bytes: &[u8], left: u64, for_sink: bool, in_fragments: bool) -> Step {
        let n = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        if for_sink && n > 0 {
            self.sink.bytes(&bytes[..n]);
        }
        let left = left - n as u64;
        if left > 0 {
            self.state = State::Value { left, for_sink, in_fragments };
            return if n == 0 { Step::Need(1) } else { Step::Used(n) };
        }
        if for_sink {
            self.sink.end(self.position + n as u64);
        }
        self.state = match in_fragments {
            true => State::Fragment,
            // Whatever is skipped between items lies at the end of its sequence.
            false if self.top.is_item => State::Element,
            false => State::Item,
        };
        Step::Used(n)
    }
}
