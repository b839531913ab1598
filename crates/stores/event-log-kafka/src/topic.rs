//! The topic: made by an explicit step, checked at each start.
//!
//! It has one partition more than the log. The last one holds what the log is: site, partitions, incarnation and an id of
//! its own, in the headers of its first record. A topic that was deleted and made anew has none, or another id; one whose partitions were changed has another number of them. What comes
//! after that record is about later lives: see `crate::lives`.

use crate::{
    client::{self, Context, failed},
    config::KafkaConfig,
    lives::{Note, Told, begins_from_text, begins_to_text},
    metrics, record,
};
use cairn_archive::{Incarnation, Offset as LogOffset, SiteId};
use cairn_store_api::{StoreError, StoreErrorKind};
use rdkafka::{
    Message, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication},
    config::FromClientConfigAndContext,
    consumer::{BaseConsumer, Consumer},
    error::RDKafkaErrorCode,
    message::{Header, OwnedHeaders},
    producer::{FutureProducer, FutureRecord},
};
use std::time::{Duration, Instant};

const SITE: &str = "cairn_log_site";
const PARTITIONS: &str = "cairn_log_partitions";
const INCARNATION: &str = "cairn_log_incarnation";
const ID: &str = "cairn_log_id";
const CLAIM: &str = "cairn_log_claim";
const BEGINS: &str = "cairn_log_begins";

/// What a log is, as its topic says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Life {
    /// Site whose log it is.
    pub site: SiteId,
    /// Number of partitions.
    pub partitions: u16,
    /// Life of the log.
    pub incarnation: Incarnation,
    /// Told apart from any other log, also one of the same name.
    pub id: uuid::Uuid,
}

impl Life {
    fn headers(&self) -> OwnedHeaders {
        let fields = [
            (SITE, self.site.to_string()),
            (PARTITIONS, self.partitions.to_string()),
            (INCARNATION, self.incarnation.0.to_string()),
            (ID, self.id.to_string()),
        ];
        fields
            .iter()
            .fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: Some(value) }))
    }

    fn read(message: &impl Message) -> Option<Self> {
        let headers = message.headers()?;
        let text = |name| record::header(headers, name);
        if text(CLAIM).is_some() {
            return None;
        }
        Some(Self {
            site: text(SITE)?.parse().ok()?,
            partitions: text(PARTITIONS)?.parse().ok()?,
            incarnation: Incarnation(text(INCARNATION)?.parse().ok()?),
            id: text(ID)?.parse().ok()?,
        })
    }
}

impl Note {
    fn headers(&self, life: &Life) -> OwnedHeaders {
        let mut fields = vec![(ID, life.id.to_string())];
        match self {
            Self::Claim(claim) => fields.push((CLAIM, claim.to_string())),
            Self::Release(claim) => fields.extend([(CLAIM, claim.to_string()), (BEGINS, String::new())]),
            Self::Life { claim, incarnation, begins } => fields.extend([
                (CLAIM, claim.to_string()),
                (INCARNATION, incarnation.0.to_string()),
                (BEGINS, begins_to_text(begins)),
            ]),
        }
        fields
            .iter()
            .fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: Some(value) }))
    }

    /// Reads one that is about this log.
    fn read(message: &impl Message, life: &Life) -> Option<Self> {
        let headers = message.headers()?;
        let text = |name| record::header(headers, name);
        if text(ID)? != life.id.to_string() {
            return None;
        }
        let claim = text(CLAIM)?.parse().ok()?;
        match (text(INCARNATION), text(BEGINS)) {
            (None, None) => Some(Self::Claim(claim)),
            (None, Some(_)) => Some(Self::Release(claim)),
            (Some(incarnation), begins) => {
                let begins = begins_from_text(begins?).filter(|begins| begins.len() == usize::from(life.partitions))?;
                Some(Self::Life { claim, incarnation: Incarnation(incarnation.parse().ok()?), begins })
            }
        }
    }
}

/// The settings that the log's promises rest on.
fn settings(config: &KafkaConfig) -> Vec<(&'static str, String)> {
    // One broker acknowledges from its page cache unless it syncs first (I2).
    let flush = if config.min_insync_replicas == 1 { "1".to_owned() } else { i64::MAX.to_string() };
    vec![
        ("cleanup.policy", "delete".into()),
        ("retention.ms", "-1".into()),
        ("retention.bytes", "-1".into()),
        ("min.insync.replicas", config.min_insync_replicas.to_string()),
        ("unclean.leader.election.enable", "false".into()),
        ("message.timestamp.type", "LogAppendTime".into()),
        ("max.message.bytes", config.message_bytes_max().to_string()),
        ("flush.messages", flush),
    ]
}

