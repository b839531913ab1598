use super::*;
use std::path::PathBuf;

/// A directory of its own, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("cairn-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn the_real_disk_does_what_the_trait_says() {
    let scratch = Scratch::new("disk");
    let dir = scratch.0.join("a/b");
    create_dir_durable(&RealDisk, &dir).unwrap();
    let file = RealDisk.create_new(&dir.join("x")).unwrap();
    assert_eq!(RealDisk.create_new(&dir.join("x")).err().unwrap().kind(), io::ErrorKind::AlreadyExists);
    file.preallocate(1 << 20).unwrap();
    assert_eq!(file.len().unwrap(), 1 << 20);
    file.write_all_at(&[5; 100_000], 10).unwrap();
    file.start_writeback(0, 100_010);
    file.sync_data().unwrap();
    file.punch_hole(8192, 8192).unwrap();
    let mut read = vec![1; 30_000];
    file.read_exact_at(&mut read, 0).unwrap();
    assert_eq!((read[9], read[10], read[8191], read[16_384]), (0, 5, 5, 5));
    let mut at_once = vec![1; 30_000];
    // Just written, so that it is in memory; a file system that can't tell says no.
    assert!(!file.read_at_once(&mut at_once, 0).unwrap() || at_once == read);
    assert!(!file.read_at_once(&mut at_once, (1 << 20) - 10).unwrap(), "past the end");
    assert_eq!(file.read_exact_at(&mut read, 1 << 20).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    RealDisk.rename(&dir.join("x"), &dir.join("y")).unwrap();
    RealDisk.sync_dir(&dir).unwrap();
    assert_eq!(RealDisk.list(&dir).unwrap(), ["y"]);
    assert!(RealDisk.available(&dir).unwrap() > 0);
    let guard = RealDisk.lock(&dir.join("lock")).unwrap();
    assert_eq!(RealDisk.lock(&dir.join("lock")).err().unwrap().kind(), io::ErrorKind::WouldBlock);
    drop(guard);
    RealDisk.lock(&dir.join("lock")).unwrap();
    RealDisk.remove(&dir.join("y")).unwrap();
    assert!(RealDisk.open(&dir.join("y")).is_err());
}

#[repr(align(4096))]
struct Pages([u8; 3 * DIRECT_ALIGN]);

#[test]
fn direct_writes_are_there_whether_or_not_they_can_go_past_the_cache() {
    let scratch = Scratch::new("direct");
    let file = RealDisk.create_new(&scratch.0.join("x")).unwrap();
    let pages = Pages(std::array::from_fn(|at| (at / 100) as u8));
    let (one, rest) = pages.0.split_at(DIRECT_ALIGN);
    // Pages in memory and file; then one or the other is none.
    let writes: [(&[&[u8]], u64); 4] =
        [(&[rest, &[], one], 4096), (&[&rest[1..], one], 20_480), (&[one, &rest[..7]], 40_960), (&[one], 61_441)];
    for (number, (slices, offset)) in writes.into_iter().enumerate() {
        let direct = file.write_direct_at(slices, offset).unwrap();
        assert!(!direct || number == 0, "{number} is not made of pages");
        let whole = slices.concat();
        let mut read = vec![0; whole.len()];
        file.read_exact_at(&mut read, offset).unwrap();
        assert!(read == whole, "{number}");
    }
    assert!(!file.write_direct_at(&[], 7).unwrap());
}
