//! `cairn index`.

use super::{Output, ServerArgs};
use clap::{Args, Subcommand};

/// What every command has.
#[derive(Debug, Args)]
pub struct Common {
    #[command(flatten)]
    pub server: ServerArgs,
    /// How results are written
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

#[derive(Debug, Subcommand)]
pub enum IndexAction {
    /// Generations of the index: what each is for, how far it is and what it holds
    Status {
        #[command(flatten)]
        common: Common,
    },
    /// Fill a new generation from the log while the present one serves, compare both, and switch; exit status 4 when they differ
    Rebuild {
        #[command(flatten)]
        common: Common,
        /// Fill it up to here and leave it there, to be asked beside the serving one: a time (2026-01-31T12:00:00Z, or
        /// @MILLISECONDS since the Unix epoch) or positions (site/incarnation/partition/end joined by commas)
        #[arg(long, value_name = "TIME|POSITIONS", value_parser = until, conflicts_with = "no_switch")]
        until: Option<cairn_service_api::index::Until>,
        /// Let it serve once it is filled and equal (the default)
        #[arg(long, overrides_with = "no_switch", conflicts_with = "until")]
        switch: bool,
        /// Keep it beside the serving one until `switch` or `drop`
        #[arg(long)]
        no_switch: bool,
        /// Return at once; `status` shows how far it is
        #[arg(long)]
        detach: bool,
    },
    /// Fill a new generation, compare it with the serving one and drop it; exit status 4 when they differ
    Verify {
        #[command(flatten)]
        common: Common,
    },
    /// Halt filling
    Pause {
        /// Its number; the one that is being filled by default
        number: Option<u32>,
        #[command(flatten)]
        common: Common,
    },
    /// Go on filling
    Resume {
        /// Its number; the one that was halted by default
        number: Option<u32>,
        #[command(flatten)]
        common: Common,
    },
    /// Drop the generation that is being filled
    Cancel {
        /// Its number; the one that is being filled by default
        number: Option<u32>,
        #[command(flatten)]
        common: Common,
    },
    /// Show the first studies that two generations do not have alike; exit status 4 when there are such
    Diff {
        /// One generation
        a: u32,
        /// The other
        b: u32,
        #[command(flatten)]
        common: Common,
        /// Studies at most
        #[arg(long, default_value_t = 20)]
        limit: u64,
    },
    /// Let a generation serve that is filled, and print how it compared with the serving one
    Switch {
        /// Its number
        number: u32,
        #[command(flatten)]
        common: Common,
        /// Although it differs from the serving one
        #[arg(long)]
        accept_difference: bool,
    },
    /// Let the generation serve again that did before
    Rollback {
        #[command(flatten)]
        common: Common,
    },
    /// Remove a generation that does not serve
    Drop {
        /// Its number
        number: u32,
        #[command(flatten)]
        common: Common,
    },
}

impl IndexAction {
    /// Which running archive it talks to.
    pub fn server(&self) -> &ServerArgs {
        match self {
            Self::Status { common }
            | Self::Rebuild { common, .. }
            | Self::Verify { common }
            | Self::Pause { common, .. }
            | Self::Resume { common, .. }
            | Self::Cancel { common, .. }
            | Self::Diff { common, .. }
            | Self::Switch { common, .. }
            | Self::Rollback { common }
            | Self::Drop { common, .. } => &common.server,
        }
    }
}

fn until(text: &str) -> Result<cairn_service_api::index::Until, String> {
    use cairn_service_api::index::Until;
    if let Some(milliseconds) = text.strip_prefix('@') {
        return milliseconds.parse().map(Until::Time).map_err(|_| "milliseconds are a number".to_owned());
    }
    if text.contains('/') {
        return text
            .parse()
            .map(Until::Position)
            .map_err(|_| "positions are site/incarnation/partition/end".to_owned());
    }
    unix_ms(text)
        .map(Until::Time)
        .ok_or_else(|| "a time is like 2026-01-31T12:00:00Z or 2026-01-31T12:00:00+01:00".into())
}

/// Milliseconds since the Unix epoch of a date and time (RFC 3339).
pub(super) fn unix_ms(text: &str) -> Option<u64> {
    let (date, rest) = text.split_once(['T', 't', ' '])?;
    let at = rest.find(['Z', 'z', '+', '-'])?;
    let (time, zone) = rest.split_at(at);
    let mut date = date.split('-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let mut time = time.split(':');
    let (hour, minute) = (time.next()?.parse::<i64>().ok()?, time.next()?.parse::<i64>().ok()?);
    let seconds: f64 = time.next().unwrap_or("0").parse().ok()?;
    let valid = (1970..=9999).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    if !valid || !(0..24).contains(&hour) || !(0..60).contains(&minute) || !(0.0..61.0).contains(&seconds) {
        return None;
    }
    let zone_minutes = match zone {
        "Z" | "z" => 0,
        _ => {
            let (hours, minutes) = zone.get(1..)?.split_once(':')?;
            let minutes = hours.parse::<i64>().ok()? * 60 + minutes.parse::<i64>().ok()?;
            if zone.starts_with('-') { -minutes } else { minutes }
        }
    };
    let minutes = (days(year, month, day) * 24 + hour) * 60 + minute - zone_minutes;
    u64::try_from(minutes * 60_000 + (seconds * 1000.0) as i64).ok()
}

/// Days since the Unix epoch of a date of the Gregorian calendar. Years begin in March, so that a leap day is the last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year * 365 + year / 4 - year / 100 + year / 400 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::{unix_ms, until};

    #[test]
    fn times_are_read() {
        for (text, ms) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2000-02-29T12:30:15.250Z", Some(951_827_415_250)),
            ("2026-11-27T09:18:05Z", Some(1_795_771_085_000)),
            ("2026-11-27 10:18:05+01:00", Some(1_795_771_085_000)),
            ("2026-11-27T10:18+01:00", Some(1_795_771_080_000)),
            ("2026-13-27T10:18:05Z", None),
            ("2026-11-27T10:18:05", None),
            ("yesterday", None),
        ] {
            assert_eq!(unix_ms(text), ms, "{text}");
        }
        assert!(until("@17").is_ok() && until("main/1/0/5,main/1/1/7").is_ok());
        assert!(until("@x").is_err() && until("main/1").is_err());
    }
}