/// What of a topic's settings does not keep the log's promises.
fn weaknesses(config: &KafkaConfig, found: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let mut weak = Vec::new();
    for (name, wanted) in settings(config) {
        let value = found(name).unwrap_or_default();
        let number = |text: &str| text.parse::<i64>().unwrap_or(i64::MIN);
        let good = match name {
            "flush.messages" => config.min_insync_replicas > 1 || value == "1",
            "max.message.bytes" => number(&value) >= number(&wanted),
            "min.insync.replicas" => number(&value) >= number(&wanted),
            _ => value == wanted,
        };
        if !good {
            weak.push(format!("{name} is {value} and should be {wanted}"));
        }
    }
    weak
}

/// Makes the topic, if it is not there, and says in it what the log is. Run again, it does what was left undone.
///
/// # Errors
/// `Invalid` when the topic is a log of another site or another number of partitions; `Corrupt` when it has events but
/// does not say what it is; `Unavailable` when the brokers can't be reached or don't do it.
pub async fn create_topic(config: &KafkaConfig, site: &SiteId, incarnation: Incarnation) -> Result<Life, StoreError> {
    config.check()?;
    let admin = admin(config)?;
    let settings = settings(config);
    let count = i32::from(config.partitions) + 1;
    let mut topic = NewTopic::new(&config.topic, count, TopicReplication::Fixed(i32::from(config.replication_factor)));
    for (name, value) in &settings {
        topic = topic.set(name, value);
    }
    let made = admin.create_topics([&topic], &options(config)).await;
    let made = made.map_err(|error| failed("create topic", &error))?;
    for outcome in made {
        match outcome {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((name, code)) => {
                let what = format!("create topic {name}: {code}");
                return Err(StoreError::new(StoreErrorKind::Unavailable, what));
            }
        }
    }
    let life = match settle(config).await? {
        Looked { life: Some(life), .. } => life,
        Looked { events: true, .. } => return Err(nameless(config)),
        Looked { .. } => {
            write_life(config, site, incarnation).await?;
            // Of two that were written at once the first counts.
            look(config).await?.life.ok_or_else(|| nameless(config))?
        }
    };
    check_life(config, site, life)
}

/// What the last partition says, and where it ended then.
pub(crate) struct Said {
    pub(crate) life: Life,
    pub(crate) told: Told,
    pub(crate) end: LogOffset,
}

/// What the log is, and which lives it had.
pub(crate) async fn said(config: &KafkaConfig, site: &SiteId) -> Result<Said, StoreError> {
    let Looked { life, told, end, .. } = look(config).await?;
    let life = check_life(config, site, life.ok_or_else(|| nameless(config))?)?;
    let told = told.unwrap_or_else(|| Told::new(life.incarnation));
    Ok(Said { life, told, end })
}

/// Says something about the log's lives.
pub(crate) async fn write(config: &KafkaConfig, life: &Life, note: &Note) -> Result<(), StoreError> {
    write_headers(config, note.headers(life)).await
}

/// Checks the topic and says what the log is.
pub(crate) async fn check(config: &KafkaConfig, site: &SiteId) -> Result<Said, StoreError> {
    let looked = look(config).await?;
    let life = check_life(config, site, looked.life.ok_or_else(|| nameless(config))?)?;
    let told = looked.told.unwrap_or_else(|| Told::new(life.incarnation));
    let said = Said { life, told, end: looked.end };
    let admin = admin(config)?;
    let described = admin.describe_configs([&ResourceSpecifier::Topic(&config.topic)], &options(config)).await;
    let described = described.map_err(|error| failed("describe topic", &error))?;
    let resource: ConfigResource = match described.into_iter().next() {
        Some(Ok(resource)) => resource,
        Some(Err(code)) => {
            return Err(StoreError::new(StoreErrorKind::Unavailable, format!("describe topic: {code}")));
        }
        None => return Err(StoreError::new(StoreErrorKind::Unavailable, "describe topic: no answer")),
    };
    let mut weak = weaknesses(config, |name| resource.get(name).and_then(|entry| entry.value.clone()));
    if looked.replicas_min < usize::from(config.replication_factor) {
        let (found, wanted) = (looked.replicas_min, config.replication_factor);
        weak.push(format!("a partition has {found} replicas and should have {wanted}"));
    }
    metrics::weak_topic(!weak.is_empty());
    if weak.is_empty() {
        return Ok(said);
    }
    let weak = weak.join("; ");
    if config.accept_weak_topic {
        tracing::error!(
            topic = config.topic,
            "THE LOG DOES NOT KEEP WHAT IT ACKNOWLEDGES, as accepted by configuration: {weak}"
        );
        return Ok(said);
    }
    Err(StoreError::new(StoreErrorKind::Invalid, format!("topic {} can't hold the log: {weak}", config.topic)))
}

