//! The pointer: which generations there are, and what each is for. Every process of the index watches it, and changes it
//! by compare-and-set alone, so that all follow one plan.

use bytes::Bytes;
use cairn_archive::{Digest, Incarnation, PositionVector, digest::FOLD_VERSION};
use cairn_service_api::{
    Error, ErrorKind,
    index::{Certificate, Role, StateDigest, Then},
};
use cairn_store_api::{Generation, IndexStore};
use std::fmt::Write;

/// What the index store's pointer says. Text, written down for years: see `schemas/index/tables.md`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pointer {
    /// The number of the next generation to be made. Lower ones that are not listed are nobody's.
    pub(crate) next: u32,
    /// All generations, one of them serving.
    pub(crate) entries: Vec<Entry>,
}

/// A generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) generation: Generation,
    pub(crate) role: Role,
    /// The fold version that it is filled under.
    pub(crate) fold_version: u32,
    /// Life of the log that it is filled from; `None`: written by a build that did not say.
    pub(crate) incarnation: Option<Incarnation>,
    /// When it took its role, in milliseconds since the Unix epoch.
    pub(crate) since_ms: u64,
    /// Whether filling is halted.
    pub(crate) paused: bool,
    /// What comes after filling.
    pub(crate) then: Then,
    /// Whether it may serve although its digest is another one than the serving generation's.
    pub(crate) accepted: bool,
    /// Whether it goes on past what was compared, to take over from the serving one.
    pub(crate) closing: bool,
    /// Where filling halts.
    pub(crate) goal: Option<PositionVector>,
    /// The serving generation's digest at the goal.
    pub(crate) expected: Option<StateDigest>,
    /// The last comparison.
    pub(crate) certificate: Option<Certificate>,
    /// What a later build says of it beside; kept.
    rest: Vec<String>,
}

impl Entry {
    pub(crate) fn new(generation: Generation, role: Role, incarnation: Incarnation, since_ms: u64) -> Self {
        Self {
            generation,
            role,
            fold_version: FOLD_VERSION,
            incarnation: Some(incarnation),
            since_ms,
            paused: false,
            then: Then::Wait,
            accepted: false,
            closing: false,
            goal: None,
            expected: None,
            certificate: None,
            rest: Vec::new(),
        }
    }

    /// Gives it another role. What was compared stays known.
    pub(crate) fn become_(&mut self, role: Role, since_ms: u64) {
        (self.role, self.since_ms, self.paused, self.closing) = (role, since_ms, false, false);
        (self.then, self.goal, self.expected) = (Then::Wait, None, None);
    }

    /// Whether this build may fold events into it, from a log in this life.
    pub(crate) fn is_followed(&self, incarnation: Incarnation) -> bool {
        let role = matches!(self.role, Role::Serving | Role::Filling | Role::Frozen | Role::Kept);
        let same_life = self.incarnation.is_none_or(|life| life == incarnation);
        role && same_life && !self.paused && self.fold_version == FOLD_VERSION
    }

    /// Whether it is there to be used, now or later.
    pub(crate) fn is_live(&self) -> bool {
        self.role != Role::Dropping
    }

    /// Whether the comparison allows it to serve.
    pub(crate) fn may_serve(&self) -> bool {
        self.certificate.as_ref().is_some_and(|certificate| self.accepted || certificate.is_equal())
    }

    fn encode(&self, out: &mut String) {
        let _ = write!(out, "\n{} {} fold={}", self.generation.0, role_name(self.role), self.fold_version);
        let _ = write!(out, " since={}", self.since_ms);
        if let Some(life) = self.incarnation {
            let _ = write!(out, " life={}", life.0);
        }
        for (name, _) in [("paused", self.paused), ("accepted", self.accepted), ("closing", self.closing)]
            .iter()
            .filter(|(_, is)| *is)
        {
            let _ = write!(out, " {name}");
        }
        if self.role == Role::Filling {
            let _ = write!(out, " then={}", then_name(self.then));
        }
        if let Some(goal) = &self.goal {
            let _ = write!(out, " goal={goal}");
        }
        if let Some(digest) = &self.expected {
            let _ = write!(out, " expected={}", digest_text(digest));
        }
        if let Some(Certificate { position, serving, own }) = &self.certificate {
            let _ = write!(out, " compared={position};{};{}", digest_text(serving), digest_text(own));
        }
        for field in &self.rest {
            let _ = write!(out, " {field}");
        }
    }

