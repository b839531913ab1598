//! Keys of the engine, whose byte order is that of (table, partition key, clustering key).
//!
//! A row: 1, table id, partition key with each zero byte followed by 255, two zero bytes, clustering key.
//! An offset: 0, partition of the log as two bytes, big-endian.

use cairn_archive::Partition;
use cairn_store_api::Table;

const OFFSETS: u8 = 0;
const ROWS: u8 = 1;

fn write_prefix(key: &mut Vec<u8>, table: Table, pk: &[u8]) {
    key.extend_from_slice(&[ROWS, table.id]);
    for part in pk.split_inclusive(|byte| *byte == 0) {
        key.extend_from_slice(part);
        if part.ends_with(&[0]) {
            key.push(255);
        }
    }
    key.extend_from_slice(&[0, 0]);
}

/// The part that all rows of a partition key share.
pub(crate) fn prefix(table: Table, pk: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(pk.len() + 16);
    write_prefix(&mut key, table, pk);
    key
}

/// Writes the key of a row over what `key` holds.
pub(crate) fn write_row(key: &mut Vec<u8>, table: Table, pk: &[u8], ck: &[u8]) {
    key.clear();
    write_prefix(key, table, pk);
    key.extend_from_slice(ck);
}

/// Key of a row.
pub(crate) fn row(table: Table, pk: &[u8], ck: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(pk.len() + ck.len() + 16);
    write_row(&mut key, table, pk, ck);
    key
}

/// The first key after all rows that have this prefix.
pub(crate) fn after(prefix: &[u8]) -> Vec<u8> {
    // A prefix ends with a zero byte, and after the one before it no partition key goes on with 1.
    let mut key = prefix.to_vec();
    if let Some(last) = key.last_mut() {
        *last = 1;
    }
    key
}

/// Key of an offset.
pub(crate) fn offset(partition: Partition) -> [u8; 3] {
    let [high, low] = partition.0.to_be_bytes();
    [OFFSETS, high, low]
}

/// Keys of all offsets.
pub(crate) fn offsets() -> std::ops::Range<[u8; 1]> {
    [OFFSETS]..[ROWS]
}

/// The partition that the key of an offset is about.
pub(crate) fn partition(key: &[u8]) -> Option<Partition> {
    match key {
        [OFFSETS, high, low] => Some(Partition(u16::from_be_bytes([*high, *low]))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        // Bytes that escaping is about, often.
        prop::collection::vec(prop_oneof![Just(0), Just(1), Just(254), Just(255), any::<u8>()], 0..6)
    }

    proptest! {
        #[test]
        fn keys_are_ordered_as_their_parts(a in (0..3_u8, bytes(), bytes()), b in (0..3_u8, bytes(), bytes())) {
            let encode = |(id, pk, ck): &(u8, Vec<u8>, Vec<u8>)| row(Table { id: *id, name: "t" }, pk, ck);
            prop_assert_eq!(encode(&a).cmp(&encode(&b)), a.cmp(&b));
        }

        #[test]
        fn a_prefix_bounds_its_rows_alone(table in 0..3_u8, pk in bytes(), other in (0..3_u8, bytes(), bytes())) {
            let prefix = prefix(Table { id: table, name: "t" }, &pk);
            let key = row(Table { id: other.0, name: "t" }, &other.1, &other.2);
            let within = prefix <= key && key < after(&prefix);
            prop_assert_eq!(within, table == other.0 && pk == other.1);
        }
    }

    #[test]
    fn offsets_are_no_rows() {
        let key = offset(Partition(65_535));
        assert!(offsets().start[..] <= key[..] && key[..] < offsets().end[..]);
        assert_eq!(partition(&key), Some(Partition(65_535)));
        assert!(row(Table { id: 0, name: "t" }, b"", b"")[..] >= offsets().end[..]);
    }
}
