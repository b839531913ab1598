//! What is looked at before a drill, and whether it may be carried out.

use super::{
    report::{millis, seconds, size},
    sides::Facts,
};
use cairn_archive::{
    SiteId,
    events::{ApplicationEntity, SendersConfigured},
};
use cairn_service_api::replication::{Link, PeerStatus};
use serde::Serialize;
use std::{collections::BTreeMap, time::Duration};

/// Clocks that are further apart are worth a word: ages are told by them.
const CLOCKS_APART_MS: u64 = 5_000;

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Finding {
    Good,
    /// To be known; it hinders nothing.
    Note,
    /// The drill is refused.
    Refused,
}

/// A check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    pub name: &'static str,
    pub finding: Finding,
    pub what: String,
}

fn check(name: &'static str, wrong: Vec<String>, good: impl Into<String>) -> Check {
    if wrong.is_empty() {
        return Check { name, finding: Finding::Good, what: good.into() };
    }
    Check { name, finding: Finding::Refused, what: wrong.join("; ") }
}

fn note(name: &'static str, what: impl Into<String>) -> Check {
    Check { name, finding: Finding::Note, what: what.into() }
}

/// Whether a drill may be carried out.
pub fn may(checks: &[Check]) -> bool {
    checks.iter().all(|check| check.finding != Finding::Refused)
}

/// All checks, in the order in which they are shown. `rpo`: the objective.
pub fn all(original: &Facts, standby: &Facts, rpo: Duration) -> Vec<Check> {
    let both = [original, standby];
    let names = both.map(|facts| facts.site.site.to_string());
    vec![
        authority(original, standby),
        versions(both),
        links(original, standby),
        recovery_point(original, standby, rpo),
        partitions(original, standby),
        senders(&original.site.senders, &standby.site.senders, &names),
        confirmation(&original.site.senders),
        each(both, "takes instances", "both", |facts| {
            let read_only = facts.site.read_only.then(|| "is read-only".to_owned());
            read_only.into_iter().chain(facts.refuses.clone()).collect()
        }),
        each(both, "index", "both have folded all that their logs hold", |facts| {
            let behind = facts.index.lag_events;
            (behind > 0).then(|| format!("is {behind} events behind")).into_iter().collect()
        }),
        each(both, "incomplete", "no event is parked, no study incomplete", |facts| {
            let (parked, studies) = (facts.index.parked, facts.index.incomplete_studies);
            (parked + studies > 0)
                .then(|| format!("{parked} events parked, {studies} studies incomplete"))
                .into_iter()
                .collect()
        }),
        conflicts(original, standby),
        state(original, standby),
        clocks(both),
    ]
}

fn each(both: [&Facts; 2], name: &'static str, good: &str, wrong: impl Fn(&Facts) -> Vec<String>) -> Check {
    let of = |facts: &&Facts| wrong(facts).into_iter().map(|what| format!("{}: {what}", facts.site.site)).collect();
    check(name, both.iter().flat_map(|facts| -> Vec<String> { of(facts) }).collect(), good)
}

/// How `of` is kept in step by the site of these facts.
pub fn peer<'a>(facts: &'a Facts, of: &SiteId) -> Option<&'a PeerStatus> {
    facts.replication.peers.iter().find(|peer| peer.site == *of)
}

fn authority(original: &Facts, standby: &Facts) -> Check {
    let (here, there) = (&original.site, &standby.site);
    let mut wrong = Vec::new();
    match &here.primary {
        _ if here.epoch != there.epoch || here.primary != there.primary => {
            wrong.push(format!("{} and {} do not know the same of who has it", here.site, there.site));
        }
        Some(primary) if *primary != here.site => wrong.push(format!("{primary} has it: the drill is begun there")),
        None if here.epoch > 0 => wrong.push("it was given up: `cairn site promote` gives it to a site".into()),
        _ => {}
    }
    if wrong.is_empty() && here.primary.is_none() {
        let what = format!("no site was ever promoted: after the drill {} has it, over all", here.site);
        return note("authority", what);
    }
    check("authority", wrong, format!("{} has it (epoch {})", here.site, here.epoch))
}

