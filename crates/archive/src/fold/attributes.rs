//! The attributes of a study or a series as its instances tell them: the earliest non-empty value in event order
//! counts, every variant is kept, whatever the order of arrival.

use super::EventOrder;
use bytes::Bytes;
use cairn_dicom::{
    CharacterSet, Tag, Vr,
    dataset::{DataSet, DecodeLimits},
    header::Header,
    transfer_syntax::Encoding,
};

/// Values longer than this are not summed up; they are found and answered at instance level alone.
pub const VALUE_BYTES_MAX: usize = 4096;
/// Variants of one attribute kept at most.
pub const VARIANTS_MAX: usize = 16;
/// Bytes of the variants of one attribute kept at most.
pub const VARIANT_BYTES_MAX: usize = 8192;
/// Attribute sets remembered as merged; an optimisation without effect on what is folded.
const SEEN_MAX: usize = 4;

/// One value of one attribute, non-empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variant {
    /// Which attribute.
    pub tag: Tag,
    /// The whole element in Explicit VR Little Endian, text as UTF-8.
    pub element: Bytes,
    /// The earliest event that says so.
    pub order: EventOrder,
}

impl Variant {
    /// The values of a text element, without padding; none is empty.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        let element = Header::new(&self.element).elements().next();
        let (vr, value) = element.map_or((Vr::UN, &[][..]), |element| (element.vr, element.value));
        let text = if vr.is_text() { std::str::from_utf8(value).unwrap_or_default() } else { "" };
        let several = vr.is_multi_valued_text();
        let parts = text.split(move |character| several && character == '\\');
        parts.map(|part| part.trim_matches([' ', '\0'])).filter(|part| !part.is_empty())
    }
}

/// Attributes of one entity.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// By tag, then event order.
    pub(crate) variants: Vec<Variant>,
    /// Per attribute with more variants than are kept: the earliest event whose variant was left out.
    pub(crate) cuts: Vec<(Tag, EventOrder)>,
    /// Attribute sets merged already and since which event.
    pub(crate) seen: Vec<([u8; 16], EventOrder)>,
}

impl Attributes {
    /// Whether an attribute set with this fingerprint, told by an event of this order, adds nothing.
    pub fn has_seen(&self, fingerprint: &[u8; 16], order: &EventOrder) -> bool {
        self.seen.iter().any(|(seen, since)| seen == fingerprint && since <= order)
    }

    /// Merges the elements that an instance has of this entity: each encoded as in [`Variant`].
    pub fn merge(
        &mut self,
        fingerprint: [u8; 16],
        order: &EventOrder,
        elements: impl IntoIterator<Item = (Tag, Bytes)>,
    ) {
        elements.into_iter().for_each(|(tag, element)| self.merge_one(tag, element, order));
        match self.seen.iter_mut().find(|(seen, _)| *seen == fingerprint) {
            Some((_, since)) => *since = order.clone().min(since.clone()),
            None => {
                if self.seen.len() >= SEEN_MAX {
                    self.seen.remove(0);
                }
                self.seen.push((fingerprint, order.clone()));
            }
        }
    }

    fn merge_one(&mut self, tag: Tag, element: Bytes, order: &EventOrder) {
        if element.len() > VALUE_BYTES_MAX {
            return;
        }
        let start = self.variants.partition_point(|variant| variant.tag < tag);
        let length = self.variants[start..].partition_point(|variant| variant.tag == tag);
        let own = &self.variants[start..start + length];
        if let Some(at) = own.iter().position(|variant| variant.element == element) {
            if own[at].order <= *order {
                return;
            }
            self.variants.remove(start + at);
            self.insert(tag, element, order, start, length - 1);
            return;
        }
        let cut = self.cuts.iter().find(|(cut, _)| *cut == tag);
        if cut.is_some_and(|(_, cut)| *order >= *cut) {
            return;
        }
        self.insert(tag, element, order, start, length);
        self.cut(tag, start, length + 1);
    }