fn check_life(config: &KafkaConfig, site: &SiteId, life: Life) -> Result<Life, StoreError> {
    let invalid =
        |what: String| Err(StoreError::new(StoreErrorKind::Invalid, format!("topic {}: {what}", config.topic)));
    if life.site != *site {
        return invalid(format!("it is the log of site {}", life.site));
    }
    if life.partitions != config.partitions {
        return invalid(format!("the log has {} partitions, {} are configured", life.partitions, config.partitions));
    }
    Ok(life)
}

fn nameless(config: &KafkaConfig) -> StoreError {
    let what =
        format!("topic {} does not say which log it is: it was not made for this, or it was made anew", config.topic);
    StoreError::new(StoreErrorKind::Corrupt, what)
}

fn admin(config: &KafkaConfig) -> Result<AdminClient<Context>, StoreError> {
    let client = client::consumer(config, "cairn-admin", Duration::from_millis(100));
    AdminClient::from_config_and_context(&client, Context).map_err(|error| failed("kafka log", &error))
}

fn options(config: &KafkaConfig) -> AdminOptions {
    AdminOptions::new().request_timeout(Some(config.request_timeout)).operation_timeout(Some(config.request_timeout))
}

/// What a look at the topic found.
struct Looked {
    life: Option<Life>,
    told: Option<Told>,
    /// Where the last partition ended.
    end: LogOffset,
    replicas_min: usize,
    /// Whether a partition of the log holds anything.
    events: bool,
}

async fn look(config: &KafkaConfig) -> Result<Looked, StoreError> {
    let config = config.clone();
    client::blocking(move || look_blocking(&config)).await
}

/// Looks until the brokers have done what they were asked to.
async fn settle(config: &KafkaConfig) -> Result<Looked, StoreError> {
    let begun = Instant::now();
    loop {
        match look(config).await {
            Err(error)
                if matches!(error.kind(), StoreErrorKind::NotFound | StoreErrorKind::Unavailable)
                    && begun.elapsed() < config.request_timeout =>
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            looked => return looked,
        }
    }
}

fn look_blocking(config: &KafkaConfig) -> Result<Looked, StoreError> {
    let client = client::consumer(config, "cairn-look", Duration::from_millis(10));
    let consumer =
        BaseConsumer::from_config_and_context(&client, Context).map_err(|error| failed("kafka log", &error))?;
    let consumer: BaseConsumer<Context> = consumer;
    let replicas_min = check_partitions(config, &consumer)?;
    let count = i32::from(config.partitions) + 1;
    let begins = offsets(config, &consumer, count, Offset::Beginning)?;
    let ends = offsets(config, &consumer, count, Offset::End)?;
    if begins.last().is_some_and(|begin| *begin != 0) {
        let what = format!("topic {}: the beginning of the partition that says what the log is, is gone", config.topic);
        return Err(StoreError::new(StoreErrorKind::Corrupt, what));
    }
    let end = ends.last().copied().unwrap_or_default();
    let (life, told) = read_life(config, &consumer, end)?.unzip();
    let events = ends.iter().rev().skip(1).any(|end| *end > 0);
    let end = LogOffset(u64::try_from(end).unwrap_or_default());
    Ok(Looked { life, told, end, replicas_min, events })
}

fn check_partitions(config: &KafkaConfig, consumer: &BaseConsumer<Context>) -> Result<usize, StoreError> {
    let metadata = consumer.fetch_metadata(Some(&config.topic), config.request_timeout);
    let metadata = metadata.map_err(|error| failed("look at topic", &error))?;
    let topic = metadata.topics().iter().find(|topic| topic.name() == config.topic);
    let absent =
        || StoreError::new(StoreErrorKind::NotFound, format!("topic {} is not there: create it first", config.topic));
    let topic = topic.filter(|topic| topic.error().is_none() && !topic.partitions().is_empty()).ok_or_else(absent)?;
    let (found, wanted) = (topic.partitions().len(), usize::from(config.partitions) + 1);
    if found != wanted {
        let what = format!("topic {} has {found} partitions, the log needs {wanted}", config.topic);
        return Err(StoreError::new(StoreErrorKind::Invalid, what));
    }
    Ok(topic.partitions().iter().map(|partition| partition.replicas().len()).min().unwrap_or_default())
}

