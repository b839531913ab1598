//! What an outage leaves to be sent, and how long that takes: arithmetic over rates and limits, nothing measured here.

use cairn_service_api::schedule::Schedule;
use std::time::Duration;

/// Longest time that is looked ahead.
const AHEAD_SECONDS_MAX: u64 = 366 * 24 * 3600;
const MINUTE_MS: u64 = 60_000;

/// An outage of a link, and what goes on meanwhile.
#[derive(Clone, Debug, PartialEq)]
pub struct Outage {
    /// How long nothing goes to the peer.
    pub time: Duration,
    /// When it ends, in milliseconds since the Unix epoch: limits depend on the time of the week.
    pub ends_at_ms: u64,
    /// Instances that are stored a second, before and after too.
    pub instances_per_second: f64,
    /// Bytes of one, as stored.
    pub instance_bytes: f64,
    /// Limits of what goes to the peer.
    pub schedule: Schedule,
    /// Bytes a second that the link carries at most, whatever the limits; `None`: more than they say.
    pub bandwidth: Option<f64>,
    /// In what time the peer should have everything again.
    pub catch_up_within: Duration,
    /// The most that the age of the oldest instance at risk should be.
    pub rpo_target: Duration,
    /// Bytes that can still be stored here; `None`: without bound.
    pub available_bytes: Option<u64>,
}

/// What comes of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Instances that the peer lacks when the outage ends.
    pub backlog_instances: f64,
    /// Their bytes, which the disk here has to take meanwhile.
    pub backlog_bytes: f64,
    /// Bytes a second that are stored.
    pub incoming: f64,
    /// Bytes a second that catch up in the time wanted, while storing goes on.
    pub required_bandwidth: f64,
    /// When the peer has everything again, after the end of the outage; `None`: not within a year, or never.
    pub catch_up: Option<Duration>,
    /// When the oldest instance at risk is no older than the target again, after the end of the outage.
    pub target_met_after: Option<Duration>,
    /// Whether the target holds throughout: the outage is shorter.
    pub target_holds_throughout: bool,
    /// Whether what can be sent in a week is more than what is stored: otherwise the backlog never ends.
    pub is_sustained: bool,
    /// Whether the disk here takes what is stored until the peer has everything again. What peers lack is not stored twice,
    /// and nothing is deleted meanwhile: all that comes in needs room.
    pub disk_holds: bool,
}

/// What an outage comes to.
pub fn plan(outage: &Outage) -> Plan {
    let incoming = outage.instances_per_second * outage.instance_bytes;
    let seconds = outage.time.as_secs_f64();
    let backlog_bytes = incoming * seconds;
    let within = outage.catch_up_within.as_secs_f64();
    let required_bandwidth = if within > 0.0 { incoming + backlog_bytes / within } else { f64::INFINITY };
    let target = outage.rpo_target.as_secs_f64();
    let catch_up = (backlog_bytes > 0.0).then(|| sent_after(outage, incoming, seconds));
    let catch_up = catch_up.unwrap_or(Some(Duration::ZERO));
    // What was stored at the beginning goes first: all that is older than the target is gone once as many bytes are sent as
    // were stored until then.
    let late = seconds - target;
    let target_met_after =
        if late > 0.0 && incoming > 0.0 { sent_after(outage, incoming, late) } else { Some(Duration::ZERO) };
    let until_all_there = catch_up.map_or(f64::INFINITY, |time| time.as_secs_f64());
    let to_store = incoming * (seconds + until_all_there.min(AHEAD_SECONDS_MAX as f64));
    Plan {
        backlog_instances: outage.instances_per_second * seconds,
        backlog_bytes,
        incoming,
        required_bandwidth,
        catch_up,
        target_met_after,
        target_holds_throughout: outage.time <= outage.rpo_target,
        is_sustained: incoming == 0.0 || weekly_mean(outage) > incoming,
        disk_holds: outage.available_bytes.is_none_or(|available| to_store <= available as f64),
    }
}

