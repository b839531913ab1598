//! What events name.

use cairn_archive::{
    Digest, EventId, ObjectKey,
    events::{Event, InstanceStored, Object, event_repaired::Remedy},
};
use cairn_service_api::lifecycle::NamedObject;
use cairn_store_api::{ObjectRef, Record};

/// What a record names.
#[derive(Default)]
pub(crate) struct Named {
    /// Objects of which it says what they should be.
    pub(crate) known: Vec<NamedObject>,
    /// Objects that only its envelope tells, because this build can't read the event. What they should be, the store says.
    pub(crate) keys: Vec<ObjectKey>,
}

/// Reads what a record names.
pub(crate) fn named(record: &Record) -> Named {
    let envelope = &record.envelope;
    if envelope.object_keys.is_empty() {
        return Named::default();
    }
    let event = Event::decode(&envelope.kind, record.payload.clone()).ok();
    let objects = event.as_ref().map(Event::objects).unwrap_or_default();
    let about = event.as_ref().and_then(about).unwrap_or_default();
    let known: Vec<_> = objects.iter().filter_map(object_ref).map(|object| about.of(object, envelope.id)).collect();
    let keys = envelope.object_keys.iter().filter(|key| known.iter().all(|named| named.object.key != **key));
    Named { keys: keys.copied().collect(), known }
}

/// An object that no event that can be read says anything of.
pub(crate) fn unread(object: ObjectRef, named_by: EventId) -> NamedObject {
    About::default().of(object, named_by)
}

/// The instance that an event is about.
#[derive(Default)]
struct About {
    tenant: String,
    study: String,
    series: String,
    instance: String,
}

impl About {
    fn of(&self, object: ObjectRef, named_by: EventId) -> NamedObject {
        NamedObject {
            object,
            named_by,
            tenant: self.tenant.clone(),
            study_instance_uid: self.study.clone(),
            series_instance_uid: self.series.clone(),
            sop_instance_uid: self.instance.clone(),
        }
    }
}

fn about(event: &Event) -> Option<About> {
    match event {
        Event::InstanceStored(stored) => {
            let InstanceStored { tenant, study_instance_uid, series_instance_uid, sop_instance_uid, .. } = &**stored;
            Some(About {
                tenant: tenant.clone(),
                study: study_instance_uid.clone(),
                series: series_instance_uid.clone(),
                instance: sop_instance_uid.clone(),
            })
        }
        Event::EventRepaired(repair) => match &repair.remedy {
            Some(Remedy::Replacement(by)) => about(&Event::decode(&by.event_type, by.payload.clone()).ok()?),
            _ => None,
        },
        _ => None,
    }
}

fn object_ref(object: &Object) -> Option<ObjectRef> {
    let key = ObjectKey::from_slice(&object.key).ok()?;
    Some(ObjectRef { key, length: object.length_bytes, digest: Digest::from_slice(&object.blake3).ok()? })
}
