//! Trials of [`Peer`] and [`Replication`]: on a scripted site, and on clients of it, so that nothing is lost or changed on
//! the way between two sites.

mod scripted;

pub use scripted::Scripted;

use super::all;
use bytes::Bytes;
use cairn_archive::{
    Digest, EventId, Incarnation, KeyId, ObjectKey, Offset, Partition, Position, PositionVector, SiteId,
    authority::DeadSite,
    envelope::Envelope,
    events::{ApplicationEntity, EVENT_TYPES, SendersConfigured},
    hlc::Hlc,
    sealing::KeyBytes,
};
use cairn_dicom::tags;
use cairn_service_api::{
    Error, ErrorKind, Peer, Reason, Replication,
    ingest::Body,
    replication::{
        AtRisk, Delivered, Delivery, Held, Inspected, Introduction, Link, Mark, Meeting, Outcome, PeerStatus,
        ReplicationStatus, Report, Risk, Suspects,
    },
    schedule::{Rule, Schedule},
    site::{Decision, Grounds, Promoted, SiteStatus},
};
use cairn_store_api::{HandedKey, ObjectRef, Record};
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream};
use libtest_mimic::Trial;
use std::{sync::Arc, time::Duration};

/// A scripted site as its callers hold it.
pub struct Reached {
    /// For other sites.
    pub peer: Arc<dyn Peer>,
    /// For operators.
    pub replication: Arc<dyn Replication>,
    /// Stops what is between.
    pub stop: BoxFuture<'static, ()>,
}

type Run = fn(Arc<Scripted>, Arc<dyn Peer>, Arc<dyn Replication>) -> BoxFuture<'static, ()>;

macro_rules! table {
    ($($name:ident;)*) => {
        [$((stringify!($name), (|site, peer, replication| $name(site, peer, replication).boxed()) as Run)),*]
    };
}

/// The trials, as `services::{name}::{what}`.
pub fn trials(
    name: &str,
    reach: impl Fn(Arc<Scripted>) -> BoxFuture<'static, Reached> + Clone + Send + 'static,
) -> Vec<Trial> {
    let table = table! {
        who_meets_hears_what_is_held;
        missing_objects_are_named_by_index;
        an_object_arrives_byte_for_byte;
        an_object_whose_body_breaks_off_is_not_whole;
        an_object_that_is_there_is_answered_before_its_end;
        events_arrive_as_they_stand;
        what_is_told_arrives;
        a_status_comes_whole;
        what_is_at_risk_comes_in_order;
        what_is_at_risk_breaks_off_with_its_reason;
        an_object_is_read_for_a_site_that_lost_it;
        what_was_looked_at_is_told;
        a_peer_is_paused_and_goes_on;
        what_is_to_be_confirmed_arrives;
        what_is_decided_of_sites_arrives;
        who_steps_down_says_what_it_holds;
        every_failure_comes_back_as_it_was;
    };
    let trial = |(what, run): (&str, Run)| {
        let reach = reach.clone();
        crate::trial(format!("services::{name}::{what}"), move || async move {
            let status = ReplicationStatus { peers: Vec::new(), ..status() };
            let site = Arc::new(Scripted::new(meeting(), status));
            let Reached { peer, replication, stop } = reach(site.clone()).await;
            run(site, peer, replication).await;
            stop.await;
        })
    };
    table.into_iter().map(trial).collect()
}

fn site(name: &str) -> SiteId {
    name.parse().unwrap()
}

fn event(n: u8) -> EventId {
    EventId::from_slice(&[n; 16]).unwrap()
}

fn mark(name: &str, incarnation: u32, partition: u16, end: u64) -> Mark {
    Mark {
        site: site(name),
        incarnation: Incarnation(incarnation),
        partition: Partition(partition),
        end: Offset(end),
        last: event(partition as u8),
    }
}

fn meeting() -> Meeting {
    Meeting {
        process: u64::MAX,
        site: site("south"),
        incarnation: Incarnation(u32::MAX),
        partitions: u16::MAX,
        holds: vec![mark("north", 1, 0, 1), mark("south", u32::MAX, u16::MAX, u64::MAX), mark("a-3_rd.one", 2, 7, 9)],
        strayed: vec![Partition(0), Partition(u16::MAX)],
    }
}

