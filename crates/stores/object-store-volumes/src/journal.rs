//! Reads the journals that volumes hold.

use crate::layout::{BLOCK, BODY, Block, JournalBlock, decode_begin};
use crate::volumes::Volumes;
use std::io;

/// Bytes looked through at once.
const SCAN: u64 = 1024 * 1024;

/// All blocks of a volume's journal, in order. From its end backwards if the volume after it says where that is and no
/// block on the way is damaged; else by looking everywhere.
pub(crate) fn read_all(volumes: &Volumes, id: u32) -> io::Result<Vec<JournalBlock>> {
    let next = match volumes.read_block(id.saturating_add(1), BLOCK) {
        Ok(block) => block.and_then(|block| decode_begin(volumes.secret(), id.saturating_add(1), &block)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    if let Some((before, last)) = next
        && before == id
        && let Some(blocks) = walk(volumes, id, last)?
    {
        return Ok(blocks);
    }
    Ok(scan(volumes, id, BODY)?.blocks)
}

fn walk(volumes: &Volumes, id: u32, last: u64) -> io::Result<Option<Vec<JournalBlock>>> {
    let (mut blocks, mut at) = (Vec::new(), last);
    while at != 0 {
        let block = volumes.read_block(id, at)?;
        let Some(block) = block.and_then(|block| JournalBlock::decode(volumes.secret(), id, at, &block)) else {
            return Ok(None);
        };
        if block.previous >= at {
            return Ok(None);
        }
        at = block.previous;
        blocks.push(block);
    }
    blocks.reverse();
    Ok(Some(blocks))
}

/// What looking through a volume found.
#[derive(Default)]
pub(crate) struct Scan {
    pub(crate) blocks: Vec<JournalBlock>,
    /// Bytes looked at.
    pub(crate) bytes: u64,
}

/// Looks for blocks of the journal from an offset on.
pub(crate) fn scan(volumes: &Volumes, id: u32, from: u64) -> io::Result<Scan> {
    let file = volumes.file(id)?;
    let (length, mut at) = (file.len()?, from);
    let mut scan = Scan::default();
    let mut buffer = vec![0; SCAN as usize];
    while at + BLOCK <= length {
        let size = SCAN.min((length - at) / BLOCK * BLOCK);
        let chunk = buffer.get_mut(..size as usize).unwrap_or_default();
        file.read_exact_at(chunk, at)?;
        for (block, offset) in chunk.as_chunks::<{ BLOCK as usize }>().0.iter().zip((at..).step_by(BLOCK as usize)) {
            scan.blocks.extend(JournalBlock::decode(volumes.secret(), id, offset, block));
        }
        at += size;
    }
    scan.bytes = at.saturating_sub(from);
    Ok(scan)
}

/// Whether a volume without a readable begin block was in use all the same: a spare is all zeros.
pub(crate) fn has_body(volumes: &Volumes, id: u32) -> io::Result<bool> {
    let file = volumes.file(id)?;
    let mut body = vec![0; file.len()?.saturating_sub(BLOCK).min(SCAN) as usize];
    if !body.is_empty() {
        file.read_exact_at(&mut body, BLOCK)?;
    }
    Ok(body.iter().any(|byte| *byte != 0))
}

/// The first block of a file, padded with zeros.
pub(crate) fn first_block(volumes: &Volumes, id: u32) -> io::Result<Block> {
    Ok(volumes.read_block(id, 0)?.unwrap_or([0; BLOCK as usize]))
}
