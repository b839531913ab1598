//! End-to-end, interoperability and faults: the real executable and real processes. Needs `target/debug/cairn` (or
//! `CAIRN_BIN`), dcmtk and the Python modules of tools/requirements.txt: `make test` brings them all. What is missing
//! fails; nothing is skipped.
#![allow(clippy::unwrap_used, unreachable_pub, reason = "tests, in modules of one binary")]

mod audit;
mod bad_input;
mod cli;
mod cluster;
mod commitment;
mod corrections;
mod crashes;
mod dcmtk;
mod dicomweb_client;
mod disk_full;
mod erasure;
mod exchange;
mod expectations;
mod faults_disk;
mod faults_index;
mod faults_kafka;
mod faults_s3;
mod fixity;
mod floods;
mod gateway;
mod import_sources;
mod keys;
mod load;
mod orphans;
mod patients;
mod poison;
mod policies;
mod processes;
mod promises;
mod pynetdicom;
mod raw;
mod rebuild;
mod receipts;
mod rejections;
mod replay;
mod s3_proxy;
mod sealing;
mod sites;
mod sites_authority;
mod sites_disasters;
mod sites_drill;
mod sites_faults;
mod sites_link;
mod sites_plan;
mod sites_repair;
mod sites_seeding;
mod sites_tls;
mod sites_verify;
mod stow;
mod support;
mod tiers;
mod traces;
mod upgrade;