fn versions(both: [&Facts; 2]) -> Check {
    let [here, there] = both.map(|facts| (facts.site.version.clone(), facts.index.fold_version));
    if here == there {
        return check("versions", Vec::new(), format!("{}, fold {}, at both", here.0, here.1));
    }
    let what = format!("{} and {}, fold {} and {}", here.0, there.0, here.1, there.1);
    if here.1 == there.1 { note("versions", what) } else { check("versions", vec![what], "") }
}

fn links(original: &Facts, standby: &Facts) -> Check {
    let wrong = |from: &Facts, to: &Facts| match peer(from, &to.site.site) {
        None => Some(format!("{} is no peer of {}", to.site.site, from.site.site)),
        Some(PeerStatus { link: Link::Up, .. }) => None,
        Some(peer) => Some(format!("{} to {}: {}", from.site.site, to.site.site, link(&peer.link))),
    };
    let wrong = [wrong(original, standby), wrong(standby, original)].into_iter().flatten().collect();
    check("links", wrong, "up, both ways")
}

fn link(link: &Link) -> String {
    match link {
        Link::Connecting => "not met yet".into(),
        Link::Up => "up".into(),
        Link::Paused => "paused by an operator".into(),
        Link::Failing(why) => format!("failing: {why}"),
        Link::Refused(why) => format!("refused: {why}"),
    }
}

fn recovery_point(original: &Facts, standby: &Facts, rpo: Duration) -> Check {
    let Some(peer) = peer(original, &standby.site.site) else {
        return check("recovery point", vec!["not measured".into()], "");
    };
    let (age, risk) = (peer.risk.age(original.replication.at_ms), peer.risk);
    let what = format!(
        "{} now, {} is asked for: {} events, {} instances, {} at risk",
        seconds(millis(age)),
        seconds(millis(rpo)),
        risk.events,
        risk.instances,
        size(risk.bytes)
    );
    if age > rpo { check("recovery point", vec![what], "") } else { check("recovery point", Vec::new(), what) }
}

fn partitions(original: &Facts, standby: &Facts) -> Check {
    let [here, there] = [original, standby].map(|facts| facts.index.log_end.0.len());
    let wrong = (here != there).then(|| format!("{here} and {there}")).into_iter().collect();
    check("partitions", wrong, format!("{here} at both"))
}

/// What both sites say of their senders, and know of what the other says. `names`: the sites, the original first.
fn senders(original: &[SendersConfigured], standby: &[SendersConfigured], names: &[String; 2]) -> Check {
    let said = |by: &str, at: &[SendersConfigured]| at.iter().find(|senders| senders.site == by).cloned();
    let mut wrong = Vec::new();
    for by in names {
        match (said(by, original), said(by, standby)) {
            (Some(here), Some(there)) if here == there => {}
            (None, None) => wrong.push(format!("{by} never said what it knows of its senders")),
            _ => wrong.push(format!("what {by} says now is not known to the other site")),
        }
    }
    let [here, there] = [said(&names[0], original), said(&names[1], standby)];
    if let (Some(here), Some(there)) = (here, there) {
        wrong.extend(differences(&here, &there));
    }
    check("senders", wrong, "both know what the other says of its senders, and do not contradict each other")
}

/// Where two sites would treat one sender differently.
fn differences(here: &SendersConfigured, there: &SendersConfigured) -> Vec<String> {
    let table = |of: &SendersConfigured| -> BTreeMap<String, ApplicationEntity> {
        of.application_entities.iter().map(|entity| (entity.title.clone(), entity.clone())).collect()
    };
    let mut found = Vec::new();
    if here.defaults != there.defaults {
        let fields = fields(&here.defaults.clone().unwrap_or_default(), &there.defaults.clone().unwrap_or_default());
        found.push(format!("defaults for senders differ in {}", fields.join(", ")));
    }
    if here.unknown_callers_accepted != there.unknown_callers_accepted {
        found.push("only one of them takes calling AE titles that are not in its table".into());
    }
    let there = table(there);
    for (title, entity) in table(here) {
        if let Some(other) = there.get(&title).filter(|other| **other != entity) {
            found.push(format!("{title} differs in {}", fields(&entity, other).join(", ")));
        }
    }
    found
}

