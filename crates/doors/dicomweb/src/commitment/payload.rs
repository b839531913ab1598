//! Payloads of storage commitment in the DICOM JSON Model (PS3.18 tables J.1-1 and J.2-1, edition 2025c).

use cairn_archive::commitment::{FailureReason, Reference, Within};
use cairn_dicom::{
    Tag, Uid, Vr,
    dataset::{DataSet, Value},
    json, tags,
};
use cairn_service_api::commitment::Outcome;
use serde::Deserialize;
use std::collections::BTreeMap;

/// An attribute.
#[derive(Deserialize)]
struct Attribute<T> {
    #[serde(rename = "Value")]
    values: Option<Vec<T>>,
}

impl<T> Attribute<T> {
    fn into_values(attribute: Option<Self>) -> Vec<T> {
        attribute.and_then(|attribute| attribute.values).unwrap_or_default()
    }

    fn first(attribute: Option<Self>) -> Option<T> {
        Self::into_values(attribute).into_iter().next()
    }
}

/// Storage Commitment Request Module.
#[derive(Deserialize)]
struct RequestModule {
    #[serde(rename = "00081199")]
    referenced_sops: Option<Attribute<Sop>>,
    #[serde(rename = "00081110")]
    referenced_studies: Option<Attribute<Study>>,
}

/// SOP Instance Reference Macro.
#[derive(Deserialize)]
struct Sop {
    #[serde(rename = "00081150")]
    class: Option<Attribute<String>>,
    #[serde(rename = "00081155")]
    instance: Option<Attribute<String>>,
}

#[derive(Deserialize)]
struct Study {
    #[serde(rename = "0020000D")]
    study: Option<Attribute<String>>,
    #[serde(rename = "00081115")]
    series: Option<Attribute<Series>>,
}

#[derive(Deserialize)]
struct Series {
    #[serde(rename = "0020000E")]
    series: Option<Attribute<String>>,
    #[serde(rename = "00081112")]
    by_class: Option<Attribute<ByClass>>,
}

#[derive(Deserialize)]
struct ByClass {
    #[serde(rename = "00081150")]
    class: Option<Attribute<String>>,
    #[serde(rename = "0008114A")]
    instances: Option<Attribute<Sop>>,
}

fn uid(attribute: Option<Attribute<String>>) -> Result<Uid, &'static str> {
    Attribute::first(attribute).and_then(|text| text.trim_end().parse().ok()).ok_or("a UID is missing or none")
}

/// What a request is about: instances named by themselves, then those named within studies.
///
/// # Errors
/// What is wrong with it.
pub(super) fn references(bytes: &[u8]) -> Result<Vec<Reference>, &'static str> {
    // Some senders put the one data set into an array, as other resources have it.
    let module: RequestModule = serde_json::from_slice(bytes)
        .or_else(|_| serde_json::from_slice::<[RequestModule; 1]>(bytes).map(|[module]| module))
        .map_err(|_| "the payload is no storage commitment request in DICOM JSON")?;
    let mut references = Vec::new();
    for sop in Attribute::into_values(module.referenced_sops) {
        references.push(Reference {
            sop_class_uid: uid(sop.class)?,
            sop_instance_uid: uid(sop.instance)?,
            within: None,
        });
    }
    for study in Attribute::into_values(module.referenced_studies) {
        let study_instance_uid = uid(study.study)?;
        for series in Attribute::into_values(study.series) {
            let within =
                Within { study_instance_uid: study_instance_uid.clone(), series_instance_uid: uid(series.series)? };
            for by_class in Attribute::into_values(series.by_class) {
                let sop_class_uid = uid(by_class.class)?;
                for sop in Attribute::into_values(by_class.instances) {
                    references.push(Reference {
                        sop_class_uid: sop_class_uid.clone(),
                        sop_instance_uid: uid(sop.instance)?,
                        within: Some(within.clone()),
                    });
                }
            }
        }
    }
    if references.is_empty() { Err("the request names no instance") } else { Ok(references) }
}

/// Instances of a result, as the request named them.
#[derive(Default)]
struct Named {
    by_themselves: Vec<DataSet>,
    /// By study, series and class.
    within: BTreeMap<Uid, BTreeMap<Uid, BTreeMap<Uid, Vec<DataSet>>>>,
}

impl Named {
    fn add(&mut self, Outcome { reference, failure }: Outcome) {
        let mut item = DataSet::new();
        if reference.within.is_none() {
            item.put_text(tags::REFERENCED_SOP_CLASS_UID, reference.sop_class_uid.as_str());
        }
        item.put_text(tags::REFERENCED_SOP_INSTANCE_UID, reference.sop_instance_uid.as_str());
        if let Some(FailureReason(reason)) = failure {
            item.put(tags::FAILURE_REASON, Vr::US, Value::Unsigned(vec![reason.into()]));
        }
        match reference.within {
            None => self.by_themselves.push(item),
            Some(Within { study_instance_uid, series_instance_uid }) => {
                let of_series = self.within.entry(study_instance_uid).or_default().entry(series_instance_uid);
                of_series.or_default().entry(reference.sop_class_uid).or_default().push(item);
            }
        }
    }