    fn decode(line: &str) -> Option<Self> {
        let mut fields = line.split(' ');
        let generation = Generation(fields.next()?.parse().ok()?);
        let name = fields.next()?;
        let mut entry = Self::new(generation, role_of(name), Incarnation(0), 0);
        entry.incarnation = None;
        if entry.role == Role::Other {
            entry.rest = std::iter::once(name).chain(fields).map(str::to_owned).collect();
            return Some(entry);
        }
        for field in fields {
            let (name, value) = field.split_once('=').unwrap_or((field, ""));
            match name {
                "fold" => entry.fold_version = value.parse().ok()?,
                "since" => entry.since_ms = value.parse().ok()?,
                "life" => entry.incarnation = Some(Incarnation(value.parse().ok()?)),
                "paused" => entry.paused = true,
                "accepted" => entry.accepted = true,
                "closing" => entry.closing = true,
                "then" => entry.then = then_of(value)?,
                "goal" => entry.goal = Some(value.parse().ok()?),
                "expected" => entry.expected = Some(read_digest(value)?),
                "compared" => entry.certificate = Some(read_certificate(value)?),
                _ => entry.rest.push(field.to_owned()),
            }
        }
        Some(entry)
    }
}

const ROLES: [(&str, Role); 5] = [
    ("serving", Role::Serving),
    ("filling", Role::Filling),
    ("frozen", Role::Frozen),
    ("kept", Role::Kept),
    ("dropping", Role::Dropping),
];

fn role_name(role: Role) -> &'static str {
    ROLES.iter().find(|(_, of)| *of == role).map_or("other", |(name, _)| name)
}

fn role_of(name: &str) -> Role {
    ROLES.iter().find(|(of, _)| *of == name).map_or(Role::Other, |(_, role)| *role)
}

const THENS: [(&str, Then); 3] = [("serve", Then::Serve), ("wait", Then::Wait), ("drop", Then::Drop)];

fn then_name(then: Then) -> &'static str {
    THENS.iter().find(|(_, of)| *of == then).map_or("wait", |(name, _)| name)
}

fn then_of(name: &str) -> Option<Then> {
    THENS.iter().find(|(of, _)| *of == name).map(|(_, then)| *then)
}

fn digest_text(digest: &StateDigest) -> String {
    let (events, state) = (Digest(digest.events), Digest(digest.state));
    format!("{}:{events}:{state}:{}", digest.fold_version, digest.studies)
}

fn read_digest(text: &str) -> Option<StateDigest> {
    let mut parts = text.split(':');
    let fold_version = parts.next()?.parse().ok()?;
    let events = parts.next()?.parse::<Digest>().ok()?.0;
    let state = parts.next()?.parse::<Digest>().ok()?.0;
    let studies = parts.next()?.parse().ok()?;
    parts.next().is_none().then_some(StateDigest { fold_version, events, state, studies })
}

fn read_certificate(text: &str) -> Option<Certificate> {
    let mut parts = text.split(';');
    let position = parts.next()?.parse().ok()?;
    let (serving, own) = (read_digest(parts.next()?)?, read_digest(parts.next()?)?);
    parts.next().is_none().then_some(Certificate { position, serving, own })
}

impl Pointer {
    fn first(incarnation: Incarnation, now_ms: u64) -> Self {
        Self { next: 2, entries: vec![Entry::new(Generation(1), Role::Serving, incarnation, now_ms)] }
    }

