use super::{P0, open, shared, site};
use cairn_archive::{Offset, Partition};
use cairn_conformance::event_log::record;
use cairn_event_log_kafka::{KafkaConfig, KafkaEventLog};
use cairn_store_api::{EventLog, Membership, Release, ShareChange};
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

const LONG: Duration = Duration::from_secs(30);

/// Takes part until `enough` holds of its share; what was given up is released at once.
async fn until(member: &mut dyn Membership, share: &mut BTreeSet<Partition>, enough: impl Fn(usize) -> bool) {
    while !enough(share.len()) {
        match tokio::time::timeout(LONG, member.next()).await.expect("a change in time") {
            Some(ShareChange::Gained(gained)) => share.extend(gained),
            Some(ShareChange::Lost(lost, _release)) => {
                lost.iter().for_each(|partition| assert!(share.remove(partition)))
            }
            None => panic!("membership ended"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_are_shared_and_taken_over() {
    let config = shared(8);
    let log = open(&config).await;
    let (mut a, mut share_a) = (log.join(&config.topic).unwrap(), BTreeSet::new());
    until(a.as_mut(), &mut share_a, |count| count == 8).await;
    let (mut b, mut share_b) = (log.join(&config.topic).unwrap(), BTreeSet::new());
    tokio::join!(
        until(a.as_mut(), &mut share_a, |count| (3..=5).contains(&count)),
        until(b.as_mut(), &mut share_b, |count| count >= 3),
    );
    assert!(share_a.is_disjoint(&share_b) && share_a.len() + share_b.len() == 8, "{share_a:?} {share_b:?}");
    let kept = share_a.clone();
    drop(b);
    until(a.as_mut(), &mut share_a, |count| count == 8).await;
    assert!(kept.is_subset(&share_a), "what stayed was followed on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_moves_once_it_is_let_go_or_after_a_while() {
    let config = KafkaConfig { handover_timeout: Duration::from_secs(2), ..shared(4) };
    let log = open(&config).await;
    for held in [false, true] {
        let group = format!("{}-{held}", config.topic);
        let (mut a, mut share) = (log.join(&group).unwrap(), BTreeSet::new());
        until(a.as_mut(), &mut share, |count| count == 4).await;
        let mut b = log.join(&group).unwrap();
        let Some(ShareChange::Lost(_, release)) = tokio::time::timeout(LONG, a.next()).await.unwrap() else {
            panic!("nothing was given up");
        };
        let begun = Instant::now();
        let kept: Option<Release> = held.then_some(release);
        let Some(ShareChange::Gained(gained)) = tokio::time::timeout(LONG, b.next()).await.unwrap() else {
            panic!("nothing was gained");
        };
        assert!(!gained.is_empty());
        assert!(!held || begun.elapsed() > Duration::from_secs(1), "it was waited for");
        drop(kept);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_process_sees_what_is_appended() {
    let config = shared(2);
    let writer = open(&config).await;
    let reader = KafkaEventLog::open(config, site()).await.unwrap();
    for number in 0..300 {
        let offset = writer.append(P0, vec![record(0, number, 600)]).await.unwrap();
        assert_eq!(offset, Offset(number));
        assert!(reader.wait_beyond(P0, offset).await.unwrap() > offset);
        let read = reader.read(P0, offset, 1, 1).await.unwrap();
        assert_eq!(read.records[0].record, record(0, number, 600));
        assert_eq!(reader.end(P0).await.unwrap(), offset.next());
    }
    // From the beginning too, which memory does not hold any more.
    let first = reader.read(P0, Offset(0), 10, usize::MAX).await.unwrap();
    assert_eq!(first.records[0].record, record(0, 0, 600));
    reader.close().await.unwrap();
    writer.close().await.unwrap();
}