    /// Puts what there is under the tags for instances named by themselves, and within studies.
    fn put(self, set: &mut DataSet, by_themselves: Tag, within: Tag) {
        put_items(set, by_themselves, self.by_themselves);
        let by_class = |(class, instances): (Uid, Vec<DataSet>)| {
            item(tags::REFERENCED_SOP_CLASS_UID, &class, tags::REFERENCED_INSTANCE_SEQUENCE, instances)
        };
        let series = |(series, classes): (Uid, BTreeMap<Uid, Vec<DataSet>>)| {
            let classes = classes.into_iter().map(by_class).collect();
            item(tags::SERIES_INSTANCE_UID, &series, tags::REFERENCED_INSTANCES_BY_SOP_CLASS_SEQUENCE, classes)
        };
        let study = |(study, all): (Uid, BTreeMap<Uid, BTreeMap<Uid, Vec<DataSet>>>)| {
            let all = all.into_iter().map(series).collect();
            item(tags::STUDY_INSTANCE_UID, &study, tags::REFERENCED_SERIES_SEQUENCE, all)
        };
        put_items(set, within, self.within.into_iter().map(study).collect());
    }
}

fn item(named_by: Tag, uid: &Uid, sequence: Tag, items: Vec<DataSet>) -> DataSet {
    let mut item = DataSet::new();
    item.put_text(named_by, uid.as_str());
    put_items(&mut item, sequence, items);
    item
}

fn put_items(set: &mut DataSet, sequence: Tag, items: Vec<DataSet>) {
    if !items.is_empty() {
        set.put(sequence, Vr::SQ, Value::Sequence(items));
    }
}

/// The payload of a result.
pub(super) fn result(outcomes: Vec<Outcome>) -> Vec<u8> {
    let (mut committed, mut failed) = (Named::default(), Named::default());
    for outcome in outcomes {
        if outcome.failure.is_none() { &mut committed } else { &mut failed }.add(outcome);
    }
    let mut set = DataSet::new();
    committed.put(&mut set, tags::REFERENCED_SOP_SEQUENCE, tags::REFERENCED_STUDY_SEQUENCE);
    failed.put(&mut set, tags::FAILED_SOP_SEQUENCE, tags::FAILED_STUDY_SEQUENCE);
    let mut out = Vec::new();
    json::write_data_set(&mut out, &set);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn request() -> serde_json::Value {
        let ui = |value: &str| json!({"vr": "UI", "Value": [value]});
        let sq = |items: Vec<serde_json::Value>| json!({"vr": "SQ", "Value": items});
        json!({
            "00081199": sq(vec![json!({"00081150": ui("1.2.1"), "00081155": ui("1.3.1")})]),
            "00081110": sq(vec![json!({
                "0020000D": ui("1.4"),
                "00081115": sq(vec![json!({
                    "0020000E": ui("1.4.1"),
                    "00081112": sq(vec![json!({
                        "00081150": ui("1.2.2"),
                        "0008114A": sq(vec![json!({"00081155": ui("1.3.2")}), json!({"00081155": ui("1.3.3")})]),
                    })]),
                })]),
            })]),
        })
    }

    #[test]
    fn both_ways_to_name_instances_are_read_and_answered_alike() {
        let asked = references(request().to_string().as_bytes()).unwrap();
        let instances: Vec<_> = asked.iter().map(|reference| reference.sop_instance_uid.as_str()).collect();
        assert_eq!(instances, ["1.3.1", "1.3.2", "1.3.3"]);
        assert_eq!(asked[0].within, None);
        let within = asked[1].within.clone().unwrap();
        assert_eq!((within.study_instance_uid.as_str(), within.series_instance_uid.as_str()), ("1.4", "1.4.1"));
        let in_array = format!("[{}]", request());
        assert_eq!(references(in_array.as_bytes()), Ok(asked.clone()));

        let outcome = |reference: &Reference, failure| Outcome { reference: reference.clone(), failure };
        let all = asked.iter().map(|reference| outcome(reference, None)).collect();
        let answered: serde_json::Value = serde_json::from_slice(&result(all)).unwrap();
        assert_eq!(answered, request(), "all committed, it names the same");
        let missing = Some(FailureReason::NO_SUCH_OBJECT_INSTANCE);
        let some = vec![outcome(&asked[0], missing), outcome(&asked[1], None), outcome(&asked[2], missing)];
        let answered: serde_json::Value = serde_json::from_slice(&result(some)).unwrap();
        assert_eq!(answered["00081198"]["Value"][0]["00081197"]["Value"], json!([0x0112]));
        let failed = &answered["0008119B"]["Value"][0]["00081115"]["Value"][0]["00081112"]["Value"][0];
        assert_eq!(failed["0008114A"]["Value"][0]["00081155"]["Value"], json!(["1.3.3"]));
        assert_eq!(failed["0008114A"]["Value"][0]["00081197"]["Value"], json!([0x0112]));
        assert!(answered.get("00081199").is_none());
    }

    #[test]
    fn what_names_nothing_is_no_request() {
        for bad in ["", "{}", "[]", "nonsense", r#"{"00081199":{"vr":"SQ"}}"#, r#"{"00081199":{"Value":[{}]}}"#] {
            assert!(references(bad.as_bytes()).is_err(), "{bad}");
        }
        let bad_uid = r#"{"00081199":{"Value":[{"00081150":{"Value":["1.2"]},"00081155":{"Value":["x"]}}]}}"#;
        assert!(references(bad_uid.as_bytes()).is_err());
    }
}