    fn encode(&self) -> Bytes {
        let mut out = format!("2 {}", self.next);
        for entry in &self.entries {
            if entry.role == Role::Other {
                let _ = write!(out, "\n{} {}", entry.generation.0, entry.rest.join(" "));
            } else {
                entry.encode(&mut out);
            }
        }
        out.into()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let read = || {
            let text = std::str::from_utf8(bytes).ok()?;
            let mut lines = text.lines();
            let mut head = lines.next()?.split(' ');
            match head.next()? {
                "1" => Self::from_first_form(head),
                "2" => {
                    let next = head.next()?.parse().ok()?;
                    Some(Self { next, entries: lines.map(Entry::decode).collect::<Option<_>>()? })
                }
                _ => None,
            }
        };
        read()
            .filter(|pointer| pointer.entries.iter().filter(|entry| entry.role == Role::Serving).count() == 1)
            .ok_or_else(|| Error::new(ErrorKind::Internal, "index pointer is of another version"))
    }

    /// `1 serving fold-version next`.
    fn from_first_form<'a>(mut numbers: impl Iterator<Item = &'a str>) -> Option<Self> {
        let mut number = || numbers.next()?.parse::<u32>().ok();
        let (serving, fold_version, next) = (Generation(number()?), number()?, number()?);
        let entry = Entry::new(serving, Role::Serving, Incarnation(0), 0);
        Some(Self { next, entries: vec![Entry { fold_version, incarnation: None, ..entry }] })
    }

    /// Reads the pointer; an index that has none begins with generation 1.
    pub(crate) async fn read_or_create(
        store: &dyn IndexStore,
        incarnation: Incarnation,
        now_ms: u64,
    ) -> Result<Self, Error> {
        let found = store.pointer().await?;
        if !found.is_empty() {
            return Self::decode(&found);
        }
        let first = Self::first(incarnation, now_ms);
        if store.compare_and_set_pointer(&[], first.encode()).await? {
            return Ok(first);
        }
        Self::decode(&store.pointer().await?)
    }

    /// Reads the pointer, changes it and writes it back, until nobody else was faster.
    ///
    /// # Errors
    /// Those of the change: nothing is written then. `Conflict` when others are always faster.
    pub(crate) async fn change<T>(
        store: &dyn IndexStore,
        change: impl Fn(&mut Self) -> Result<T, Error>,
    ) -> Result<(T, Self), Error> {
        for _ in 0..CHANGES_TRIED_MAX {
            let found = store.pointer().await?;
            let mut pointer = Self::decode(&found)?;
            let changed = change(&mut pointer)?;
            if store.compare_and_set_pointer(&found, pointer.encode()).await? {
                return Ok((changed, pointer));
            }
        }
        Err(Error::new(ErrorKind::Conflict, "others keep changing the index pointer"))
    }

    /// Drops what stands still beside a generation, should that be the one that serves: what it erases, they would have for ever. A
    /// paused rebuild is among it.
    ///
    /// # Errors
    /// As [`Pointer::change`].
    pub(crate) async fn drop_those_standing_still(
        store: &dyn IndexStore,
        beside: Generation,
        life: Incarnation,
        now_ms: u64,
    ) -> Result<(), Error> {
        let stands_still = |entry: &Entry| {
            matches!(entry.role, Role::Filling | Role::Kept) && !entry.is_followed(life) || entry.role == Role::Frozen
        };
        let serves = |pointer: &Self| pointer.serving().is_some_and(|serving| serving.generation == beside);
        let found = Self::decode(&store.pointer().await?)?;
        if !serves(&found) || !found.entries.iter().any(stands_still) {
            return Ok(());
        }
        let drop_them = |pointer: &mut Self| {
            if serves(pointer) {
                let standing = pointer.entries.iter_mut().filter(|entry| stands_still(entry));
                standing.for_each(|entry| entry.become_(Role::Dropping, now_ms));
            }
            Ok(())
        };
        Self::change(store, drop_them).await.map(drop)
    }

    /// Replaces this pointer by another one, if it is still what is stored.
    pub(crate) async fn replace(&self, found: &[u8], store: &dyn IndexStore) -> Result<bool, Error> {
        Ok(store.compare_and_set_pointer(found, self.encode()).await?)
    }

    /// The generation that answers.
    pub(crate) fn serving(&self) -> Option<&Entry> {
        self.with_role(Role::Serving)
    }

    /// The first one in a role.
    pub(crate) fn with_role(&self, role: Role) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.role == role)
    }

    /// A generation.
    pub(crate) fn get(&self, generation: Generation) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.generation == generation)
    }

    /// A generation that is not being dropped.
    pub(crate) fn live_mut(&mut self, generation: Generation) -> Result<&mut Entry, Error> {
        let found = self.entries.iter_mut().find(|entry| entry.generation == generation && entry.is_live());
        found.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("there is no generation {}", generation.0)))
    }

    /// Takes the next number for a new generation.
    pub(crate) fn add(&mut self, entry: impl FnOnce(Generation) -> Entry) -> Generation {
        let generation = Generation(self.next);
        self.next += 1;
        self.entries.push(entry(generation));
        generation
    }

    /// Lets another generation serve; the one before is kept, and one kept already is dropped.
    pub(crate) fn serve(&mut self, generation: Generation, now_ms: u64) {
        for entry in &mut self.entries {
            match entry.role {
                _ if entry.generation == generation => entry.become_(Role::Serving, now_ms),
                Role::Serving => entry.become_(Role::Kept, now_ms),
                Role::Kept => entry.become_(Role::Dropping, now_ms),
                _ => {}
            }
        }
    }
}

