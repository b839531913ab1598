//! What a request says, whatever its resource: path, query, acceptable media types, and the address that the client
//! knows the server by.

use crate::{
    config::{DicomWebConfig, PublicUrl},
    media_type::Accept,
    problem::Problem,
    server::PeerAddress,
};
use axum::http::{HeaderMap, Method, header, request::Parts};
use cairn_archive::PositionVector;
use cairn_dicom::Uid;

/// Carries the position after which an answer is wanted, and that after which an instance can be found.
pub(crate) const READ_AFTER: &str = "cairn-read-after";

/// Other sites that must hold the instances of a STOW-RS request before success; in its answer, how many do at least.
pub(crate) const CONFIRMED_SITES: &str = "cairn-confirmed-sites";

/// One parameter of a query string, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parameter {
    /// Name.
    pub(crate) name: String,
    /// Value; `+` is a space, as HTML forms write it.
    pub(crate) value: String,
    /// Value; `+` is a plus sign.
    pub(crate) value_with_plus: String,
}

/// The UIDs in a path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PathUids {
    /// Study Instance UID.
    pub(crate) study: Option<Uid>,
    /// Series Instance UID.
    pub(crate) series: Option<Uid>,
    /// SOP Instance UID.
    pub(crate) instance: Option<Uid>,
}

/// A request without its body.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// Method.
    pub(crate) method: Method,
    /// Header fields.
    pub(crate) headers: HeaderMap,
    /// UIDs in the path.
    pub(crate) uids: PathUids,
    /// What stands in the path after the last known resource, such as a frame list.
    pub(crate) rest: Vec<String>,
    /// Parameters of the query, but for `accept`.
    pub(crate) query: Vec<Parameter>,
    /// Acceptable media types: those of the `accept` parameters, else of the header.
    pub(crate) accept: Accept,
    /// Where the server is, as the client sees it.
    pub(crate) address: Address,
    /// Address and port of the peer, as text.
    pub(crate) peer: String,
}

impl Call {
    /// Reads a request's head.
    ///
    /// # Errors
    /// 400 when path or query are not percent-encoded UTF-8, or a UID in the path is none.
    pub(crate) fn read(parts: &Parts, config: &DicomWebConfig) -> Result<Self, Problem> {
        let mut query = parse_query(parts.uri.query().unwrap_or_default())?;
        let asked: Vec<_> = query.extract_if(.., |p| p.name == "accept").map(|p| p.value_with_plus).collect();
        let accept = match asked.join(",") {
            asked if !asked.trim().is_empty() => Accept::parse(&asked),
            _ => Accept::parse(&joined(&parts.headers, header::ACCEPT)),
        };
        let (uids, rest) = parse_path(parts.uri.path())?;
        let peer = parts.extensions.get::<PeerAddress>().map(|PeerAddress(peer)| peer.to_string());
        Ok(Self {
            method: parts.method.clone(),
            headers: parts.headers.clone(),
            uids,
            rest,
            query,
            accept,
            address: Address::of(&parts.headers, config),
            peer: peer.unwrap_or_default(),
        })
    }

    /// The position in `Cairn-Read-After`.
    pub(crate) fn read_after(&self) -> Result<Option<PositionVector>, Problem> {
        let Some(value) = self.headers.get(READ_AFTER) else {
            return Ok(None);
        };
        let token = value.to_str().ok().and_then(|text| text.parse().ok());
        token.map(Some).ok_or_else(|| Problem::bad_request("Cairn-Read-After is not a token of this server"))
    }

    /// Other sites that must hold what is stored before success; 0 where the request does not say.
    pub(crate) fn confirmed_sites(&self) -> Result<u32, Problem> {
        let Some(value) = self.headers.get(CONFIRMED_SITES) else {
            return Ok(0);
        };
        let number = value.to_str().ok().and_then(|text| text.trim().parse().ok());
        number.ok_or_else(|| Problem::bad_request("Cairn-Confirmed-Sites is not a number of sites"))
    }

    /// Refuses parameters that the resource does not have. Those of the media types are for every retrieval.
    pub(crate) fn no_other_parameters(&self) -> Result<(), Problem> {
        let known = |p: &Parameter| matches!(p.name.as_str(), "charset" | "transfer-syntax");
        match self.query.iter().any(|p| !known(p)) {
            true => Err(Problem::bad_request("this resource has no such query parameter")),
            false => Ok(()),
        }
    }
}

/// All fields of one name, as one value.
pub(crate) fn joined(headers: &HeaderMap, name: header::HeaderName) -> String {
    let values: Vec<_> = headers.get_all(name).iter().map(|v| String::from_utf8_lossy(v.as_bytes())).collect();
    values.join(",")
}

