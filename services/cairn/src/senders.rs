//! What sites know of their senders: this one says it to the others, and takes what they say beside its own.

use crate::config::{AeConfig, Config, ServiceName};
use cairn_archive::{
    SiteId,
    events::{ApplicationEntity, ResendPolicy, SendersConfigured},
};
use cairn_dimse::Partners;
use cairn_ingest::config::{ProfileConfig, ResendPolicyConfig};
use cairn_service_api::site::SiteStatus;
use std::collections::{BTreeMap, BTreeSet};

/// What this site says of its senders.
pub fn of(config: &Config) -> SendersConfigured {
    let profiles = config.ingest_config().profiles;
    let unknown = AeConfig::default();
    let titles: BTreeSet<&String> = config.ae.keys().chain(profiles.keys()).collect();
    let entity = |title: &String| {
        entity(
            title,
            config.ae.get(title).unwrap_or(&unknown),
            profiles.get(title).unwrap_or(&ProfileConfig::default()),
        )
    };
    SendersConfigured {
        site: config.site.name.clone(),
        ae_titles: own_titles(config).cloned().collect(),
        unknown_callers_accepted: config.unknown_callers_accepted(),
        application_entities: titles.into_iter().map(entity).collect(),
        defaults: Some(entity_defaults(config)),
    }
}

fn own_titles(config: &Config) -> impl Iterator<Item = &String> {
    [&config.dicom.ae_title].into_iter().chain(&config.dicom.other_ae_titles)
}

fn entity_defaults(config: &Config) -> ApplicationEntity {
    entity("", &AeConfig::default(), &config.ingest.default_profile)
}

fn entity(title: &str, ae: &AeConfig, profile: &ProfileConfig) -> ApplicationEntity {
    let service = |service: &ServiceName| match service {
        ServiceName::Store => "store",
        ServiceName::Find => "find",
        ServiceName::Move => "move",
        ServiceName::Get => "get",
        ServiceName::Commitment => "commitment",
    };
    let policy = profile.resend_policy.map_or(ResendPolicy::Unspecified, ResendPolicy::from);
    ApplicationEntity {
        title: title.to_owned(),
        addresses: ae.addresses.iter().map(ToString::to_string).collect(),
        services_limited: ae.services.is_some(),
        services: ae.services.iter().flatten().map(service).map(ToOwned::to_owned).collect(),
        transfer_syntaxes: ae.transfer_syntaxes.clone(),
        only_these_transfer_syntaxes: ae.only_these_transfer_syntaxes,
        destination: ae.address.clone().unwrap_or_default(),
        issuer_of_patient_id: profile.issuer_of_patient_id.clone(),
        default_character_set: profile.default_character_set.clone(),
        time_zone: profile.time_zone.clone(),
        resend_policy: policy.into(),
        confirmed_sites: profile.confirmed_sites,
        object_bytes_max: profile.object_bytes_max,
    }
}

/// The configuration with what other sites say beside it. What this site says itself goes first, then the site with
/// authority, then the others by name; with authority it answers to the titles of all.
pub fn beside(config: &Config, sites: &SiteStatus) -> Config {
    let mut merged = config.clone();
    let own = |senders: &&SendersConfigured| senders.site == config.site.name;
    let is_primary = |senders: &&SendersConfigured| sites.primary.as_ref().map(SiteId::as_str) == Some(&senders.site);
    let mut others: Vec<&SendersConfigured> = sites.senders.iter().filter(|senders| !own(senders)).collect();
    others.sort_by_key(|senders| (!is_primary(senders), senders.site.clone()));
    if sites.primary.as_ref() == Some(&sites.site) {
        let known: BTreeSet<String> = own_titles(config).cloned().collect();
        let titles = others.iter().flat_map(|senders| &senders.ae_titles).filter(|title| !known.contains(*title));
        merged.dicom.other_ae_titles.extend(titles.cloned().collect::<BTreeSet<_>>());
    }
    for senders in others {
        let defaults = senders.defaults.clone().unwrap_or_default();
        for entity in &senders.application_entities {
            let title = &entity.title;
            if !merged.ae.contains_key(title) && !merged.ingest.profiles.contains_key(title) {
                merged.ae.insert(title.clone(), ae_config(entity));
                merged.ingest.profiles.insert(title.clone(), profile(entity, &defaults));
            }
        }
    }
    merged
}

/// What a door needs of a configuration.
pub fn partners(config: &Config) -> Partners {
    Partners { policy: config.dimse_policy(), destinations: config.destinations() }
}

/// What ingest needs of it.
pub fn profiles(config: &Config) -> BTreeMap<String, ProfileConfig> {
    config.ingest_config().profiles
}

fn ae_config(entity: &ApplicationEntity) -> AeConfig {
    let service = |name: &String| match name.as_str() {
        "store" => Some(ServiceName::Store),
        "find" => Some(ServiceName::Find),
        "move" => Some(ServiceName::Move),
        "get" => Some(ServiceName::Get),
        "commitment" => Some(ServiceName::Commitment),
        // Of a newer build: what this one does not offer it can't offer to them.
        _ => None,
    };
    AeConfig {
        addresses: entity.addresses.iter().filter_map(|address| address.parse().ok()).collect(),
        services: entity.services_limited.then(|| entity.services.iter().filter_map(service).collect()),
        transfer_syntaxes: entity.transfer_syntaxes.clone(),
        only_these_transfer_syntaxes: entity.only_these_transfer_syntaxes,
        address: Some(entity.destination.clone()).filter(|address| !address.is_empty()),
        ..AeConfig::default()
    }
}