/// How often a change is tried while others change the pointer.
const CHANGES_TRIED_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(n: u8) -> StateDigest {
        StateDigest { fold_version: 1, events: [n; 32], state: [n + 1; 32], studies: 7 }
    }

    #[test]
    fn the_pointer_reads_back() {
        let mut pointer = Pointer::first(Incarnation(3), 12);
        let position: PositionVector = "main/3/0/5,main/3/7/9".parse().expect("valid");
        pointer.add(|generation| Entry {
            goal: Some(position.clone()),
            expected: Some(digest(1)),
            certificate: Some(Certificate { position, serving: digest(2), own: digest(3) }),
            then: Then::Serve,
            paused: true,
            ..Entry::new(generation, Role::Filling, Incarnation(3), 13)
        });
        assert_eq!(Pointer::decode(&pointer.encode()).expect("reads"), pointer);
        for bad in ["", "3 3 1 9", "1 3 1", "1 x 1 9", "2 9", "2 9\n1 kept fold=1", "2 x\n1 serving", "2 9\nx serving"]
        {
            assert!(Pointer::decode(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_first_form_is_read_still() {
        let pointer = Pointer::decode(format!("1 3 {FOLD_VERSION} 9").as_bytes()).expect("reads");
        let serving = pointer.serving().expect("serving");
        assert_eq!((serving.generation, serving.fold_version, pointer.next), (Generation(3), FOLD_VERSION, 9));
        assert!(serving.is_followed(Incarnation(5)));
    }

    #[test]
    fn what_a_later_build_says_is_kept() {
        let text = "2 9\n3 serving fold=1 since=4 colour=blue\n4 mirrored fold=8 by=moon";
        let mut pointer = Pointer::decode(text.as_bytes()).expect("reads");
        assert!(!pointer.entries.get(1).expect("second").is_followed(Incarnation(1)));
        assert_eq!(pointer.encode(), text);
        pointer.live_mut(Generation(3)).expect("there").since_ms = 5;
        assert_eq!(pointer.encode(), text.replace("since=4", "since=5"));
    }

    #[test]
    fn who_served_before_is_kept_and_who_was_kept_goes() {
        let mut pointer = Pointer::first(Incarnation(1), 0);
        let mut roles = Vec::new();
        for _ in 0..2 {
            let next = pointer.add(|generation| Entry::new(generation, Role::Filling, Incarnation(1), 0));
            pointer.serve(next, 1);
            roles = pointer.entries.iter().map(|entry| entry.role).collect();
        }
        assert_eq!(roles, [Role::Dropping, Role::Kept, Role::Serving]);
    }
}
