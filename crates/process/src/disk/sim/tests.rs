use super::*;

fn path(name: &str) -> PathBuf {
    PathBuf::from(name)
}

fn bytes(disk: &SimDisk, name: &str) -> Option<Vec<u8>> {
    let file = disk.open(&path(name)).ok()?;
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    Some(bytes)
}

#[test]
fn synced_bytes_and_names_survive_and_nothing_else_need() {
    let disk = SimDisk::new();
    let file = disk.create_new(&path("/a")).unwrap();
    file.write_all_at(b"one", 0).unwrap();
    file.sync_data().unwrap();
    assert_eq!(bytes(&disk.crash(disk.operations(), Loss::Everything), "/a"), None);
    disk.sync_dir(&path("/")).unwrap();
    file.write_all_at(b"two", 3).unwrap();
    let at = disk.operations();
    assert_eq!(bytes(&disk.crash(at, Loss::Everything), "/a"), Some(b"one".to_vec()));
    assert_eq!(bytes(&disk.crash(at, Loss::Nothing), "/a"), Some(b"onetwo".to_vec()));
    assert_eq!(bytes(&disk.crash(1, Loss::Nothing), "/a"), Some(Vec::new()));
    assert_eq!(bytes(&disk.crash(0, Loss::Nothing), "/a"), None);
}

#[test]
fn seeded_crashes_tear_between_sectors_and_lose_some_names() {
    let disk = SimDisk::new();
    let file = disk.create_new(&path("/a")).unwrap();
    file.write_all_at(&[1; 2048], 0).unwrap();
    file.sync_data().unwrap();
    disk.sync_dir(&path("/")).unwrap();
    file.write_all_at(&[2; 2000], 0).unwrap();
    file.write_all_at(&[3; 100], 2000).unwrap();
    disk.rename(&path("/a"), &path("/b")).unwrap();
    let (mut renamed, mut torn, mut lengths) = (0, 0, HashSet::new());
    for seed in 0..300 {
        let after = disk.crash(disk.operations(), Loss::Seeded(seed));
        let name = if after.open(&path("/b")).is_ok() { "/b" } else { "/a" };
        renamed += usize::from(name == "/b");
        let found = bytes(&after, name).unwrap();
        lengths.insert(found.len());
        for sector in found[..1536].chunks(512) {
            assert!(sector.iter().all(|byte| *byte == sector[0]), "a sector is torn inside");
        }
        torn += usize::from(found[0] != found[512]);
        // The fourth sector has three versions: all old, old with 2s, and both writes.
        let fourth = (found[1536], found[1999], found[2000]);
        assert!([(1, 1, 1), (2, 2, 1), (2, 2, 3)].contains(&fourth), "{fourth:?}");
    }
    assert!((1..300).contains(&renamed) && (1..300).contains(&torn), "{renamed} {torn}");
    assert_eq!(lengths, HashSet::from([2048, 2100]));
}

#[test]
fn a_sync_covers_only_what_was_written_before_it_began() {
    let disk = SimDisk::new();
    let file = disk.create_new(&path("/a")).unwrap();
    disk.sync_dir(&path("/")).unwrap();
    file.write_all_at(b"one", 0).unwrap();
    let (other, once) = (file.clone(), std::sync::Once::new());
    disk.set_hook(move |event| {
        if let Event::SyncData(_) = event {
            once.call_once(|| other.write_all_at(b"two", 3).unwrap());
        }
        Verdict::Proceed
    });
    file.sync_data().unwrap();
    assert_eq!(bytes(&disk, "/a"), Some(b"onetwo".to_vec()));
    assert_eq!(bytes(&disk.crash(disk.operations(), Loss::Everything), "/a"), Some(b"one".to_vec()));
}

