//! Documents of `cairn audit`, which come from anywhere.

use cairn_archive::{
    Envelope, Hlc, Incarnation, Offset, Partition,
    notary::{Checkpoint, ConsistencyProof, EventProof, Leaf, Note, PublicKey, TreeHead},
};

/// One document has one text; verifying it never panics, and nobody signed what no key is given for.
pub(crate) fn document(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(proof) = EventProof::parse(text) {
        assert_eq!(proof.to_text(), text);
        if let Ok(proven) = proof.verify() {
            assert!(
                proven
                    .checkpoint
                    .tree(proven.position.partition)
                    .is_some_and(|tree| tree.size > proven.position.offset.0)
            );
        }
    }
    if let Ok(proof) = ConsistencyProof::parse(text) {
        assert_eq!(proof.to_text(), text);
        if let Ok((older, newer)) = proof.verify() {
            assert!(older.trees.iter().zip(&newer.trees).all(|(old, new)| old.size <= new.size));
        }
    }
    if let Ok(note) = Note::parse(text) {
        assert_eq!(note.to_text(), text);
        assert!(note.signer(&[], |_, _, _| true).is_err());
        if let Ok(checkpoint) = Checkpoint::parse(&note.body) {
            assert_eq!(checkpoint.body(), note.body);
        }
    }
}

/// One of each kind, which holds.
pub(crate) fn documents() -> Vec<Vec<u8>> {
    let site: cairn_archive::SiteId = "main".parse().unwrap();
    let envelope = Envelope {
        id: "018f4d2e-9c3a-7000-8000-000000000001".parse().unwrap(),
        kind: "cairn.instance.stored.v1".into(),
        site: site.clone(),
        study_instance_uid: "1.2.3".into(),
        tenant: "default".into(),
        hlc: Hlc { wall_ms: 1, counter: 0 },
        traceparent: None,
        correlation_id: None,
        causation_id: None,
        object_keys: Vec::new(),
        origin: None,
    };
    let leaf = Leaf::new((&site, Partition(0), Offset(0)), 1, &envelope, b"payload");
    let note = |number| {
        let trees = vec![TreeHead { size: 1, root: leaf.hash() }];
        let (later_lives, breaks) = (Vec::new(), Vec::new());
        let (site, first_life) = (site.clone(), Incarnation(1));
        let checkpoint = Checkpoint { site, number, at_ms: 1, previous: None, first_life, later_lives, breaks, trees };
        Note::signed(checkpoint.body(), &PublicKey { name: "main".into(), bytes: [9; 32] }, |_| vec![7; 64])
    };
    let consistency = ConsistencyProof { older: note(1), newer: note(2), paths: vec![Vec::new()] };
    assert!(consistency.verify().is_ok());
    let event =
        EventProof { leaf: leaf.clone(), payload: Some(b"payload".to_vec()), path: Vec::new(), checkpoint: note(1) };
    assert!(event.verify().is_ok());
    [note(1).to_text(), event.to_text(), consistency.to_text()].map(String::into_bytes).to_vec()
}
