//! The queue: a study at most once, what is recalled first, in the order in which it was asked; and over restarts.

use super::queue::{Queue, Study};
use cairn_store_api::Tier;
use std::time::Duration;

fn study(uid: &str) -> Study {
    Study { tenant: "default".into(), uid: uid.parse().unwrap() }
}

/// Asks for a move; gives what is noted down.
fn ask(queue: &mut Queue, uid: &str, to: Tier) -> (Vec<u8>, super::queue::MoveNote) {
    let note = queue.note(to, "operator", 7);
    queue.resume(&study(uid).key(), note.clone()).unwrap();
    (study(uid).key(), note)
}

fn order(queue: &Queue) -> Vec<(String, Tier)> {
    queue.all().into_iter().map(|queued| (queued.study_instance_uid.to_string(), queued.to)).collect()
}

#[test]
fn what_is_recalled_comes_first_and_a_study_waits_once() {
    let mut queue = Queue::default();
    for (uid, to) in [("1.1", Tier::Cold), ("1.2", Tier::Cold), ("1.3", Tier::Hot), ("1.1", Tier::Hot)] {
        ask(&mut queue, uid, to);
    }
    let expected = [("1.3", Tier::Hot), ("1.1", Tier::Hot), ("1.2", Tier::Cold)].map(|(uid, to)| (uid.to_owned(), to));
    assert_eq!(order(&queue), expected);
    assert_eq!((queue.counts(), queue.len()), ((2, 1), 3));
    assert!(queue.has(&study("1.1"), Tier::Hot) && !queue.has(&study("1.1"), Tier::Cold));
}

#[test]
fn what_fails_comes_again_later_and_others_go_on() {
    let mut queue = Queue::default();
    ask(&mut queue, "1.1", Tier::Cold);
    ask(&mut queue, "1.2", Tier::Cold);
    let first = queue.begin(Duration::ZERO).unwrap();
    assert!(queue.all()[0].is_under_way);
    queue.failed(&first, "it is away".into(), Duration::from_secs(60));
    assert_eq!((queue.all()[0].is_under_way, queue.all()[0].failure.as_str()), (false, "it is away"));
    let second = queue.begin(Duration::from_secs(1)).unwrap();
    assert_eq!(second.study, study("1.2"));
    queue.done(&second);
    assert_eq!(queue.begin(Duration::from_secs(59)), None);
    assert_eq!(queue.begin(Duration::from_secs(60)).unwrap().study, study("1.1"));
}

#[test]
fn what_was_asked_the_other_way_meanwhile_is_not_done() {
    let mut queue = Queue::default();
    ask(&mut queue, "1.1", Tier::Cold);
    let turn = queue.begin(Duration::ZERO).unwrap();
    ask(&mut queue, "1.1", Tier::Hot);
    assert!(!queue.is_as_begun(&turn));
    queue.done(&turn);
    queue.failed(&turn, "it is away".into(), Duration::MAX);
    assert_eq!(queue.begin(Duration::ZERO).unwrap().to(), Tier::Hot);
}

#[test]
fn what_is_noted_down_is_the_same_queue_again() {
    let mut queue = Queue::default();
    let asked = [("1.2", Tier::Cold), ("1.9", Tier::Hot), ("1.1", Tier::Cold)];
    let mut notes: Vec<_> = asked.into_iter().map(|(uid, to)| ask(&mut queue, uid, to)).collect();
    // Notes come in the order of their keys.
    notes.sort_by(|a, b| a.0.cmp(&b.0));
    let mut again = Queue::default();
    notes.into_iter().for_each(|(key, note)| again.resume(&key, note).unwrap());
    assert_eq!(again.all(), queue.all());
    ask(&mut again, "1.5", Tier::Cold);
    assert_eq!(order(&again).last().unwrap().0, "1.5");
    assert!(again.resume(b"no tenant", super::queue::MoveNote::default()).is_err());
}
