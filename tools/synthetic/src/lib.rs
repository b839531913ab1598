//! Synthetic patients, studies and instances, made in code from a seed: for the demo, tests and benchmarks.
//!
//! Two invented hospitals number their patients alike; names come in several scripts; everything says that it is
//! synthetic, in the patient's name and burnt into the pixels. The same seed gives the same bytes.
#![forbid(unsafe_code)]

mod instance;
mod people;
mod picture;
mod random;

pub use instance::{InstanceSpec, Kind, part10};
pub use random::Random;

use cairn_dicom::Uid;
use people::PEOPLE;

/// One generated file and who would send it.
#[derive(Clone, Debug)]
pub struct Generated {
    /// AE title of the hospital's sender.
    pub ae_title: &'static str,
    /// A complete Part 10 file.
    pub file: Vec<u8>,
    /// Its Study Instance UID.
    pub study_instance_uid: Uid,
    /// Its SOP Instance UID.
    pub sop_instance_uid: Uid,
}

/// AE titles of the two hospitals' senders.
pub const HOSPITALS: [&str; 2] = ["EASTPACS", "WESTPACS"];

/// A UID under 2.25 (PS3.5 section B.2) from four numbers; equal numbers give equal UIDs.
pub fn uid(seed: u64, study: u64, series: u64, instance: u64) -> Uid {
    let mut random = Random::new(seed ^ 0x5eed_0000_cafe_0000);
    let mut value: u128 = 0;
    for part in [study, series, instance, 0] {
        random = Random::new(random.next() ^ part.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        value = (value << 32) | u128::from(random.next() >> 32);
    }
    // Version 8 (custom) and variant bits, so that it is the number of a real UUID.
    value = (value & !(0xF << 76) | (8 << 76)) & !(3 << 62) | (2 << 62);
    format!("2.25.{value}").parse().unwrap_or_else(|_| unreachable!("2.25 and at most 39 digits"))
}

/// The instances of `studies` studies, in the order in which they would be sent. Patients have several studies.
pub fn studies(seed: u64, studies: u32) -> impl Iterator<Item = Generated> {
    (0..studies).flat_map(move |study| one_study(seed, u64::from(study)))
}

/// The instances of one study.
pub fn one_study(seed: u64, study: u64) -> Vec<Generated> {
    let mut random = Random::new(seed.wrapping_mul(31).wrapping_add(study));
    // Every third study is a prior of the patient before.
    let patient = study - study / 3;
    let hospital = (patient % 2) as usize;
    let person = &PEOPLE[(patient as usize / 2) % PEOPLE.len()];
    let kind = Kind::ALL[random.below(Kind::ALL.len() as u64) as usize];
    let study_instance_uid = uid(seed, study, 0, 0);
    let days_ago = random.below(900);
    let spec = |series: u64, number: u64| InstanceSpec {
        kind,
        person,
        // Both hospitals count from 1001: the same ID is two people.
        patient_id: format!("{}", 1001 + patient / 2),
        study_instance_uid: study_instance_uid.clone(),
        series_instance_uid: uid(seed, study, series, 0),
        sop_instance_uid: uid(seed, study, series, number),
        accession_number: format!("{}{:06}", ["E", "W"][hospital], study + 1),
        study_date: date_before(days_ago),
        study_time: format!("{:02}{:02}{:02}", 7 + days_ago % 11, (study * 7) % 60, (study * 13) % 60),
        series_number: series as u32,
        instance_number: number as u32,
        seed: seed ^ (study << 20) ^ (series << 10) ^ number,
    };
    let mut made = Vec::new();
    for series in 1..=kind.series() {
        for number in 1..=kind.instances_in_series() {
            let spec = spec(series, number);
            made.push(Generated {
                ae_title: HOSPITALS[hospital],
                file: part10(&spec),
                study_instance_uid: spec.study_instance_uid.clone(),
                sop_instance_uid: spec.sop_instance_uid.clone(),
            });
        }
    }
    made
}

/// The date `days` before 2026-11-26, as DA.
fn date_before(days: u64) -> String {
    // 2026-11-26 is day 20,783 since 1970-01-01; days count down over a calendar by months.
    const MONTH_DAYS: [u64; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let (mut year, mut month, mut day, mut left) = (2026_u64, 11_u64, 26_u64, days);
    while left >= day {
        left -= day;
        (year, month) = if month == 1 { (year - 1, 12) } else { (year, month - 1) };
        day = MONTH_DAYS[month as usize - 1] + u64::from(month == 2 && leap(year));
    }
    format!("{year:04}{month:02}{:02}", day - left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_bytes_and_uids_are_unique() {
        let first: Vec<Vec<u8>> = studies(7, 12).map(|made| made.file).collect();
        let again: Vec<Vec<u8>> = studies(7, 12).map(|made| made.file).collect();
        assert_eq!(first, again);
        let uids: std::collections::BTreeSet<_> = studies(7, 12).map(|made| made.sop_instance_uid).collect();
        assert_eq!(uids.len(), first.len());
        assert!(uids.iter().all(Uid::is_strict));
    }

    #[test]
    fn dates_count_back_over_months_and_leap_days() {
        assert_eq!(date_before(0), "20261126");
        assert_eq!(date_before(26), "20261031");
        assert_eq!(date_before(330), "20251231");
        assert_eq!(date_before(1_001), "20240229");
    }
}
