//! `cairn site`: which site has authority, and decisions about that.

use super::{Failure, connection};
use crate::cli::{Common, DecidedArgs, Output, SiteAction, Switch};
use cairn_archive::{
    SiteId,
    authority::DeadSite,
    envelope::rfc3339,
    events::{Event, SendersConfigured},
};
use cairn_process::units::format_duration;
use cairn_service_api::{
    Replication,
    replication::ReplicationStatus,
    site::{Decision, Grounds, Promoted, SiteStatus},
};
use cairn_service_grpc::client::ReplicationClient;
use serde_json::{Value, json};
use std::time::Duration;

pub async fn run(action: SiteAction) -> Result<(), Failure> {
    let (decided, decision) = match action {
        SiteAction::Status { common } => return status(&common).await,
        SiteAction::Renew { source, without, yes } => return super::renew::run(&source, &without, yes).await,
        SiteAction::Promote { decided, force } => (decided, Decision::Promote { force }),
        SiteAction::Demote { decided } => (decided, Decision::Demote),
        SiteAction::Failback { decided } => (decided, Decision::TakeOver),
        SiteAction::ReadOnly { switch, site, decided } => {
            let site = match site {
                Some(site) => site,
                None => client(&decided.common)?.site().await?.site,
            };
            (decided, Decision::SetReadOnly { site, read_only: switch == Switch::On })
        }
        SiteAction::Dead { switch, site, decided } => {
            (decided, Decision::DeclareDead { site, dead: switch == Switch::On })
        }
    };
    decide(&decided, decision).await
}

fn client(common: &Common) -> Result<ReplicationClient, Failure> {
    Ok(ReplicationClient::new(&connection(&common.server)?)?)
}

async fn status(common: &Common) -> Result<(), Failure> {
    print(&client(common)?.site().await?, common.output);
    Ok(())
}

/// Does it once the site's name was given; says what it would do otherwise.
async fn decide(args: &DecidedArgs, decision: Decision) -> Result<(), Failure> {
    let client = client(&args.common)?;
    let site = client.site().await?;
    for line in consequences(&decision, &site, &client.status().await?) {
        eprintln!("{line}");
    }
    if args.yes.as_ref() != Some(&site.site) {
        let message = format!("nothing was done: if that is meant, add --yes {}", site.site);
        return Err(Failure::usage(message));
    }
    let grounds = Grounds { decided_by: args.by.clone(), reason: args.reason.clone(), drill: String::new() };
    print(&client.decide(decision, grounds).await?, args.common.output);
    Ok(())
}

/// What a decision means, in lines.
fn consequences(decision: &Decision, site: &SiteStatus, replication: &ReplicationStatus) -> Vec<String> {
    let own = &site.site;
    let primary = site.primary.as_ref().map_or_else(|| "no site".to_owned(), ToString::to_string);
    match decision {
        Decision::Promote { .. } => {
            let mut lines = vec![
                format!("{own} takes authority (epoch {}); {primary} has it now", site.epoch + 1),
                format!(
                    "what {primary} decided and {own} does not hold is void; instances that it took are merged when it returns"
                ),
            ];
            lines.extend(replication.peers.iter().map(|peer| match &peer.told {
                None => format!("{} never told what it has and {own} has not", peer.site),
                Some((came_at_ms, report)) => {
                    let ago = format_duration(Duration::from_millis(replication.at_ms.saturating_sub(*came_at_ms)));
                    let (events, instances) = (report.risk.events, report.risk.instances);
                    format!("{} told {ago} ago that {own} lacked {events} events, {instances} instances", peer.site)
                }
            }));
            lines
        }
        Decision::TakeOver => {
            vec![format!("{primary} gives its authority up, and {own} takes it once it holds everything")]
        }
        Decision::Demote => vec![format!("{own} gives its authority up; nobody has it until a site is promoted")],
        Decision::SetReadOnly { site, read_only: true } => {
            vec![format!("{site} refuses instances from senders (A700, 503) until this is taken back")]
        }
        Decision::SetReadOnly { site, read_only: false } => vec![format!("{site} takes instances from senders")],
        Decision::DeclareDead { site, dead: true } => vec![
            format!("{site} is gone for good: after a delay nothing that is to be erased waits for it"),
            format!("what {site} holds and no other site, a hold among it, keeps nothing from being destroyed then"),
        ],
        Decision::DeclareDead { site, dead: false } => vec![format!("what is to be erased waits for {site} again")],
    }
}

fn print(status: &SiteStatus, output: Output) {
    match output {
        Output::Json => println!("{}", to_json(status)),
        Output::Table | Output::Csv => print_lines(status),
    }
}

fn print_lines(status: &SiteStatus) {
    let primary = match (&status.primary, status.epoch) {
        (Some(primary), epoch) => format!("{primary} (epoch {epoch})"),
        (None, 0) => "none: no site was ever promoted".into(),
        (None, epoch) => format!("none: it was given up (epoch {epoch})"),
    };
    println!("site       {}{}", status.site, if status.read_only { "  READ-ONLY" } else { "" });
    println!("authority  {primary}");
    for Promoted { site, epoch, at_ms, decided_by, reason, drill, is_void, .. } in &status.promotions {
        let void = if *is_void { "  VOID" } else { "" };
        let drill = if drill.is_empty() { String::new() } else { format!("  drill {drill}") };
        let (decided_by, reason) = (printable(decided_by), printable(reason));
        println!("epoch {epoch:<4} {site}  {}  by {decided_by}: {reason}{drill}{void}", rfc3339(*at_ms));
    }
    for DeadSite { site, at_ms, .. } in &status.dead {
        println!("dead       {site}  {}", rfc3339(*at_ms));
    }
    for senders in &status.senders {
        let SendersConfigured { site, ae_titles, application_entities, .. } = senders;
        let (titles, entities) = (ae_titles.join(", "), application_entities.len());
        println!("senders    {site}: answers to {titles}; {entities} Application Entities; {}", digest(senders));
    }
}

/// What operators typed may hold anything.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// Names what a site says of its senders: two sites that say the same of it have the same name for it.
fn digest(senders: &SendersConfigured) -> String {
    let hash = blake3::hash(&Event::SendersConfigured(senders.clone()).encode()).to_hex();
    hash.chars().take(16).collect()
}

fn to_json(status: &SiteStatus) -> Value {
    let promotion = |promoted: &Promoted| {
        json!({
            "event": promoted.event.to_string(), "site": promoted.site.to_string(), "epoch": promoted.epoch,
            "at": rfc3339(promoted.at_ms), "decided_by": promoted.decided_by, "reason": promoted.reason,
            "drill": promoted.drill, "void": promoted.is_void,
        })
    };
    let senders = |senders: &SendersConfigured| {
        let entities = senders.application_entities.iter().map(|entity| entity.title.clone()).collect::<Vec<_>>();
        json!({
            "site": senders.site, "ae_titles": senders.ae_titles, "application_entities": entities,
            "digest": digest(senders),
        })
    };
    json!({
        "site": status.site.to_string(), "at": rfc3339(status.at_ms), "epoch": status.epoch,
        "primary": status.primary.as_ref().map(SiteId::to_string), "read_only": status.read_only,
        "dead": status.dead.iter().map(|dead| dead.site.to_string()).collect::<Vec<_>>(),
        "promotions": status.promotions.iter().map(promotion).collect::<Vec<_>>(),
        "senders": status.senders.iter().map(senders).collect::<Vec<_>>(),
    })
}