/// Bytes a second that go at a moment.
fn speed(outage: &Outage, unix_ms: u64) -> f64 {
    let limit = outage.schedule.limit_at(unix_ms).map_or(f64::INFINITY, |limit| limit as f64);
    limit.min(outage.bandwidth.unwrap_or(f64::INFINITY))
}

fn weekly_mean(outage: &Outage) -> f64 {
    let minutes = 7 * 24 * 60;
    (0..minutes).map(|minute| speed(outage, outage.ends_at_ms + minute * MINUTE_MS)).sum::<f64>() / minutes as f64
}

/// After what time as much is sent as was stored in the first `stored_for` seconds of the outage, and in the time that has
/// passed by then: then what is left is no older than the outage's last part.
fn sent_after(outage: &Outage, incoming: f64, stored_for: f64) -> Option<Duration> {
    let mut left = incoming * stored_for;
    let mut at_ms = outage.ends_at_ms;
    let end_ms = at_ms.saturating_add(AHEAD_SECONDS_MAX * 1000);
    // A week that does not help is followed by others like it.
    let (mut week_ends_ms, mut left_a_week_ago) = (at_ms + 7 * 24 * 60 * MINUTE_MS, left);
    while at_ms < end_ms {
        let step_ms = MINUTE_MS - at_ms % MINUTE_MS;
        let gain = speed(outage, at_ms) - incoming;
        let gained = gain * step_ms as f64 / 1000.0;
        if gained >= left {
            let part = if gain.is_infinite() { 0.0 } else { left / gain };
            let passed = Duration::from_millis(at_ms - outage.ends_at_ms);
            return Some(passed + Duration::try_from_secs_f64(part).unwrap_or_default());
        }
        left -= gained;
        at_ms += step_ms;
        if at_ms >= week_ends_ms {
            if left >= left_a_week_ago {
                return None;
            }
            (week_ends_ms, left_a_week_ago) = (week_ends_ms + 7 * 24 * 60 * MINUTE_MS, left);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_service_api::schedule::Rule;
    use proptest::prelude::*;

    const MIB: f64 = 1_048_576.0;

    fn outage() -> Outage {
        Outage {
            time: Duration::from_secs(3600),
            // 2026-11-27T12:00:00Z, a Friday.
            ends_at_ms: 1_795_780_800_000,
            instances_per_second: 10.0,
            instance_bytes: MIB / 2.0,
            schedule: Schedule { always: Some(10 << 20), ..Schedule::default() },
            bandwidth: None,
            catch_up_within: Duration::from_secs(3600),
            rpo_target: Duration::from_secs(60),
            available_bytes: Some(1 << 40),
        }
    }

    #[test]
    fn an_hour_at_half_of_the_bandwidth_takes_an_hour() {
        let plan = plan(&outage());
        assert_eq!((plan.backlog_instances, plan.backlog_bytes), (36_000.0, 18_000.0 * MIB));
        assert_eq!((plan.incoming, plan.required_bandwidth), (5.0 * MIB, 10.0 * MIB));
        assert_eq!(plan.catch_up, Some(Duration::from_secs(3600)));
        assert_eq!(plan.target_met_after, Some(Duration::from_secs(3540)));
        assert!(!plan.target_holds_throughout && plan.is_sustained && plan.disk_holds);
    }

    #[test]
    fn what_is_slower_than_what_comes_in_never_ends() {
        let plan = plan(&Outage { bandwidth: Some(4.0 * MIB), ..outage() });
        assert_eq!((plan.catch_up, plan.target_met_after, plan.is_sustained), (None, None, false));
        assert!(!plan.disk_holds, "a disk is full some day");
    }

    #[test]
    fn the_night_helps_where_the_day_does_not() {
        // By day less than what comes in; from 20:00 to 06:00 much more.
        let night = Rule { days: 0, from: 20 * 60, to: 6 * 60, bytes_per_second: 50 << 20 };
        let schedule = Schedule { always: Some(4 << 20), rules: vec![night], utc_offset_minutes: 0 };
        let plan = plan(&Outage { schedule: schedule.clone(), ..outage() });
        // Eight hours at a loss of 1 MiB/s, then 45 MiB/s gained.
        let left = 18_000.0 + 8.0 * 3600.0;
        let expected = 8.0 * 3600.0 + left / 45.0;
        assert!((plan.catch_up.expect("it ends").as_secs_f64() - expected).abs() < 1.0, "{plan:?}");
        let ahead = super::plan(&Outage { schedule: Schedule { utc_offset_minutes: 480, ..schedule }, ..outage() });
        assert_eq!(ahead.catch_up, Some(Duration::from_secs(400)), "there it is night");
    }

    #[test]
    fn room_is_needed_until_all_is_sent() {
        let needed = (36_000.0 * MIB) as u64;
        assert!(plan(&Outage { available_bytes: Some(needed), ..outage() }).disk_holds);
        assert!(!plan(&Outage { available_bytes: Some(needed - 1), ..outage() }).disk_holds);
        assert!(plan(&Outage { available_bytes: None, ..outage() }).disk_holds);
    }

    #[test]
    fn nothing_stored_is_nothing_to_send() {
        let plan = plan(&Outage { instances_per_second: 0.0, bandwidth: Some(0.0), ..outage() });
        assert_eq!((plan.catch_up, plan.backlog_bytes, plan.disk_holds), (Some(Duration::ZERO), 0.0, true));
    }

    proptest! {
        /// At the bandwidth that is said to be required, catching up takes the time wanted; a little less takes longer.
        #[test]
        fn what_is_required_is_enough_and_no_more(
            outage_seconds in 1_u64..200_000,
            within in 1_u64..200_000,
            rate in 0.01_f64..500.0,
            bytes in 1_000.0_f64..5e7,
        ) {
            let outage = Outage {
                time: Duration::from_secs(outage_seconds),
                catch_up_within: Duration::from_secs(within),
                instances_per_second: rate,
                instance_bytes: bytes,
                schedule: Schedule::default(),
                ..outage()
            };
            let required = plan(&outage).required_bandwidth;
            let taken = |bandwidth| plan(&Outage { bandwidth: Some(bandwidth), ..outage.clone() }).catch_up;
            let exactly = taken(required).expect("enough").as_secs_f64();
            prop_assert!((exactly - within as f64).abs() < 0.01 * within as f64 + 0.01, "{exactly} s, not {within} s");
            let incoming = rate * bytes;
            let less = incoming + (required - incoming) * 0.9;
            prop_assert!(taken(less).is_none_or(|time| time.as_secs_f64() > within as f64));
        }

        /// Second by second comes to the same as what is reckoned.
        #[test]
        fn a_simulation_comes_to_the_same(
            outage_seconds in 1_u64..5_000,
            always in 1_000_u64..100_000,
            from in 0_u16..1_440,
            to in 0_u16..1_440,
            limit in 1_000_u64..100_000,
            rate in 1.0_f64..20.0,
        ) {
            let rules = vec![Rule { days: 0, from, to, bytes_per_second: limit }];
            let schedule = Schedule { always: Some(always), rules, utc_offset_minutes: 0 };
            let outage = Outage {
                time: Duration::from_secs(outage_seconds), instances_per_second: rate, instance_bytes: 1_000.0, schedule,
                ..outage()
            };
            let mut left = rate * 1_000.0 * outage_seconds as f64;
            let mut second = 0_u64;
            while left > 0.0 && second < 100_000 {
                let limit = outage.schedule.limit_at(outage.ends_at_ms + second * 1000).expect("limited");
                left += rate * 1_000.0 - limit as f64;
                second += 1;
            }
            match plan(&outage).catch_up {
                Some(time) if time.as_secs() < 99_990 => {
                    prop_assert!((time.as_secs_f64() - second as f64).abs() <= 1.01, "{time:?}, not {second} s");
                }
                _ => prop_assert!(second >= 99_990, "{second} s"),
            }
        }
    }
}
