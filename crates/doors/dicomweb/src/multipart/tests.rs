use super::{BodyError, MultipartLimits, Reader};
use bytes::Bytes;
use futures_util::stream;

const LIMITS: MultipartLimits = MultipartLimits { part_header_bytes_max: 200, preamble_bytes_max: 1000 };

type Parts = Vec<(Option<String>, Vec<u8>)>;

async fn read(chunks: Vec<Bytes>, boundary: &str) -> Result<Parts, BodyError> {
    let mut reader = Reader::new(stream::iter(chunks.into_iter().map(Ok)), boundary, LIMITS)?;
    let mut parts = Vec::new();
    while let Some(headers) = reader.next_part().await? {
        let mut content = Vec::new();
        while let Some(chunk) = reader.next_chunk().await? {
            assert!(!chunk.is_empty());
            content.extend_from_slice(&chunk);
        }
        parts.push((headers.content_type, content));
    }
    reader.skip_epilogue().await;
    Ok(parts)
}

async fn whole(text: &[u8]) -> Result<Parts, BodyError> {
    read(vec![Bytes::copy_from_slice(text)], "b").await
}

fn plain(content: &[u8]) -> (Option<String>, Vec<u8>) {
    (Some("application/dicom".into()), content.to_vec())
}

const HEAD: &str = "Content-Type: application/dicom\r\n\r\n";

#[tokio::test]
async fn parts_come_out_whole_wherever_the_body_is_split() {
    let tricky: &[u8] = b"\r\n--\r\n--x\r\r\n-\r\n--boundar\r\n";
    let body = [
        b"preamble\n--boundary\r\nmore of it\r\n--boundary \t\r\n",
        HEAD.as_bytes(),
        tricky,
        b"\r\n--boundary\r\n",
        HEAD.as_bytes(),
        b"\r\n--boundary\r\ncontent-type : application/dicom\r\nX: y\r\n folded\r\n\r\n--boundary\r\n\r\nz\r\n--boundary--\r\nend",
    ]
    .concat();
    let expected =
        vec![plain(tricky), plain(b""), (Some("application/dicom".into()), Vec::new()), (None, b"z".to_vec())];
    for at in 0..=body.len() {
        let chunks = vec![Bytes::copy_from_slice(&body[..at]), Bytes::copy_from_slice(&body[at..])];
        assert_eq!(read(chunks, "boundary").await, Ok(expected.clone()), "split at {at}");
    }
    for size in 1..40 {
        let chunks = body.chunks(size).map(Bytes::copy_from_slice).collect();
        assert_eq!(read(chunks, "boundary").await, Ok(expected.clone()), "chunks of {size}");
    }
}

#[tokio::test]
async fn content_is_passed_on_without_a_copy() {
    let body = Bytes::from([b"--b\r\n", HEAD.as_bytes(), &[7; 100_000], b"\r\n--b--"].concat());
    let range = body.as_ptr_range();
    let mut reader = Reader::new(stream::iter([Ok(body)]), "b", LIMITS).expect("a boundary");
    reader.next_part().await.expect("framed").expect("a part");
    let chunk = reader.next_chunk().await.expect("framed").expect("content");
    assert_eq!(chunk.len(), 100_000);
    assert!(range.contains(&chunk.as_ptr()));
}

#[tokio::test]
async fn broken_framing_is_an_error_and_never_a_part() {
    let cases: &[(&str, String)] = &[
        ("empty", String::new()),
        ("no delimiter", "hello".into()),
        ("only the first line", "--b".into()),
        ("line feeds only", "--b\nContent-Type: application/dicom\n\nx\n--b--\n".into()),
        ("line feed after the delimiter", format!("--b\n{HEAD}x\r\n--b--")),
        ("line feeds in headers", "--b\r\nContent-Type: a/b\nX: y\r\n\r\nx\r\n--b--".into()),
        ("bare carriage return in headers", "--b\r\nContent-Type: a/b\rX: y\r\n\r\nx\r\n--b--".into()),
        ("header without colon", "--b\r\nnonsense\r\n\r\nx\r\n--b--".into()),
        ("no close delimiter", format!("--b\r\n{HEAD}x")),
        ("no close delimiter after a part", format!("--b\r\n{HEAD}x\r\n--b\r\n")),
        ("delimiter without line end", format!("--b\r\n{HEAD}x\r\n--b")),
        ("delimiter with text after it", format!("--b\r\n{HEAD}x\r\n--bcd\r\n")),
        ("half a close delimiter", format!("--b\r\n{HEAD}x\r\n--b-")),
        ("within headers", "--b\r\nContent-Ty".into()),
        ("long headers", format!("--b\r\nX: {}\r\n\r\nx\r\n--b--", "y".repeat(300))),
        ("endless headers", format!("--b\r\n{}", "X: y\r\n".repeat(100))),
        ("endless padding", format!("--b{}\r\n{HEAD}x\r\n--b--", " ".repeat(1000))),
        ("long preamble", format!("{}\r\n--b\r\n{HEAD}x\r\n--b--", "p".repeat(2000))),
        ("another boundary", format!("--a\r\n{HEAD}x\r\n--a--")),
    ];
    for (name, body) in cases {
        for size in [1, 3, body.len().max(1)] {
            let chunks = body.as_bytes().chunks(size).map(Bytes::copy_from_slice).collect();
            let result = read(chunks, "b").await;
            assert!(matches!(result, Err(BodyError::Framing(_))), "{name} in chunks of {size}: {result:?}");
        }
    }
}

#[tokio::test]
async fn odd_but_legal_bodies() {
    assert_eq!(whole(b"--b--").await, Ok(vec![]));
    assert_eq!(whole(b"\r\n--b\r\n\r\nx\r\n--b--").await, Ok(vec![(None, b"x".to_vec())]));
    let closed = format!("--b\r\n{HEAD}x\r\n--b--trailing text that nobody reads");
    assert_eq!(whole(closed.as_bytes()).await, Ok(vec![plain(b"x")]));
    let long = "0123456789'()+_,-./:=? 0123456789'()+_,-./:=? 0123456789'()+_,-./:=?01";
    assert_eq!(long.len(), 70);
    let body = format!("--{long}\r\n{HEAD}x\r\n--{long}--");
    assert_eq!(read(vec![body.into()], long).await, Ok(vec![plain(b"x")]));
}

#[tokio::test]
async fn a_boundary_is_checked() {
    for bad in ["", &"x".repeat(71), "a\r\nb", "ends in space ", "a\"b", "é"] {
        assert!(matches!(read(vec![], bad).await, Err(BodyError::Framing(_))), "{bad:?}");
    }
}

#[tokio::test]
async fn an_error_of_the_source_is_passed_on() {
    let chunks = [Ok(Bytes::from(format!("--b\r\n{HEAD}x"))), Err(BodyError::TooSlow)];
    let mut reader = Reader::new(stream::iter(chunks), "b", LIMITS).expect("a boundary");
    reader.next_part().await.expect("framed").expect("a part");
    assert_eq!(reader.next_chunk().await, Ok(Some(Bytes::from_static(b"x"))));
    assert_eq!(reader.next_chunk().await, Err(BodyError::TooSlow));
}
