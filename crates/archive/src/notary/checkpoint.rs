//! What a log was at a time: the tree of each partition.

use super::{TreeHash, Unproven, document::Lines};
use crate::{
    envelope::rfc3339,
    ids::SiteId,
    position::{Incarnation, Offset, Partition},
};

/// First line of a checkpoint.
const TITLE: &str = "cairn checkpoint 1";
const WHAT: &str = "checkpoint";

/// A tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TreeHead {
    /// Leaves: events from offset 0 on.
    pub size: u64,
    /// Root.
    pub root: TreeHash,
}

/// A life of a log after its first one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LifeBegun {
    /// Which.
    pub incarnation: Incarnation,
    /// Of each partition, the first offset that is of this life.
    pub begins: Vec<Offset>,
}

/// A partition that does not go on from what the checkpoint before had of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Break {
    /// Which.
    pub partition: Partition,
    /// What that checkpoint had.
    pub before: TreeHead,
}

/// All trees of a log at a time, and what they go on from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Site whose log it is of.
    pub site: SiteId,
    /// Among the checkpoints of the site, from 1.
    pub number: u64,
    /// When, in milliseconds since the Unix epoch by the site's clock.
    pub at_ms: u64,
    /// Hash of the body of the one before; `None`: it is the first.
    pub previous: Option<TreeHash>,
    /// The first life of the log.
    pub first_life: Incarnation,
    /// Lives after the first.
    pub later_lives: Vec<LifeBegun>,
    /// Partitions whose history is not that of the checkpoint before: after a restore of the log from a backup, or by decision
    /// of an operator who knows why.
    pub breaks: Vec<Break>,
    /// The tree of each partition.
    pub trees: Vec<TreeHead>,
}

impl Checkpoint {
    /// The text that is signed.
    pub fn body(&self) -> String {
        let previous = self.previous.map_or("none".to_owned(), |hash| hash.to_string());
        let mut body = format!(
            "{TITLE}\nsite {}\nnumber {}\ntime {}\ntime-ms {}\nprevious {previous}\nlife {}\n",
            self.site,
            self.number,
            rfc3339(self.at_ms),
            self.at_ms,
            self.first_life.0,
        );
        for LifeBegun { incarnation, begins } in &self.later_lives {
            body += &format!("later-life {}", incarnation.0);
            begins.iter().for_each(|begin| body += &format!(" {}", begin.0));
            body += "\n";
        }
        for Break { partition, before: TreeHead { size, root } } in &self.breaks {
            body += &format!("break {} {size} {root}\n", partition.0);
        }
        body += &format!("partitions {}\n", self.trees.len());
        for (partition, TreeHead { size, root }) in self.trees.iter().enumerate() {
            body += &format!("tree {partition} {size} {root}\n");
        }
        body
    }

    /// Reads a body.
    ///
    /// # Errors
    /// `Malformed`: it is not what [`Checkpoint::body`] writes.
    pub fn parse(body: &str) -> Result<Self, Unproven> {
        let bad = Unproven::Malformed(WHAT);
        let mut lines = Lines::of(body, TITLE, WHAT)?;
        let (site, number) = (lines.parse("site")?, lines.parse("number")?);
        let (_, at_ms) = (lines.next("time")?, lines.parse("time-ms")?);
        let previous = match lines.next("previous")? {
            "none" => None,
            hash => Some(hash.parse()?),
        };
        let first_life = Incarnation(lines.parse("life")?);
        let (mut later_lives, mut breaks, mut trees) = (Vec::new(), Vec::new(), Vec::new());
        while let Some(life) = lines.next_if("later-life") {
            later_lives.push(read_life(life).ok_or(bad.clone())?);
        }
        while let Some(line) = lines.next_if("break") {
            let (partition, before) = read_tree(line).ok_or(bad.clone())?;
            breaks.push(Break { partition, before });
        }
        let partitions: u16 = lines.parse("partitions")?;
        for _ in 0..partitions {
            trees.push(read_tree(lines.next("tree")?).ok_or(bad.clone())?.1);
        }
        lines.end()?;
        let read = Self { site, number, at_ms, previous, first_life, later_lives, breaks, trees };
        // One checkpoint has one text.
        if read.body() == body { Ok(read) } else { Err(bad) }
    }

    /// The tree of a partition.
    pub fn tree(&self, partition: Partition) -> Option<TreeHead> {
        self.trees.get(usize::from(partition.0)).copied()
    }

