//! `cairn reconcile`: what another archive says it has, beside what is here.

use super::{
    Failure, index,
    query::parse_tag,
    replay::{agent, patience, remote, stopped},
    table::{Cell, Rows},
};
use crate::{
    cli::{ConfigSource, Output, ReconcileArgs, RemoteAe},
    commands::load,
};
use cairn_dicom::dataset::DataSet;
use cairn_replay::{
    Remotes, Stopped,
    compare::{Compared, Difference, Here, compare},
};

pub async fn run(args: ReconcileArgs) -> Result<(), Failure> {
    let mut there = source(&args)?;
    let keys = keys(&args.keys)?;
    let index = index(&args.common.server)?;
    let here = Here { index: &index, tenant: args.common.server.tenant.clone(), both_ways: args.both_ways };
    let columns =
        [("Difference", 13), ("StudyInstanceUID", 44), ("SeriesInstanceUID", 44), ("SOPInstanceUID", 44), ("Why", 30)];
    let mut rows = Rows::new(args.common.output, &columns);
    let each = |difference| rows.cells(&row(difference)).map_err(|failure| Stopped::Refused(failure.to_string()));
    let compared = compare(&mut there, &here, &keys, patience(&args.talk), each).await;
    let compared = compared.map_err(|error| stopped(error, None))?;
    rows.flush()?;
    conclude(&compared, args.common.output)
}

/// Says what was compared where that does not disturb what reads the lines.
fn conclude(compared: &Compared, output: Output) -> Result<(), Failure> {
    let Compared { studies, both, missing_here, missing_there, unanswered } = compared;
    let said = format!(
        "{studies} studies: {both} instances at both, {missing_here} missing here, {missing_there} missing there, \
         {unanswered} studies not answered for"
    );
    if !compared.is_equal() {
        return Err(Failure::Differs(said));
    }
    match output {
        Output::Table => println!("{said}"),
        Output::Json | Output::Csv => eprintln!("{said}"),
    }
    Ok(())
}

fn row(difference: Difference) -> Vec<Cell> {
    let of = |what: &str, study: cairn_dicom::Uid, series: cairn_dicom::Uid, instance: cairn_dicom::Uid| {
        vec![
            what.into(),
            study.to_string().into(),
            series.to_string().into(),
            instance.to_string().into(),
            Cell::Absent,
        ]
    };
    match difference {
        Difference::MissingHere { study, series, instance } => of("missing-here", study, series, instance),
        Difference::MissingThere { study, series, instance } => of("missing-there", study, series, instance),
        Difference::Unanswered { study, why } => {
            vec!["unanswered".into(), study.to_string().into(), Cell::Absent, Cell::Absent, why.into()]
        }
    }
}

/// Where the other archive is.
fn source(args: &ReconcileArgs) -> Result<Remotes, Failure> {
    let named = &args.source;
    if named.starts_with("http://") || named.starts_with("https://") {
        return Ok(Remotes::web(agent(named, &args.talk)?));
    }
    let ae: RemoteAe = match named.contains('@') {
        true => named.parse().map_err(Failure::usage)?,
        false => configured(args)?.parse().map_err(Failure::usage)?,
    };
    Ok(Remotes::dimse(*remote(&ae, &args.talk)))
}

/// `AE@HOST:PORT` of an AE title that the configuration has.
fn configured(args: &ReconcileArgs) -> Result<String, Failure> {
    let source = ConfigSource { config: args.config.clone(), ..ConfigSource::default() };
    let config = load(&source)?.config;
    let address = config.ae.get(&args.source).and_then(|ae| ae.address.clone());
    let address = address.ok_or_else(|| {
        Failure::usage(format!("{}: neither AE@HOST:PORT nor an AE title with an address in --config", args.source))
    })?;
    Ok(format!("{}@{address}", args.source))
}

fn keys(keys: &[String]) -> Result<DataSet, Failure> {
    let mut identifier = DataSet::new();
    for key in keys {
        let (name, value) = key.split_once('=').ok_or_else(|| Failure::usage(format!("{key:?} is not KEY=VALUE")))?;
        identifier.put_text(parse_tag(name)?, value);
    }
    Ok(identifier)
}
