//! `cairn replication repair`: objects that are damaged or missing here come again from another site.

use super::{
    super::{
        Failure,
        table::{Cell, Rows},
    },
    client,
};
use crate::cli::Common;
use cairn_archive::ObjectKey;
use cairn_service_api::{
    Replication,
    replication::{Outcome, Suspects},
};
use futures_util::TryStreamExt;

pub async fn run(common: &Common, study: Option<String>, object: Option<ObjectKey>) -> Result<(), Failure> {
    let suspects = match (study, object) {
        (Some(study), _) => Suspects::Study(study),
        (None, Some(key)) => Suspects::Object(key),
        (None, None) => return Err(Failure::usage("--study or --object: which")),
    };
    let mut inspected = client(&common.server)?.repair(suspects).await?;
    let columns = [("Object", 36), ("Bytes", 10), ("Outcome", 8), ("From", 12), ("Why", 40)];
    let mut rows = Rows::new(common.output, &columns);
    let mut lost = 0_u64;
    while let Some(one) = inspected.try_next().await? {
        let (outcome, from, why) = match one.outcome {
            Outcome::Whole => ("whole", Cell::Absent, Cell::Absent),
            Outcome::Repaired { from } => ("repaired", from.to_string().into(), Cell::Absent),
            Outcome::Lost(why) => ("lost", Cell::Absent, why.into()),
        };
        lost += u64::from(outcome == "lost");
        rows.cells(&[one.key.to_string().into(), Cell::Size(one.length), outcome.into(), from, why])?;
        rows.flush()?;
    }
    rows.flush()?;
    match lost {
        0 => Ok(()),
        lost => {
            Err(Failure::Partial(format!("{lost} objects are damaged or missing here, and no other site gave them")))
        }
    }
}
