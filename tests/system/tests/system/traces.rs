//! Traces: one follows an instance from the request to the row, across the log, and a retrieval.

use crate::gateway::gateway;
use crate::support::{Archive, Start, directory, eventually, http, run, synthetic_files};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    trace::v1::Span,
};
use std::{
    fs,
    net::SocketAddr,
    sync::{Arc, Mutex},
};
use tonic::{Request, Response, Status, transport::server::TcpIncoming};

/// A collector that keeps what comes.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Span>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let scopes = request.into_inner().resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
        self.0.lock().unwrap().extend(scopes.flat_map(|scope| scope.spans));
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    fn serve(&self, runtime: &tokio::runtime::Runtime) -> SocketAddr {
        let _within = runtime.enter();
        let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = incoming.local_addr().unwrap();
        let server = tonic::transport::Server::builder().add_service(TraceServiceServer::new(self.clone()));
        runtime.spawn(async move { server.serve_with_incoming(incoming).await.unwrap() });
        address
    }

    fn of_trace(&self, trace: &[u8]) -> Vec<Span> {
        self.0.lock().unwrap().iter().filter(|span| span.trace_id == trace).cloned().collect()
    }
}

/// The span of a name whose parent is `parent`; there is one.
fn child<'a>(spans: &'a [Span], parent: &[u8], name: &str) -> &'a Span {
    let found: Vec<&Span> = spans.iter().filter(|span| span.name == name && span.parent_span_id == parent).collect();
    let all: Vec<(&str, &[u8], &[u8])> =
        spans.iter().map(|span| (span.name.as_str(), &span.span_id[..], &span.parent_span_id[..])).collect();
    assert_eq!(found.len(), 1, "{name} below {parent:?} in {all:?}");
    found[0]
}

/// Below the span of the request, as a store must be: bytes before the event, and rows from the event.
fn assert_is_a_store(spans: &[Span], request: &Span) {
    let store = &child(spans, &request.span_id, "ingest.store").span_id;
    let (written, finished) = (child(spans, store, "object.write"), child(spans, store, "object.finish"));
    let appended = child(spans, store, "log.append");
    assert!(written.end_time_unix_nano <= finished.start_time_unix_nano);
    assert!(finished.end_time_unix_nano <= appended.start_time_unix_nano);
    child(spans, &appended.span_id, "index.fold");
}

#[test]
fn one_trace_follows_an_instance_across_processes() {
    const TRACE: &str = "1af7651916cd43dd8448eb211c80319c";
    const STORING: &str = "c7ad6b7169203331";
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let collector = Collector::default();
    let endpoint = format!("http://{}", collector.serve(&runtime));
    let folder = directory();
    let environment =
        || vec![("CAIRN__TELEMETRY__OTLP_ENDPOINT", endpoint.clone()), ("OTEL_BSP_SCHEDULE_DELAY", "100".to_owned())];
    let start = Start { environment: environment(), ..Start::default() };
    let archive = Archive::start_with(&folder.path().join("data"), start);
    let door = gateway(&folder.path().join("gateway"), archive.grpc, environment());
    let file = cairn_synthetic::one_study(83, 0).swap_remove(0).file;
    let head = format!(
        "POST /dicom-web/studies HTTP/1.1\r\nHost: cairn\r\nConnection: close\r\ntraceparent: 00-{TRACE}-{STORING}-01\r\n\
         Content-Type: application/dicom\r\nContent-Length: {}\r\n\r\n",
        file.len()
    );
    let stored = http(door.http, &head, &file);
    assert_eq!(stored.status, 200, "{stored:?}");
    archive.settled();

    let trace = u128::from_str_radix(TRACE, 16).unwrap().to_be_bytes();
    let spans = eventually("the trace of both processes", || {
        let spans = collector.of_trace(&trace);
        let there = |name: &str| spans.iter().any(|span| span.name == name);
        (there("index.fold") && there("dicomweb.request")).then_some(spans)
    });
    let caller = u64::from_str_radix(STORING, 16).unwrap().to_be_bytes();
    let request = child(&spans, &caller, "dicomweb.request");
    let stores = spans.iter().filter(|span| span.name == "ingest.store");
    let call = |store: &Span| spans.iter().find(|span| span.span_id == store.parent_span_id).cloned();
    let calls: Vec<Span> = stores.filter_map(call).collect();
    assert_eq!(calls.len(), 1, "{spans:?}");
    assert_eq!((calls[0].name.as_str(), &calls[0].parent_span_id), ("grpc.call", &request.span_id));
    assert_is_a_store(&spans, &calls[0]);
    door.stop();
    archive.stop();
}

