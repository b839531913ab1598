//! How fast bytes may go somewhere, by the time of the week.

const MINUTES_OF_DAY: u64 = 24 * 60;

/// Limits of a link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schedule {
    /// Bytes a second at times that no rule speaks of; `None`: as fast as it goes.
    pub always: Option<u64>,
    /// The first one that holds counts.
    pub rules: Vec<Rule>,
    /// Minutes that the rules' clock is ahead of UTC.
    pub utc_offset_minutes: i32,
}

/// A limit at some times of the week.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Days on which it begins, a bit each, from Monday; none: every day.
    pub days: u8,
    /// The minute of the day at which it begins.
    pub from: u16,
    /// The minute of the day at which it ends; not after its beginning: on the next day.
    pub to: u16,
    /// Bytes a second at most.
    pub bytes_per_second: u64,
}

impl Rule {
    /// Whether it holds in a minute of a day; day 0 is Monday.
    fn holds(&self, day: u64, minute: u64) -> bool {
        let begins_on = |day: u64| self.days == 0 || self.days >> (day % 7) & 1 == 1;
        let (from, to) = (self.from.into(), self.to.into());
        if from < to {
            return begins_on(day) && (from..to).contains(&minute);
        }
        begins_on(day) && minute >= from || begins_on(day + 6) && minute < to
    }
}

impl Schedule {
    /// Whether there is ever a limit.
    pub fn is_limited(&self) -> bool {
        self.always.is_some() || !self.rules.is_empty()
    }

    /// The limit at a moment, in milliseconds since the Unix epoch; it changes at full minutes alone.
    pub fn limit_at(&self, unix_ms: u64) -> Option<u64> {
        let minutes = (unix_ms / 60_000).saturating_add_signed(self.utc_offset_minutes.into());
        // 1970-01-01 was a Thursday: day 3 of a week that begins on Monday.
        let (day, minute) = (minutes / MINUTES_OF_DAY + 3, minutes % MINUTES_OF_DAY);
        let rule = self.rules.iter().find(|rule| rule.holds(day, minute));
        rule.map(|rule| rule.bytes_per_second).or(self.always)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MONDAY_AND_FRIDAY: u8 = 0b1_0001;
    /// 2026-11-27, a Friday.
    const FRIDAY: u64 = 1_795_737_600_000;

    fn schedule(utc_offset_minutes: i32) -> Schedule {
        let rule = |days, from, to, bytes_per_second| Rule { days, from, to, bytes_per_second };
        let rules = vec![rule(MONDAY_AND_FRIDAY, 8 * 60, 18 * 60, 5), rule(0, 22 * 60, 4 * 60 + 30, 50)];
        Schedule { always: Some(20), rules, utc_offset_minutes }
    }

    #[test]
    fn the_calendar_says_what_holds_when() {
        let times = [
            (0, 8 * 60, 5),
            (0, 18 * 60, 20),
            (0, 22 * 60, 50),
            (1, 0, 50),
            (1, 4 * 60 + 29, 50),
            (1, 4 * 60 + 30, 20),
            (1, 9 * 60, 20),
            (3, 17 * 60 + 59, 5),
        ];
        for (days, time, limit) in times {
            let local_ms = FRIDAY + (days * MINUTES_OF_DAY + time) * 60_000;
            for offset in [0, 60, -330] {
                let unix_ms = local_ms.saturating_add_signed(-i64::from(offset) * 60_000);
                let said = schedule(offset).limit_at(unix_ms);
                assert_eq!(said, Some(limit), "{time} minutes into day {days}, {offset} minutes ahead");
            }
        }
    }

    #[test]
    fn a_rule_alone_is_a_limit_at_its_times() {
        let schedule = Schedule { always: None, ..schedule(0) };
        assert!(schedule.is_limited() && !Schedule::default().is_limited());
        assert_eq!(schedule.limit_at(FRIDAY + 19 * 3_600_000), None);
        // Before 1970 in the rules' clock there is nothing to ask for: it must not panic.
        assert_eq!(self::schedule(-600).limit_at(0), Some(50));
    }
}
