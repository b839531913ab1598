use super::*;
use cairn_store_api::ObjectRef;

const SECRET: StoreSecret = StoreSecret([9; 32]);

fn entry(extents: usize) -> Record {
    let object = ObjectRef { key: ObjectKey::from_slice(&[7; 16]).unwrap(), length: 1 << 33, digest: Digest([8; 32]) };
    let extents = (0..extents as u64).map(|i| Extent { volume: 3, offset: i * BLOCK, length: BLOCK << 20 }).collect();
    Record::Put(Arc::new(Entry { info: ObjectInfo { object, put_ended_at_ms: 77 }, home: 5, synced: true, extents }))
}

fn journal(records: Vec<Record>) -> JournalBlock {
    JournalBlock { volume: 2, offset: 5 * BLOCK, group: 10, index: 1, blocks: 3, previous: BLOCK, records }
}

#[test]
fn blocks_come_back_as_they_were_and_only_where_they_were() {
    let block =
        journal(vec![entry(2), Record::Delete(ObjectKey::from_slice(&[1; 16]).unwrap(), 4), Record::Settled(9)]);
    let bytes = block.encode(&SECRET);
    assert_eq!(JournalBlock::decode(&SECRET, 2, 5 * BLOCK, &bytes), Some(block));
    assert_eq!(JournalBlock::decode(&SECRET, 2, 6 * BLOCK, &bytes), None);
    assert_eq!(JournalBlock::decode(&SECRET, 1, 5 * BLOCK, &bytes), None);
    assert_eq!(JournalBlock::decode(&StoreSecret([1; 32]), 2, 5 * BLOCK, &bytes), None);
    let header = encode_header(&SECRET, 6, 1 << 30);
    assert!(decode_header(&header) == Some((6, 1 << 30, SECRET)));
    let begin = encode_begin(&SECRET, 6, 5, 9 * BLOCK);
    assert_eq!(decode_begin(&SECRET, 6, &begin), Some((5, 9 * BLOCK)));
    assert_eq!(decode_begin(&SECRET, 7, &begin), None);
}

#[test]
fn no_changed_bit_passes() {
    let bytes = journal(vec![entry(2)]).encode(&SECRET);
    for at in (0..BLOCK as usize).step_by(7) {
        let mut changed = bytes;
        changed[at] ^= 1 << (at % 8);
        assert_eq!(JournalBlock::decode(&SECRET, 2, 5 * BLOCK, &changed), None, "byte {at}");
        let mut changed = encode_header(&SECRET, 6, 1 << 30);
        changed[at] ^= 1 << (at % 8);
        assert!(decode_header(&changed).is_none(), "byte {at}");
    }
}

#[test]
fn records_are_dealt_to_blocks_in_order() {
    assert!(split_records(&[]).is_empty());
    let records = [vec![entry(1); 60], vec![entry(EXTENTS_MAX); 2], vec![entry(1); 3]].concat();
    let counts = split_records(&records);
    assert_eq!(counts.iter().sum::<usize>(), records.len());
    let mut from = 0;
    for count in counts {
        let block = journal(records[from..from + count].to_vec());
        assert_eq!(JournalBlock::decode(&SECRET, 2, 5 * BLOCK, &block.encode(&SECRET)), Some(block));
        from += count;
    }
}