async fn who_meets_hears_what_is_held(scripted: Arc<Scripted>, peer: Arc<dyn Peer>, _: Arc<dyn Replication>) {
    let stranger = Introduction { site: site("north"), incarnation: Incarnation(0), partitions: 1, marks: Vec::new() };
    let known = Introduction {
        site: site("north"),
        incarnation: Incarnation(3),
        partitions: 64,
        marks: vec![mark("south", 4, 63, u64::MAX), mark("south", 4, 0, 1)],
    };
    assert_eq!(peer.meet(stranger.clone()).await.unwrap(), meeting());
    let nothing = Meeting { holds: Vec::new(), strayed: Vec::new(), ..meeting() };
    scripted.script().meeting = nothing.clone();
    assert_eq!(peer.meet(known.clone()).await.unwrap(), nothing);
    assert_eq!(scripted.script().introductions, [stranger, known]);
}

fn object(n: u8, length: u64) -> ObjectRef {
    ObjectRef { key: ObjectKey::from_slice(&[n; 16]).unwrap(), length, digest: Digest([n.wrapping_add(1); 32]) }
}

async fn missing_objects_are_named_by_index(scripted: Arc<Scripted>, peer: Arc<dyn Peer>, _: Arc<dyn Replication>) {
    let objects: Vec<_> = (0..=255).map(|n| object(n, u64::from(n) << 56)).collect();
    assert!(peer.missing(objects.clone()).await.unwrap().is_empty());
    assert_eq!(scripted.script().offered, objects);
    let missing = vec![0, 2, 255, u32::MAX];
    scripted.script().missing = missing.clone();
    assert_eq!(peer.missing(Vec::new()).await.unwrap(), missing);
}

/// Bytes that tell their place.
fn content(length: usize) -> Bytes {
    (0..length).map(|at| (at ^ at >> 8 ^ at >> 16) as u8).collect()
}

/// The bytes in pieces of every odd size, none and far more than a message takes among them.
fn body(bytes: &Bytes) -> Body<'static> {
    let (mut rest, mut pieces) = (bytes.clone(), Vec::new());
    for size in [1, 0, 7, 300_001, 1 << 20, 65_537, 2_000_003, 256 << 10, 13].into_iter().cycle() {
        if rest.is_empty() {
            break;
        }
        pieces.push(Ok(rest.split_to(rest.len().min(size))));
    }
    Box::pin(stream::iter(pieces))
}

async fn an_object_arrives_byte_for_byte(scripted: Arc<Scripted>, peer: Arc<dyn Peer>, _: Arc<dyn Replication>) {
    let lengths = [5 << 20, 0, 1, (256 << 10) + 1];
    for (n, length) in (0..).zip(lengths) {
        peer.put_object(object(n, length as u64), body(&content(length))).await.unwrap();
    }
    for (n, length) in (0..).zip(lengths) {
        let arrivals = scripted.arrivals(&object(n, length as u64)).await;
        let [arrival] = &arrivals[..] else { panic!("{length} bytes {} times", arrivals.len()) };
        assert!(arrival.whole && arrival.bytes == content(length), "{length} bytes");
    }
}

async fn an_object_whose_body_breaks_off_is_not_whole(
    scripted: Arc<Scripted>,
    peer: Arc<dyn Peer>,
    _: Arc<dyn Replication>,
) {
    // So much that the site has begun with it, and so little that it may not.
    for (n, before) in (0..).zip([8 << 20, 10, 0]) {
        let broken = Error::because(ErrorKind::Corrupt, Reason::DoesNotMatch, "this copy is damaged");
        let body = body(&content(before)).chain(stream::iter([Err(broken)]));
        let failed = peer.put_object(object(n, 9 << 20), Box::pin(body)).await.expect_err("it broke off");
        assert_eq!(
            (failed.kind, failed.reason, failed.message.as_str()),
            (ErrorKind::Corrupt, Reason::DoesNotMatch, "this copy is damaged"),
            "why, as the sender knows it"
        );
    }
    let arrivals = scripted.arrivals(&object(0, 9 << 20)).await;
    assert!(arrivals.iter().all(|arrival| !arrival.whole && content(8 << 20).starts_with(&arrival.bytes)));
    peer.put_object(object(1, 3), body_of(b"end")).await.unwrap();
    assert!(scripted.arrivals(&object(1, 3)).await[0].whole, "another is not touched by it");
}

