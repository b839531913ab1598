//! Media types and `Accept`, read leniently: clients send values that RFC 9110 does not allow, such as OHIF's
//! `multipart/related; type=application/octet-stream; transfer-syntax=*` with a `/` in an unquoted value.

/// A media type, perhaps with wildcards, and its parameters. Names are lower case, values as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MediaType {
    essence: String,
    parameters: Vec<(String, String)>,
}

impl MediaType {
    /// Reads one media type; `None` when there is no `type/subtype` at its start. Parameters that can't be read are
    /// passed over.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut parts = split_outside_quotes(text, b';');
        let essence = parts.next()?.trim().to_ascii_lowercase();
        let essence = match essence.split_once('/') {
            None if essence == "*" => "*/*".to_owned(),
            Some((kind, "")) if !kind.is_empty() => format!("{kind}/*"),
            Some((kind, _)) if !kind.is_empty() => essence,
            _ => return None,
        };
        let parameters = parts.filter_map(parameter).collect();
        Some(Self { essence, parameters })
    }

    /// `type/subtype`, lower case.
    pub(crate) fn essence(&self) -> &str {
        &self.essence
    }

    /// The first parameter of this (lower case) name.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    /// Whether `essence` (without wildcards) is meant by this type, aliases of image types included.
    pub(crate) fn covers(&self, essence: &str) -> bool {
        let own = canonical(&self.essence);
        own == "*/*"
            || own == essence
            || own.strip_suffix('*').is_some_and(|kind| kind.ends_with('/') && essence.starts_with(kind))
    }
}

/// Older spellings of image types that clients still send.
fn canonical(essence: &str) -> &str {
    match essence {
        "image/x-jls" => "image/jls",
        "image/x-dicom-rle" => "image/dicom-rle",
        "image/jll" => "image/jpeg",
        "video/mpeg2" => "video/mpeg",
        other => other,
    }
}

fn parameter(text: &str) -> Option<(String, String)> {
    let (name, value) = text.split_once('=')?;
    let name = name.trim().to_ascii_lowercase();
    (!name.is_empty()).then(|| (name, unquote(value.trim())))
}

fn unquote(value: &str) -> String {
    let Some(inner) = value.strip_prefix('"') else {
        return value.to_owned();
    };
    let mut text = String::with_capacity(inner.len());
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => text.extend(characters.next()),
            '"' => break,
            other => text.push(other),
        }
    }
    text
}

/// The pieces between separators that stand outside of double quotes. A quote that is never closed reaches to the end.
fn split_outside_quotes(text: &str, separator: u8) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let (mut quoted, mut escaped) = (false, false);
        for (at, byte) in text.bytes().enumerate() {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if quoted => escaped = true,
                b'"' => quoted = !quoted,
                _ if byte == separator && !quoted => {
                    rest = text.get(at + 1..);
                    return text.get(..at);
                }
                _ => {}
            }
        }
        rest = None;
        Some(text)
    })
}

/// Whether a representation is one body or the parts of a multipart/related one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packing {
    /// The representation is the body.
    Single,
    /// Each representation is a part.
    Multipart,
}

/// One alternative of an `Accept` value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Alternative {
    /// How it is to be packed; `None`: either way.
    pub(crate) packing: Option<Packing>,
    /// Type of the body or of each part, perhaps with wildcards.
    pub(crate) media_type: MediaType,
    /// `transfer-syntax`: a UID or `*`.
    pub(crate) transfer_syntax: Option<String>,
    /// Weight, 0 to 1000.
    weight: u16,
}

impl Alternative {
    fn from(media_type: MediaType) -> Self {
        let weight = media_type.parameter("q").map_or(1000, weight_of);
        let outer_syntax = media_type.parameter("transfer-syntax").map(str::to_owned);
        match media_type.essence() {
            "multipart/related" | "multipart/*" => {
                // Some clients put the parameters of the part type within the quotes of `type`.
                let inner = media_type.parameter("type").and_then(MediaType::parse).unwrap_or_else(any);
                let inner_syntax = inner.parameter("transfer-syntax").map(str::to_owned);
                let transfer_syntax = outer_syntax.or(inner_syntax);
                Self { packing: Some(Packing::Multipart), media_type: inner, transfer_syntax, weight }
            }
            "*/*" => Self { packing: None, media_type, transfer_syntax: outer_syntax, weight },
            _ => Self { packing: Some(Packing::Single), media_type, transfer_syntax: outer_syntax, weight },
        }
    }

    /// Whether this packing is meant.
    pub(crate) fn allows(&self, packing: Packing) -> bool {
        self.packing.is_none_or(|own| own == packing)
    }
}

fn any() -> MediaType {
    MediaType { essence: "*/*".into(), parameters: Vec::new() }
}

fn weight_of(text: &str) -> u16 {
    match text.parse::<f32>() {
        Ok(weight) if (0.0..=1.0).contains(&weight) => (weight * 1000.0) as u16,
        _ => 1000,
    }
}

