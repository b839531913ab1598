//! Who may open an association, for which services, in which transfer syntaxes.

use super::QueryOptions;
use crate::pdu::{AeTitle, AssociateRj, AssociateRq, SopClassCommonExtended};
use cairn_archive::rejection::Titles;
use cairn_dicom::{
    CharacterSet, TransferSyntax, Uid, dictionary,
    sop_class::{InformationModel, storage_class},
    transfer_syntax::PixelCoding,
};
use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

/// Query/Retrieve information model (PS3.4 section C.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum QueryRoot {
    /// Patient Root
    Patient,
    /// Study Root
    Study,
    /// Patient/Study Only (retired)
    PatientStudyOnly,
}

/// A service that a presentation context is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ServiceClass {
    /// C-ECHO
    Verification,
    /// C-STORE
    Storage,
    /// C-FIND
    Find(QueryRoot),
    /// C-MOVE
    Move(QueryRoot),
    /// C-GET
    Get(QueryRoot),
    /// Storage Commitment Push Model: N-ACTION, N-EVENT-REPORT
    Commitment,
}

/// Storage Commitment Push Model SOP Class (PS3.4 section J.3.4).
pub const STORAGE_COMMITMENT: &str = "1.2.840.10008.1.20.1";

impl ServiceClass {
    /// The service of a SOP Class that is not of storage (PS3.4 annexes A, C.6 and J).
    pub fn of_other_than_storage(uid: &str) -> Option<Self> {
        Some(match uid {
            "1.2.840.10008.1.1" => Self::Verification,
            STORAGE_COMMITMENT => Self::Commitment,
            "1.2.840.10008.5.1.4.1.2.1.1" => Self::Find(QueryRoot::Patient),
            "1.2.840.10008.5.1.4.1.2.1.2" => Self::Move(QueryRoot::Patient),
            "1.2.840.10008.5.1.4.1.2.1.3" => Self::Get(QueryRoot::Patient),
            "1.2.840.10008.5.1.4.1.2.2.1" => Self::Find(QueryRoot::Study),
            "1.2.840.10008.5.1.4.1.2.2.2" => Self::Move(QueryRoot::Study),
            "1.2.840.10008.5.1.4.1.2.2.3" => Self::Get(QueryRoot::Study),
            "1.2.840.10008.5.1.4.1.2.3.1" => Self::Find(QueryRoot::PatientStudyOnly),
            "1.2.840.10008.5.1.4.1.2.3.2" => Self::Move(QueryRoot::PatientStudyOnly),
            "1.2.840.10008.5.1.4.1.2.3.3" => Self::Get(QueryRoot::PatientStudyOnly),
            _ => return None,
        })
    }
}

/// Services offered to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Services {
    /// C-ECHO
    pub verification: bool,
    /// C-STORE, as SCP
    pub storage: bool,
    /// C-FIND
    pub find: bool,
    /// C-MOVE
    pub move_: bool,
    /// C-GET
    pub get: bool,
    /// Storage commitment, as SCP
    pub commitment: bool,
}

impl Services {
    /// All of them.
    pub const ALL: Self =
        Self { verification: true, storage: true, find: true, move_: true, get: true, commitment: true };

    /// Those of both.
    pub fn and(self, other: Self) -> Self {
        Self {
            verification: self.verification && other.verification,
            storage: self.storage && other.storage,
            find: self.find && other.find,
            move_: self.move_ && other.move_,
            get: self.get && other.get,
            commitment: self.commitment && other.commitment,
        }
    }

    /// Storage contexts are taken for C-GET too, where the roles are turned round.
    pub(super) fn offers(&self, service: ServiceClass) -> bool {
        match service {
            ServiceClass::Verification => self.verification,
            ServiceClass::Storage => self.storage || self.get,
            ServiceClass::Find(_) => self.find,
            ServiceClass::Move(_) => self.move_,
            ServiceClass::Get(_) => self.get,
            ServiceClass::Commitment => self.commitment,
        }
    }
}

/// What is allowed to, and expected of, one calling AE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerProfile {
    /// Addresses that it may call from; none: any.
    pub addresses: Vec<IpAddr>,
    /// Services offered to it, of those that the listener has.
    pub services: Services,
    /// Character set of identifiers that name none.
    pub default_character_set: CharacterSet,
    /// Transfer syntaxes preferred for storage, best first. Those not named come after, in the default order: see
    /// [`PeerProfile::choose_transfer_syntax`].
    pub transfer_syntaxes: Vec<Uid>,
    /// Take no transfer syntax but the ones named.
    pub only_these_transfer_syntaxes: bool,
    /// What is rejected under these titles alone it sees all the same.
    pub sees_rejected: Titles,
    /// What its requests for storage commitment get.
    pub commitment: CommitmentTerms,
}

/// What requests for storage commitment get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommitmentTerms {
    /// Other sites that must hold an instance before it is committed.
    pub confirmed_sites: u32,
    /// Whether the decision is reported on the requester's own association while that stands; otherwise, and then, the archive
    /// calls the requester.
    pub on_same_association: bool,
}

impl Default for PeerProfile {
    fn default() -> Self {
        Self {
            addresses: Vec::new(),
            services: Services::ALL,
            default_character_set: CharacterSet::DEFAULT,
            transfer_syntaxes: Vec::new(),
            only_these_transfer_syntaxes: false,
            sees_rejected: Titles::default(),
            commitment: CommitmentTerms::default(),
        }
    }
}

