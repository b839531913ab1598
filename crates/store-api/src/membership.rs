use async_trait::async_trait;
use cairn_archive::Partition;
use std::fmt;

/// Shares the partitions of a log among the processes that follow it under one name. It says who follows what and nothing
/// else: how far a partition is followed stays with the projection.
///
/// Two processes may follow one partition for a moment (a process that was frozen does not know yet that its share is
/// another's): what they write must bear it.
#[async_trait]
pub trait Membership: Send {
    /// The next change of this process's share, which is empty at first. `None` once the membership has ended.
    ///
    /// # Cancel safety
    /// Dropping the future loses no change.
    async fn next(&mut self) -> Option<ShareChange>;
}

/// A change of the partitions that this process follows.
#[derive(Debug)]
pub enum ShareChange {
    /// These are followed here from now on.
    Gained(Vec<Partition>),
    /// These are no longer; others get them once [`Release`] is dropped, or some time has passed.
    Lost(Vec<Partition>, Release),
}

/// Dropped when following has stopped, so that the next process begins where this one ended.
pub struct Release(Option<Box<dyn FnOnce() + Send>>);

impl Release {
    /// Runs `release` when dropped.
    pub fn new(release: impl FnOnce() + Send + 'static) -> Self {
        Self(Some(Box::new(release)))
    }
}

impl Drop for Release {
    fn drop(&mut self) {
        if let Some(release) = self.0.take() {
            release();
        }
    }
}

impl fmt::Debug for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Release")
    }
}

/// The whole log in one process.
#[derive(Debug)]
pub struct WholeLog(Option<u16>);

impl WholeLog {
    /// All of a log's partitions.
    pub fn new(partitions: u16) -> Self {
        Self(Some(partitions))
    }
}

#[async_trait]
impl Membership for WholeLog {
    async fn next(&mut self) -> Option<ShareChange> {
        match self.0.take() {
            Some(partitions) => Some(ShareChange::Gained((0..partitions).map(Partition).collect())),
            None => std::future::pending().await,
        }
    }
}
