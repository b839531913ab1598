//! In which form stored bytes are given, as the client accepts and the stored transfer syntax allows.

use crate::{
    media_type::{Accept, Alternative, Packing},
    respond::OCTET_STREAM,
};
use cairn_dicom::{TransferSyntax, transfer_syntax::PixelCoding};

const EXPLICIT_VR_LITTLE_ENDIAN: &str = "1.2.840.10008.1.2.1";
const IMPLICIT_VR_LITTLE_ENDIAN: &str = "1.2.840.10008.1.2";

/// `application/dicom`
pub(super) const DICOM: &str = "application/dicom";

/// Which transfer syntax an instance is given in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Delivery {
    /// That in which it is stored: the bytes as they are.
    AsStored,
    /// Another uncompressed one.
    Converted(TransferSyntax),
}

/// How one instance stored in `stored` is packed and given; `None`: not at all in an acceptable way. `either`: the
/// packing where the client takes both.
///
/// It is given as it is stored where that fits, be it further down in the client's list, for those are the original
/// bytes. Without a `transfer-syntax` parameter the Standard's default is Explicit VR Little Endian (PS3.18 section
/// 8.7.3.5.2); we give it as stored then too: the file says what it is in, and refusing it would help nobody.
pub(super) fn delivery(accept: &Accept, stored: &TransferSyntax, either: Packing) -> Option<(Packing, Delivery)> {
    best(for_instances(accept), stored).map(|(a, delivery)| (a.packing.unwrap_or(either), delivery))
}

/// How an instance stored in `stored` is given as a part of a message.
pub(super) fn delivery_as_part(accept: &Accept, stored: &TransferSyntax) -> Option<Delivery> {
    best(multipart_for_instances(accept), stored).map(|(_, delivery)| delivery)
}

fn best<'a>(
    alternatives: impl Iterator<Item = &'a Alternative> + Clone,
    stored: &TransferSyntax,
) -> Option<(&'a Alternative, Delivery)> {
    let is_stored = |a: &&Alternative| a.transfer_syntax.as_deref().is_none_or(|s| s == "*" || s == stored.uid());
    let as_stored = alternatives.clone().find(is_stored).map(|alternative| (alternative, Delivery::AsStored));
    as_stored.or_else(|| {
        let plain = [EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN];
        let wanted = |a: &Alternative| a.transfer_syntax.clone().filter(|syntax| plain.contains(&syntax.as_str()));
        let (alternative, syntax) = alternatives.filter(|_| stored.is_native()).find_map(|a| Some((a, wanted(a)?)))?;
        Some((alternative, Delivery::Converted(TransferSyntax::from_uid(&syntax))))
    })
}

/// Whether instances can be packed so.
pub(super) fn allows(accept: &Accept, packing: Packing) -> bool {
    for_instances(accept).any(|alternative| alternative.allows(packing))
}

/// Whether instances in any transfer syntax can be parts of a message.
pub(super) fn any_is_given_as_part(accept: &Accept) -> bool {
    multipart_for_instances(accept).any(|a| a.transfer_syntax.as_deref().is_none_or(|syntax| syntax == "*"))
}

fn for_instances(accept: &Accept) -> impl Iterator<Item = &Alternative> + Clone {
    accept.alternatives().iter().filter(|alternative| alternative.media_type.covers(DICOM))
}

fn multipart_for_instances(accept: &Accept) -> impl Iterator<Item = &Alternative> + Clone {
    for_instances(accept).filter(|alternative| alternative.allows(Packing::Multipart))
}

/// How frames are given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FrameForm {
    pub(super) packing: Packing,
    /// Type of one frame.
    pub(super) media_type: &'static str,
    /// The transfer syntax that its bytes are in.
    pub(super) syntax: String,
}

impl FrameForm {
    /// `Content-Type` of one frame. The parameter is what tells viewers how to decode it.
    pub(super) fn content_type(&self) -> String {
        format!("{}; transfer-syntax={}", self.media_type, self.syntax)
    }
}

