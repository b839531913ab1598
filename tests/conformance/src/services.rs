//! Trials of the services' traits. They run on the local services and on their gRPC clients, so that a door can't tell
//! which it holds. One site with an archive of its own per trial.

mod asking;
pub mod commitment;
mod correcting;
pub mod lifecycle;
mod merging;
pub mod notary;
pub mod policies;
mod rejecting;
mod repairing;
pub mod replication;
pub mod retention;
mod returning;
mod storing;
pub mod tiering;

use async_trait::async_trait;
use bytes::Bytes;
use cairn_archive::{PositionVector, events::Door, ids::ReceiptId};
use cairn_dicom::Uid;
use cairn_service_api::{
    AnswerStream, DEFAULT_TENANT, Error, Index, Ingest, Retrieval,
    index::Selection,
    ingest::{Body, InstanceOffer, OfferedForm, Sender, Stored},
};
use cairn_store_api::EventLog;
use cairn_synthetic::Generated;
use futures_util::{StreamExt, TryStreamExt, stream};
use libtest_mimic::Trial;
use std::{pin::Pin, sync::Arc, time::Duration};

/// The services of one site, with nothing stored, and what keeps them alive.
#[async_trait]
pub trait Site: Send + Sync {
    /// Ingest.
    fn ingest(&self) -> Arc<dyn Ingest>;
    /// Index.
    fn index(&self) -> Arc<dyn Index>;
    /// Retrieval.
    fn retrieval(&self) -> Arc<dyn Retrieval>;
    /// The event log under them.
    fn log(&self) -> Arc<dyn EventLog>;
    /// Stops everything in order.
    async fn stop(&self);
}

type Making = Pin<Box<dyn Future<Output = Box<dyn Site>> + Send>>;
type Run = fn(Arc<dyn Site>) -> Pin<Box<dyn Future<Output = ()>>>;

macro_rules! table {
    ($($name:literal, $function:path;)*) => {
        [$(($name, (|site| Box::pin($function(site))) as Run)),*]
    };
}

/// The trials, as `services::{name}::{what}`.
pub fn trials(name: &str, site: impl Fn() -> Making + Clone + Send + 'static) -> Vec<Trial> {
    let table = table! {
        "a_new_instance_is_stored_and_found", storing::a_new_instance_is_stored_and_found;
        "the_same_bytes_again_are_a_repeat", storing::the_same_bytes_again_are_a_repeat;
        "other_bytes_are_a_conflict_and_can_be_chosen", storing::other_bytes_are_a_conflict_and_can_be_chosen;
        "a_data_set_alone_is_stored", storing::a_data_set_alone_is_stored;
        "what_is_no_dicom_is_refused_and_kept", storing::what_is_no_dicom_is_refused_and_kept;
        "another_study_than_asked_for_does_not_match", storing::another_study_than_asked_for_does_not_match;
        "a_body_that_breaks_off_stores_nothing", storing::a_body_that_breaks_off_stores_nothing;
        "a_receipt_closes_once", storing::a_receipt_closes_once;
        "an_unknown_receipt_is_not_found", storing::an_unknown_receipt_is_not_found;
        "every_level_answers", asking::every_level_answers;
        "limit_and_offset_cut_one_stable_order", asking::limit_and_offset_cut_one_stable_order;
        "names_in_every_script_come_back", asking::names_in_every_script_come_back;
        "an_unusable_key_is_an_error", asking::an_unusable_key_is_an_error;
        "waiting_for_what_will_not_come_ends", asking::waiting_for_what_will_not_come_ends;
        "status_counts_and_digest_is_reproduced", asking::status_counts_and_digest_is_reproduced;
        "generations_are_told_apart_and_asked", asking::generations_are_told_apart_and_asked;
        "a_survey_goes_through_all_studies", asking::a_survey_goes_through_all_studies;
        "digests_lead_from_the_whole_to_events", asking::digests_lead_from_the_whole_to_events;
        "instances_come_with_the_detail_asked_for", asking::instances_come_with_the_detail_asked_for;
        "poison_is_parked_until_its_repair", repairing::poison_is_parked_until_its_repair;
        "a_repair_that_says_nothing_is_refused", repairing::a_repair_that_says_nothing_is_refused;
        "a_note_hides_what_it_names_until_it_is_revoked", rejecting::a_note_hides_what_it_names_until_it_is_revoked;
        "what_is_rejected_is_counted_for_those_who_see_it", rejecting::what_is_rejected_is_counted_for_those_who_see_it;
        "a_rejected_instance_sent_again_is_shown", rejecting::a_rejected_instance_sent_again_is_shown;
        "a_note_before_its_instances_hides_them", rejecting::a_note_before_its_instances_hides_them;
        "a_note_about_other_studies_rejects_there", rejecting::a_note_about_other_studies_rejects_there;
        "a_note_that_names_nothing_is_refused", rejecting::a_note_that_names_nothing_is_refused;
        "a_correction_is_found_and_given_out_until_it_is_taken_back", correcting::a_correction_is_found_and_given_out_until_it_is_taken_back;
        "a_correction_that_says_nothing_usable_is_refused", correcting::a_correction_that_says_nothing_usable_is_refused;
        "a_merged_patient_is_the_surviving_one_until_that_is_taken_back", merging::a_merged_patient_is_the_surviving_one_until_that_is_taken_back;
        "an_updated_patient_is_found_and_given_out_so", merging::an_updated_patient_is_found_and_given_out_so;
        "linked_patients_stay_and_are_found_together", merging::linked_patients_stay_and_are_found_together;
        "what_can_not_be_said_of_patients_is_refused", merging::what_can_not_be_said_of_patients_is_refused;
        "instances_come_back_byte_for_byte", returning::instances_come_back_byte_for_byte;
        "parts_of_a_file_are_its_bytes", returning::parts_of_a_file_are_its_bytes;
        "frames_are_the_pixels", returning::frames_are_the_pixels;
        "a_frame_that_does_not_exist_is_not_found", returning::a_frame_that_does_not_exist_is_not_found;
        "bulk_data_is_the_value", returning::bulk_data_is_the_value;
        "metadata_has_headers_and_tables", returning::metadata_has_headers_and_tables;
        "an_empty_selection_gives_nothing", returning::an_empty_selection_gives_nothing;
    };
    let trial = |(what, run): (&str, Run)| {
        let make = site.clone();
        crate::trial(format!("services::{name}::{what}"), move || async move {
            let site: Arc<dyn Site> = make().await.into();
            run(site.clone()).await;
            site.stop().await;
        })
    };
    table.into_iter().map(trial).collect()
}

