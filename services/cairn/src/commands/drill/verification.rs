//! Whether both sites hold the same: their state, and the bytes of a sample.

use super::{
    asked::{self, Study},
    report::{Comparison, Difference, Sample, StateOf, seconds},
    sides::{Lacking, Side},
};
use cairn_archive::Digest;
use cairn_service_api::{
    Error, Index,
    index::{InstanceRecord, StateDigest},
    retrieval::Part,
};
use cairn_synthetic::Random;
use std::time::{Duration, Instant};
use tokio::sync::watch;

const LOOK: Duration = Duration::from_millis(100);

fn state_of(digest: &StateDigest) -> StateOf {
    StateOf {
        studies: digest.studies,
        event_digest: Digest(digest.events).to_string(),
        state_digest: Digest(digest.state).to_string(),
    }
}

async fn states(original: &Side, standby: &Side) -> Result<(StateDigest, StateDigest), Error> {
    let (here, there) = tokio::join!(original.index.digest(), standby.index.digest());
    Ok((here?.0, there?.0))
}

/// Studies that one of the sites has and the other lacks something of.
pub async fn lacking(original: &Side, standby: &Side) -> Result<Lacking, Error> {
    let (mut lacking, other) = tokio::try_join!(original.lacking(&standby.name), standby.lacking(&original.name))?;
    lacking.studies.extend(other.studies);
    lacking.more |= other.more;
    Ok(lacking)
}

/// Compares the sites while nothing goes from one to the other: what either has that the other lacks is left out.
///
/// # Errors
/// A site's.
pub async fn while_isolated(original: &Side, standby: &Side) -> Result<Comparison, Error> {
    let (here, there) = states(original, standby).await?;
    // Looked at afterwards: what came meanwhile is in it.
    let lacking = lacking(original, standby).await?;
    let apart = here.studies.abs_diff(there.studies);
    let (equal, what) = match lacking.studies.len() as u64 {
        _ if here == there => (Some(true), "both are in the same state".to_owned()),
        _ if lacking.more => (None, "more is at risk than is looked at one by one".to_owned()),
        0 => (Some(false), "nothing is at risk, and they are not in the same state".to_owned()),
        // A study of which something is at risk may be there or not.
        some if apart > some => {
            (Some(false), format!("they differ by {apart} studies, and something is at risk of {some} alone"))
        }
        some => (None, format!("something is at risk of {some} studies: compared afterwards")),
    };
    Ok(Comparison { equal, what, original: state_of(&here), standby: state_of(&there) })
}

/// Waits until both sites have come to the same state.
///
/// # Errors
/// A site's, the last time that it was asked.
pub async fn afterwards(original: &Side, standby: &Side, within: Duration) -> Result<Comparison, Error> {
    let deadline = Instant::now() + within;
    loop {
        let found = states(original, standby).await;
        let late = Instant::now() >= deadline;
        match found {
            Err(error) if late => return Err(error),
            Err(_) => {}
            Ok((here, there)) if here == there || late => {
                let conflicts = original.conflicts().await? == standby.conflicts().await?;
                let (same, within) = (here == there, seconds(super::report::millis(within)));
                let what = match (same, conflicts) {
                    (true, true) => "both are in the same state, and list the same conflicts".to_owned(),
                    (true, false) => {
                        format!("they are in the same state, and don't list the same conflicts within {within}")
                    }
                    (false, _) => format!("they have not come to the same state within {within}"),
                };
                if (same && conflicts) || late {
                    let equal = Some(same && conflicts);
                    return Ok(Comparison { equal, what, original: state_of(&here), standby: state_of(&there) });
                }
            }
            Ok(_) => {}
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Retrieves instances by chance at the standby site, and compares what comes with the digests that the original site has.
///
/// # Errors
/// A site's.
pub async fn sample(
    original: &Side,
    standby: &Side,
    asked: usize,
    random: &mut Random,
    stop: &watch::Receiver<bool>,
) -> Result<Sample, Error> {
    let mut sample = Sample { asked, ..Sample::default() };
    let mut studies = asked::sampled(original, random).await?;
    // A few of each study, so that the sample is spread over many.
    while let Some(study) = taken(&mut studies, random) {
        let left = asked.saturating_sub(sample.equal + sample.differences.len());
        if left == 0 || *stop.borrow() {
            break;
        }
        let of_each = left.div_ceil(studies.len() + 1);
        let mut records = asked::records(original, &study).await?;
        sample.studies += 1;
        for _ in 0..of_each {
            let Some(record) = taken(&mut records, random) else { break };
            match compared(standby, &record).await {
                None => (sample.equal, sample.bytes) = (sample.equal + 1, sample.bytes + record.object.length),
                Some(what) => differs(&mut sample, (original, standby), &record, what).await?,
            }
        }
    }
    Ok(sample)
}

fn taken<T>(from: &mut Vec<T>, random: &mut Random) -> Option<T> {
    let at = usize::try_from(random.below(from.len() as u64)).ok()?;
    (!from.is_empty()).then(|| from.swap_remove(at))
}

/// How an instance at a site is not as its record says.
async fn compared(standby: &Side, record: &InstanceRecord) -> Option<&'static str> {
    let names = (&record.study_instance_uid, Some(&record.series_instance_uid), &record.sop_instance_uid);
    match asked::bytes_of(standby, names, Part::File).await {
        Ok(Some((length, digest))) if digest == record.object.digest && length == record.object.length => None,
        Ok(Some(_)) => Some("other bytes come than the original site has"),
        Ok(None) => Some("it is not there"),
        Err(_) => Some("it could not be retrieved"),
    }
}

async fn differs(
    sample: &mut Sample,
    (original, standby): (&Side, &Side),
    record: &InstanceRecord,
    what: &str,
) -> Result<(), Error> {
    let lacking = lacking(original, standby).await?;
    if lacking.more || lacking.studies.contains(record.study_instance_uid.as_str()) {
        sample.at_risk += 1;
        return Ok(());
    }
    let (object, event) = (record.object.digest.to_string(), record.store_event.to_string());
    sample.differences.push(Difference { object, event, what: what.to_owned() });
    Ok(())
}

/// Whether the original site has what was stored at the standby site in its place: the data set, byte for byte.
pub async fn came_back(original: &Side, stored: &super::dicom::Synthetic) -> Result<(), String> {
    let made = &stored.made;
    let names = (&made.study_instance_uid, None, &made.sop_instance_uid);
    match asked::bytes_of(original, names, Part::DataSet).await {
        Ok(Some((_, digest))) if digest == Digest(blake3::hash(&stored.data_set).into()) => Ok(()),
        Ok(Some(_)) => Err("it came back with other bytes".into()),
        Ok(None) => Err("it did not come back".into()),
        Err(error) => Err(error.to_string()),
    }
}

/// A list of studies without those of which something is at risk, if that is known.
pub fn whole(studies: Vec<Study>, lacking: &Lacking) -> Vec<Study> {
    studies.into_iter().filter(|study| !lacking.studies.contains(study.uid.as_str())).collect()
}
