//! Which rows share a partition of the table. Written down with each generation's table; `schemas/index/tables.md`.
//!
//! A partition should hold what one commit changes together, and stay far under 100 MiB. All rows of a study are together.
//! Lists are spread by hash over a number of partitions; those that grow with the archive have their year in the partition.

use bytes::Bytes;
use cairn_archive::index_rows::{self as rows, Text, access::Kind};
use cairn_store_api::Table;

/// Partitions of the lists of one year of one tenant.
const YEAR_SPREAD: u64 = 64;
/// Partitions of lists that are not kept by year, of one tenant.
const SPREAD: u64 = 256;
/// Buckets of SOP Instance UIDs in one partition.
const BUCKETS_TOGETHER: u16 = 8;

/// Whether the rows of a table belong to a study: these are written after those that lead to it.
pub(crate) fn is_of_study(table: Table) -> bool {
    (rows::STUDIES.id..=rows::TRACES.id).contains(&table.id)
}

/// The partition of the table that the rows of a partition key of the port are in.
pub(crate) fn neighbours(table: Table, pk: &[u8]) -> Bytes {
    if is_of_study(table) {
        return [&[0], pk].concat().into();
    }
    let found = match table.id {
        id if id == rows::POSTINGS.id => posting(pk),
        id if id == rows::BY_SERIES.id => by_series(pk),
        id if id == rows::BY_INSTANCE.id => by_instance(pk),
        _ => None,
    };
    let mut partition = vec![table.id];
    partition.extend(found.unwrap_or_else(|| pk.to_vec()));
    partition.into()
}

/// The partition key within its neighbours. Those of a study need not repeat it.
pub(crate) fn within(table: Table, pk: &Bytes) -> Bytes {
    if is_of_study(table) { Bytes::new() } else { pk.clone() }
}

/// Kind, tenant, year if there is one, hash.
fn posting(pk: &[u8]) -> Option<Vec<u8>> {
    let (kind, rest) = pk.split_first()?;
    let (_, rest) = Text::read(rest)?;
    let by_year = YEARLY.iter().any(|yearly| *yearly as u8 == *kind);
    let kept = if by_year { pk.len().checked_sub(rest.len())? + 2 } else { pk.len() - rest.len() };
    let (head, spread) = (pk.get(1..kept)?, if by_year { YEAR_SPREAD } else { SPREAD });
    let mut partition = vec![u8::from(by_year)];
    partition.extend_from_slice(head);
    partition.extend(((hash(pk) % spread) as u16).to_be_bytes());
    Some(partition)
}

const YEARLY: [Kind; 6] = [
    Kind::All,
    Kind::Modality,
    Kind::NameTrigram,
    Kind::PatientIdTrigram,
    Kind::AccessionNumberTrigram,
    Kind::DescriptionTrigram,
];

fn by_series(pk: &[u8]) -> Option<Vec<u8>> {
    let (_, uid) = Text::read(pk)?;
    let mut partition = pk.get(..pk.len() - uid.len())?.to_vec();
    partition.extend(((hash(pk) % SPREAD) as u16).to_be_bytes());
    Some(partition)
}

fn by_instance(pk: &[u8]) -> Option<Vec<u8>> {
    let (tenant, bucket) = pk.split_last_chunk::<2>()?;
    let mut partition = tenant.to_vec();
    partition.extend((u16::from_be_bytes(*bucket) / BUCKETS_TOGETHER).to_be_bytes());
    Some(partition)
}

/// FNV-1a, 64 bits, folded. Written down for as long as a generation lives.
fn hash(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325, step);
    (hash >> 32) ^ (hash & 0xFFFF_FFFF)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_archive::{
        fold::StudyKey,
        index_rows::{TableDef, access::Token, by_instance_pk, by_series_pk, study_pk},
    };
    use std::collections::BTreeSet;

    const fn table(of: TableDef) -> Table {
        Table { id: of.id, name: of.name }
    }

    #[test]
    fn all_rows_of_a_study_are_together_and_nothing_else_is_with_them() {
        let key = StudyKey { tenant: "t".into(), study_instance_uid: "1.2.3".into() };
        let pk = study_pk(&key);
        let of_study: BTreeSet<_> =
            [rows::STUDIES, rows::SERIES, rows::FACTS, rows::VERSION_TABLES, rows::HEADERS, rows::TRACES]
                .map(|of| neighbours(table(of), &pk))
                .into();
        assert_eq!(of_study.len(), 1);
        let others: Vec<_> = rows::TABLES.iter().filter(|of| !is_of_study(table(**of))).collect();
        let places: BTreeSet<_> = others.iter().map(|of| neighbours(table(**of), &pk)).collect();
        assert!(places.len() == others.len() && places.is_disjoint(&of_study));
    }

    #[test]
    fn lists_are_spread_and_bounded() {
        let place = |kind, tenant: &str, year, text: &str| {
            neighbours(table(rows::POSTINGS), &Token::new(kind, text).pk(tenant, year))
        };
        let count = |place: &dyn Fn(u32) -> Bytes| (0..5_000).map(place).collect::<BTreeSet<_>>().len();
        assert_eq!(count(&|n| place(Kind::NameTrigram, "t", Some(2024), &format!("{n:03}"))), 64);
        assert_eq!(count(&|n| place(Kind::PatientId, "t", None, &n.to_string())), 256);
        assert_ne!(place(Kind::All, "t", Some(2024), ""), place(Kind::All, "t", Some(2023), ""), "years are apart");
        assert_ne!(place(Kind::All, "t", None, ""), place(Kind::All, "u", None, ""), "tenants are apart");
        for kind in [Kind::PatientId, Kind::AccessionNumber, Kind::NameStart, Kind::OtherDate] {
            assert!(!kind.is_bucketed());
        }
        assert!(YEARLY.iter().all(|kind| kind.is_bucketed()));
        assert_eq!(count(&|n| neighbours(table(rows::BY_SERIES), &by_series_pk("t", &format!("1.{n}")))), 256);
        assert_eq!(count(&|n| neighbours(table(rows::BY_INSTANCE), &by_instance_pk("t", (n % 4096) as u16))), 512);
    }

    #[test]
    fn keys_of_other_shapes_have_a_place_too() {
        for of in rows::TABLES {
            for pk in [&b""[..], b"\0", b"\xFF", b"\0a", b"\x05t\0\0", b"\x05t\0\0\x07"] {
                assert!(!neighbours(table(*of), pk).is_empty());
            }
        }
    }
}