/// Longest wait for the index.
const SOON: Duration = Duration::from_secs(30);

async fn open(site: &dyn Site) -> ReceiptId {
    let sender = Sender {
        tenant: DEFAULT_TENANT.into(),
        door: Door::Grpc,
        calling_ae_title: "TRIAL".into(),
        called_ae_title: "CAIRN".into(),
        ..Sender::default()
    };
    site.ingest().open_receipt(sender).await.unwrap()
}

/// Bytes in chunks of `size`.
fn chunks(bytes: &[u8], size: usize) -> Body<'static> {
    let chunks: Vec<Result<Bytes, Error>> = bytes.chunks(size).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
    Box::pin(stream::iter(chunks))
}

fn a_file() -> InstanceOffer {
    InstanceOffer { form: OfferedForm::File, length_hint: None, study_instance_uid: None }
}

async fn store(site: &dyn Site, receipt: ReceiptId, file: &[u8]) -> Result<Stored, Error> {
    site.ingest().store(receipt, a_file(), chunks(file, 10_007)).await
}

/// Stores the synthetic studies of a seed and waits until they can be found.
async fn fill(site: &dyn Site, seed: u64, studies: u32) -> Vec<Generated> {
    let receipt = open(site).await;
    let made: Vec<Generated> = cairn_synthetic::studies(seed, studies).collect();
    let mut after = PositionVector::default();
    for one in &made {
        after.include(&store(site, receipt, &one.file).await.unwrap().position);
    }
    site.index().wait_for(&after, SOON).await.unwrap();
    made
}

fn of_study(uid: &Uid) -> Selection {
    Selection { tenant: DEFAULT_TENANT.into(), studies: vec![uid.clone()], ..Selection::default() }
}

async fn collect(bytes: AnswerStream<Bytes>) -> Result<Vec<u8>, Error> {
    bytes
        .try_fold(Vec::new(), |mut all, chunk| async move {
            all.extend_from_slice(&chunk);
            Ok(all)
        })
        .await
}

async fn all<T>(answers: AnswerStream<T>) -> Vec<T> {
    answers.map(Result::unwrap).collect().await
}
