use super::*;
use cairn_process::disk::sim::SimDisk;

fn id(n: u128) -> KeyId {
    KeyId(Uuid::from_u128(n))
}

fn opened(disk: &SimDisk) -> KeyFile {
    let (directory, master) = (Path::new("/keys"), KeyBytes([7; 32]));
    disk.create_dir_all(directory).unwrap();
    KeyFile::create(disk, directory, &master).unwrap();
    let mut file = KeyFile::read(disk, &directory.join(FILE_NAME), &master).unwrap();
    let lock = disk.lock(&directory.join("lock")).unwrap();
    let room = Room { disk: Arc::new(disk.clone()), directory: directory.into(), reserve_bytes: 0, _lock: lock };
    file.settle(room).unwrap();
    file
}

/// KS-12, also after another opening.
#[test]
fn what_is_abandoned_is_not_waited_for_and_is_here_again_when_it_comes() {
    let disk = SimDisk::unrecorded();
    let mut file = opened(&disk);
    file.add(&[(id(1), KeyBytes([1; 32]))]).unwrap();
    file.destroy(&[id(2)]).unwrap();
    for known in [1, 2] {
        assert_eq!(file.abandon(&[id(3), id(known)]).unwrap_err().kind(), StoreErrorKind::Conflict);
    }
    assert_eq!(file.get(id(3)).unwrap(), KeyState::Absent, "nothing was changed");
    file.abandon(&[id(3), id(4), id(5), id(3)]).unwrap();
    file.abandon(&[id(3)]).unwrap();
    let states = |file: &KeyFile| [3, 4, 5].map(|n| file.get(id(n)).unwrap());
    assert_eq!(states(&file), [KeyState::Abandoned, KeyState::Abandoned, KeyState::Abandoned]);
    drop(file);
    let mut file = opened(&disk);
    file.add(&[(id(4), KeyBytes([4; 32]))]).unwrap();
    file.destroy(&[id(5)]).unwrap();
    drop(file);
    let file = opened(&disk);
    assert_eq!(states(&file), [KeyState::Abandoned, KeyState::Key(KeyBytes([4; 32])), KeyState::Destroyed]);
    let listed = file.list(Bound::Unbounded, 2);
    assert_eq!((listed.keys, listed.more), (vec![(id(1), false), (id(2), true)], true));
    let listed = file.list(Bound::Excluded(id(2)), 2);
    assert_eq!((listed.keys, listed.more), (vec![(id(4), false), (id(5), true)], false));
    assert_eq!(file.counts(), KeyCounts { present: 2, destroyed: 2, abandoned: 1, damaged: 0 });
}