/// First or last offsets of all partitions.
fn offsets(
    config: &KafkaConfig,
    consumer: &BaseConsumer<Context>,
    count: i32,
    which: Offset,
) -> Result<Vec<i64>, StoreError> {
    let mut asked = TopicPartitionList::new();
    for partition in 0..count {
        let added = asked.add_partition_offset(&config.topic, partition, which);
        added.map_err(|error| failed("look at topic", &error))?;
    }
    let answer = consumer.offsets_for_times(asked, config.request_timeout);
    let answer = answer.map_err(|error| failed("look at topic", &error))?;
    let offset = |partition| {
        let found = answer.find_partition(&config.topic, partition);
        let Some(element) = found else { return Ok(0) };
        element.error().map_err(|error| failed("look at topic", &error))?;
        Ok(element.offset().to_raw().unwrap_or_default().max(0))
    };
    (0..count).map(offset).collect()
}

/// Reads the last partition to its end.
fn read_life(
    config: &KafkaConfig,
    consumer: &BaseConsumer<Context>,
    end: i64,
) -> Result<Option<(Life, Told)>, StoreError> {
    if end == 0 {
        return Ok(None);
    }
    let mut place = TopicPartitionList::new();
    let added = place.add_partition_offset(&config.topic, i32::from(config.partitions), Offset::Beginning);
    added.and_then(|()| consumer.assign(&place)).map_err(|error| failed("look at topic", &error))?;
    let mut read: Option<(Life, Told)> = None;
    loop {
        let Some(message) = consumer.poll(config.request_timeout) else {
            return Err(StoreError::new(StoreErrorKind::Unavailable, "look at topic: no answer in time"));
        };
        let message = message.map_err(|error| failed("look at topic", &error))?;
        match &mut read {
            None => read = Life::read(&message).map(|life| (life.clone(), Told::new(life.incarnation))),
            Some((life, told)) => Note::read(&message, life).into_iter().for_each(|note| told.include(note)),
        }
        if message.offset() + 1 >= end {
            return Ok(read);
        }
    }
}

async fn write_life(config: &KafkaConfig, site: &SiteId, incarnation: Incarnation) -> Result<(), StoreError> {
    let life = Life { site: site.clone(), partitions: config.partitions, incarnation, id: uuid::Uuid::now_v7() };
    write_headers(config, life.headers()).await
}

async fn write_headers(config: &KafkaConfig, headers: OwnedHeaders) -> Result<(), StoreError> {
    let producer = FutureProducer::from_config_and_context(&client::producer(config), Context);
    let producer: FutureProducer<Context> = producer.map_err(|error| failed("kafka log", &error))?;
    let record = FutureRecord::<(), [u8]>::to(&config.topic)
        .partition(i32::from(config.partitions))
        .payload(&[])
        .headers(headers);
    let sent = producer.send(record, config.append_timeout).await;
    sent.map(|_| ()).map_err(|(error, _)| failed("write what the log is", &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(config: &KafkaConfig, changed: (&str, &str)) -> Vec<String> {
        weaknesses(config, |name| {
            if name == changed.0 {
                return Some(changed.1.to_owned());
            }
            settings(config).into_iter().find(|(known, _)| *known == name).map(|(_, value)| value)
        })
    }

    #[test]
    fn a_topic_as_made_is_good_and_each_weakness_is_named() {
        let cluster = KafkaConfig::default();
        let single = KafkaConfig { replication_factor: 1, min_insync_replicas: 1, ..KafkaConfig::default() };
        assert!(found(&cluster, ("", "")).is_empty() && found(&single, ("", "")).is_empty());
        for (name, value) in [
            ("cleanup.policy", "compact"),
            ("retention.ms", "604800000"),
            ("retention.bytes", "1"),
            ("min.insync.replicas", "1"),
            ("unclean.leader.election.enable", "true"),
            ("message.timestamp.type", "CreateTime"),
            ("max.message.bytes", "1048588"),
        ] {
            let weak = found(&cluster, (name, value));
            assert!(weak.len() == 1 && weak[0].contains(name), "{name}: {weak:?}");
        }
        assert_eq!(found(&single, ("flush.messages", "9223372036854775807")).len(), 1, "acknowledged unsynced");
        assert!(
            found(&cluster, ("flush.messages", "1")).is_empty()
                && found(&cluster, ("min.insync.replicas", "3")).is_empty()
        );
    }
}
