//! Hybrid logical clock: wall time where it can be had, order always.
//!
//! The order between events is ([`Hlc`], site, `ce_id`). The clock advances past every event appended or received at
//! the site, by whichever process, so that an event that saw another comes after it.

/// A reading: milliseconds since the Unix epoch and a counter that orders readings within one millisecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Hlc {
    /// Milliseconds since the Unix epoch.
    pub wall_ms: u64,
    /// Orders readings of one millisecond.
    pub counter: u32,
}

/// `milliseconds.counter`, as the `cehlc` header carries it.
impl std::fmt::Display for Hlc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.wall_ms, self.counter)
    }
}

impl std::str::FromStr for Hlc {
    type Err = crate::ids::IdError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = crate::ids::IdError("hybrid clock reading");
        let (wall, counter) = text.split_once('.').ok_or(bad)?;
        Ok(Self { wall_ms: wall.parse().map_err(|_| bad)?, counter: counter.parse().map_err(|_| bad)? })
    }
}

/// The site's clock state. Wall time is an argument: this type reads no clock.
#[derive(Clone, Debug, Default)]
pub struct HybridClock {
    last: Hlc,
}

impl HybridClock {
    /// A clock that has seen everything up to `last`.
    pub fn starting_after(last: Hlc) -> Self {
        Self { last }
    }

    /// A reading later than every one given or observed before.
    pub fn tick(&mut self, wall_ms: u64) -> Hlc {
        self.last = if wall_ms > self.last.wall_ms {
            Hlc { wall_ms, counter: 0 }
        } else {
            match self.last.counter.checked_add(1) {
                Some(counter) => Hlc { counter, ..self.last },
                None => Hlc { wall_ms: self.last.wall_ms + 1, counter: 0 },
            }
        };
        self.last
    }

    /// Takes note of a reading made elsewhere.
    pub fn observe(&mut self, other: Hlc) {
        self.last = self.last.max(other);
    }

    /// The latest reading given or observed.
    pub fn last(&self) -> Hlc {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_only_grow_whatever_the_wall_clock_does() {
        let mut clock = HybridClock::default();
        let mut last = clock.tick(1_000);
        for wall in [1_000, 999, 0, 1_001, 1_001, 500] {
            let next = clock.tick(wall);
            assert!(next > last);
            last = next;
        }
        clock.observe(Hlc { wall_ms: 9_000, counter: 7 });
        assert_eq!(clock.tick(1), Hlc { wall_ms: 9_000, counter: 8 });
        assert_eq!("9000.8".parse(), Ok(clock.last()));
    }
}
