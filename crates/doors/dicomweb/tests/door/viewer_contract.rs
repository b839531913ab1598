//! The requests that OHIF 3.13.2 sends, byte for byte in their Accept values, and the rules that it needs kept. Names
//! are those of the rows: Q queries, M metadata, F frames, B bulk data, I instance, S store, P progressive.

use super::{
    files::{EXPLICIT, J2K, ct},
    http::{Server, stow},
};
use cairn_dicom::{Tag, Vr, dataset::Value, tags};
use cairn_dicomweb::DicomWebConfig;
use cairn_service_api::index::Returning;

const JSON: &str = "application/dicom+json";
const F1: &str = "multipart/related; type=application/octet-stream; transfer-syntax=*";
const F2: &str = "multipart/related; type=\"application/octet-stream\"; transfer-syntax=\"*\"";
const INSTANCE: &str = "/studies/1.2.3/series/1.2.3.4/instances/1.2.3.4.1";

async fn with(files: &[Vec<u8>]) -> Server {
    let server = Server::plain().await;
    for file in files {
        server.archive.hold(file).expect("readable");
    }
    server
}

#[tokio::test]
async fn q1_study_list() {
    let server = with(&[ct(1, 64).file()]).await;
    let path = "/studies?limit=101&offset=0&fuzzymatching=true&includefield=00081030%2C00080060%2C00080090%2C00100030";
    let answer = server.get(path, JSON).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some(JSON)));
    assert!(answer.text().starts_with("[{") && answer.text().ends_with("}]"));
    assert!(
        answer
            .text()
            .contains("\"00081190\":{\"vr\":\"UR\",\"Value\":[\"http://pacs.example/dicom-web/studies/1.2.3\"]}")
    );
    assert!(answer.text().contains("Müller^Jürgen") && answer.text().contains("\"00081030\""));
    let query = server.archive.state().queries.remove(0);
    assert_eq!((query.limit, query.offset), (Some(101), 0));
    assert!(query.options.fuzzy_person_names);
    let Returning::DefaultAnd(included) = query.returning else { panic!("not all") };
    for tag in [0x0008_1030, 0x0008_0060, 0x0008_0090, 0x0010_0030] {
        assert!(included.contains(&Tag(tag)), "{tag:08X}");
    }
}

#[tokio::test]
async fn q2_to_q5_filters_reach_the_index_as_they_are() {
    let server = with(&[]).await;
    for (query, tag, value) in [
        ("PatientName=*Doe*", tags::PATIENT_NAME, "*Doe*"),
        ("StudyDescription=*CHEST*", tags::STUDY_DESCRIPTION, "*CHEST*"),
        ("AccessionNumber=*ACC*", tags::ACCESSION_NUMBER, "*ACC*"),
        ("StudyDate=20260101-20260201", tags::STUDY_DATE, "20260101-20260201"),
        ("ModalitiesInStudy=CT", tags::MODALITIES_IN_STUDY, "CT"),
        ("00100020=*AT*", tags::PATIENT_ID, "*AT*"),
        ("PatientName=Doe", tags::PATIENT_NAME, "Doe"),
        ("00100020=PAT-CT", tags::PATIENT_ID, "PAT-CT"),
        ("StudyInstanceUID=1.2.3", tags::STUDY_INSTANCE_UID, "1.2.3"),
    ] {
        let answer = server.get(&format!("/studies?limit=101&offset=0&fuzzymatching=false&{query}"), JSON).await;
        assert_eq!(answer.status, 204, "{query}");
        assert!(answer.body.is_empty());
        let asked = server.archive.state().queries.pop().expect("asked");
        assert_eq!(asked.identifier.texts(tag), [value], "{query}");
    }
    let answer = server.get("/studies?StudyInstanceUID=1.2.3%5C1.2.4", JSON).await;
    assert_eq!(answer.status, 204);
    let asked = server.archive.state().queries.pop().expect("asked");
    assert_eq!(asked.identifier.texts(tags::STUDY_INSTANCE_UID), ["1.2.3", "1.2.4"]);
}

#[tokio::test]
async fn q6_series_of_a_study() {
    let server = with(&[ct(1, 64).file(), ct(2, 64).file()]).await;
    let path = "/studies/1.2.3/series?includefield=00080021%2C00080031%2C0008103E%2C00200011";
    let answer = server.get(path, JSON).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.text().matches("\"0020000E\"").count(), 1);
    assert!(answer.text().contains("http://pacs.example/dicom-web/studies/1.2.3/series/1.2.3.4\""));
    // Older viewers asked for two types at once.
    let old = "application/dicom+json, multipart/related; type=\"application/dicom+xml\"";
    assert_eq!(server.get(path, old).await.status, 200);
}