impl PeerProfile {
    /// Chooses among what was proposed.
    ///
    /// Default order: Explicit VR Little Endian, Implicit VR Little Endian, other native ones; lossless ones; ones
    /// that may be either; ones that nothing is known of; lossy ones; ones whose pixels are elsewhere. Among equals
    /// the requestor's order decides. So a sender is never nudged into losing something.
    ///
    /// Queries, retrieve requests and C-ECHO take the three plain native ones alone.
    pub fn choose_transfer_syntax(&self, service: ServiceClass, proposed: &[Uid]) -> Option<(TransferSyntax, Uid)> {
        let mut best: Option<(usize, TransferSyntax, &Uid)> = None;
        for uid in proposed {
            let syntax = TransferSyntax::from(uid);
            if !syntax.can_be_carried_by_dimse() {
                continue;
            }
            let rank = if service == ServiceClass::Storage {
                match self.transfer_syntaxes.iter().position(|preferred| preferred == uid) {
                    Some(at) => at,
                    None if self.only_these_transfer_syntaxes => continue,
                    None => self.transfer_syntaxes.len() + default_rank(&syntax),
                }
            } else if syntax.is_native() && !syntax.encoding.is_deflated() {
                default_rank(&syntax)
            } else {
                continue;
            };
            if best.as_ref().is_none_or(|(least, ..)| rank < *least) {
                best = Some((rank, syntax, uid));
            }
        }
        best.map(|(_, syntax, uid)| (syntax, uid.clone()))
    }
}

fn default_rank(syntax: &TransferSyntax) -> usize {
    if *syntax == TransferSyntax::EXPLICIT_VR_LITTLE_ENDIAN {
        return 0;
    }
    if *syntax == TransferSyntax::IMPLICIT_VR_LITTLE_ENDIAN {
        return 1;
    }
    match syntax.pixels {
        PixelCoding::Native => 2,
        PixelCoding::Uncompressed | PixelCoding::Lossless => 3,
        PixelCoding::LosslessOrLossy => 4,
        PixelCoding::Other => 5,
        PixelCoding::Lossy => 6,
        PixelCoding::Referenced => 7,
    }
}

/// Which calling AE titles are admitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallingAes {
    /// Any, known or not.
    Any,
    /// Those that have a profile of their own.
    Known,
}

/// The rules of one listener.
#[derive(Clone, Debug)]
pub struct Policy {
    /// AE titles that we answer to; none: any.
    pub called_ae_titles: HashSet<AeTitle>,
    /// Who may call.
    pub calling: CallingAes,
    /// Profiles of known calling AE titles.
    pub peers: HashMap<AeTitle, Arc<PeerProfile>>,
    /// Profile of all others.
    pub default_profile: Arc<PeerProfile>,
    /// Services offered to anybody.
    pub services: Services,
    /// Refuse queries and retrievals that do not name one value of each unique key above their level, unless
    /// relational ones were negotiated.
    pub strict_hierarchy: bool,
    /// Take private SOP Classes and such as this edition does not know for storage.
    pub unknown_storage_classes: bool,
    /// Offer the retired Patient/Study Only information model.
    pub patient_study_only: bool,
    /// Extended negotiation offered to queries and retrievals.
    pub query_options: QueryOptions,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            called_ae_titles: HashSet::new(),
            calling: CallingAes::Any,
            peers: HashMap::new(),
            default_profile: Arc::default(),
            services: Services::ALL,
            strict_hierarchy: true,
            unknown_storage_classes: true,
            patient_study_only: false,
            query_options: QueryOptions::ALL,
        }
    }
}

impl Policy {
    /// The profile of a requestor, or the rejection that its AE titles and address earn it.
    pub(super) fn admit(
        &self,
        request: &AssociateRq,
        address: Option<IpAddr>,
    ) -> Result<Arc<PeerProfile>, AssociateRj> {
        if !self.called_ae_titles.is_empty() && !self.called_ae_titles.contains(&request.called_ae_title) {
            return Err(AssociateRj::CALLED_AE_TITLE_NOT_RECOGNIZED);
        }
        let unknown = AssociateRj::CALLING_AE_TITLE_NOT_RECOGNIZED;
        let Some(profile) = self.peers.get(&request.calling_ae_title) else {
            let admitted = self.calling == CallingAes::Any;
            return admitted.then(|| Arc::clone(&self.default_profile)).ok_or(unknown);
        };
        let from_there = |address: IpAddr| profile.addresses.contains(&address.to_canonical());
        if !profile.addresses.is_empty() && !address.is_some_and(from_there) {
            return Err(unknown);
        }
        Ok(Arc::clone(profile))
    }

    /// The service that an abstract syntax is for, if this listener has it. `declared` is what the requestor says
    /// of the class in Common Extended Negotiation.
    pub fn service_of(&self, class: &Uid, declared: Option<&SopClassCommonExtended>) -> Option<ServiceClass> {
        let uid = class.as_str();
        if let Some(service) = ServiceClass::of_other_than_storage(uid) {
            use ServiceClass::{Find, Get, Move};
            let only = QueryRoot::PatientStudyOnly;
            let retired = matches!(service, Find(root) | Move(root) | Get(root) if root == only);
            return (!retired || self.patient_study_only).then_some(service);
        }
        if let Some(class) = storage_class(uid) {
            return (class.model == InformationModel::PatientStudySeries).then_some(ServiceClass::Storage);
        }
        if !self.unknown_storage_classes || dictionary::uid(uid).is_some() {
            return None;
        }
        let is_storage = match declared {
            Some(declared) => declared.service_class_uid.as_str() == STORAGE_SERVICE_CLASS,
            // Not private, yet unknown: a class of a later edition. The Standard puts storage classes under this arc.
            None => !uid.starts_with("1.2.840.10008.") || uid.starts_with("1.2.840.10008.5.1.4.1.1."),
        };
        is_storage.then_some(ServiceClass::Storage)
    }
}

/// Storage Service Class (PS3.6 table A-3).
const STORAGE_SERVICE_CLASS: &str = "1.2.840.10008.4.2";
