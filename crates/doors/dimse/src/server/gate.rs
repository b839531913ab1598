//! How many connections and associations are open, by whom, and whether one more may be.

use crate::{
    Limits, metrics,
    pdu::{AeTitle, AssociateRj},
};
use std::{
    collections::HashMap,
    hash::Hash,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

/// Counts of what is open. The accept loop asks it before it gives a connection a task.
#[derive(Debug)]
pub(super) struct Gate {
    counts: Mutex<Counts>,
    connections_max: usize,
    connections_per_address_max: usize,
    associations_max: usize,
    associations_per_ae_max: usize,
}

#[derive(Debug, Default)]
struct Counts {
    connections: usize,
    by_address: HashMap<IpAddr, usize>,
    associations: usize,
    by_ae_title: HashMap<AeTitle, usize>,
}

/// A connection's place; given back when dropped.
#[derive(Debug)]
pub(super) struct ConnectionPlace {
    gate: Arc<Gate>,
    address: IpAddr,
}

/// An association's place; given back when dropped.
#[derive(Debug)]
pub(super) struct AssociationPlace {
    gate: Arc<Gate>,
    calling_ae_title: AeTitle,
}

impl Counts {
    fn show(&self) {
        metrics::open(self.connections, self.associations);
    }
}

impl Gate {
    pub(super) fn new(limits: &Limits) -> Arc<Self> {
        Arc::new(Self {
            counts: Mutex::default(),
            connections_max: limits.connections_max,
            connections_per_address_max: limits.connections_per_address_max,
            associations_max: limits.associations_max,
            associations_per_ae_max: limits.associations_per_ae_max,
        })
    }

    fn with<T>(&self, act: impl FnOnce(&mut Counts) -> T) -> T {
        act(&mut self.counts.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn connect(self: &Arc<Self>, address: IpAddr) -> Option<ConnectionPlace> {
        self.with(|counts| {
            let of_address = counts.by_address.get(&address).copied().unwrap_or(0);
            if counts.connections >= self.connections_max || of_address >= self.connections_per_address_max {
                return None;
            }
            counts.connections += 1;
            counts.by_address.insert(address, of_address + 1);
            counts.show();
            Some(ConnectionPlace { gate: Arc::clone(self), address })
        })
    }

    pub(super) fn associate(self: &Arc<Self>, calling: &AeTitle) -> Result<AssociationPlace, AssociateRj> {
        self.with(|counts| {
            let of_title = counts.by_ae_title.get(calling).copied().unwrap_or(0);
            if counts.associations >= self.associations_max || of_title >= self.associations_per_ae_max {
                return Err(AssociateRj::LOCAL_LIMIT_EXCEEDED);
            }
            counts.associations += 1;
            counts.by_ae_title.insert(calling.clone(), of_title + 1);
            counts.show();
            Ok(AssociationPlace { gate: Arc::clone(self), calling_ae_title: calling.clone() })
        })
    }
}

fn give_back<K: Hash + Eq>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

impl Drop for ConnectionPlace {
    fn drop(&mut self) {
        self.gate.with(|counts| {
            counts.connections -= 1;
            give_back(&mut counts.by_address, &self.address);
            counts.show();
        });
    }
}

impl Drop for AssociationPlace {
    fn drop(&mut self) {
        self.gate.with(|counts| {
            counts.associations -= 1;
            give_back(&mut counts.by_ae_title, &self.calling_ae_title);
            counts.show();
        });
    }
}