/// What an entity's own site assumes of it: what its entry leaves out, that site's defaults say, and not this one's.
fn profile(entity: &ApplicationEntity, defaults: &ApplicationEntity) -> ProfileConfig {
    let policy = [entity, defaults].into_iter().find_map(|of| match of.resend_policy() {
        ResendPolicy::Unspecified => None,
        ResendPolicy::Keep => Some(ResendPolicyConfig::Keep),
        ResendPolicy::SupersedeSameSource => Some(ResendPolicyConfig::SupersedeSameSource),
        ResendPolicy::Refuse => Some(ResendPolicyConfig::Refuse),
    });
    let text = |of: fn(&ApplicationEntity) -> &Option<String>| of(entity).clone().or_else(|| of(defaults).clone());
    ProfileConfig {
        // An empty one is a value too: it keeps this site's default from being taken for theirs.
        issuer_of_patient_id: text(|of| &of.issuer_of_patient_id).or_else(|| Some(String::new())),
        default_character_set: text(|of| &of.default_character_set).or_else(|| Some(String::new())),
        time_zone: text(|of| &of.time_zone).or_else(|| Some(String::new())),
        resend_policy: policy.or(Some(ResendPolicyConfig::Keep)),
        object_bytes_max: entity.object_bytes_max.or(defaults.object_bytes_max),
        confirmed_sites: entity.confirmed_sites.or(defaults.confirmed_sites).or(Some(0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(site: &str, more: &str) -> Config {
        toml::from_str(&format!("[site]\nname = \"{site}\"\n{more}")).unwrap()
    }

    fn status(own: &str, primary: Option<&str>, configs: &[&Config]) -> SiteStatus {
        SiteStatus {
            version: String::new(),
            site: own.parse().unwrap(),
            at_ms: 0,
            epoch: primary.is_some().into(),
            primary: primary.map(|site| site.parse().unwrap()),
            read_only: false,
            dead: Vec::new(),
            promotions: Vec::new(),
            senders: configs.iter().map(|config| of(config)).collect(),
        }
    }

    #[test]
    fn what_other_sites_say_stands_beside_what_this_one_says() {
        let east = config(
            "east",
            "[dicom]\nae_title = \"EAST\"\n[ingest.default_profile]\nissuer_of_patient_id = \"H-EAST\"\n\
             [ae.CT1]\naddress = \"ct1:104\"\nservices = [\"store\"]\nresend_policy = \"refuse\"\n[ae.BOTH]\ntime_zone = \"+0100\"\n",
        );
        let west = config(
            "west",
            "[dicom]\nae_title = \"WEST\"\n[ingest.default_profile]\nissuer_of_patient_id = \"H-WEST\"\n[ae.BOTH]\n",
        );
        let idle = beside(&west, &status("west", None, &[&east, &west]));
        assert!(idle.dicom.other_ae_titles.is_empty(), "only with authority it answers for another");
        let ct1 = &idle.ae["CT1"];
        assert_eq!(
            (ct1.address.as_deref(), ct1.services.as_deref()),
            (Some("ct1:104"), Some(&[ServiceName::Store][..]))
        );
        let profile = &profiles(&idle)["CT1"];
        assert_eq!(profile.issuer_of_patient_id.as_deref(), Some("H-EAST"), "its patients are those of its own site");
        assert_eq!(profile.resend_policy, Some(ResendPolicyConfig::Refuse));
        assert_eq!(profile.confirmed_sites, Some(0));
        assert_eq!(idle.ae["BOTH"], west.ae["BOTH"], "its own word goes first");

        let promoted = beside(&west, &status("west", Some("west"), &[&east, &west]));
        assert_eq!(promoted.dicom.other_ae_titles, ["EAST"]);
        assert!(partners(&promoted).policy.called_ae_titles.contains(&cairn_dimse::pdu::AeTitle::new("EAST").unwrap()));
        let third = config("north", "[ae.CT1]\naddress = \"elsewhere:104\"\n");
        for (primary, address) in [("north", "elsewhere:104"), ("east", "ct1:104")] {
            let merged = beside(&west, &status("west", Some(primary), &[&east, &third, &west]));
            assert_eq!(merged.ae["CT1"].address.as_deref(), Some(address), "{primary} has authority");
        }
    }

    #[test]
    fn an_entry_survives_the_way_through_the_log() {
        let own = "[ae.CT1]\naddresses = [\"192.0.2.7\"]\nservices = [\"find\", \"move\"]\ntransfer_syntaxes = [\"1.2.840.10008.1.2\"]\n\
                   only_these_transfer_syntaxes = true\naddress = \"ct1:104\"\nissuer_of_patient_id = \"I\"\ndefault_character_set = \"ISO_IR 100\"\n\
                   time_zone = \"+0100\"\nresend_policy = \"supersede-same-source\"\nconfirmed_sites = 1\n[ingest.profiles.WEB]\nobject_bytes_max = \"1 GiB\"\n";
        let (east, west) = (config("east", own), config("west", ""));
        let merged = beside(&west, &status("west", None, &[&east, &west]));
        let (there, here) = (of(&east), of(&merged));
        assert_eq!(there.application_entities[0], here.application_entities[0]);
        assert_eq!(merged.ingest.profiles["WEB"].object_bytes_max, Some(1 << 30));
    }
}
