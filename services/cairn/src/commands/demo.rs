//! `cairn demo`: an archive in a directory of its own, filled with synthetic studies of two invented hospitals.

use super::{Failure, load};
use crate::{
    cli::DemoArgs,
    process::{Process, Signals},
    roles::Roles,
};
use bytes::Bytes;
use cairn_archive::events::{Door, ReceiptEnd};
use cairn_service_api::{
    Ingest,
    ingest::{InstanceOffer, OfferedForm, Sender},
};
use cairn_service_grpc::client::{Connection, IngestClient};
use cairn_synthetic::{Generated, HOSPITALS};
use futures_util::stream;
use std::path::PathBuf;

pub async fn run(mut args: DemoArgs) -> Result<(), Failure> {
    args.source.data.get_or_insert_with(|| PathBuf::from("demo-data"));
    let mut config = load(&args.source)?.config;
    // Both hospitals number their patients alike; the issuer tells them apart.
    for (title, issuer) in HOSPITALS.iter().zip(["EAST", "WEST"]) {
        config.ae.entry((*title).to_owned()).or_default().issuer_of_patient_id = Some(issuer.into());
    }
    // Sections for the two hospitals must not shut out everyone else.
    config.dicom.accept_unknown_callers.get_or_insert(config.dicom.listen.ip().is_loopback());
    let signals = Signals::listen()?;
    let mut archive = Process::start(config, Roles::ALL).await?;
    archive.opened().await?;
    let ingest = IngestClient::new(&Connection::to(archive.endpoints.grpc_address()))?;
    let mut stored = 0_u64;
    for (index, hospital) in HOSPITALS.iter().enumerate() {
        let sender = Sender {
            tenant: cairn_service_api::DEFAULT_TENANT.into(),
            door: Door::Import,
            calling_ae_title: (*hospital).into(),
            ..Sender::default()
        };
        let receipt = ingest.open_receipt(sender).await?;
        for made in cairn_synthetic::studies(args.seed, args.studies).filter(|made| made.ae_title == *hospital) {
            store(&ingest, receipt, &made).await?;
            stored += 1;
        }
        if index == 0 {
            odd_ones(&ingest, receipt, args.seed).await?;
        }
        ingest.close_receipt(receipt, ReceiptEnd::Completed).await?;
    }
    archive.announce();
    println!("{stored} synthetic instances are stored, one of them twice with other bytes (`cairn conflicts list`),");
    println!("and one input was refused (`cairn quarantine list`).");
    signals.wait().await;
    archive.stop().await;
    Ok(())
}

async fn store(ingest: &IngestClient, receipt: cairn_archive::ids::ReceiptId, made: &Generated) -> Result<(), Failure> {
    let offer = InstanceOffer { form: OfferedForm::File, length_hint: None, study_instance_uid: None };
    let file = Bytes::from(made.file.clone());
    ingest.store(receipt, offer, Box::pin(stream::iter([Ok(file)]))).await?;
    Ok(())
}

/// The same SOP Instance with other bytes, and an input that is not DICOM.
async fn odd_ones(ingest: &IngestClient, receipt: cairn_archive::ids::ReceiptId, seed: u64) -> Result<(), Failure> {
    if let Some(mut made) = cairn_synthetic::one_study(seed, 0).into_iter().next() {
        if let Some(last) = made.file.last_mut() {
            *last ^= 1;
        }
        store(ingest, receipt, &made).await?;
    }
    let offer = InstanceOffer { form: OfferedForm::File, length_hint: None, study_instance_uid: None };
    let garbage = Bytes::from_static(b"This is not a DICOM file, and no data set either.");
    let refused = ingest.store(receipt, offer, Box::pin(stream::iter([Ok(garbage)]))).await;
    match refused {
        Err(_) => Ok(()),
        Ok(_) => Err(Failure::failed("an input that is not DICOM was taken")),
    }
}