#[test]
fn after_a_failed_sync_another_one_saves_nothing() {
    let disk = SimDisk::new();
    let file = disk.create_new(&path("/a")).unwrap();
    disk.sync_dir(&path("/")).unwrap();
    file.write_all_at(b"one", 0).unwrap();
    disk.set_hook(|event| match event {
        Event::SyncData(_) => Verdict::Fail(io::ErrorKind::Other),
        _ => Verdict::Proceed,
    });
    assert!(file.sync_data().is_err());
    disk.clear_hook();
    file.sync_data().unwrap();
    assert_eq!(bytes(&disk, "/a"), Some(b"one".to_vec()));
    assert_eq!(bytes(&disk.crash(disk.operations(), Loss::Everything), "/a"), Some(Vec::new()));
}

#[test]
fn a_pretended_sync_makes_nothing_durable() {
    let disk = SimDisk::new();
    disk.set_hook(|event| if let Event::SyncDir(_) = event { Verdict::Pretend } else { Verdict::Proceed });
    disk.create_dir_all(&path("/d/e")).unwrap();
    super::super::create_dir_durable(&disk, &path("/d/e/f")).unwrap();
    assert!(disk.crash(disk.operations(), Loss::Everything).list(&path("/d")).is_err());
    disk.clear_hook();
    super::super::create_dir_durable(&disk, &path("/d")).unwrap();
    assert!(disk.crash(disk.operations(), Loss::Everything).list(&path("/d")).is_ok());
}

#[test]
fn room_is_bounded_counted_and_given_back() {
    let disk = SimDisk::new();
    disk.set_capacity(16 * 4096);
    let file = disk.create_new(&path("/a")).unwrap();
    file.preallocate(10 * 4096).unwrap();
    assert_eq!(disk.available(&path("/")).unwrap(), 6 * 4096);
    assert_eq!(file.preallocate(17 * 4096).unwrap_err().kind(), io::ErrorKind::StorageFull);
    file.write_all_at(&[7; 4096], 9 * 4096).unwrap();
    assert_eq!(file.write_all_at(&[7; 4096], 16 * 4096).map_err(|e| e.kind()), Ok(()));
    assert_eq!(file.len().unwrap(), 17 * 4096);
    file.punch_hole(4096, 4 * 4096 + 5).unwrap();
    assert_eq!(disk.allocated(), 7 * 4096);
    assert_eq!(file.write_all_at(&[7; 10 * 4096], 20 * 4096).unwrap_err().kind(), io::ErrorKind::StorageFull);
    disk.remove(&path("/a")).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 9 * 4096).unwrap();
    assert_eq!(byte, [7], "an open file outlives its name");
    drop(file);
    assert_eq!(disk.allocated(), 0);
}

#[test]
fn one_lock_at_a_time() {
    let disk = SimDisk::new();
    let guard = disk.lock(&path("/lock")).unwrap();
    assert_eq!(disk.lock(&path("/lock")).err().map(|error| error.kind()), Some(io::ErrorKind::WouldBlock));
    drop(guard);
    disk.lock(&path("/lock")).unwrap();
}

#[test]
fn after_a_kill_all_is_there_and_durable_once_synced() {
    let disk = SimDisk::new();
    let file = disk.create_new(&path("/a")).unwrap();
    disk.sync_dir(&path("/")).unwrap();
    file.write_all_at(b"one", 0).unwrap();
    let at = disk.operations();
    file.write_all_at(b"two", 0).unwrap();
    let killed = disk.kill(at);
    assert_eq!(bytes(&killed, "/a"), Some(b"one".to_vec()));
    let before = killed.operations();
    killed.open(&path("/a")).unwrap().sync_data().unwrap();
    assert_eq!(bytes(&killed.crash(before, Loss::Everything), "/a"), Some(Vec::new()));
    assert_eq!(bytes(&killed.crash(killed.operations(), Loss::Everything), "/a"), Some(b"one".to_vec()));
    let again = killed.kill(before);
    assert_eq!(bytes(&again.crash(before, Loss::Everything), "/a"), Some(Vec::new()));
}