#[tokio::test]
async fn m1_metadata_of_a_series() {
    let document = ct(2, 64).with(tags::ENCAPSULATED_DOCUMENT, Vr::OB, Value::Bytes(vec![7; 5000].into()));
    let server = with(&[ct(1, 64).file(), document.file()]).await;
    let answer = server.get("/studies/1.2.3/series/1.2.3.4/metadata", JSON).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some(JSON)));
    let text = answer.text();
    assert_eq!(text.matches("\"00080018\"").count(), 2);
    // Numbers as numbers, no File Meta, no group lengths, and root-relative addresses of what is left out.
    assert!(text.contains("\"00280030\":{\"vr\":\"DS\",\"Value\":[0.5,0.5]}"));
    assert!(!text.contains("\"0002") && !text.contains("0000\":{"));
    let uri = "/dicom-web/studies/1.2.3/series/1.2.3.4/instances/1.2.3.4.2/bulkdata/00420011";
    assert!(text.contains(&format!("\"BulkDataURI\":\"{uri}\"")), "{text}");
    let bulk = server.get(uri.strip_prefix("/dicom-web").expect("ours"), "*/*").await;
    assert_eq!((bulk.status, bulk.body.len()), (200, 5000));
}

#[tokio::test]
async fn a_configured_public_url_is_in_bulk_data_uris_and_retrieve_urls() {
    let document = ct(2, 64).with(tags::ENCAPSULATED_DOCUMENT, Vr::OB, Value::Bytes(vec![7; 5000].into()));
    let public = "https://pacs.example.org/x/dicom-web";
    let public_url = Some(public.to_owned().try_into().expect("a URL"));
    let server = Server::start(DicomWebConfig { public_url, ..DicomWebConfig::default() }).await;
    server.archive.hold(&document.file()).expect("readable");
    let text = server.get("/studies/1.2.3/series/1.2.3.4/metadata", JSON).await.text().to_owned();
    let uri = "/studies/1.2.3/series/1.2.3.4/instances/1.2.3.4.2/bulkdata/00420011";
    assert!(text.contains(&format!("\"BulkDataURI\":\"{public}{uri}\"")), "{text}");
    assert_eq!(server.get(uri, "*/*").await.body.len(), 5000, "the path that it serves is another matter");
    let found = server.get("/studies", JSON).await.text().to_owned();
    assert!(found.contains(&format!("\"{public}/studies/1.2.3\"")), "{found}");
}

#[tokio::test]
async fn f1_f2_f3_frames() {
    let (one, two): (&[u8], &[u8]) = (&[1; 300], &[2; 500]);
    let server = with(&[ct(1, 64).file(), ct(2, 0).frames(J2K, &[one, two]).file()]).await;
    for accept in [F1, F2] {
        let answer = server.get(&format!("{INSTANCE}/frames/1"), accept).await;
        assert_eq!(answer.status, 200, "{accept}");
        let parts = answer.parts();
        // Spelt exactly so: the viewer compares with regard to case.
        assert!(parts[0].0.starts_with(&format!("Content-Type: application/octet-stream; transfer-syntax={EXPLICIT}")));
        assert_eq!(parts[0].1, ct(1, 64).frames[0]);
        let compressed = server.get("/studies/1.2.3/series/1.2.3.4/instances/1.2.3.4.2/frames/2", accept).await;
        let parts = compressed.parts();
        assert!(parts[0].0.contains(&format!("; transfer-syntax={J2K}")), "{}", parts[0].0);
        assert_eq!(parts[0].1, two);
    }
    let second = "/studies/1.2.3/series/1.2.3.4/instances/1.2.3.4.2/frames";
    let f3 = "multipart/related; type=image/jp2; q=1";
    let parts = server.get(&format!("{second}/2,1"), f3).await.parts();
    assert!(parts[0].0.starts_with(&format!("Content-Type: image/jp2; transfer-syntax={J2K}")));
    assert_eq!((parts[0].1.as_slice(), parts[1].1.as_slice()), (two, one));
    assert_eq!(server.get(&format!("{second}/1"), "multipart/related; type=image/jls; q=1").await.status, 406);
    for (list, status) in [("3", 404), ("0", 400), ("a", 400), ("1,,2", 400)] {
        assert_eq!(server.get(&format!("{second}/{list}"), F1).await.status, status, "{list}");
    }
}