/// What a client accepts, best first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Accept(Vec<Alternative>);

impl Accept {
    /// Reads an `Accept` value. What can't be read is passed over; if nothing is left, everything is accepted.
    pub(crate) fn parse(text: &str) -> Self {
        let mut alternatives: Vec<_> =
            split_outside_quotes(text, b',').filter_map(MediaType::parse).map(Alternative::from).collect();
        if alternatives.is_empty() {
            alternatives.push(Alternative::from(any()));
        }
        alternatives.retain(|alternative| alternative.weight > 0);
        alternatives.sort_by_key(|alternative| std::cmp::Reverse(alternative.weight));
        Self(alternatives)
    }

    /// The alternatives, best first; those of one weight in the order written.
    pub(crate) fn alternatives(&self) -> &[Alternative] {
        &self.0
    }

    /// The first of the single-part types `offered` that is accepted.
    pub(crate) fn choose<'a>(&self, offered: &[&'a str]) -> Option<&'a str> {
        self.0
            .iter()
            .filter(|a| a.allows(Packing::Single))
            .find_map(|alternative| offered.iter().find(|essence| alternative.media_type.covers(essence)).copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Alternative {
        let accept = Accept::parse(text);
        assert_eq!(accept.alternatives().len(), 1, "{text}");
        accept.alternatives()[0].clone()
    }

    #[test]
    fn the_values_that_viewers_send_are_understood() {
        for text in [
            "multipart/related; type=application/octet-stream; transfer-syntax=*",
            "multipart/related; type=\"application/octet-stream\"; transfer-syntax=\"*\"",
            "Multipart/Related;TYPE=\"application/octet-stream; transfer-syntax=*\"",
        ] {
            let alternative = one(text);
            assert_eq!(alternative.packing, Some(Packing::Multipart), "{text}");
            assert_eq!(alternative.media_type.essence(), "application/octet-stream", "{text}");
            assert_eq!(alternative.transfer_syntax.as_deref(), Some("*"), "{text}");
        }
        let jls = one("multipart/related; type=image/jls; q=1");
        assert!(jls.media_type.covers("image/jls") && !jls.media_type.covers("image/jp2"));
        let pdf = Accept::parse(
            "multipart/related; type=\"application/pdf\", multipart/related; type=\"application/octet-stream\"",
        );
        let types: Vec<_> = pdf.alternatives().iter().map(|a| a.media_type.essence()).collect();
        assert_eq!(types, ["application/pdf", "application/octet-stream"]);
    }

    #[test]
    fn any_listed_alternative_may_fit() {
        let old = Accept::parse("application/dicom+json, multipart/related; type=\"application/dicom+xml\"");
        assert_eq!(old.choose(&["application/dicom+json"]), Some("application/dicom+json"));
        let browser = Accept::parse("image/avif,image/webp,text/html;q=0.9,*/*;q=0.8");
        assert_eq!(browser.choose(&["application/dicom+json"]), Some("application/dicom+json"));
        assert_eq!(Accept::parse("text/html").choose(&["application/dicom+json"]), None);
        assert_eq!(Accept::parse("application/*").choose(&["application/dicom+json"]), Some("application/dicom+json"));
    }

    #[test]
    fn weights_order_and_exclude() {
        let accept = Accept::parse("text/plain;q=0.1, application/json;q=0, application/dicom+json;q=0.9, */*;q=bad");
        let types: Vec<_> = accept.alternatives().iter().map(|a| a.media_type.essence()).collect();
        assert_eq!(types, ["*/*", "application/dicom+json", "text/plain"]);
    }

    #[test]
    fn wildcard_part_types_and_old_spellings() {
        assert!(one("multipart/related; type=\"*/*\"").media_type.covers("image/jp2"));
        assert!(one("multipart/related; type=image/").media_type.covers("image/jp2"));
        assert!(!one("multipart/related; type=image/*").media_type.covers("application/octet-stream"));
        assert!(one("multipart/related; type=image/x-dicom-rle").media_type.covers("image/dicom-rle"));
        assert!(one("multipart/related").media_type.covers("application/dicom"));
        assert_eq!(one("*").packing, None);
    }

    #[test]
    fn no_text_makes_it_panic() {
        let pieces = ["", ",", ";", "\"", "\\", "=", "/", "*", "a", "é", "\0", " ", "q=", "type=", "multipart/related"];
        let mut seed = 1u64;
        for _ in 0..20_000 {
            let mut text = String::new();
            for _ in 0..seed % 12 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                text.push_str(pieces[(seed >> 33) as usize % pieces.len()]);
            }
            let accept = Accept::parse(&text);
            accept.choose(&["application/dicom+json"]);
            seed = seed.wrapping_add(1);
        }
        assert_eq!(Accept::parse("").alternatives(), Accept::parse("*/*").alternatives());
        assert_eq!(Accept::parse(",;\"").alternatives(), Accept::parse("*/*").alternatives());
    }
}
