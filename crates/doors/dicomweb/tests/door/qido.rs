//! QIDO-RS: parameters, results, paging.

use super::{
    files::ct,
    http::{Response, Server},
};
use cairn_dicom::{Tag, tags};
use cairn_dicomweb::DicomWebConfig;
use cairn_service_api::{
    Error, ErrorKind, Reason,
    index::{Level, Query, Returning},
};

const JSON: &str = "application/dicom+json";

async fn asked(server: &Server, path: &str) -> Query {
    let answer = server.get(path, JSON).await;
    assert!(matches!(answer.status, 200 | 204), "{path}: {} {:?}", answer.status, answer);
    server.archive.state().queries.pop().unwrap_or_else(|| panic!("{path} asks the index"))
}

async fn refused(server: &Server, path: &str) -> Response {
    let answer = server.get(path, JSON).await;
    assert_eq!(answer.status, 400, "{path}");
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    assert!(server.archive.state().queries.is_empty(), "{path} must not reach the index");
    answer
}

#[tokio::test]
async fn every_resource_asks_at_its_level_and_within_its_path() {
    let server = Server::plain().await;
    for (path, level, study, series) in [
        ("/patients", Level::Patient, None, None),
        ("/studies", Level::Study, None, None),
        ("/series", Level::Series, None, None),
        ("/instances", Level::Instance, None, None),
        ("/studies/1.2/series", Level::Series, Some("1.2"), None),
        ("/studies/1.2/instances", Level::Instance, Some("1.2"), None),
        ("/studies/1.2/series/1.3/instances", Level::Instance, Some("1.2"), Some("1.3")),
    ] {
        let query = asked(&server, path).await;
        assert_eq!(query.level, level, "{path}");
        assert_eq!(query.identifier.text(tags::STUDY_INSTANCE_UID), study, "{path}");
        assert_eq!(query.identifier.text(tags::SERIES_INSTANCE_UID), series, "{path}");
    }
}

#[tokio::test]
async fn attributes_by_keyword_tag_and_path() {
    let server = Server::plain().await;
    let query = asked(
        &server,
        "/studies?PatientName=A&00100020=B&00400275.ScheduledProcedureStepID=C&RequestAttributesSequence.00401001=D",
    )
    .await;
    assert_eq!(query.identifier.text(tags::PATIENT_NAME), Some("A"));
    assert_eq!(query.identifier.text(tags::PATIENT_ID), Some("B"));
    let item = &query.identifier.items(Tag(0x0040_0275))[0];
    assert_eq!((item.text(Tag(0x0040_0009)), item.text(Tag(0x0040_1001))), (Some("C"), Some("D")));
    let query = asked(&server, "/instances?Rows=512&00280011=").await;
    assert_eq!(
        query.identifier.get(tags::ROWS).map(|e| e.value.clone()),
        Some(cairn_dicom::dataset::Value::Unsigned(vec![512]))
    );
    assert!(query.identifier.get(tags::COLUMNS).is_some_and(|e| e.value.is_empty()));
    let query = asked(&server, "/instances?AcquisitionDateTime=20260101120000+0100-&PatientName=A+B").await;
    assert_eq!(query.identifier.text(tags::ACQUISITION_DATE_TIME), Some("20260101120000+0100-"));
    assert_eq!(query.identifier.text(tags::PATIENT_NAME), Some("A B"));
    let query = asked(&server, "/studies?PatientName=M%C3%BCller%5EJ*").await;
    assert_eq!(query.identifier.text(tags::PATIENT_NAME), Some("Müller^J*"));
}

#[tokio::test]
async fn uid_lists_in_every_spelling() {
    let server = Server::plain().await;
    for list in ["1.2,1.3", "1.2%5C1.3", "1.2\\1.3", "1.2%2C1.3", "1.2&StudyInstanceUID=1.3"] {
        let query = asked(&server, &format!("/series?StudyInstanceUID={list}")).await;
        assert_eq!(query.identifier.texts(tags::STUDY_INSTANCE_UID), ["1.2", "1.3"], "{list}");
    }
    for universal in ["", "*"] {
        let query = asked(&server, &format!("/studies?StudyInstanceUID={universal}")).await;
        assert!(query.identifier.get(tags::STUDY_INSTANCE_UID).is_some_and(|e| e.value.is_empty()));
    }
}

#[tokio::test]
async fn options_and_included_fields() {
    let server = Server::plain().await;
    let query = asked(
        &server,
        "/studies?fuzzymatching=TRUE&emptyvaluematching=true&multiplevaluematching=true&limit=7&offset=3",
    )
    .await;
    assert!(query.options.fuzzy_person_names && query.options.empty_value && query.options.multiple_value);
    assert_eq!((query.limit, query.offset), (Some(7), 3));
    assert_eq!(asked(&server, "/studies?includefield=all").await.returning, Returning::All);
    let query =
        asked(&server, "/studies?includefield=PatientAge,00101030&includefield=00400275.00400007&includefield=").await;
    let Returning::DefaultAnd(included) = query.returning else { panic!("not all") };
    assert!(included.contains(&tags::PATIENT_AGE) && included.contains(&tags::PATIENT_WEIGHT));
    assert!(query.identifier.items(Tag(0x0040_0275))[0].get(Tag(0x0040_0007)).is_some());
    let empty = asked(&server, "/studies?emptyvaluematching=true&AccessionNumber=%22%22").await;
    assert_eq!(empty.identifier.text(tags::ACCESSION_NUMBER), Some("\"\""));
}