#[tokio::test]
async fn p1_ranges_of_a_frame() {
    let frame: Vec<u8> = (0..200_000u32).map(|at| (at >> 3) as u8).collect();
    let server = with(&[ct(1, 0).frames("1.2.840.10008.1.2.4.201", &[&frame]).file()]).await;
    let whole = server.get(&format!("{INSTANCE}/frames/1"), F1).await;
    let ask = |range: &str| {
        format!("GET /dicom-web{INSTANCE}/frames/1 HTTP/1.1\r\nHost: a\r\nAccept: {F1}\r\nRange: {range}\r\n\r\n")
    };
    let mut joined = Vec::new();
    for start in (0..whole.body.len()).step_by(65_536) {
        let end = (start + 65_536).min(whole.body.len());
        let part = server.ask(&ask(&format!("bytes={start}-{}", start + 65_535))).await;
        assert_eq!(part.status, 206);
        let range = format!("bytes {start}-{}/{}", end - 1, whole.body.len());
        assert_eq!(part.header("content-range"), Some(range.as_str()));
        assert_eq!(part.header("content-type"), whole.header("content-type"));
        joined.extend(part.body);
    }
    assert_eq!(joined, whole.body);
    assert_eq!(whole.parts()[0].1, frame);
}

#[tokio::test]
async fn b1_bulk_data_of_a_document() {
    let pdf = ct(1, 0)
        .frames(EXPLICIT, &[])
        .with(tags::MIME_TYPE_OF_ENCAPSULATED_DOCUMENT, Vr::LO, Value::text(Vr::LO, "application/pdf"))
        .with(tags::ENCAPSULATED_DOCUMENT, Vr::OB, Value::Bytes(b"%PDF".repeat(1000).into()));
    let script = ct(2, 0)
        .frames(EXPLICIT, &[])
        .with(tags::MIME_TYPE_OF_ENCAPSULATED_DOCUMENT, Vr::LO, Value::text(Vr::LO, "text/html"))
        .with(tags::ENCAPSULATED_DOCUMENT, Vr::OB, Value::Bytes(b"<script>".repeat(1000).into()));
    let server = with(&[pdf.file(), script.file()]).await;
    let b1 = "multipart/related; type=\"application/pdf\", multipart/related; type=\"application/octet-stream\"";
    let answer = server.get(&format!("{INSTANCE}/bulkdata/00420011"), b1).await;
    let parts = answer.parts();
    assert!(parts[0].0.starts_with("Content-Type: application/pdf\r\n"), "{}", parts[0].0);
    assert_eq!(parts[0].1, b"%PDF".repeat(1000));
    // What a browser might run has no type.
    let other = "/studies/1.2.3/series/1.2.3.4/instances/1.2.3.4.2/bulkdata/00420011";
    let answer = server.get(other, "text/html,application/xhtml+xml,*/*;q=0.8").await;
    assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(server.get(&format!("{INSTANCE}/bulkdata/00420012"), "*/*").await.status, 404);
    assert_eq!(server.get(&format!("{INSTANCE}/bulkdata/nonsense"), "*/*").await.status, 404);
}

#[tokio::test]
async fn i1_instance() {
    let file = ct(1, 5000).file();
    let server = with(std::slice::from_ref(&file)).await;
    let answer = server.get(INSTANCE, "multipart/related; type=\"application/dicom\"").await;
    let parts = answer.parts();
    assert_eq!(parts.len(), 1);
    assert!(parts[0].0.starts_with(&format!("Content-Type: application/dicom; transfer-syntax={EXPLICIT}\r\n")));
    assert_eq!(parts[0].1, file);
}

#[tokio::test]
async fn t3_the_accept_parameter_wins_over_a_contradicting_header() {
    let server = with(&[ct(1, 64).file()]).await;
    let contradicting = "multipart/related; type=\"application/octet-stream\"";
    let answer = server.get(&format!("{INSTANCE}/metadata?accept=application%2Fdicom%2Bjson"), contradicting).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some(JSON)));
    assert_eq!(server.get(&format!("{INSTANCE}/metadata"), contradicting).await.status, 406);
    let answer = server.get(&format!("{INSTANCE}/metadata?accept=image/jpeg"), JSON).await;
    assert_eq!(answer.status, 406);
}

#[tokio::test]
async fn s1_upload() {
    let server = Server::plain().await;
    let mut client = server.connect().await;
    for n in 1..=3 {
        client.send(&stow("/studies", &[&ct(n, 3000).file()])).await;
        let answer = client.answer(false).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, Some(JSON)));
        assert!(answer.text().contains(&format!("\"00081155\":{{\"vr\":\"UI\",\"Value\":[\"1.2.3.4.{n}\"]}}")));
        let url = format!("http://pacs.example/dicom-web/studies/1.2.3/series/1.2.3.4/instances/1.2.3.4.{n}");
        assert!(answer.text().contains(&url));
    }
    assert_eq!(server.archive.state().held.len(), 3);
}
