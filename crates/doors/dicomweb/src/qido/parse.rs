use crate::{
    config::Limits,
    problem::Problem,
    request::{Call, Parameter},
};
use cairn_dicom::{DataSet, Tag, Uid, Vr, dataset::Value, dictionary, tags};
use cairn_service_api::index::QueryOptions;

/// A search as the request words it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Search {
    pub(super) identifier: DataSet,
    pub(super) options: QueryOptions,
    pub(super) include_all: bool,
    pub(super) include: Vec<Tag>,
    pub(super) limit: Option<u64>,
    pub(super) offset: u64,
}

/// Deepest attribute path.
const PATH_LENGTH_MAX: usize = 8;

impl Search {
    /// Reads path and query.
    ///
    /// # Errors
    /// 400 for an unknown attribute or option, and for a value that can't be used; neither ever widens the search.
    pub(super) fn read(call: &Call, limits: &Limits) -> Result<Self, Problem> {
        let mut search = Self::default();
        for (tag, uid) in [
            (tags::STUDY_INSTANCE_UID, &call.uids.study),
            (tags::SERIES_INSTANCE_UID, &call.uids.series),
            (tags::SOP_INSTANCE_UID, &call.uids.instance),
        ] {
            if let Some(uid) = uid {
                search.identifier.put(tag, Vr::UI, Value::text(Vr::UI, uid.as_str()));
            }
        }
        let mut options_seen = Vec::new();
        let mut attributes: Vec<(Vec<Tag>, String)> = Vec::new();
        for parameter in &call.query {
            if search.read_option(parameter, limits)? {
                if parameter.name != "includefield" && options_seen.contains(&&parameter.name) {
                    return Err(Problem::bad_request(format!("{} is given twice", parameter.name)));
                }
                options_seen.push(&parameter.name);
            } else {
                let path = attribute_path(&parameter.name)?;
                let value = value_of(&path, parameter);
                match attributes.iter_mut().find(|(known, _)| *known == path) {
                    // As PS3.18 section 8.3.4.1 writes several values: joined by a backslash.
                    Some((_, values)) => *values = format!("{values}\\{value}"),
                    None => attributes.push((path, value.to_owned())),
                }
            }
        }
        if attributes.len() + search.include.len() > limits.query_keys_max {
            return Err(Problem::bad_request("too many attributes are named"));
        }
        for (path, value) in attributes {
            if let [tag] = path.as_slice()
                && search.identifier.get(*tag).is_some_and(|element| !element.value.is_empty())
            {
                return Err(Problem::bad_request(format!("{tag} is in the path already")));
            }
            put(&mut search.identifier, &path, &value)?;
        }
        Ok(search)
    }

    /// Reads a parameter that is no attribute; `false` if it is one.
    fn read_option(&mut self, parameter: &Parameter, limits: &Limits) -> Result<bool, Problem> {
        match parameter.name.as_str() {
            "fuzzymatching" => self.options.fuzzy_person_names = boolean(parameter)?,
            "emptyvaluematching" => self.options.empty_value = boolean(parameter)?,
            "multiplevaluematching" => self.options.multiple_value = boolean(parameter)?,
            "limit" => self.limit = Some(number(parameter)?),
            "offset" => self.offset = number(parameter)?,
            "includefield" => self.read_included(&parameter.value, limits)?,
            "charset" => {}
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn read_included(&mut self, list: &str, limits: &Limits) -> Result<(), Problem> {
        for name in list.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            if name == "all" {
                self.include_all = true;
                continue;
            }
            let path = attribute_path(name)?;
            match path.as_slice() {
                [tag] if !self.include.contains(tag) => self.include.push(*tag),
                [_] => {}
                // Within a sequence: a return key, as C-FIND has it (PS3.4 section C.2.2.2.6).
                _ => put_absent(&mut self.identifier, &path),
            }
            if self.include.len() > limits.query_keys_max {
                return Err(Problem::bad_request("too many attributes are named"));
            }
        }
        Ok(())
    }
}

fn boolean(parameter: &Parameter) -> Result<bool, Problem> {
    match parameter.value.to_ascii_lowercase().as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(Problem::bad_request(format!("{} is neither true nor false", parameter.name))),
    }
}

fn number(parameter: &Parameter) -> Result<u64, Problem> {
    let digits = parameter.value.bytes().all(|b| b.is_ascii_digit());
    let number = digits.then(|| parameter.value.parse().ok()).flatten();
    number.ok_or_else(|| Problem::bad_request(format!("{} is not a number", parameter.name)))
}