#[test]
fn one_trace_follows_an_instance() {
    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const STORING: &str = "b7ad6b7169203331";
    const RETRIEVING: &str = "00f067aa0ba902b7";
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let collector = Collector::default();
    let endpoint = format!("http://{}", collector.serve(&runtime));
    let folder = directory();
    let files = synthetic_files(&folder.path().join("in"), 82, 2);
    let environment =
        vec![("CAIRN__TELEMETRY__OTLP_ENDPOINT", endpoint), ("OTEL_BSP_SCHEDULE_DELAY", "100".to_owned())];
    let archive = Archive::start_with(&folder.path().join("data"), Start { environment, ..Start::default() });

    let file = fs::read(&files[0]).unwrap();
    let traced = |by: &str| format!("Host: cairn\r\nConnection: close\r\ntraceparent: 00-{TRACE}-{by}-01\r\n");
    let head = format!(
        "POST /dicom-web/studies HTTP/1.1\r\n{}Content-Type: application/dicom\r\nContent-Length: {}\r\n\r\n",
        traced(STORING),
        file.len()
    );
    let stored = http(archive.http, &head, &file);
    assert_eq!(stored.status, 200, "{stored:?}");
    archive.settled();
    let made = cairn_synthetic::one_study(82, 0);
    let (study, instance) = (&made[0].study_instance_uid, &made[0].sop_instance_uid);
    let head = format!("GET /dicom-web/studies/{study}/metadata HTTP/1.1\r\n{}\r\n", traced(RETRIEVING));
    let got = http(archive.http, &head, &[]);
    assert_eq!(got.status, 200, "{got:?}");
    // The other file by DIMSE: nobody calls with a trace, so it begins one.
    let (host, port) = (archive.dicom.ip().to_string(), archive.dicom.port().to_string());
    run("storescu", &["-aec", "CAIRN", &host, &port, files[1].to_str().unwrap()]);
    archive.settled();

    let trace = u128::from_str_radix(TRACE, 16).unwrap().to_be_bytes();
    let caller = |id: &str| u64::from_str_radix(id, 16).unwrap().to_be_bytes();
    let is = |name: &'static str| move |span: &&Span| span.name == name;
    let folded = |spans: &[Span]| {
        let appended = spans.iter().find(is("log.append"));
        appended.is_some_and(|appended| spans.iter().any(|span| span.parent_span_id == appended.span_id))
    };
    let spans = eventually("the trace of store and retrieval", || {
        let spans = collector.of_trace(&trace);
        (spans.iter().filter(is("dicomweb.request")).count() == 2 && folded(&spans)).then_some(spans)
    });
    assert_is_a_store(&spans, child(&spans, &caller(STORING), "dicomweb.request"));
    let retrieval = &child(&spans, &caller(RETRIEVING), "dicomweb.request").span_id;
    assert!(spans.iter().any(|span| span.parent_span_id == *retrieval && span.name.starts_with("retrieval.")));

    let spans = eventually("the trace of a C-STORE", || {
        let all = collector.0.lock().unwrap().clone();
        let mut traces = all.iter().filter(is("dimse.request")).map(|request| collector.of_trace(&request.trace_id));
        traces.find(|spans| folded(spans))
    });
    assert_is_a_store(&spans, child(&spans, &[], "dimse.request"));
    let all = collector.0.lock().unwrap().clone();
    let text = format!("{all:?}");
    for value in [study.as_str(), instance.as_str(), "SYNTHETIC"] {
        assert!(!text.contains(value), "a trace has an attribute of the data set");
    }
    archive.stop();
}
