use super::*;

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()[7]).collect()
}

/// The run of an object, made as a writer does, in pieces.
fn run(data: &[u8], piece: usize) -> (Hash, Vec<u8>) {
    let (mut hasher, mut run) = (TreeHasher::new(), Vec::new());
    for (number, page) in data.chunks(PAGE_DATA as usize).enumerate() {
        if number > 0 {
            run.extend(hasher.end_page());
        }
        page.chunks(piece).for_each(|piece| hasher.update(piece));
        run.extend(page);
    }
    let (digest, tail) = hasher.finish();
    run.extend(tail);
    (digest, run)
}

fn lengths() -> Vec<usize> {
    let mut lengths =
        vec![0, 1, 1023, GROUP - 1, GROUP, GROUP + 1, 2 * GROUP, 3 * GROUP + 7, 9 * GROUP, 33 * GROUP - 1];
    lengths.extend([PAGE_DATA as usize, PAGE_DATA as usize + 1, PAGE_DATA as usize + 3 * GROUP + 5]);
    lengths
}

#[test]
fn the_digest_is_blake3_of_the_bytes_whatever_the_pieces() {
    for length in lengths() {
        let data = bytes(length);
        for piece in [GROUP * 4, 10_000] {
            let (digest, run) = run(&data, piece);
            assert_eq!(digest, blake3::hash(&data), "{length}");
            assert_eq!(run.len() as u64, Shape::of(length as u64).run(), "{length}");
        }
    }
}

#[test]
fn every_group_verifies_and_no_changed_one_does() {
    for length in lengths().into_iter().filter(|length| *length > GROUP) {
        let data = bytes(length);
        let (digest, run) = run(&data, GROUP);
        let shape = Shape::of(length as u64);
        let slice = |(at, length): (u64, usize)| &run[at as usize..at as usize + length];
        let hashes = Hashes::verify(shape, digest.as_bytes(), slice(shape.top().unwrap_or(shape.page(0)))).unwrap();
        for group in (0..shape.groups()).filter(|group| group % 100 < 2 || *group + 4 > shape.groups()) {
            let page = match &hashes {
                Hashes::Page(page) => page.clone(),
                _ => hashes.verify_page(group / 2048, slice(shape.page(group / 2048))).unwrap(),
            };
            let from = group as usize * GROUP;
            let mut part = run[shape.data(from as u64) as usize..][..(length - from).min(GROUP)].to_vec();
            assert_eq!(part, data[from..from + part.len()]);
            assert!(verify_groups(&page, group, &part));
            part[0] ^= 1;
            assert!(!verify_groups(&page, group, &part));
        }
    }
}

#[test]
fn changed_hashes_do_not_verify() {
    for length in [3 * GROUP, PAGE_DATA as usize + GROUP] {
        let (digest, run) = run(&bytes(length), GROUP);
        let shape = Shape::of(length as u64);
        let (at, size) = shape.top().unwrap_or(shape.page(0));
        let mut found = run[at as usize..at as usize + size].to_vec();
        found[5] ^= 8;
        assert!(Hashes::verify(shape, digest.as_bytes(), &found).is_none());
        assert!(Hashes::verify(shape, digest.as_bytes(), &found[..size - 32]).is_none());
    }
}