/// The server's address in URLs that answers hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    origin: String,
    base: String,
    /// The origin is configured: what is told of it holds for every client.
    is_public: bool,
}

impl Address {
    fn of(headers: &HeaderMap, config: &DicomWebConfig) -> Self {
        if let Some(PublicUrl { origin, path }) = config.public_url.clone() {
            return Self { origin, base: path, is_public: true };
        }
        let forwarded = |name: &str| {
            let value = headers.get(name).filter(|_| config.trust_forwarded_headers)?.to_str().ok()?;
            Some(value.split(',').next().unwrap_or_default().trim().to_owned())
        };
        let host_field = || headers.get(header::HOST).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let host = forwarded("x-forwarded-host").or_else(host_field).filter(|host| is_host(host));
        let scheme = forwarded("x-forwarded-proto").filter(|scheme| scheme == "https");
        let origin = host.map(|host| format!("{}://{host}", scheme.as_deref().unwrap_or("http")));
        let prefix = forwarded("x-forwarded-prefix").filter(|prefix| is_path(prefix)).unwrap_or_default();
        let base = format!("{}{}", prefix.trim_end_matches('/'), config.base_path.trim_end_matches('/'));
        Self { origin: origin.unwrap_or_default(), base, is_public: false }
    }

    /// URL of a study, series or instance: absolute when the client said how it calls the server, else root-relative.
    pub(crate) fn retrieve_url(&self, uids: &PathUids) -> String {
        format!("{}{}", self.origin, self.path(uids))
    }

    /// Address of what is below a study, series or instance: absolute where the server's own is configured. Else
    /// root-relative, so that it holds however the server is called.
    pub(crate) fn lasting_url(&self, uids: &PathUids) -> String {
        if self.is_public { self.retrieve_url(uids) } else { self.path(uids) }
    }

    /// Root-relative path of a study, series or instance.
    pub(crate) fn path(&self, uids: &PathUids) -> String {
        let mut path = self.base.clone();
        for (name, uid) in [("studies", &uids.study), ("series", &uids.series), ("instances", &uids.instance)] {
            if let Some(uid) = uid {
                path.push('/');
                path.push_str(name);
                path.push('/');
                path.push_str(uid.as_str());
            }
        }
        path
    }
}

pub(crate) fn is_host(text: &str) -> bool {
    (1..=255).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'[' | b']'))
}

pub(crate) fn is_path(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'.' | b'-' | b'_' | b'~');
    text.starts_with('/') && !text.starts_with("//") && text.len() <= 1024 && text.bytes().all(allowed)
}

fn parse_path(path: &str) -> Result<(PathUids, Vec<String>), Problem> {
    let mut uids = PathUids::default();
    let mut rest = Vec::new();
    let mut segments = path.split('/').skip(1);
    while let Some(segment) = segments.next() {
        let place = match segment {
            "studies" if rest.is_empty() => &mut uids.study,
            "series" if rest.is_empty() => &mut uids.series,
            "instances" if rest.is_empty() => &mut uids.instance,
            other => {
                rest.push(decode(other, false)?);
                continue;
            }
        };
        if let Some(text) = segments.next() {
            let uid = decode(text, false)?.parse().map_err(|_| Problem::bad_request("the path holds a bad UID"))?;
            *place = Some(uid);
        }
    }
    Ok((uids, rest))
}

fn parse_query(query: &str) -> Result<Vec<Parameter>, Problem> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok(Parameter {
                name: decode(name, false)?,
                value: decode(value, true)?,
                value_with_plus: decode(value, false)?,
            })
        })
        .collect()
}