    /// The life that an offset is of.
    pub fn life_at(&self, partition: Partition, offset: Offset) -> Incarnation {
        let has_begun =
            |life: &&LifeBegun| life.begins.get(usize::from(partition.0)).is_some_and(|begin| *begin <= offset);
        self.later_lives.iter().rev().find(has_begun).map_or(self.first_life, |life| life.incarnation)
    }

    /// The present life.
    pub fn newest_life(&self) -> Incarnation {
        self.later_lives.last().map_or(self.first_life, |life| life.incarnation)
    }

    /// Events in all trees.
    pub fn events(&self) -> u64 {
        self.trees.iter().fold(0, |events: u64, tree| events.saturating_add(tree.size))
    }

    /// What its file is called: of its number there is one in a life.
    pub fn file_name(&self) -> String {
        format!("{}-{}-{:010}.checkpoint", self.site, self.newest_life().0, self.number)
    }
}

fn read_life(line: &str) -> Option<LifeBegun> {
    let mut numbers = line.split(' ').map(str::parse::<u64>);
    let incarnation = Incarnation(numbers.next()?.ok()?.try_into().ok()?);
    let begins = numbers.map(|begin| begin.map(Offset)).collect::<Result<_, _>>().ok()?;
    Some(LifeBegun { incarnation, begins })
}

fn read_tree(line: &str) -> Option<(Partition, TreeHead)> {
    let mut parts = line.split(' ');
    let (partition, size) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let root = parts.next()?.parse().ok()?;
    parts.next().is_none().then_some((Partition(partition), TreeHead { size, root }))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::notary) fn checkpoint(sizes: &[u64]) -> Checkpoint {
        let tree = |size: &u64| TreeHead { size: *size, root: TreeHash([*size as u8; 32]) };
        Checkpoint {
            site: "main".parse().unwrap(),
            number: 17,
            at_ms: 1_767_225_600_123,
            previous: None,
            first_life: Incarnation(1),
            later_lives: Vec::new(),
            breaks: Vec::new(),
            trees: sizes.iter().map(tree).collect(),
        }
    }

    #[test]
    fn its_text_is_written_down_for_ever() {
        let mut checkpoint = checkpoint(&[3, 0]);
        checkpoint.previous = Some(TreeHash([0xab; 32]));
        checkpoint.later_lives = vec![LifeBegun { incarnation: Incarnation(2), begins: vec![Offset(2), Offset(0)] }];
        let before = TreeHead { size: 9, root: TreeHash([0xcd; 32]) };
        checkpoint.breaks = vec![Break { partition: Partition(1), before }];
        let (ab, cd, three, zero) = ("ab".repeat(32), "cd".repeat(32), "03".repeat(32), "00".repeat(32));
        let text = format!(
            "cairn checkpoint 1\nsite main\nnumber 17\ntime 2026-01-01T00:00:00.123Z\ntime-ms 1767225600123\nprevious {ab}\nlife 1\nlater-life 2 2 0\nbreak 1 9 {cd}\npartitions 2\ntree 0 3 {three}\ntree 1 0 {zero}\n"
        );
        assert_eq!(checkpoint.body(), text);
        assert_eq!(Checkpoint::parse(&text), Ok(checkpoint.clone()));
        assert_eq!(checkpoint.file_name(), "main-2-0000000017.checkpoint");
        let life = |partition, offset| checkpoint.life_at(Partition(partition), Offset(offset)).0;
        assert_eq!([life(0, 1), life(0, 2), life(1, 0)], [1, 2, 2]);
    }

    #[test]
    fn what_is_not_exactly_one_is_refused() {
        let body = checkpoint(&[3, 0]).body();
        assert!(Checkpoint::parse(&body).is_ok());
        let edits: [(&str, &str); 9] = [
            ("number 17", "number 017"),
            ("number 17", "number +17"),
            ("00.123Z", "00.124Z"),
            ("time-ms", "time-us"),
            ("previous none", "previous null"),
            ("partitions 2", "partitions 1"),
            ("partitions 2", "partitions 3"),
            ("tree 1", "tree 0"),
            ("0303", "0g03"),
        ];
        for (from, to) in edits {
            assert!(Checkpoint::parse(&body.replacen(from, to, 1)).is_err(), "{to}");
        }
        for cut in 0..body.len() {
            assert!(Checkpoint::parse(&body[..cut]).is_err(), "cut at {cut}");
        }
        assert!(Checkpoint::parse(&(body + "\n")).is_err());
    }
}