fn body_of(bytes: &'static [u8]) -> Body<'static> {
    Box::pin(stream::iter([Ok(Bytes::from_static(bytes))]))
}

async fn an_object_that_is_there_is_answered_before_its_end(
    scripted: Arc<Scripted>,
    peer: Arc<dyn Peer>,
    _: Arc<dyn Replication>,
) {
    scripted.script().has_all = true;
    for _ in 0..20 {
        peer.put_object(object(0, 5 << 20), body(&content(5 << 20))).await.unwrap();
        // The rest never comes.
        let stuck = body(&content(1_000)).chain(stream::pending());
        peer.put_object(object(0, 5 << 20), Box::pin(stuck)).await.unwrap();
    }
}

fn records() -> Vec<Record> {
    let bare = Envelope {
        id: event(1),
        kind: EVENT_TYPES[0].into(),
        site: site("north"),
        study_instance_uid: "1.2.3".into(),
        tenant: "default".into(),
        hlc: Hlc { wall_ms: 0, counter: 0 },
        traceparent: None,
        correlation_id: None,
        causation_id: None,
        object_keys: Vec::new(),
        origin: None,
    };
    let full = Envelope {
        id: event(2),
        kind: "cairn.of.a.later.release.v9".into(),
        site: site("third"),
        study_instance_uid: "2.25.340282366920938463463374607431768211455".into(),
        tenant: "Hôpital 東".into(),
        hlc: Hlc { wall_ms: 253_402_300_799_999, counter: u32::MAX },
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
        correlation_id: Some(event(3).to_string()),
        causation_id: Some(event(4)),
        object_keys: vec![object(1, 0).key, object(2, 0).key],
        origin: Some("third/4294967295/65535/18446744073709551615".parse().unwrap()),
    };
    let unreadable = Envelope::unreadable(&"north/1/0/3".parse().unwrap(), 7);
    vec![
        Record { envelope: bare, payload: Bytes::new() },
        Record { envelope: full, payload: content(500_000) },
        Record { envelope: unreadable, payload: Bytes::from_static(b"\xff\0 no message of ours") },
    ]
}

async fn events_arrive_as_they_stand(scripted: Arc<Scripted>, peer: Arc<dyn Peer>, _: Arc<dyn Replication>) {
    let full = Delivery {
        process: u64::MAX - 1,
        site: site("north"),
        incarnation: Incarnation(9),
        partition: Partition(u16::MAX),
        from: Offset(5),
        to: Offset(u64::MAX),
        records: records(),
        erased: vec![ObjectKey::from_slice(&[9; 16]).unwrap()],
        keys: vec![
            HandedKey { id: KeyId::from_slice(&[8; 16]).unwrap(), bytes: Some(KeyBytes([7; 32])) },
            HandedKey { id: KeyId::from_slice(&[9; 16]).unwrap(), bytes: None },
        ],
    };
    let passed_over = Delivery { partition: Partition(0), from: Offset(0), records: Vec::new(), ..full.clone() };
    for (delivery, delivered) in [(full, Delivered { repeated: u32::MAX }), (passed_over, Delivered { repeated: 0 })] {
        scripted.script().delivered = delivered.clone();
        assert_eq!(peer.append(delivery.clone()).await.unwrap(), delivered);
        let given = scripted.script().deliveries.pop().unwrap();
        // Shorter than all bytes of a payload.
        assert!(given == delivery, "{:?} instead of {:?}", kinds(&given), kinds(&delivery));
    }
    assert!(scripted.script().deliveries.is_empty(), "each once");
}

fn kinds(delivery: &Delivery) -> Vec<&Envelope> {
    delivery.records.iter().map(|record| &record.envelope).collect()
}

const RISK: Risk = Risk { events: u64::MAX, instances: 2, bytes: 3, oldest_ms: Some(4) };

fn report(risk: Risk) -> Report {
    Report { site: site("north"), at_ms: 1_767_225_600_123, risk }
}

async fn what_is_told_arrives(scripted: Arc<Scripted>, peer: Arc<dyn Peer>, _: Arc<dyn Replication>) {
    // Since the epoch is not the same as not at all.
    let reports = [RISK, Risk { oldest_ms: Some(0), ..RISK }, Risk::default()].map(report);
    for report in &reports {
        peer.tell(u64::MAX - 2, report.clone()).await.unwrap();
        assert_eq!(scripted.script().processes.pop(), Some(u64::MAX - 2));
    }
    assert_eq!(scripted.script().reports, reports);
}

fn status() -> ReplicationStatus {
    let first = PeerStatus {
        site: site("a"),
        addresses: vec!["https://a.example:50051".into(), "https://b.example:50051".into()],
        link: Link::Up,
        answered_at_ms: Some(5),
        risk: RISK,
        rpo_target: Duration::from_millis(1_500),
        schedule: Schedule {
            always: Some(1 << 33),
            rules: vec![Rule { days: 0b101_0001, from: 1_439, to: 0, bytes_per_second: u64::MAX }],
            utc_offset_minutes: -210,
        },
        events_delivered: 6,
        objects_sent: 7,
        bytes_sent: u64::MAX,
        objects_repaired: 8,
        told: Some((8, report(RISK))),
    };
    let bare = PeerStatus {
        addresses: Vec::new(),
        answered_at_ms: None,
        risk: Risk::default(),
        rpo_target: Duration::ZERO,
        schedule: Schedule::default(),
        told: None,
        ..first.clone()
    };
    let links = [
        Link::Connecting,
        Link::Paused,
        Link::Failing("connection refused".into()),
        Link::Refused("it has 32 partitions".into()),
    ];
    let others = links.into_iter().zip(["b", "c", "d", "e"]);
    let others = others.map(|(link, name)| PeerStatus { site: site(name), link, ..bare.clone() });
    ReplicationStatus {
        site: site("north"),
        incarnation: Incarnation(3),
        at_ms: 1_767_225_600_123,
        own: Held { events: 9, instances: 8, bytes: 1 << 50 },
        available_bytes: Some(0),
        peers: std::iter::once(first.clone()).chain(others).collect(),
    }
}

async fn a_status_comes_whole(scripted: Arc<Scripted>, _: Arc<dyn Peer>, replication: Arc<dyn Replication>) {
    assert_eq!(replication.status().await.unwrap(), ReplicationStatus { peers: Vec::new(), ..status() });
    scripted.script().status = status();
    assert_eq!(replication.status().await.unwrap(), status());
}

fn at_risk(n: u64) -> AtRisk {
    AtRisk {
        position: format!("north/3/{}/{n}", n % 64).parse().unwrap(),
        acknowledged_at_ms: n << 32,
        event: event(n as u8),
        kind: EVENT_TYPES[0].into(),
        study_instance_uid: format!("1.2.{n}"),
        sop_instance_uid: n.is_multiple_of(2).then(|| format!("1.2.3.{n}")),
        bytes: n,
    }
}

async fn an_object_is_read_for_a_site_that_lost_it(
    scripted: Arc<Scripted>,
    peer: Arc<dyn Peer>,
    _: Arc<dyn Replication>,
) {
    let (caller, asked) = (site("north"), object(4, 9));
    let chunks: Vec<Bytes> = (0..40_u8).map(|n| vec![n; 1 << 18].into()).collect();
    scripted.script().object = chunks.clone();
    assert!(all(peer.read_object(&caller, asked).await.unwrap()).await == chunks);
    assert_eq!(scripted.script().asked_for, [(caller.clone(), asked)]);
    for kind in [ErrorKind::Corrupt, ErrorKind::NotFound, ErrorKind::Denied] {
        scripted.script().object_failure = Some(Error::new(kind, "it is not as it was"));
        let mut bytes = peer.read_object(&caller, asked).await.unwrap();
        let end = loop {
            match bytes.next().await.expect("it ends with its reason") {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert_eq!((end.kind, end.message.as_str()), (kind, "it is not as it was"));
    }
}

async fn what_was_looked_at_is_told(scripted: Arc<Scripted>, _: Arc<dyn Peer>, replication: Arc<dyn Replication>) {
    let study = Suspects::Study("1.2.3".into());
    assert!(all(replication.repair(study.clone()).await.unwrap()).await.is_empty());
    let outcomes = [Outcome::Whole, Outcome::Repaired { from: site("south") }, Outcome::Lost("nobody has it".into())];
    let inspected = |(n, outcome)| Inspected { key: object(n, 1).key, length: u64::from(n) << 40, outcome };
    let told: Vec<_> = (1..).zip(outcomes).map(inspected).collect();
    scripted.script().inspected = told.clone();
    let one = Suspects::Object(object(2, 1).key);
    assert_eq!(all(replication.repair(one.clone()).await.unwrap()).await, told);
    assert_eq!(scripted.script().suspects, [study, one]);
}

async fn what_is_at_risk_comes_in_order(scripted: Arc<Scripted>, _: Arc<dyn Peer>, replication: Arc<dyn Replication>) {
    assert!(all(replication.at_risk(&site("empty")).await.unwrap()).await.is_empty());
    let events: Vec<_> = (0..2_000).map(at_risk).collect();
    scripted.script().at_risk = events.clone();
    assert_eq!(all(replication.at_risk(&site("south")).await.unwrap()).await, events);
    assert_eq!(scripted.script().asked_at_risk, [site("empty"), site("south")]);
}

async fn what_is_at_risk_breaks_off_with_its_reason(
    scripted: Arc<Scripted>,
    _: Arc<dyn Peer>,
    replication: Arc<dyn Replication>,
) {
    scripted.script().at_risk = (0..3).map(at_risk).collect();
    scripted.script().at_risk_failure = Some(Error::new(ErrorKind::Corrupt, "the log is damaged"));
    let found: Vec<_> = replication.at_risk(&site("south")).await.unwrap().collect().await;
    let [Ok(_), Ok(_), Ok(third), Err(error)] = &found[..] else { panic!("three, then why: {found:?}") };
    assert_eq!((third, error.kind, error.message.as_str()), (&at_risk(2), ErrorKind::Corrupt, "the log is damaged"));
}

async fn a_peer_is_paused_and_goes_on(scripted: Arc<Scripted>, _: Arc<dyn Peer>, replication: Arc<dyn Replication>) {
    replication.set_paused(&site("south"), true).await.unwrap();
    replication.set_paused(&site("west"), false).await.unwrap();
    assert_eq!(scripted.script().pauses, [(site("south"), true), (site("west"), false)]);
}

async fn what_is_to_be_confirmed_arrives(scripted: Arc<Scripted>, _: Arc<dyn Peer>, replication: Arc<dyn Replication>) {
    let position: Position = "north/3/7/41".parse().unwrap();
    assert_eq!(replication.confirm(&position, 2, Duration::from_millis(1_500)).await.unwrap(), 3);
    assert_eq!(scripted.script().confirmations, [(position, 2, Duration::from_millis(1_500))]);
}

fn site_status() -> SiteStatus {
    let promoted = |n: u8, is_void| Promoted {
        event: EventId::from_slice(&[n; 16]).unwrap(),
        site: site("south"),
        epoch: n.into(),
        at_ms: 1_767_225_600_000 + u64::from(n),
        decided_by: "operator".into(),
        reason: "north is flooded".into(),
        drill: if is_void { "autumn".into() } else { String::new() },
        is_void,
    };
    let table = vec![ApplicationEntity { title: "CT1".into(), ..ApplicationEntity::default() }];
    SiteStatus {
        version: "1.2.3".into(),
        site: site("north"),
        at_ms: 1_767_225_700_000,
        epoch: 3,
        primary: Some(site("south")),
        read_only: true,
        dead: vec![DeadSite { site: site("west"), declared: EventId::from_slice(&[8; 16]).unwrap(), at_ms: 7 }],
        promotions: vec![promoted(3, false), promoted(2, true)],
        senders: vec![SendersConfigured { site: "south".into(), application_entities: table, ..Default::default() }],
    }
}

async fn what_is_decided_of_sites_arrives(
    scripted: Arc<Scripted>,
    _: Arc<dyn Peer>,
    replication: Arc<dyn Replication>,
) {
    let grounds = Grounds { decided_by: "operator".into(), reason: "why".into(), drill: "autumn".into() };
    let decisions = [
        Decision::Promote { force: true },
        Decision::Promote { force: false },
        Decision::TakeOver,
        Decision::Demote,
        Decision::SetReadOnly { site: site("south"), read_only: true },
        Decision::SetReadOnly { site: site("north"), read_only: false },
        Decision::DeclareDead { site: site("south"), dead: true },
        Decision::DeclareDead { site: site("north"), dead: false },
    ];
    scripted.script().site = Some(site_status());
    for decision in decisions.clone() {
        assert_eq!(replication.decide(decision, grounds.clone()).await.unwrap(), site_status());
    }
    assert_eq!(scripted.script().decisions, decisions.map(|decision| (decision, grounds.clone())));
    let nobody = SiteStatus { epoch: 0, primary: None, promotions: Vec::new(), senders: Vec::new(), ..site_status() };
    scripted.script().site = Some(nobody.clone());
    assert_eq!(replication.site().await.unwrap(), nobody);
}

async fn who_steps_down_says_what_it_holds(scripted: Arc<Scripted>, peer: Arc<dyn Peer>, _: Arc<dyn Replication>) {
    let holds: PositionVector = "north/1/7/42,south/2/0/9".parse().unwrap();
    scripted.script().stepped_down = holds.clone();
    let grounds = Grounds { reason: "back in order".into(), ..Grounds::default() };
    assert_eq!(peer.step_down(&site("north"), grounds.clone()).await.unwrap(), holds);
    assert_eq!(scripted.script().successors, [(site("north"), grounds)]);
}

const KINDS: [ErrorKind; 9] = [
    ErrorKind::NotFound,
    ErrorKind::Conflict,
    ErrorKind::Invalid,
    ErrorKind::Exhausted,
    ErrorKind::Unavailable,
    ErrorKind::Denied,
    ErrorKind::Corrupt,
    ErrorKind::Aborted,
    ErrorKind::Internal,
];

async fn every_failure_comes_back_as_it_was(
    scripted: Arc<Scripted>,
    peer: Arc<dyn Peer>,
    replication: Arc<dyn Replication>,
) {
    let south = site("south");
    let caller = Introduction { site: south.clone(), incarnation: Incarnation(1), partitions: 1, marks: Vec::new() };
    let delivery = Delivery {
        process: 0,
        site: south.clone(),
        incarnation: Incarnation(1),
        partition: Partition(0),
        from: Offset(0),
        to: Offset(1),
        records: records(),
        erased: Vec::new(),
        keys: Vec::new(),
    };
    for (kind, reason) in KINDS.into_iter().zip([Reason::Unspecified, Reason::OutOfRoom].into_iter().cycle()) {
        let failure = Error::because(kind, reason, "object 7 is not there").about(tags::SOP_INSTANCE_UID);
        scripted.script().failure = Some(failure.clone());
        let failures = [
            peer.meet(caller.clone()).await.err(),
            peer.missing(vec![object(1, 1)]).await.err(),
            peer.put_object(object(1, 3), body_of(b"end")).await.err(),
            peer.put_object(object(1, 3 << 20), body(&content(3 << 20))).await.err(),
            peer.append(delivery.clone()).await.err(),
            peer.tell(0, report(RISK)).await.err(),
            peer.step_down(&south, Grounds::default()).await.err(),
            replication.site().await.err(),
            replication.decide(Decision::Demote, Grounds::default()).await.err(),
            replication.status().await.err(),
            replication.at_risk(&south).await.err(),
            replication.set_paused(&south, true).await.err(),
        ];
        for (call, back) in failures.into_iter().enumerate() {
            let back = back.expect("it failed");
            assert_eq!(
                (back.kind, back.reason, &back.message, &back.tags),
                (kind, reason, &failure.message, &failure.tags),
                "call {call}"
            );
        }
    }
}
