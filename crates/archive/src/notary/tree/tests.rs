use super::*;
use proptest::prelude::*;

/// MTH as RFC 6962 section 2.1 defines it.
fn defined(leaves: &[TreeHash]) -> TreeHash {
    match leaves {
        [] => TreeHash::of_nothing(),
        [leaf] => *leaf,
        _ => {
            let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
            TreeHash::of_node(defined(left), defined(right))
        }
    }
}

/// PATH as RFC 6962 section 2.1.1 defines it.
fn defined_path(index: usize, leaves: &[TreeHash]) -> Vec<TreeHash> {
    if leaves.len() == 1 {
        return Vec::new();
    }
    let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
    let (mut path, beside) = match index.checked_sub(left.len()) {
        None => (defined_path(index, left), right),
        Some(index) => (defined_path(index, right), left),
    };
    path.push(defined(beside));
    path
}

/// SUBPROOF as RFC 6962 section 2.1.2 defines it.
fn defined_proof(old: usize, leaves: &[TreeHash], is_whole: bool) -> Vec<TreeHash> {
    if old == leaves.len() {
        return if is_whole { Vec::new() } else { vec![defined(leaves)] };
    }
    let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
    let (mut proof, beside) = match old.checked_sub(left.len()).filter(|rest| *rest > 0) {
        None => (defined_proof(old, left, is_whole), right),
        Some(rest) => (defined_proof(rest, right, false), left),
    };
    proof.push(defined(beside));
    proof
}

fn leaves(count: usize) -> Vec<TreeHash> {
    (0..count).map(|number| TreeHash::of_leaf(&number.to_le_bytes())).collect()
}

fn hashes(spans: &[Span], leaves: &[TreeHash]) -> Vec<TreeHash> {
    let root = |span: &Span| {
        let nodes = span.nodes().into_iter().map(|Node { level, index }| {
            let (from, length) = ((index << level) as usize, 1 << level);
            defined(&leaves[from..from + length])
        });
        Span::root(&nodes.collect::<Vec<_>>())
    };
    spans.iter().map(root).collect()
}

/// Leaves and roots that implementations of RFC 6962 test themselves by (certificate-transparency, merkletree tests).
const KNOWN_LEAVES: [&[u8]; 8] = [
    b"",
    b"\x00",
    b"\x10",
    b"\x20\x21",
    b"\x30\x31",
    b"\x40\x41\x42\x43",
    b"\x50\x51\x52\x53\x54\x55\x56\x57",
    b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
];
const KNOWN_ROOTS: [&str; 9] = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
];

#[test]
fn roots_are_those_that_others_compute() {
    let mut frontier = Frontier::default();
    assert_eq!(frontier.root().to_string(), KNOWN_ROOTS[0]);
    for (leaf, root) in KNOWN_LEAVES.iter().zip(&KNOWN_ROOTS[1..]) {
        frontier.push(TreeHash::of_leaf(leaf), |_, _| {});
        assert_eq!(frontier.root().to_string(), *root, "{} leaves", frontier.size());
    }
    let root: TreeHash = KNOWN_ROOTS[8].parse().unwrap();
    assert_eq!(root.to_string(), KNOWN_ROOTS[8]);
    assert!(KNOWN_ROOTS[8].to_uppercase().parse::<TreeHash>().is_err(), "one hash has one text");
}

#[test]
fn every_proof_of_small_trees_is_as_defined_and_verifies_and_no_other_does() {
    let leaves = leaves(33);
    for size in 0..=leaves.len() {
        let tree = &leaves[..size];
        let root = defined(tree);
        for index in 0..size {
            let path = hashes(&inclusion(index as u64, size as u64).unwrap(), tree);
            assert_eq!(path, defined_path(index, tree), "{index} of {size}");
            assert!(verify_inclusion(tree[index], index as u64, size as u64, &path, root));
            let other = (index + 1) % size;
            assert!(other == index || !verify_inclusion(tree[index], other as u64, size as u64, &path, root));
            assert!(!verify_inclusion(TreeHash::of_leaf(b"x"), index as u64, size as u64, &path, root));
        }
        assert_eq!(inclusion(size as u64, size as u64), None);
        for old in 0..=size {
            let (first, second) = ((old as u64, defined(&tree[..old])), (size as u64, root));
            let proof = hashes(&consistency(first.0, second.0).unwrap(), tree);
            if old > 0 {
                assert_eq!(proof, defined_proof(old, tree, true), "{old} of {size}");
            }
            assert!(verify_consistency(first, second, &proof), "{old} of {size}");
            let altered = (first.0, TreeHash::of_leaf(b"x"));
            assert!(!verify_consistency(altered, second, &proof));
        }
        assert_eq!(consistency(size as u64 + 1, size as u64), None);
    }
}

proptest! {
    #[test]
    fn a_growing_tree_is_as_defined_and_knows_its_complete_nodes(count in 0_usize..700) {
        let leaves = leaves(count);
        let mut frontier = Frontier::default();
        let mut nodes = std::collections::BTreeMap::new();
        for leaf in &leaves {
            frontier.push(*leaf, |node, hash| assert!(nodes.insert(node, hash).is_none()));
        }
        prop_assert_eq!(frontier.root(), defined(&leaves));
        for (Node { level, index }, hash) in &nodes {
            let from = (*index << level) as usize;
            prop_assert_eq!(*hash, defined(&leaves[from..from + (1 << level)]));
        }
        prop_assert!(Span::all(count as u64).nodes().iter().all(|node| nodes.contains_key(node)));
    }

    #[test]
    fn a_tree_of_blocks_is_the_tree(blocks in 0_usize..40) {
        let leaves = leaves(blocks * 8);
        let (mut of_blocks, mut of_leaves) = (Frontier::default(), Frontier::default());
        leaves.chunks(8).for_each(|block| of_blocks.push(defined(block), |_, _| {}));
        leaves.iter().for_each(|leaf| of_leaves.push(*leaf, |_, _| {}));
        prop_assert_eq!(of_blocks.above(3), of_leaves);
    }

    #[test]
    fn a_changed_proof_proves_nothing(size in 2_usize..300, index: prop::sample::Index, old: prop::sample::Index, flip: prop::sample::Index) {
        let leaves = leaves(size);
        let root = defined(&leaves);
        let (index, old) = (index.index(size), 1 + old.index(size - 1));
        let path = hashes(&inclusion(index as u64, size as u64).unwrap(), &leaves);
        let proof = hashes(&consistency(old as u64, size as u64).unwrap(), &leaves);
        let (first, second) = ((old as u64, defined(&leaves[..old])), (size as u64, root));
        let is_included = |path: &[TreeHash]| verify_inclusion(leaves[index], index as u64, size as u64, path, root);
        prop_assert!(is_included(&path) && verify_consistency(first, second, &proof));
        prop_assert!(!is_included(&path[1..]) && !verify_consistency(first, second, &proof[1..]));
        let (mut changed_path, mut changed_proof) = (path.clone(), proof.clone());
        let (at_path, at_proof) = (flip.index(path.len()), flip.index(proof.len()));
        changed_path[at_path].0[7] ^= 1;
        changed_proof[at_proof].0[7] ^= 1;
        prop_assert!(!is_included(&changed_path) && !verify_consistency(first, second, &changed_proof));
        let longer = [path.as_slice(), &[root]].concat();
        prop_assert!(!is_included(&longer));
        prop_assert!(!verify_consistency(first, second, &[proof.as_slice(), &[root]].concat()));
    }
}
