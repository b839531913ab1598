//! Every parser of what comes from a network or a disk, with what must hold for any input at all: no panic, the same
//! outcome wherever the input is split, stable round trips, output bounded by input, and no unusable query value that
//! matches everything. `tools/fuzz` runs the targets under coverage guidance; the tests here run seeds, blind mutations of
//! them, and everything that was ever found, in `found/TARGET/`.
#![allow(clippy::unwrap_used, reason = "a failed property is what a fuzzer looks for")]

mod audit;
mod bytes_of;
mod dicom;
mod events;
mod network;
mod seeds;

/// A parser and its properties.
pub struct Target {
    /// Its name on the command line and in `found`.
    pub name: &'static str,
    /// Panics when a property does not hold.
    pub run: fn(&[u8]),
    /// Inputs to begin from.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "pdu", run: network::pdu, seeds: seeds::pdus },
    Target { name: "command", run: network::command, seeds: seeds::commands },
    Target { name: "multipart", run: network::multipart, seeds: seeds::multiparts },
    Target { name: "http", run: network::http, seeds: seeds::requests },
    Target { name: "walk", run: dicom::walk, seeds: seeds::data_sets },
    Target { name: "part10", run: dicom::part10, seeds: seeds::files },
    Target { name: "dataset", run: dicom::data_set, seeds: seeds::data_sets },
    Target { name: "convert", run: dicom::convert, seeds: seeds::data_sets },
    Target { name: "charset", run: dicom::charset, seeds: seeds::texts },
    Target { name: "matching", run: dicom::matching, seeds: seeds::keys },
    Target { name: "event", run: events::event, seeds: seeds::events },
    Target { name: "audit", run: audit::document, seeds: audit::documents },
];

#[cfg(test)]
mod tests;