/// Whether somebody waits for other sites, which can't confirm anything while nothing goes there.
fn confirmation(senders: &[SendersConfigured]) -> Check {
    let entries = senders.iter().flat_map(|senders| senders.application_entities.iter().chain(&senders.defaults));
    let waiting = entries.filter(|entity| entity.confirmed_sites > Some(0)).count();
    match waiting {
        0 => check("confirmation", Vec::new(), "no sender waits for other sites"),
        _ => {
            note("confirmation", format!("{waiting} entries wait for other sites: refused (A700, 503) while isolated"))
        }
    }
}

/// Which fields of an entry differ, by the keys of the configuration.
fn fields(here: &ApplicationEntity, there: &ApplicationEntity) -> Vec<&'static str> {
    let services = |of: &ApplicationEntity| (of.services_limited, of.services.clone());
    let differ = [
        ("addresses", here.addresses != there.addresses),
        ("services", services(here) != services(there)),
        ("transfer_syntaxes", here.transfer_syntaxes != there.transfer_syntaxes),
        ("only_these_transfer_syntaxes", here.only_these_transfer_syntaxes != there.only_these_transfer_syntaxes),
        ("address", here.destination != there.destination),
        ("issuer_of_patient_id", here.issuer_of_patient_id != there.issuer_of_patient_id),
        ("default_character_set", here.default_character_set != there.default_character_set),
        ("time_zone", here.time_zone != there.time_zone),
        ("resend_policy", here.resend_policy != there.resend_policy),
        ("confirmed_sites", here.confirmed_sites != there.confirmed_sites),
        ("object_bytes_max", here.object_bytes_max != there.object_bytes_max),
    ];
    differ.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
}

/// Events that one of them lacks, as far as is known.
fn at_risk(original: &Facts, standby: &Facts) -> u64 {
    let of = |from: &Facts, to: &Facts| peer(from, &to.site.site).map_or(0, |peer| peer.risk.events);
    of(original, standby) + of(standby, original)
}

fn conflicts(original: &Facts, standby: &Facts) -> Check {
    let (here, there) = (&original.conflicts, &standby.conflicts);
    let differ = here.iter().filter(|(key, versions)| there.get(*key) != Some(versions)).count()
        + there.keys().filter(|key| !here.contains_key(*key)).count();
    match differ {
        0 => check("conflicts", Vec::new(), format!("{} are listed, the same at both", here.len())),
        _ if at_risk(original, standby) > 0 => note("conflicts", format!("{differ} are not at both yet")),
        _ => check("conflicts", vec![format!("{differ} are not the same at both")], ""),
    }
}

fn state(original: &Facts, standby: &Facts) -> Check {
    let (here, there) = (&original.digest, &standby.digest);
    if here == there {
        return check("state", Vec::new(), format!("{} studies, the same at both", here.studies));
    }
    let what = format!("{} and {} studies, and not the same state", here.studies, there.studies);
    // With something under way it can't be the same; with nothing it may have come since.
    note("state", format!("{what}: it is compared again afterwards"))
}

fn clocks(both: [&Facts; 2]) -> Check {
    let far = |facts: &&Facts| facts.clock_off_ms > CLOCKS_APART_MS;
    let wrong: Vec<String> = both.iter().copied().filter(far).map(|facts| facts.site.site.to_string()).collect();
    if wrong.is_empty() {
        return check("clocks", wrong, "both go with the one here");
    }
    note("clocks", format!("{} does not go with the one here: ages are told by it", wrong.join(" and ")))
}

#[cfg(test)]
mod tests;
