//! Questions for offsets. One thread asks; questions that wait while another is answered are asked together.

use crate::client::{Context, failed};
use cairn_archive::{Offset, Partition};
use cairn_store_api::{StoreError, StoreErrorKind};
use rdkafka::{
    TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
};
use std::{
    collections::BTreeSet,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};
use tokio::sync::oneshot;

/// Pause before the brokers are asked again.
const RETRY: Duration = Duration::from_millis(50);

type Answer = oneshot::Sender<Result<Option<Offset>, StoreError>>;

struct Question {
    partition: Partition,
    at: At,
    answer: Answer,
}

/// Which offset is asked for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum At {
    Beginning,
    End,
    /// The first one with a time at or after this many milliseconds.
    Time(i64),
}

impl At {
    fn offset(self) -> rdkafka::Offset {
        match self {
            Self::Beginning => rdkafka::Offset::Beginning,
            Self::End => rdkafka::Offset::End,
            Self::Time(ms) => rdkafka::Offset::Offset(ms),
        }
    }
}

pub(crate) struct Ends {
    questions: mpsc::Sender<Question>,
}

impl Ends {
    /// Starts the thread, which ends with this.
    pub(crate) fn start(
        consumer: Arc<BaseConsumer<Context>>,
        topic: String,
        timeout: Duration,
    ) -> Result<Self, StoreError> {
        let (questions, asked) = mpsc::channel();
        let asker = Asker { consumer, topic, timeout };
        let thread = std::thread::Builder::new().name("cairn-log-ends".into()).spawn(move || asker.run(&asked));
        thread.map_err(|error| StoreError::io("start kafka log", &error))?;
        Ok(Self { questions })
    }

    /// First offset that is not durable yet, as of a moment after the call.
    pub(crate) async fn end(&self, partition: Partition) -> Result<Offset, StoreError> {
        Ok(self.ask(partition, At::End).await?.unwrap_or_default())
    }

    /// First offset that the brokers still have.
    pub(crate) async fn beginning(&self, partition: Partition) -> Result<Offset, StoreError> {
        Ok(self.ask(partition, At::Beginning).await?.unwrap_or_default())
    }

    /// First offset with a time at or after `unix_ms`.
    pub(crate) async fn at(&self, partition: Partition, unix_ms: u64) -> Result<Option<Offset>, StoreError> {
        self.ask(partition, At::Time(i64::try_from(unix_ms).unwrap_or(i64::MAX))).await
    }

    async fn ask(&self, partition: Partition, at: At) -> Result<Option<Offset>, StoreError> {
        let gone = || StoreError::new(StoreErrorKind::Unavailable, "kafka log is closed");
        let (answer, answered) = oneshot::channel();
        self.questions.send(Question { partition, at, answer }).map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

struct Asker {
    consumer: Arc<BaseConsumer<Context>>,
    topic: String,
    timeout: Duration,
}

impl Asker {
    fn run(&self, asked: &mpsc::Receiver<Question>) {
        while let Ok(first) = asked.recv() {
            let questions: Vec<Question> = std::iter::once(first).chain(asked.try_iter()).collect();
            let (ends, others): (Vec<_>, Vec<_>) = questions.into_iter().partition(|question| question.at == At::End);
            self.answer(ends);
            others.into_iter().for_each(|question| self.answer(vec![question]));
        }
    }

    /// Answers questions for ends, or another one.
    fn answer(&self, questions: Vec<Question>) {
        // Those who stopped waiting while the brokers were away cost nothing.
        let questions: Vec<_> = questions.into_iter().filter(|question| !question.answer.is_closed()).collect();
        let Some(first) = questions.first() else { return };
        let at = first.at;
        let partitions: BTreeSet<Partition> = questions.iter().map(|question| question.partition).collect();
        let answers = self.ask_until_answered(&partitions, at);
        for question in questions {
            let answer = answers.as_ref().map_err(Clone::clone);
            let answer = answer.and_then(|list| self.find(list, question.partition));
            // The asker may be gone.
            let _ = question.answer.send(answer);
        }
    }

    /// Just after a leader came back or another took over, the client's idea of it is old: it is refreshed and asked again.
    fn ask_until_answered(&self, partitions: &BTreeSet<Partition>, at: At) -> Result<TopicPartitionList, StoreError> {
        let begun = Instant::now();
        loop {
            let asked = self.ask(partitions, at);
            let failed = |list: &TopicPartitionList| partitions.iter().find_map(|p| self.find(list, *p).err());
            let error = match &asked {
                Ok(list) => failed(list),
                Err(error) => Some(error.clone()),
            };
            let again = error.is_some_and(|error| error.kind() == StoreErrorKind::Unavailable);
            let left = self.timeout.saturating_sub(begun.elapsed());
            if !again || left < RETRY {
                return asked;
            }
            std::thread::sleep(RETRY);
            // Its outcome is seen in the next answer.
            let _ = self.consumer.fetch_metadata(Some(&self.topic), left);
        }
    }

    fn ask(&self, partitions: &BTreeSet<Partition>, at: At) -> Result<TopicPartitionList, StoreError> {
        let mut asked = TopicPartitionList::new();
        for partition in partitions {
            let added = asked.add_partition_offset(&self.topic, i32::from(partition.0), at.offset());
            added.map_err(|error| failed("ask for offsets", &error))?;
        }
        let answer = self.consumer.offsets_for_times(asked, self.timeout);
        answer.map_err(|error| failed("ask for offsets", &error))
    }

    fn find(&self, list: &TopicPartitionList, partition: Partition) -> Result<Option<Offset>, StoreError> {
        let missing = || StoreError::new(StoreErrorKind::Unavailable, "ask for offsets: no answer for the partition");
        let element = list.find_partition(&self.topic, i32::from(partition.0)).ok_or_else(missing)?;
        element.error().map_err(|error| failed("ask for offsets", &error))?;
        Ok(match element.offset() {
            rdkafka::Offset::Offset(offset) => u64::try_from(offset).ok().map(Offset),
            _ => None,
        })
    }
}
