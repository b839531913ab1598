//! WADO-RS: instances, versions, conditional and range requests, damage.

use super::{
    files::{EXPLICIT, IMPLICIT, J2K, ct},
    http::Server,
};
use cairn_dicom::{TransferSyntax, convert::convert};
use cairn_service_api::retrieval::Part;

const STUDY: &str = "/studies/1.2.3";
const INSTANCE: &str = "/studies/1.2.3/series/1.2.3.4/instances/1.2.3.4.1";
const PARTS: &str = "multipart/related; type=\"application/dicom\"; transfer-syntax=*";

async fn with(files: &[Vec<u8>]) -> Server {
    let server = Server::plain().await;
    for file in files {
        server.archive.hold(file).expect("readable");
    }
    server
}

fn request(method: &str, path: &str, fields: &str) -> String {
    format!("{method} /dicom-web{path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
}

#[tokio::test]
async fn studies_and_series_come_whole_and_in_order() {
    let files: Vec<_> = (1..=20).map(|n| ct(n, 300_000).file()).collect();
    let server = with(&files).await;
    for path in [STUDY, "/studies/1.2.3/series/1.2.3.4"] {
        let answer = server.get(path, PARTS).await;
        assert_eq!(answer.status, 200);
        let parts = answer.parts();
        assert_eq!(parts.len(), 20);
        for (n, (head, content)) in parts.iter().enumerate() {
            assert!(
                head.contains(&format!("Content-Location: {STUDY_PATH}/series/1.2.3.4/instances/1.2.3.4.{}", n + 1))
            );
            assert_eq!(*content, files[n]);
        }
    }
    for path in ["/studies/9", "/studies/1.2.3/series/9", "/studies/1.2.3/series/1.2.3.4/instances/9"] {
        assert_eq!(server.get(path, PARTS).await.status, 404, "{path}");
        assert_eq!(server.get(&format!("{path}/metadata"), "*/*").await.status, 404, "{path}");
    }
    assert_eq!(server.get("/studies/x", PARTS).await.status, 400);
}

const STUDY_PATH: &str = "/dicom-web/studies/1.2.3";

#[tokio::test]
async fn one_body_for_one_instance() {
    let file = ct(1, 3000).file();
    let server = with(&[file.clone(), ct(2, 10).file()]).await;
    let answer = server.get(INSTANCE, "application/dicom").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/dicom")));
    assert_eq!(answer.header("content-length"), Some(file.len().to_string().as_str()));
    assert_eq!(answer.body, file);
    assert_eq!(server.get(STUDY, "application/dicom").await.status, 406);
    let alone = with(std::slice::from_ref(&file)).await;
    assert_eq!(alone.get(STUDY, "application/dicom").await.body, file);
    assert_eq!(alone.get(STUDY, "image/jpeg").await.status, 406);
    assert_eq!(alone.get(&format!("{INSTANCE}?rendered=yes"), "*/*").await.status, 400);
}

#[tokio::test]
async fn uncompressed_instances_in_other_uncompressed_syntaxes() {
    let file = ct(1, 400_000).file();
    let server = with(&[file.clone(), ct(2, 0).frames(J2K, &[&[1; 100]]).file()]).await;
    let offset = server.archive.state().held[0].record.data_set_offset as usize;
    let syntax = TransferSyntax::from_uid;
    let expected = convert(&file[offset..], &syntax(EXPLICIT), &syntax(IMPLICIT)).expect("converts");
    for accept in [
        "application/dicom; transfer-syntax=1.2.840.10008.1.2",
        "multipart/related; type=\"application/dicom\"; transfer-syntax=1.2.840.10008.1.2",
    ] {
        let answer = server.get(INSTANCE, accept).await;
        assert_eq!(answer.status, 200, "{accept}");
        let content = if accept.starts_with('m') { answer.parts().remove(0).1 } else { answer.body };
        assert!(content.ends_with(&expected), "{accept}");
        assert!(memchr::memmem::find(&content[..400], b"1.2.840.10008.1.2\0").is_some());
    }
    let implicit = "multipart/related; type=\"application/dicom\"; transfer-syntax=1.2.840.10008.1.2";
    assert_eq!(server.get(STUDY, implicit).await.status, 406, "one of them is compressed");
    let second = "/studies/1.2.3/series/1.2.3.4/instances/1.2.3.4.2";
    assert_eq!(server.get(second, implicit).await.status, 406);
    assert_eq!(server.get(second, "multipart/related; type=\"application/dicom\"").await.status, 200);
}

#[tokio::test]
async fn versions_can_all_be_fetched() {
    let (first, second) = (ct(1, 100).file(), ct(1, 200).file());
    let server = with(&[first.clone(), second.clone()]).await;
    assert_eq!(server.get(INSTANCE, "application/dicom").await.body, first);
    let list = server.get(&format!("{INSTANCE}/versions"), "application/json").await;
    assert_eq!(list.status, 200);
    assert_eq!(list.text().matches("\"shown\":true").count(), 1);
    assert_eq!(list.text().matches("\"shown\":false").count(), 1);
    for file in [&first, &second] {
        let digest = blake3::hash(file).to_hex();
        assert!(list.text().contains(&format!("\"url\":\"/dicom-web{INSTANCE}/versions/{digest}\"")));
        for accept in ["*/*", "application/dicom"] {
            let answer = server.get(&format!("{INSTANCE}/versions/{digest}"), accept).await;
            assert_eq!((answer.status, answer.body == *file), (200, true));
        }
    }
    assert_eq!(server.get(&format!("{INSTANCE}/versions/{}", "0".repeat(64)), "*/*").await.status, 404);
    assert_eq!(server.get(&format!("{INSTANCE}/versions/nonsense"), "*/*").await.status, 404);
}

#[tokio::test]
async fn ranges_of_a_file() {
    let file = ct(1, 100_000).file();
    let server = with(std::slice::from_ref(&file)).await;
    let ask = |range: &str| request("GET", INSTANCE, &format!("Accept: application/dicom\r\nRange: {range}\r\n"));
    let answer = server.ask(&ask("bytes=1000-1999")).await;
    assert_eq!((answer.status, answer.body.as_slice()), (206, &file[1000..2000]));
    assert_eq!(answer.header("content-range"), Some(format!("bytes 1000-1999/{}", file.len()).as_str()));
    assert_eq!(server.archive.state().ranges.last(), Some(&Part::FileRange(1000..2000)), "no more is read");
    assert_eq!(server.ask(&ask("bytes=-7")).await.body, file[file.len() - 7..]);
    let beyond = server.ask(&ask(&format!("bytes={}-", file.len()))).await;
    assert_eq!(
        (beyond.status, beyond.header("content-range")),
        (416, Some(format!("bytes */{}", file.len()).as_str()))
    );
    assert_eq!(server.ask(&ask("bytes=1-0")).await.status, 200);
    assert_eq!(server.ask(&ask("bytes=0-1,4-5")).await.status, 200);
}

#[tokio::test]
async fn entity_tags_and_heads() {
    let server = with(&[ct(1, 1024).file()]).await;
    let mut tags = std::collections::BTreeSet::new();
    for (path, accept) in [
        (INSTANCE.to_owned(), "application/dicom"),
        (INSTANCE.to_owned(), PARTS),
        (format!("{INSTANCE}/frames/1"), "multipart/related; type=application/octet-stream"),
        (format!("{INSTANCE}/frames/1"), "application/octet-stream"),
        (format!("{INSTANCE}/metadata"), "application/dicom+json"),
        (format!("{STUDY}/metadata"), "application/dicom+json"),
    ] {
        let fields = format!("Accept: {accept}\r\n");
        let answer = server.ask(&request("GET", &path, &fields)).await;
        let tag = answer.header("etag").unwrap_or_else(|| panic!("{path} has a tag")).to_owned();
        assert!(tags.insert(tag.clone()), "{path} {accept} has a tag of its own");
        let again = server.ask(&request("GET", &path, &format!("{fields}If-None-Match: {tag}\r\n"))).await;
        assert_eq!((again.status, again.header("etag")), (304, Some(tag.as_str())), "{path}");
        let other = server.ask(&request("GET", &path, &format!("{fields}If-None-Match: \"x\"\r\n"))).await;
        assert_eq!(other.status, 200);
        let head = server.ask(&request("HEAD", &path, &fields)).await;
        assert_eq!((head.status, head.header("etag")), (200, Some(tag.as_str())), "{path}");
        if !path.ends_with("metadata") {
            assert_eq!(head.header("content-length"), answer.header("content-length"), "{path}");
        }
        assert!(head.body.is_empty());
    }
    let before = server.get(&format!("{STUDY}/metadata"), "*/*").await.header("etag").map(str::to_owned);
    server.archive.hold(&ct(2, 10).file()).expect("readable");
    assert_ne!(server.get(&format!("{STUDY}/metadata"), "*/*").await.header("etag").map(str::to_owned), before);
    assert_eq!(server.ask(&request("HEAD", STUDY, &format!("Accept: {PARTS}\r\n"))).await.status, 200);
    assert_eq!(server.ask(&request("HEAD", "/studies/9", "Accept: */*\r\n")).await.status, 404);
    assert_eq!(server.ask(&request("HEAD", "/studies", "Accept: */*\r\n")).await.status, 200);
}

#[tokio::test]
async fn damage_is_never_served_as_whole() {
    let files: Vec<_> = (1..=3).map(|n| ct(n, 600_000).file()).collect();
    let server = with(&files).await;
    let digest = |n: usize| server.archive.state().held[n].record.object.digest;
    // In the first bytes: there is still time for a status.
    server.archive.state().damaged = vec![(digest(0), 0)];
    for (path, accept) in [(INSTANCE, "application/dicom"), (INSTANCE, PARTS), (STUDY, PARTS)] {
        let answer = server.get(path, accept).await;
        assert_eq!(answer.status, 500, "{path} {accept}");
        assert!(!answer.text().contains("digest"));
    }
    // Later: the answer is cut, so that no client takes it for whole.
    server.archive.state().damaged = vec![(digest(1), 1)];
    let answer = server.get(STUDY, PARTS).await;
    assert_eq!((answer.status, answer.whole), (200, false));
    let second = "/studies/1.2.3/series/1.2.3.4/instances/1.2.3.4.2";
    let answer = server.get(second, "application/dicom").await;
    assert_eq!((answer.status, answer.whole), (200, false));
    assert_eq!(server.get(INSTANCE, "application/dicom").await.body, files[0]);
}

#[tokio::test]
async fn large_metadata_streams() {
    let files: Vec<_> = (1..=300).map(|n| ct(n, 0).frames(EXPLICIT, &[]).file()).collect();
    let server = with(&files).await;
    let answer = server.get(&format!("{STUDY}/metadata"), "*/*").await;
    assert_eq!(answer.text().matches("\"00080018\"").count(), 300);
    let places: Vec<_> = (1..=300).map(|n| answer.text().find(&format!("[\"1.2.3.4.{n}\"]")).expect("there")).collect();
    assert!(places.is_sorted());
    assert!(answer.header("etag").is_some());
    let mut config = cairn_dicomweb::DicomWebConfig::default();
    config.limits.metadata_buffer_bytes = 1000;
    let small = Server::start(config).await;
    files.iter().for_each(|file| drop(small.archive.hold(file).expect("readable")));
    let streamed = small.get(&format!("{STUDY}/metadata"), "*/*").await;
    assert_eq!((streamed.header("etag"), streamed.header("transfer-encoding")), (None, Some("chunked")));
    assert_eq!(streamed.text().len(), answer.text().len());
    // The same where others hold all the room there is; what is small is held back all the same.
    let mut config = cairn_dicomweb::DicomWebConfig::default();
    config.limits.metadata_buffers_bytes = 0;
    let full = Server::start(config).await;
    files.iter().for_each(|file| drop(full.archive.hold(file).expect("readable")));
    let streamed = full.get(&format!("{STUDY}/metadata"), "*/*").await;
    assert_eq!((streamed.header("etag"), streamed.text().len()), (None, answer.text().len()));
    assert!(full.get(&format!("{INSTANCE}/metadata"), "*/*").await.header("etag").is_some());
    // Room is given back: enough for one such answer, or few, is enough for twenty one after the other.
    let mut config = cairn_dicomweb::DicomWebConfig::default();
    config.limits.metadata_buffers_bytes = 1 << 20;
    let enough = Server::start(config).await;
    files.iter().for_each(|file| drop(enough.archive.hold(file).expect("readable")));
    for _ in 0..20 {
        assert!(enough.get(&format!("{STUDY}/metadata"), "*/*").await.header("etag").is_some());
    }
}

#[tokio::test]
async fn pixel_data_as_a_whole() {
    let frames: [&[u8]; 3] = [&[1; 10], &[2; 20], &[3; 30]];
    let server = with(&[ct(1, 0).frames(J2K, &frames).file()]).await;
    for path in ["pixeldata", "bulkdata/7FE00010"] {
        let parts = server.get(&format!("{INSTANCE}/{path}"), "*/*").await.parts();
        let contents: Vec<_> = parts.iter().map(|(_, content)| content.as_slice()).collect();
        assert_eq!(contents, frames, "{path}");
        assert!(parts[0].0.starts_with("Content-Type: image/jp2; transfer-syntax="));
    }
    let native = with(&[ct(1, 5000).file()]).await;
    let answer = native.get(&format!("{INSTANCE}/bulkdata/7FE00010"), "*/*").await;
    assert_eq!(answer.body, ct(1, 5000).frames[0]);
    let none = with(&[ct(1, 0).frames(EXPLICIT, &[]).file()]).await;
    assert_eq!(none.get(&format!("{INSTANCE}/pixeldata"), "*/*").await.status, 404);
}
