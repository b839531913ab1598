//! C-FIND, C-GET and C-MOVE as a client, and the AE that C-MOVE sends to.

use crate::{
    Outcome,
    dimse::{Association, Command, FIND, GET, MOVE, NO_DATA_SET, PENDING, Proposal, element},
    server::{SINK, Server},
};
use cairn_benches::corpus::SOP_CLASS;
use cairn_dicom::{CharacterSet, Tag, dataset::DataSet, tags, transfer_syntax::Encoding};
use std::{
    net::{SocketAddr, TcpListener},
    sync::mpsc::{Receiver, sync_channel},
    time::{Duration, Instant},
};

/// What came back.
#[derive(Debug, Default)]
pub struct Returned {
    pub instances: u64,
    pub bytes: u64,
    pub first: Duration,
}

fn identifier(keys: &[(Tag, &str)]) -> Outcome<Vec<u8>> {
    let mut set = DataSet::new();
    keys.iter().for_each(|(tag, text)| if text.is_empty() { set.put_empty(*tag) } else { set.put_text(*tag, text) });
    Ok(set.encode(Encoding::ExplicitLittle, CharacterSet::DEFAULT)?)
}

fn request(class: &str, field: u16, message: u16) -> Command {
    Command::default()
        .put(element::SOP_CLASS, class.as_bytes())
        .number(element::FIELD, field)
        .number(element::MESSAGE_ID, message)
}

fn due<T>(found: Option<T>) -> Outcome<T> {
    found.ok_or_else(|| "a release where a response was due".into())
}

/// An association for C-FIND.
pub struct Finder(Association, u16);

impl Finder {
    pub fn open(server: &Server) -> Outcome<Self> {
        let proposal = Proposal { class: FIND, as_scp: false };
        Ok(Self(Association::request(server.dicom, "FINDER", server.title(), &[proposal])?, 0))
    }

    /// Asks, and cancels after `limit` answers; gives their number and the time to the first answer (or to the end).
    pub fn find(&mut self, keys: &[(Tag, &str)], limit: u64) -> Outcome<(u64, Duration)> {
        let Self(association, message) = self;
        *message = message.wrapping_add(1);
        let command = request(FIND, 0x0020, *message).number(element::PRIORITY, 0).number(element::DATA_SET, 0);
        let identifier = identifier(keys)?;
        let begun = Instant::now();
        association.send(1, &command, Some(&identifier))?;
        let (mut count, mut first) = (0, None);
        loop {
            let (_, response) = due(association.command()?)?;
            first.get_or_insert_with(|| begun.elapsed());
            if response.has_data_set() {
                association.data_set(None)?;
            }
            match response.u16(element::STATUS) {
                0xFF00 | 0xFF01 => count += 1,
                0x0000 | 0xFE00 => return Ok((count, first.unwrap_or_default())),
                status => return Err(format!("C-FIND: status {status:04X}H").into()),
            }
            if count == limit {
                let cancel = Command::default()
                    .number(element::FIELD, 0x0FFF)
                    .number(element::RESPONDED_TO, *message)
                    .number(element::DATA_SET, NO_DATA_SET);
                association.send(1, &cancel, None)?;
            }
        }
    }

    pub fn close(self) -> Outcome<()> {
        self.0.release()
    }
}

/// What looks at each data set that came back.
pub type Check<'a> = &'a mut dyn FnMut(&[u8]);

/// Gets a study by C-GET; `check` sees each data set if there is one.
pub fn get_study(server: &Server, study: &str, mut check: Option<Check<'_>>) -> Outcome<Returned> {
    let proposals = [Proposal { class: GET, as_scp: false }, Proposal { class: SOP_CLASS, as_scp: true }];
    let mut association = Association::request(server.dicom, "GETTER", server.title(), &proposals)?;
    let keys = [(tags::QUERY_RETRIEVE_LEVEL, "STUDY"), (tags::STUDY_INSTANCE_UID, study)];
    let command = request(GET, 0x0010, 1).number(element::PRIORITY, 0).number(element::DATA_SET, 0);
    let begun = Instant::now();
    association.send(1, &command, Some(&identifier(&keys)?))?;
    let mut returned = Returned::default();
    let mut kept = Vec::new();
    loop {
        let (context, command) = due(association.command()?)?;
        if command.u16(element::FIELD) == 0x0001 {
            if returned.instances == 0 {
                returned.first = begun.elapsed();
            }
            kept.clear();
            returned.bytes += association.take(context, &command, check.is_some().then_some(&mut kept))?;
            returned.instances += 1;
            if let Some(check) = check.as_mut() {
                check(&kept);
            }
            continue;
        }
        if command.has_data_set() {
            association.data_set(None)?;
        }
        match command.u16(element::STATUS) {
            PENDING => {}
            0 => break,
            status => return Err(format!("C-GET: status {status:04X}H").into()),
        }
    }
    association.release()?;
    Ok(returned)
}

/// Moves a study to [`SINK`]; the final status must be success.
pub fn move_study(server: &Server, study: &str) -> Outcome<()> {
    let proposal = Proposal { class: MOVE, as_scp: false };
    let mut association = Association::request(server.dicom, "MOVER", server.title(), &[proposal])?;
    let keys = [(tags::QUERY_RETRIEVE_LEVEL, "STUDY"), (tags::STUDY_INSTANCE_UID, study)];
    let command = request(MOVE, 0x0021, 1)
        .put(element::DESTINATION, SINK.as_bytes())
        .number(element::PRIORITY, 0)
        .number(element::DATA_SET, 0);
    association.send(1, &command, Some(&identifier(&keys)?))?;
    loop {
        let (_, response) = due(association.command()?)?;
        if response.has_data_set() {
            association.data_set(None)?;
        }
        match response.u16(element::STATUS) {
            PENDING => {}
            0 => return association.release(),
            status => return Err(format!("C-MOVE: status {status:04X}H").into()),
        }
    }
}

/// The AE that C-MOVE sends to. It tells of each association once that was released.
pub struct Sink {
    pub address: SocketAddr,
    told: Receiver<Result<(Returned, Instant), String>>,
}

impl Sink {
    /// Listens from now on, until the bench ends.
    pub fn open() -> Outcome<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let (tell, told) = sync_channel(16);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let outcome = Association::accept(stream).and_then(swallow);
                if tell.send(outcome.map_err(|error| error.to_string())).is_err() {
                    break;
                }
            }
        });
        Ok(Self { address, told })
    }

    /// What the next association brought, and when its first message was there. `first` is 0 in it.
    pub fn next(&self) -> Outcome<(Returned, Instant)> {
        Ok(self.told.recv_timeout(Duration::from_secs(30))??)
    }
}

fn swallow(mut association: Association) -> Outcome<(Returned, Instant)> {
    let (mut returned, mut first) = (Returned::default(), None);
    while let Some((context, command)) = association.command()? {
        first.get_or_insert_with(Instant::now);
        returned.bytes += association.take(context, &command, None)?;
        returned.instances += 1;
    }
    association.released()?;
    Ok((returned, first.unwrap_or_else(Instant::now)))
}