#[tokio::test]
async fn what_can_not_be_used_is_refused_and_never_matches_all() {
    let server = Server::plain().await;
    for query in [
        "NoSuchAttribute=1",
        "patientname=A",
        "00000000=1",
        "00080000=1",
        "0010001=A",
        "PatientName.00100020=A",
        "00400275=A",
        "00400275.=A",
        "00400275..00400007=A",
        ".=A",
        "=A",
        "FFFEE000=1",
        "00020010=1",
        "StudyInstanceUID=abc",
        "StudyInstanceUID=1.2,",
        "StudyInstanceUID=1.2%5C%5C1.3",
        "StudyInstanceUID=..%2F..",
        "StudyInstanceUID=%20",
        "StudyInstanceUID=%00",
        "PatientName=%00",
        "PatientID=%20",
        "PatientID=%5C",
        "Rows=x",
        "Rows=512%5C",
        "PixelData=1",
        "fuzzymatching=maybe",
        "fuzzymatching=",
        "limit=-1",
        "limit=x",
        "limit=",
        "offset=1.5",
        "limit=1&limit=2",
        "offset=99999999999999999999",
        "includefield=NoSuchAttribute",
        "PatientName=%ff",
        "PatientName=%zz",
        "includefield=00400275.nonsense",
        "access_token=x",
    ] {
        refused(&server, &format!("/studies?{query}")).await;
    }
    refused(&server, "/studies/1.2/series?StudyInstanceUID=1.3").await;
    for path in
        ["/studies/%00/series", "/studies/x/series", "/studies/1.2%00/series", "/studies/1.2/series/../instances"]
    {
        refused(&server, path).await;
    }
    let many: Vec<_> = (0..300).map(|n| format!("0011{n:04X}=x")).collect();
    refused(&server, &format!("/studies?{}", many.join("&"))).await;
}

#[tokio::test]
async fn errors_of_the_index_come_before_any_answer() {
    let server = Server::plain().await;
    for (kind, reason, status) in [
        (ErrorKind::Invalid, Reason::UnusableKey, 400),
        (ErrorKind::Unavailable, Reason::Unspecified, 503),
        (ErrorKind::Internal, Reason::Unspecified, 500),
    ] {
        server.archive.state().query_error = Some(Error::because(kind, reason, "no"));
        let answer = server.get("/studies?StudyDate=nonsense", JSON).await;
        assert_eq!(answer.status, status);
        assert_eq!(answer.header("retry-after").is_some(), status == 503);
    }
}

#[tokio::test]
async fn more_than_the_maximum_is_said() {
    let mut config = DicomWebConfig::default();
    config.limits.query_results_max = 1000;
    config.limits.answer_buffer_bytes = 10_000;
    let server = Server::start(config).await;
    for (found, query, expected, warned) in [
        (1000, "", 1000, false),
        (1001, "", 1000, true),
        (1001, "?limit=1001", 1000, true),
        (1001, "?limit=1000", 1000, false),
        (1001, "?limit=10", 10, false),
        (1001, "?offset=1", 1000, false),
        (1001, "?offset=1000", 1, false),
        (20, "", 20, false),
    ] {
        server.archive.state().invented = Some(found);
        let answer = server.get(&format!("/studies{query}"), JSON).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.text().matches("\"0020000D\"").count(), expected, "{found} {query}");
        assert_eq!(answer.header("warning").is_some(), warned, "{found} {query}");
    }
    server.archive.state().invented = Some(1001);
    let warning = server.get("/studies", JSON).await;
    assert!(
        warning.header("warning").is_some_and(|text| text.starts_with("299 Cairn: The number of results exceeded"))
    );
    assert_eq!(server.get("/studies?offset=1001", JSON).await.status, 204);
    assert_eq!(server.get("/studies?limit=0", JSON).await.status, 204);
}

#[tokio::test]
async fn a_query_waits_for_the_position_that_it_names() {
    let server = Server::plain().await;
    let ask = |token: &str| format!("GET /dicom-web/studies HTTP/1.1\r\nHost: a\r\nCairn-Read-After: {token}\r\n\r\n");
    assert_eq!(server.ask(&ask("here/1/7/42")).await.status, 204);
    assert_eq!(server.archive.state().waited_for[0].to_string(), "here/1/7/42");
    assert_eq!(server.ask(&ask("nonsense")).await.status, 400);
    server.archive.state().behind = true;
    let answer = server.ask(&ask("here/1/7/43")).await;
    assert_eq!((answer.status, answer.header("retry-after").is_some()), (503, true));
    assert_eq!(server.get("/studies", JSON).await.status, 204);
}

#[tokio::test]
async fn types_of_results() {
    let server = Server::plain().await;
    server.archive.hold(&ct(1, 64).file()).expect("readable");
    for (accept, expected) in [
        ("*/*", Some(JSON)),
        ("application/json", Some("application/json")),
        ("text/html, application/json;q=0.5, application/dicom+json;q=0.4", Some("application/json")),
        ("multipart/related; type=\"application/dicom+xml\"", None),
        ("nonsense", Some(JSON)),
    ] {
        let answer = server.get("/studies", accept).await;
        assert_eq!(answer.status, if expected.is_some() { 200 } else { 406 }, "{accept}");
        if expected.is_some() {
            assert_eq!(answer.header("content-type"), expected, "{accept}");
            assert_eq!(answer.header("cache-control"), Some("no-store"));
        }
    }
}