/// Undoes percent-encoding. What is no valid escape, not UTF-8, or a control character is refused.
fn decode(text: &str, plus_is_space: bool) -> Result<String, Problem> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut left = text.bytes();
    while let Some(byte) = left.next() {
        bytes.push(match byte {
            b'%' => {
                let digit = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16));
                match (digit(left.next()), digit(left.next())) {
                    (Some(high), Some(low)) => (high * 16 + low) as u8,
                    _ => return Err(Problem::bad_request("the address holds a broken percent-escape")),
                }
            }
            b'+' if plus_is_space => b' ',
            other => other,
        });
    }
    let text = String::from_utf8(bytes).map_err(|_| Problem::bad_request("the address is not UTF-8"))?;
    if text.chars().any(char::is_control) {
        return Err(Problem::bad_request("the address holds a control character"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::Request;

    fn call(uri: &str, headers: &[(&str, &str)], config: &DicomWebConfig) -> Result<Call, Problem> {
        let mut request = Request::get(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Call::read(&request.body(()).expect("a request").into_parts().0, config)
    }

    fn plain(uri: &str) -> Result<Call, Problem> {
        call(uri, &[], &DicomWebConfig::default())
    }

    #[test]
    fn paths_give_uids_and_what_follows_them() {
        let call = plain("/studies/1.2/series/1.3/instances/1.4/frames/1,2").expect("valid");
        assert_eq!(call.uids.instance.as_ref().map(Uid::as_str), Some("1.4"));
        assert_eq!(call.rest, ["frames", "1,2"]);
        let call = plain("/studies/1.2/series").expect("valid");
        assert_eq!((call.uids.study.is_some(), call.uids.series), (true, None));
        assert_eq!(plain("/studies/1.2/metadata").expect("valid").rest, ["metadata"]);
    }

    #[test]
    fn an_unusable_address_is_refused() {
        for uri in [
            "/studies/%00",
            "/studies/a",
            "/studies/1.2%00",
            "/studies/%ff",
            "/studies/%2e%2e",
            "/studies/%",
            "/studies?PatientName=%00",
            "/studies?PatientName=%ff",
            "/studies?PatientName=%zz",
            "/studies?%ff=a",
            "/studies?PatientID=a%0ab",
            "/studies/",
        ] {
            assert_eq!(plain(uri).map(|c| c.query).map_err(|p| p.status.as_u16()), Err(400), "{uri}");
        }
    }

    #[test]
    fn the_accept_parameter_wins_over_the_header() {
        let headers = [("accept", "multipart/related; type=\"application/octet-stream\"")];
        let call = call("/studies?accept=application/dicom+json&limit=1", &headers, &DicomWebConfig::default());
        let call = call.expect("valid");
        assert_eq!(call.accept, Accept::parse("application/dicom+json"));
        assert_eq!(call.query.len(), 1);
        assert_eq!(plain("/studies?accept=").expect("valid").accept, Accept::parse("*/*"));
    }

    #[test]
    fn pluses_and_escapes_are_read() {
        let call = plain("/studies?PatientName=A+B%2BC&x=%C3%A9&y").expect("valid");
        let read: Vec<_> = call.query.iter().map(|p| (p.value.as_str(), p.value_with_plus.as_str())).collect();
        assert_eq!(read, [("A B+C", "A+B+C"), ("é", "é"), ("", "")]);
    }

    #[test]
    fn forwarded_fields_count_only_when_trusted() {
        let headers = [
            ("host", "inner:8042"),
            ("x-forwarded-host", "pacs.example"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-prefix", "/a/"),
        ];
        let url = |trust, headers: &[(&str, &str)]| {
            let config = DicomWebConfig { trust_forwarded_headers: trust, ..DicomWebConfig::default() };
            let call = call("/studies/1.2", headers, &config).expect("valid");
            (call.address.retrieve_url(&call.uids), call.address.path(&call.uids))
        };
        assert_eq!(url(false, &headers).0, "http://inner:8042/dicom-web/studies/1.2");
        let trusted = url(true, &headers);
        assert_eq!(trusted.0, "https://pacs.example/a/dicom-web/studies/1.2");
        assert_eq!(trusted.1, "/a/dicom-web/studies/1.2");
        assert_eq!(url(true, &[("host", "a\"<b>")]).0, "/dicom-web/studies/1.2");
        assert_eq!(url(true, &[("x-forwarded-prefix", "//evil")]).1, "/dicom-web/studies/1.2");
    }

    #[test]
    fn a_configured_address_is_told_whatever_the_request_says() {
        let public = |url: &str| PublicUrl::try_from(url.to_owned());
        let config = DicomWebConfig {
            public_url: Some(public("https://pacs.example:8443/a/dicom-web/").expect("a URL")),
            trust_forwarded_headers: true,
            ..DicomWebConfig::default()
        };
        let call = call("/studies/1.2", &[("host", "inner"), ("x-forwarded-prefix", "/b")], &config).expect("valid");
        let expected = "https://pacs.example:8443/a/dicom-web/studies/1.2";
        assert_eq!(call.address.retrieve_url(&call.uids), expected);
        assert_eq!(call.address.lasting_url(&call.uids), expected);
        assert_eq!(call.address.path(&call.uids), "/a/dicom-web/studies/1.2");
        assert_eq!(String::from(public("http://pacs").expect("no path")), "http://pacs");
        for bad in ["pacs.example", "ftp://pacs", "https://", "https://a b/", "https://pacs//x", "https://pacs/a?b"] {
            assert!(public(bad).is_err(), "{bad}");
        }
    }
}
