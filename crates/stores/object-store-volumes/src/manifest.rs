//! What a restart begins from: which index segments there are, and up to where they say what the journals say.

use crate::layout::{StoreSecret, Take};
use crate::volumes::{Holdings, Place};
use cairn_process::disk::Disk;
use cairn_store_api::StoreError;
use std::{io, path::Path};

const MAGIC: &[u8; 8] = b"CAIRNMAN";
const VERSION: u16 = 1;
const NAME: &str = "manifest";
/// Written beside, then renamed.
pub(crate) const NEW_NAME: &str = "manifest.new";
/// Longest manifest that is believed.
const BYTES_MAX: u64 = 1 << 30;

#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) secret: StoreSecret,
    /// Written by an orderly end: the journals say nothing more.
    pub(crate) clean: bool,
    /// Last group of the journal that the segments know.
    pub(crate) group: u64,
    /// Where the journal went on after it; `None` when there was no volume.
    pub(crate) place: Option<Place>,
    /// Number and bytes of objects.
    pub(crate) objects: u64,
    pub(crate) bytes: u64,
    /// Index segments, oldest first.
    pub(crate) segments: Vec<u64>,
    pub(crate) next_segment: u64,
    /// Capacity and live bytes of each volume.
    pub(crate) volumes: Holdings,
}

impl Manifest {
    pub(crate) fn empty(secret: StoreSecret) -> Self {
        Self {
            secret,
            clean: false,
            group: 0,
            place: None,
            objects: 0,
            bytes: 0,
            segments: Vec::new(),
            next_segment: 0,
            volumes: Holdings::new(),
        }
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(MAGIC);
        out.extend(VERSION.to_le_bytes());
        out.extend(self.secret.0);
        out.push(u8::from(self.clean));
        out.extend(self.group.to_le_bytes());
        out.push(u8::from(self.place.is_some()));
        let place = self.place.clone().unwrap_or(Place { volume: 0, frontier: 0, last_journal: 0 });
        out.extend(place.volume.to_le_bytes());
        out.extend(place.frontier.to_le_bytes());
        out.extend(place.last_journal.to_le_bytes());
        out.extend(self.objects.to_le_bytes());
        out.extend(self.bytes.to_le_bytes());
        out.extend(self.next_segment.to_le_bytes());
        out.extend((self.segments.len() as u64).to_le_bytes());
        self.segments.iter().for_each(|number| out.extend(number.to_le_bytes()));
        out.extend((self.volumes.len() as u64).to_le_bytes());
        for (id, (capacity, live)) in &self.volumes {
            out.extend(id.to_le_bytes());
            out.extend(capacity.to_le_bytes());
            out.extend(live.to_le_bytes());
        }
        let checksum = blake3::hash(&out);
        out.extend(checksum.as_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (body, checksum) = bytes.split_at_checked(bytes.len().checked_sub(32)?)?;
        let mut take = Take(body);
        if blake3::hash(body).as_bytes() != checksum || take.bytes(8)? != MAGIC || take.u16()? != VERSION {
            return None;
        }
        let (secret, clean, group) = (take.secret()?, take.u8()? != 0, take.u64()?);
        let placed = take.u8()? != 0;
        let place = Place { volume: take.u32()?, frontier: take.u64()?, last_journal: take.u64()? };
        let (objects, bytes, next_segment, segments) = (take.u64()?, take.u64()?, take.u64()?, take.u64()?);
        let segments = (0..segments).map(|_| take.u64()).collect::<Option<_>>()?;
        let volumes = take.u64()?;
        let volumes = (0..volumes).map(|_| Some((take.u32()?, (take.u64()?, take.u64()?)))).collect::<Option<_>>()?;
        let place = placed.then_some(place);
        Some(Self { secret, clean, group, place, objects, bytes, segments, next_segment, volumes })
    }

    /// The manifest of a directory; `None` when there is none, or a damaged one, which volumes can replace.
    pub(crate) fn read(disk: &dyn Disk, directory: &Path) -> io::Result<Option<Self>> {
        let file = match disk.open(&directory.join(NAME)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let length = file.len()?;
        if length > BYTES_MAX {
            return Ok(None);
        }
        let mut bytes = vec![0; length as usize];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(Self::decode(&bytes))
    }

    /// Replaces the manifest; on return it and all names in the directory are durable.
    pub(crate) fn write(&self, disk: &dyn Disk, directory: &Path) -> Result<(), StoreError> {
        let write = || {
            let new = directory.join(NEW_NAME);
            match disk.remove(&new) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let file = disk.create_new(&new)?;
            file.write_all_at(&self.encode(), 0)?;
            file.sync_data()?;
            // The segments' names before the one that names them: directory entries may become durable in any order.
            disk.sync_dir(directory)?;
            disk.rename(&new, &directory.join(NAME))?;
            disk.sync_dir(directory)
        };
        write().map_err(|error| StoreError::io("writing the manifest", &error))
    }
}
