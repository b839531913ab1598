//! What a study adds to its patient, in the value of its row of [`super::PATIENTS`]: so patients are listed by reading
//! their rows alone.

use super::{
    RowError,
    codec::{Reader, Writer},
    keys::{LENGTH_OF_KEY_MAX, Text},
};
use crate::fold::{EventOrder, Level, PatientIdentity, StudyState, Variant, level_of};
use bytes::Bytes;
use cairn_dicom::Tag;

const VERSION: u8 = 1;

/// What a study adds to its patient: counts, and of each attribute of the patient the value that counts in the study.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PatientPart {
    /// Who the patient is.
    pub identity: PatientIdentity,
    /// Series with a shown instance.
    pub series: u64,
    /// Shown instances.
    pub instances: u64,
    /// Events that say the attributes, each once.
    orders: Vec<EventOrder>,
    /// Per attribute the number of its event, its tag and its element.
    attributes: Bytes,
}

impl PatientPart {
    /// Of a study.
    pub fn of(state: &StudyState) -> Self {
        let mut orders: Vec<EventOrder> = Vec::new();
        let mut attributes = Writer::default();
        let mut last = None;
        for variant in state.attributes.variants() {
            // The first of each attribute is the study's.
            let first = last.replace(variant.tag) != Some(variant.tag);
            if first && level_of(variant.tag) == Level::Patient && !variant.tag.is_private() {
                let known = orders.iter().position(|order| *order == variant.order);
                let number = known.unwrap_or_else(|| {
                    orders.push(variant.order.clone());
                    orders.len() - 1
                });
                attributes.varint(number as u64).varint(u64::from(variant.tag.0)).bytes(&variant.element);
            }
        }
        let (series, instances) = (state.series, state.shown);
        Self { identity: state.patient(), series, instances, orders, attributes: attributes.0.into() }
    }

    /// The row's value.
    pub fn encode(&self) -> Bytes {
        let mut out = Writer::version(VERSION);
        // A key that was cut does not say who it is.
        let PatientIdentity { issuer, id } = &self.identity;
        match issuer.len().max(id.len()) > LENGTH_OF_KEY_MAX {
            true => out.u8(1).text(issuer).text(id),
            false => out.u8(0),
        };
        out.varint(self.series).varint(self.instances).varint(self.orders.len() as u64);
        self.orders.iter().for_each(|order| {
            out.order(order);
        });
        out.fixed(&self.attributes);
        out.0.into()
    }

    /// Reads a row.
    pub fn decode(ck: &[u8], value: &Bytes) -> Result<Self, RowError> {
        let mut reader = Reader::new(value, VERSION, "patients")?;
        let identity = match reader.u8()? {
            0 => {
                let (issuer, rest) = Text::read(ck).ok_or(reader.bad())?;
                PatientIdentity { issuer, id: Text::read(rest).ok_or(reader.bad())?.0 }
            }
            _ => PatientIdentity { issuer: reader.text()?.to_owned(), id: reader.text()?.to_owned() },
        };
        let (series, instances) = (reader.varint()?, reader.varint()?);
        let count = reader.count()?;
        let orders = (0..count).map(|_| reader.order()).collect::<Result<_, _>>()?;
        Ok(Self { identity, series, instances, orders, attributes: value.slice_ref(reader.rest()) })
    }

    /// Takes in another part that says the same: of the two, the earlier says it. `false`: it says something else.
    pub fn absorb(&mut self, other: &Self) -> bool {
        let ([own], [order]) = (&mut self.orders[..], &other.orders[..]) else { return false };
        if self.attributes != other.attributes {
            return false;
        }
        if *order < *own {
            *own = order.clone();
        }
        true
    }

    /// The attributes.
    pub fn variants(&self) -> Result<Vec<Variant>, RowError> {
        let mut reader = Reader::unversioned(&self.attributes, "patients");
        let mut variants = Vec::new();
        while !reader.rest().is_empty() {
            let at: usize = reader.number()?;
            let order = self.orders.get(at).cloned().ok_or(reader.bad())?;
            let tag = Tag(reader.number()?);
            variants.push(Variant { tag, element: self.attributes.slice_ref(reader.bytes()?), order });
        }
        Ok(variants)
    }
}