/// Media type of one compressed frame (PS3.18 Table 8.7.3-5, edition 2025c); `None`: none is registered.
fn media_type_of(syntax: &TransferSyntax) -> Option<&'static str> {
    let last = syntax.uid().strip_prefix("1.2.840.10008.1.2.")?;
    Some(match last {
        "4.50" | "4.51" | "4.57" | "4.70" => "image/jpeg",
        "4.80" | "4.81" => "image/jls",
        "4.90" | "4.91" => "image/jp2",
        "4.92" | "4.93" => "image/jpx",
        "4.100" | "4.100.1" | "4.101" | "4.101.1" => "video/mpeg",
        "4.102" | "4.102.1" | "4.103" | "4.103.1" | "4.104" | "4.104.1" => "video/mp4",
        "4.105" | "4.105.1" | "4.106" | "4.106.1" | "4.107" | "4.108" => "video/mp4",
        "4.110" | "4.111" | "4.112" => "image/jxl",
        "4.201" | "4.202" | "4.203" => "image/jphc",
        "5" => "image/dicom-rle",
        _ => return None,
    })
}

/// How frames of an instance stored in `stored` are given; `None`: not at all in an acceptable way.
///
/// `single`: whether they can be one body, which takes one frame.
pub(super) fn frame_form(accept: &Accept, stored: &TransferSyntax, single: bool) -> Option<FrameForm> {
    // Uncompressed frames have the same bytes in every syntax, for they are given in little endian; a deflated data set
    // is inflated for them.
    let plain = matches!(stored.pixels, PixelCoding::Native | PixelCoding::Uncompressed);
    let syntax = if plain { EXPLICIT_VR_LITTLE_ENDIAN } else { stored.uid() };
    let own_type = if plain { OCTET_STREAM } else { media_type_of(stored).unwrap_or(OCTET_STREAM) };
    accept.alternatives().iter().find_map(|alternative| {
        let packing = alternative.packing.unwrap_or(Packing::Multipart);
        if packing == Packing::Single && !single {
            return None;
        }
        let syntax = match alternative.transfer_syntax.as_deref() {
            Some("*") => syntax,
            Some(uid) if uid == syntax || (uid == stored.uid() && !stored.encoding.is_big_endian()) => uid,
            Some(uid) if plain && uid == IMPLICIT_VR_LITTLE_ENDIAN => uid,
            Some(_) => return None,
            // Without the parameter, bytes with no type of their own are Explicit VR Little Endian.
            None if alternative.media_type.essence() == OCTET_STREAM && !plain => return None,
            None => syntax,
        };
        // A client that says `octet-stream; transfer-syntax=*` takes compressed frames under that name too.
        let media_type = [own_type, OCTET_STREAM].into_iter().find(|offered| alternative.media_type.covers(offered))?;
        Some(FrameForm { packing, media_type, syntax: syntax.to_owned() })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(accept: &str, stored: &str) -> Option<String> {
        let form = frame_form(&Accept::parse(accept), &TransferSyntax::from_uid(stored), true)?;
        Some(format!("{:?} {}", form.packing, form.content_type()))
    }

    const LE: &str = "1.2.840.10008.1.2.1";
    const J2K: &str = "1.2.840.10008.1.2.4.90";

    #[test]
    fn frames_in_the_forms_that_viewers_ask_for() {
        let f1 = "multipart/related; type=application/octet-stream; transfer-syntax=*";
        assert_eq!(
            frame(f1, LE).as_deref(),
            Some("Multipart application/octet-stream; transfer-syntax=1.2.840.10008.1.2.1")
        );
        assert_eq!(
            frame(f1, J2K).as_deref(),
            Some("Multipart application/octet-stream; transfer-syntax=1.2.840.10008.1.2.4.90")
        );
        for (accept, stored, expected) in [
            ("multipart/related; type=image/jp2", J2K, Some("Multipart image/jp2")),
            ("multipart/related; type=image/jls; q=1", J2K, None),
            (
                "multipart/related; type=\"image/*\", multipart/related; type=application/octet-stream",
                LE,
                Some("Multipart application/octet-stream"),
            ),
            ("*/*", J2K, Some("Multipart image/jp2")),
            ("multipart/related; type=\"*/*\"", J2K, Some("Multipart image/jp2")),
            ("image/jp2", J2K, Some("Single image/jp2")),
            ("application/octet-stream", LE, Some("Single application/octet-stream")),
            ("application/octet-stream", J2K, None),
            (
                "multipart/related; type=application/octet-stream; transfer-syntax=1.2.840.10008.1.2.2",
                "1.2.840.10008.1.2.2",
                None,
            ),
            (
                "multipart/related; type=application/octet-stream; transfer-syntax=*",
                "1.2.840.10008.1.2.2",
                Some("Multipart application/octet-stream; transfer-syntax=1.2.840.10008.1.2.1"),
            ),
            (
                "multipart/related; type=application/octet-stream; transfer-syntax=1.2.840.10008.1.2",
                LE,
                Some("Multipart application/octet-stream; transfer-syntax=1.2.840.10008.1.2"),
            ),
            ("multipart/related; type=image/jp2; transfer-syntax=1.2.840.10008.1.2.4.91", J2K, None),
            (
                "multipart/related; type=application/octet-stream",
                "1.2.840.10008.1.2.1.99",
                Some("Multipart application/octet-stream; transfer-syntax=1.2.840.10008.1.2.1"),
            ),
            ("multipart/related; type=image/x-dicom-rle", "1.2.840.10008.1.2.5", Some("Multipart image/dicom-rle")),
            ("multipart/related; type=image/jphc", "1.2.840.10008.1.2.4.202", Some("Multipart image/jphc")),
            ("text/html", LE, None),
        ] {
            let form = frame(accept, stored);
            let fits = match (&form, expected) {
                (Some(form), Some(expected)) => form.starts_with(expected),
                (form, expected) => form.is_none() && expected.is_none(),
            };
            assert!(fits, "{accept} for {stored}: {form:?}");
        }
        assert_eq!(frame_form(&Accept::parse("image/jp2"), &TransferSyntax::from_uid(J2K), false), None);
    }

    #[test]
    fn instances_in_an_acceptable_syntax() {
        let packing = |accept: &str, stored: &str| {
            delivery(&Accept::parse(accept), &TransferSyntax::from_uid(stored), Packing::Multipart)
        };
        let multipart = "multipart/related; type=\"application/dicom\"";
        let asking = |uid: &str| format!("{multipart}; transfer-syntax={uid}");
        let parts = Some((Packing::Multipart, Delivery::AsStored));
        let single = Some((Packing::Single, Delivery::AsStored));
        let converted = |uid: &str| Some((Packing::Multipart, Delivery::Converted(TransferSyntax::from_uid(uid))));
        let implicit = "1.2.840.10008.1.2";
        for stored in [LE, J2K, implicit] {
            assert_eq!(packing(multipart, stored), parts, "{stored}");
            assert_eq!(packing(&asking("*"), stored), parts, "{stored}");
            assert_eq!(packing("*/*", stored), parts, "{stored}");
            assert_eq!(packing("application/dicom", stored), single, "{stored}");
        }
        assert_eq!(packing(&asking(J2K), J2K), parts);
        assert_eq!(
            (packing(&asking(J2K), LE), packing(&asking(LE), J2K), packing("text/html", LE)),
            (None, None, None)
        );
        assert_eq!(packing(&asking(LE), implicit), converted(LE));
        assert_eq!(packing(&asking(implicit), "1.2.840.10008.1.2.2"), converted(implicit));
        assert_eq!(packing(&asking("1.2.840.10008.1.2.2"), LE), None);
        let either = format!("application/dicom; transfer-syntax={J2K}, {}", asking("*"));
        assert_eq!((packing(&either, J2K), packing(&either, LE)), (single, parts.clone()));
        assert_eq!(packing(&format!("{}, {}", asking(LE), asking("*")), implicit), parts);
        let only_le = Accept::parse(&asking(LE));
        assert_eq!(delivery_as_part(&only_le, &TransferSyntax::from_uid(LE)), Some(Delivery::AsStored));
        assert!(!any_is_given_as_part(&only_le) && any_is_given_as_part(&Accept::parse("*/*")));
        assert!(!allows(&Accept::parse("application/dicom"), Packing::Multipart));
    }
}
