use super::super::{Frontier, Node, PublicKey, Span, TreeHead, checkpoint::tests::checkpoint, consistency, inclusion};
use super::*;
use crate::{Envelope, Hlc, Offset, Partition};
use std::collections::BTreeMap;

/// A partition's events and its tree.
struct Tree {
    leaves: Vec<Leaf>,
    nodes: BTreeMap<Node, TreeHash>,
}

fn payload(number: u64) -> Vec<u8> {
    format!("payload {number}").into_bytes()
}

impl Tree {
    fn of(partition: u16, count: u64) -> Self {
        let site = "main".parse().unwrap();
        let leaf = |number: u64| {
            let envelope = Envelope {
                id: crate::EventId(uuid::Uuid::from_u128(number.into())),
                kind: "a.type".into(),
                site: "main".parse().unwrap(),
                study_instance_uid: "1.2.3".into(),
                tenant: "default".into(),
                hlc: Hlc { wall_ms: number, counter: 0 },
                traceparent: None,
                correlation_id: None,
                causation_id: None,
                object_keys: Vec::new(),
                origin: None,
            };
            Leaf::new((&site, Partition(partition), Offset(number)), number, &envelope, &payload(number))
        };
        let leaves: Vec<_> = (0..count).map(leaf).collect();
        let (mut frontier, mut nodes) = (Frontier::default(), BTreeMap::new());
        leaves.iter().for_each(|leaf| {
            frontier.push(leaf.hash(), |node, hash| {
                nodes.insert(node, hash);
            })
        });
        Self { leaves, nodes }
    }

    fn root(&self, span: Span) -> TreeHash {
        Span::root(&span.nodes().iter().map(|node| self.nodes[node]).collect::<Vec<_>>())
    }

    fn path(&self, spans: Option<Vec<Span>>) -> Vec<TreeHash> {
        spans.unwrap().into_iter().map(|span| self.root(span)).collect()
    }

    fn head(&self, size: u64) -> TreeHead {
        TreeHead { size, root: self.root(Span::all(size)) }
    }
}

fn note(number: u64, trees: Vec<TreeHead>) -> Note {
    let checkpoint = Checkpoint { number, trees, ..checkpoint(&[]) };
    Note::signed(checkpoint.body(), &PublicKey { name: "main".into(), bytes: [9; 32] }, |_| vec![7; 64])
}

fn event_proof() -> EventProof {
    let trees = [Tree::of(0, 13), Tree::of(1, 21)];
    EventProof {
        leaf: trees[1].leaves[6].clone(),
        payload: Some(payload(6)),
        path: trees[1].path(inclusion(6, 20)),
        checkpoint: note(3, vec![trees[0].head(13), trees[1].head(20)]),
    }
}

fn consistency_proof() -> ConsistencyProof {
    let trees = [Tree::of(0, 13), Tree::of(1, 21)];
    ConsistencyProof {
        older: note(3, vec![trees[0].head(13), trees[1].head(6)]),
        newer: note(4, vec![trees[0].head(13), trees[1].head(21)]),
        paths: vec![trees[0].path(consistency(13, 13)), trees[1].path(consistency(6, 21))],
    }
}

#[test]
fn an_event_is_proved_with_its_payload_and_without() {
    let proof = event_proof();
    let proven = EventProof::parse(&proof.to_text()).unwrap().verify().unwrap();
    assert_eq!((proven.position.to_string().as_str(), proven.checkpoint.number), ("main/1/1/6", 3));
    let without = EventProof { payload: None, ..proof };
    assert!(!without.to_text().contains("\npayload "));
    assert_eq!(EventProof::parse(&without.to_text()).unwrap().verify(), Ok(proven));
}

#[test]
fn what_is_not_so_is_named() {
    let proof = event_proof();
    let not_included = Err(Unproven::NotIncluded { partition: 1, offset: 6 });
    let mut other = proof.clone();
    other.leaf.appended_at_ms += 1;
    assert_eq!(other.verify(), not_included);
    let mut other = proof.clone();
    other.leaf.headers[1].1.push('0');
    assert_eq!(other.verify(), not_included);
    let mut other = proof.clone();
    other.path.pop();
    assert_eq!(other.verify(), not_included);
    let other = EventProof { payload: Some(payload(7)), ..proof.clone() };
    assert_eq!(other.verify(), Err(Unproven::OtherPayload));
    let mut other = proof.clone();
    other.leaf.site = "other".parse().unwrap();
    assert_eq!(other.verify(), Err(Unproven::OtherLog));
    let mut other = proof;
    other.leaf.partition = Partition(2);
    assert_eq!(other.verify(), Err(Unproven::OtherLog));
}

#[test]
fn a_checkpoint_goes_on_from_an_older_one_or_the_partition_is_named() {
    let proof = consistency_proof();
    let (older, newer) = ConsistencyProof::parse(&proof.to_text()).unwrap().verify().unwrap();
    assert_eq!((older.number, newer.number), (3, 4));
    let mut altered = Tree::of(1, 21);
    altered.leaves[2].appended_at_ms += 1;
    let mut frontier = Frontier::default();
    altered.leaves.iter().for_each(|leaf| {
        frontier.push(leaf.hash(), |node, hash| {
            altered.nodes.insert(node, hash);
        })
    });
    let rewritten = ConsistencyProof {
        newer: note(4, vec![Tree::of(0, 13).head(13), altered.head(21)]),
        paths: vec![Vec::new(), altered.path(consistency(6, 21))],
        ..proof.clone()
    };
    assert_eq!(rewritten.verify(), Err(Unproven::Inconsistent(1)));
    let swapped = ConsistencyProof { older: proof.newer.clone(), newer: proof.older.clone(), ..proof.clone() };
    assert_eq!(swapped.verify(), Err(Unproven::Inconsistent(1)));
    let shorter = ConsistencyProof { paths: proof.paths[..1].to_vec(), ..proof };
    assert_eq!(shorter.verify(), Err(Unproven::Malformed("consistency proof")));
}

/// Whether the key of these tests signed it.
fn is_signed(note: &Note, as_it_was: &Note) -> bool {
    let keys = [PublicKey { name: "main".into(), bytes: [9; 32] }];
    let check = |_: &[u8; 32], body: &[u8], signature: &[u8]| body == as_it_was.body.as_bytes() && signature == [7; 64];
    note.signer(&keys, check).is_ok()
}

#[test]
fn every_flipped_bit_of_a_document_is_noticed() {
    let (event, consistency) = (event_proof(), consistency_proof());
    let proves_event = |text: &str| {
        let read = EventProof::parse(text);
        read.is_ok_and(|read| read.verify().is_ok() && is_signed(&read.checkpoint, &event.checkpoint))
    };
    let proves_consistency = |text: &str| {
        let signed = |read: &ConsistencyProof| {
            is_signed(&read.older, &consistency.older) && is_signed(&read.newer, &consistency.newer)
        };
        ConsistencyProof::parse(text).is_ok_and(|read| read.verify().is_ok() && signed(&read))
    };
    every_flip_is_noticed(&event.to_text(), proves_event);
    every_flip_is_noticed(&consistency.to_text(), proves_consistency);
}

fn every_flip_is_noticed(text: &str, proves: impl Fn(&str) -> bool) {
    assert!(proves(text));
    for (at, bit) in (0..text.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
        let mut bytes = text.as_bytes().to_vec();
        bytes[at] ^= 1 << bit;
        assert!(!String::from_utf8(bytes).is_ok_and(|changed| proves(&changed)), "bit {bit} of byte {at}");
    }
}
