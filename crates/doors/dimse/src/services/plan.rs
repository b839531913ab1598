//! What a retrieval will send, and the presentation contexts that it takes.

use crate::requestor::CONTEXTS_MAX;
use cairn_dicom::{TransferSyntax, Uid};
use cairn_service_api::index::InstanceRecord;

/// Kinds of objects in one retrieval beyond which it is refused. The Standard has some 180 classes and 60 syntaxes.
const KINDS_MAX: usize = 4096;

/// Instances of a retrieval, by number and kind. Does not grow with their number.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(super) instances: u64,
    /// SOP Class and stored transfer syntaxes, in order of appearance.
    classes: Vec<(Uid, Vec<Uid>)>,
    kinds: usize,
}

/// Contexts of one association.
pub(crate) type Contexts = Vec<(Uid, Vec<Uid>)>;

impl Plan {
    /// Counts an instance; false once there are more kinds than a retrieval may have.
    pub(crate) fn add(&mut self, record: &InstanceRecord) -> bool {
        self.instances += 1;
        let at = self.classes.iter().position(|(class, _)| *class == record.sop_class_uid);
        let at = at.unwrap_or_else(|| {
            self.classes.push((record.sop_class_uid.clone(), Vec::new()));
            self.classes.len() - 1
        });
        if let Some((_, syntaxes)) = self.classes.get_mut(at)
            && !syntaxes.contains(&record.transfer_syntax_uid)
        {
            syntaxes.push(record.transfer_syntax_uid.clone());
            self.kinds += 1;
        }
        self.kinds <= KINDS_MAX
    }

    /// Contexts to propose: for each class one for each stored syntax, so that each object can go as it is, and
    /// one uncompressed, which every peer must take. As many associations as it needs; a class is split over two
    /// only if it does not fit in one.
    pub(crate) fn contexts(&self) -> Vec<Contexts> {
        let mut associations: Vec<Contexts> = vec![Vec::new()];
        let plain: Vec<Uid> = [TransferSyntax::EXPLICIT_VR_LITTLE_ENDIAN, TransferSyntax::IMPLICIT_VR_LITTLE_ENDIAN]
            .iter()
            .filter_map(|syntax| syntax.uid().parse().ok())
            .collect();
        for (class, syntaxes) in &self.classes {
            let stored = syntaxes.iter().map(|syntax| (class.clone(), vec![syntax.clone()]));
            let contexts: Contexts = stored.chain([(class.clone(), plain.clone())]).collect();
            for part in contexts.chunks(CONTEXTS_MAX) {
                if associations.last().is_some_and(|last| last.len() + part.len() > CONTEXTS_MAX) {
                    associations.push(Vec::new());
                }
                if let Some(last) = associations.last_mut() {
                    last.extend_from_slice(part);
                }
            }
        }
        associations
    }
}