/// Reads an attribute: keywords or tags, of sequences and at last of the attribute itself, joined by dots.
fn attribute_path(name: &str) -> Result<Vec<Tag>, Problem> {
    // The name is the client's own and may be anything: it is not repeated in the answer.
    let unknown = || Problem::bad_request("an attribute in the query is not known");
    let path: Vec<_> = name
        .split('.')
        .take(PATH_LENGTH_MAX + 1)
        .map(|part| dictionary::tag_of(part).or_else(|| Tag::parse_hex(part)).filter(|tag| is_queryable(*tag)))
        .collect::<Option<_>>()
        .ok_or_else(unknown)?;
    let sequences = path.split_last().map(|(_, sequences)| sequences).unwrap_or_default();
    let are_sequences = sequences.iter().all(|tag| dictionary::vr_of(*tag) == Some(Vr::SQ));
    if path.len() > PATH_LENGTH_MAX || !are_sequences {
        return Err(unknown());
    }
    Ok(path)
}

fn is_queryable(tag: Tag) -> bool {
    let known = tag.is_private() || dictionary::element(tag).is_some();
    known && tag.group() > 0x0007 && tag.group() != 0xFFFE && !tag.is_group_length()
}

/// A plus sign is one in a date-time, where it begins the offset from UTC; elsewhere it is a form's space.
fn value_of<'a>(path: &[Tag], parameter: &'a Parameter) -> &'a str {
    let last = path.last().copied().unwrap_or_default();
    let plus = last == tags::TIMEZONE_OFFSET_FROM_UTC || dictionary::vr_of(last) == Some(Vr::DT);
    if plus { &parameter.value_with_plus } else { &parameter.value }
}

fn put(data_set: &mut DataSet, path: &[Tag], text: &str) -> Result<(), Problem> {
    match path {
        [] => Ok(()),
        [tag] => {
            let vr = dictionary::vr_of(*tag).unwrap_or(Vr::LO);
            let value =
                value(vr, text).ok_or_else(|| Problem::bad_request(format!("the value of {tag} can't be used")))?;
            data_set.put(*tag, vr, value);
            Ok(())
        }
        [sequence, rest @ ..] => {
            let mut item = data_set.items(*sequence).first().cloned().unwrap_or_default();
            put(&mut item, rest, text)?;
            data_set.put(*sequence, Vr::SQ, Value::Sequence(vec![item]));
            Ok(())
        }
    }
}

fn put_absent(data_set: &mut DataSet, path: &[Tag]) {
    match path {
        [] => {}
        [tag] if data_set.get(*tag).is_some() => {}
        [tag] => data_set.put_empty(*tag),
        [sequence, rest @ ..] => {
            let mut item = data_set.items(*sequence).first().cloned().unwrap_or_default();
            put_absent(&mut item, rest);
            data_set.put(*sequence, Vr::SQ, Value::Sequence(vec![item]));
        }
    }
}

/// The value of a matching key; `None` when the text is none of its VR. Text that only matching itself can judge, such
/// as dates and patterns, is judged there.
fn value(vr: Vr, text: &str) -> Option<Value> {
    if text.is_empty() {
        return Some(Value::Empty);
    }
    if text == "\"\"" && vr.is_text() {
        return Some(Value::Text(vec![text.to_owned()]));
    }
    match vr {
        Vr::UI if text == "*" => Some(Value::Empty),
        Vr::UI => {
            let uids: Result<Vec<Uid>, _> =
                text.split(['\\', ',']).map(|uid| Uid::from_value(uid.trim().as_bytes())).collect();
            Some(Value::Text(uids.ok()?.iter().map(|uid| uid.as_str().to_owned()).collect()))
        }
        vr if vr.is_text() => Some(Value::text(vr, text)).filter(|value| !value.is_empty()),
        Vr::US | Vr::UL | Vr::UV => numbers(text).map(Value::Unsigned),
        Vr::SS | Vr::SL | Vr::SV => numbers(text).map(Value::Signed),
        Vr::FD | Vr::FL => numbers(text).map(Value::Float),
        Vr::AT => text.split('\\').map(Tag::parse_hex).collect::<Option<_>>().map(Value::Tags),
        _ => None,
    }
}

fn numbers<T: std::str::FromStr>(text: &str) -> Option<Vec<T>> {
    text.split('\\').map(|number| number.trim().parse().ok()).collect()
}