    fn insert(&mut self, tag: Tag, element: Bytes, order: &EventOrder, start: usize, length: usize) {
        let own = &self.variants[start..start + length];
        // Values of one event are ordered by their bytes: an element can stand twice in a broken header.
        let at = own.partition_point(|variant| (&variant.order, &variant.element) < (order, &element));
        self.variants.insert(start + at, Variant { tag, element, order: order.clone() });
    }

    /// Leaves out what is beyond the bounds. What is kept is always a beginning in event order, so that arrival in any
    /// order leaves the same.
    fn cut(&mut self, tag: Tag, start: usize, length: usize) {
        let mut bytes = 0;
        let kept = self.variants[start..start + length]
            .iter()
            .take(VARIANTS_MAX)
            .take_while(|variant| {
                bytes += variant.element.len();
                bytes <= VARIANT_BYTES_MAX
            })
            .count();
        let Some(first) = self.variants[start..start + length].get(kept).map(|variant| variant.order.clone()) else {
            return;
        };
        // Others of the same event go too, so that "before the cut" is said by the event alone.
        let keep = self.variants[start..start + kept].partition_point(|variant| variant.order < first);
        self.variants.drain(start + keep..start + length);
        match self.cuts.iter_mut().find(|(cut, _)| *cut == tag) {
            Some((_, cut)) => *cut = first.min(cut.clone()),
            None => {
                let at = self.cuts.partition_point(|(cut, _)| *cut < tag);
                self.cuts.insert(at, (tag, first));
            }
        }
    }

    /// All variants, by tag, then event order.
    pub fn variants(&self) -> &[Variant] {
        &self.variants
    }

    /// The variants of one attribute in event order; the first is the one that counts.
    pub fn of(&self, tag: Tag) -> &[Variant] {
        let start = self.variants.partition_point(|variant| variant.tag < tag);
        let length = self.variants[start..].partition_point(|variant| variant.tag == tag);
        &self.variants[start..start + length]
    }

    /// Attributes on which instances disagree.
    pub fn disagreements(&self) -> impl Iterator<Item = Tag> {
        let twice = self.variants.windows(2).filter(|pair| pair[0].tag == pair[1].tag).map(|pair| pair[0].tag);
        let mut last = None;
        twice.filter(move |tag| last.replace(*tag) != Some(*tag))
    }

    /// The values that count, as a data set. Attributes of the archive's own are left out.
    pub fn primary(&self) -> DataSet {
        let mut last = None;
        decode(self.variants.iter().filter(|variant| last.replace(variant.tag) != Some(variant.tag)))
    }

    /// Variants as a data set: one of each attribute, by tag.
    pub fn decode<'a>(variants: impl IntoIterator<Item = &'a Variant>) -> DataSet {
        decode(variants.into_iter())
    }

    /// Texts of the variants of a text attribute, in event order; none is empty.
    pub fn texts(&self, tag: Tag) -> impl Iterator<Item = &str> {
        self.of(tag).iter().flat_map(Variant::texts)
    }

    /// The first text that counts.
    pub fn first_text(&self, tag: Tag) -> Option<&str> {
        self.of(tag).first().and_then(|variant| variant.texts().next())
    }

    /// What of the canonical state the attributes are.
    pub(crate) fn hash(&self, hasher: &mut blake3::Hasher) {
        hasher.update(&(self.variants.len() as u64).to_le_bytes());
        for variant in &self.variants {
            hasher.update(&(variant.element.len() as u64).to_le_bytes()).update(&variant.element);
        }
        for (tag, _) in &self.cuts {
            hasher.update(&tag.0.to_le_bytes());
        }
    }
}

fn decode<'a>(variants: impl Iterator<Item = &'a Variant>) -> DataSet {
    let mut bytes = Vec::with_capacity(1024);
    variants.filter(|variant| !variant.tag.is_private()).for_each(|variant| bytes.extend_from_slice(&variant.element));
    // Written by the fold from data sets that were read: it reads again.
    DataSet::decode(&bytes.into(), Encoding::ExplicitLittle, CharacterSet::UTF_8, &DecodeLimits::default())
        .map(|(set, _)| set)
        .unwrap_or_default()
}
