//! `cairn events`: reads the log over gRPC.

use super::{
    Failure, connection,
    table::{Rows, csv_field},
};
use crate::cli::{EventsAction, EventsArgs, Output, ServerArgs};
use cairn_archive::{
    Position,
    events::{DESCRIPTORS, Event, event_message},
};
use cairn_service_grpc::{
    client::Wire,
    log_proto::{ReadRequest, ReadResponse, Start, event_log_service_client::EventLogServiceClient},
};
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde_json::{Value, json};

pub async fn run(args: EventsArgs) -> Result<(), Failure> {
    match args.action {
        EventsAction::Tail { from, partition, study, no_follow, limit, output } => {
            let (start, time_ms, offset) = parse_start(&from)?;
            let request = ReadRequest {
                partitions: partition,
                start: start.into(),
                time_ms,
                offset,
                follow: !no_follow,
                study_instance_uid: study.unwrap_or_default(),
                limit,
                ..ReadRequest::default()
            };
            tail(&args.server, request, output).await
        }
        EventsAction::Show { position, output } => show(&args.server, &position, output).await,
    }
}

fn parse_start(from: &str) -> Result<(Start, u64, u64), Failure> {
    let number = |text: &str| {
        text.parse()
            .map_err(|_| Failure::usage(format!("--from {from:?}: beginning, latest, @MILLISECONDS or an offset")))
    };
    Ok(match from {
        "beginning" => (Start::Beginning, 0, 0),
        "latest" => (Start::End, 0, 0),
        other => match other.strip_prefix('@') {
            Some(time) => (Start::Time, number(time)?, 0),
            None => (Start::Offset, 0, number(other)?),
        },
    })
}

async fn tail(server: &ServerArgs, request: ReadRequest, output: Output) -> Result<(), Failure> {
    let mut log = connection(server)?.event_log()?;
    let mut events = log.read(request).await.map_err(status)?.into_inner();
    let columns = [("Time", 24), ("Position", 18), ("Type", 34), ("Study", 40), ("Id", 36)];
    let mut rows = Rows::new(output, &columns);
    while let Some(event) = events.message().await.map_err(status)? {
        let header = |name: &str| event.headers.get(name).cloned().unwrap_or_default();
        let study = header("ce_subject").trim_start_matches("studies/").to_owned();
        rows.row(&[header("ce_time"), position_of(&event), header("ce_type"), study, header("ce_id")])?;
        rows.flush()?;
    }
    Ok(())
}

/// The event that stands at a position of the site's log.
pub(super) async fn read_at(log: &mut EventLogServiceClient<Wire>, wanted: &Position) -> Result<ReadResponse, Failure> {
    let request = ReadRequest {
        partitions: vec![wanted.partition.0.into()],
        start: Start::Offset.into(),
        offset: wanted.offset.0,
        limit: 1,
        ..ReadRequest::default()
    };
    let mut events = log.read(request).await.map_err(status)?.into_inner();
    let event = events.message().await.map_err(status)?;
    let event = event.filter(|event| position_of(event) == wanted.to_string());
    event.ok_or_else(|| Failure::failed(format!("there is no event at {wanted}")))
}

async fn show(server: &ServerArgs, position: &str, output: Output) -> Result<(), Failure> {
    let mut log = connection(server)?.event_log()?;
    let event = read_at(&mut log, &position.parse().map_err(Failure::usage)?).await?;
    let kind = event.headers.get("ce_type").map(String::as_str).unwrap_or_default();
    match output {
        Output::Json | Output::Csv => {
            let payload = match as_json(kind, &event.payload) {
                Ok(json) => json,
                Err(error) => json!({ "error": error, "bytes": event.payload.len() }),
            };
            let shown = json!({ "position": position, "headers": &event.headers, "event": payload });
            if output == Output::Json {
                println!("{shown}");
                return Ok(());
            }
            let headers = event.headers.iter().collect::<std::collections::BTreeMap<_, _>>();
            println!("position,name,value");
            for (name, value) in headers {
                println!("{position},{name},{}", csv_field(value));
            }
            println!("{position},event,{}", csv_field(&shown["event"].to_string()));
        }
        Output::Table => {
            let mut headers: Vec<_> = event.headers.iter().collect();
            headers.sort();
            for (name, value) in headers {
                println!("{name}: {value}");
            }
            match Event::decode(kind, event.payload) {
                Ok(decoded) => println!("\n{decoded:#?}"),
                Err(error) => println!("\n{error}"),
            }
        }
    }
    Ok(())
}

/// A payload by its schema, in the JSON of protobuf: bytes are base64.
fn as_json(kind: &str, payload: &[u8]) -> Result<Value, String> {
    let name = event_message(kind).ok_or("event type is not known to this build")?;
    let pool = DescriptorPool::decode(DESCRIPTORS).map_err(|error| error.to_string())?;
    let message = pool.get_message_by_name(&format!("cairn.events.v1.{name}")).ok_or("event type has no schema")?;
    let decoded = DynamicMessage::decode(message, payload).map_err(|error| error.to_string())?;
    serde_json::to_value(decoded).map_err(|error| error.to_string())
}

fn position_of(event: &ReadResponse) -> String {
    let position = event.position.clone().unwrap_or_default();
    format!("{}/{}/{}/{}", position.site, position.incarnation, position.partition, position.offset)
}

pub fn status(status: cairn_service_grpc::Status) -> Failure {
    match status.code() {
        cairn_service_grpc::Code::Unavailable => Failure::Unreachable(status.message().to_owned()),
        _ => Failure::Failed(status.message().to_owned()),
    }
}
