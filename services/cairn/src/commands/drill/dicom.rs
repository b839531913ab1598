//! What a sender and a viewer do at the standby site's DICOM listener: it is called by the AE titles of the site that it
//! stands in for.

use cairn_dicom::{CharacterSet, Uid, dataset::DataSet, part10::Part10Reader, tags, transfer_syntax::Encoding};
use cairn_dimse::{
    Association, AssociationError, Command, CommandField, Implementation, Limits, Received, Status,
    pdu::AeTitle,
    requestor::{Request, connect},
};
use cairn_synthetic::{Generated, one_study};
use std::time::Duration;

/// For each step of an association.
const PATIENCE: Duration = Duration::from_secs(5);
/// Verification, and Study Root Query/Retrieve - FIND (PS3.4 annexes A and C).
const VERIFICATION: &str = "1.2.840.10008.1.1";
const STUDY_ROOT_FIND: &str = "1.2.840.10008.5.1.4.1.2.2.1";
const IMPLICIT_VR_LITTLE_ENDIAN: &str = "1.2.840.10008.1.2";
const EXPLICIT_VR_LITTLE_ENDIAN: &str = "1.2.840.10008.1.2.1";

/// Who calls whom, and where.
#[derive(Clone, Debug)]
pub struct Caller {
    pub address: String,
    pub calling: String,
    pub called: String,
}

fn uid(text: &str) -> Result<Uid, AssociationError> {
    text.parse().map_err(|_| AssociationError::Protocol("a UID that is none"))
}

impl Caller {
    async fn associate(&self, class: &str, syntax: &str) -> Result<Association, AssociationError> {
        let limits =
            Limits { connect_timeout: PATIENCE, response_timeout: PATIENCE, artim: PATIENCE, ..Limits::default() };
        let title = |text: &str| AeTitle::new(text).ok_or(AssociationError::Protocol("an AE title that is none"));
        let request = Request {
            calling_ae_title: title(&self.calling)?,
            called_ae_title: title(&self.called)?,
            contexts: vec![(uid(class)?, vec![uid(syntax)?])],
            roles: Vec::new(),
        };
        let transport = connect(&self.address, &limits).await?;
        Association::request(transport, &request, &limits, &Implementation::default()).await
    }

    /// C-ECHO; gives what was answered.
    ///
    /// # Errors
    /// No answer, or another than success.
    pub async fn echo(&self) -> Result<String, String> {
        let asked = async {
            let mut association = self.associate(VERIFICATION, IMPLICIT_VR_LITTLE_ENDIAN).await?;
            let status = association.echo().await?;
            association.release().await?;
            Ok(status)
        };
        succeeded(asked.await)
    }

    /// C-FIND of a study, or of one that nobody has; gives what was answered.
    ///
    /// # Errors
    /// No answer, another than success, or not the study.
    pub async fn find(&self, study: Option<&str>) -> Result<String, String> {
        let found = self.try_find(study.unwrap_or("2.25.0")).await;
        let (status, matches) = found.map_err(|error: AssociationError| error.to_string())?;
        match (study, matches) {
            (Some(_), 0) if status == Status::SUCCESS => Err("the study is not found".into()),
            _ => succeeded(Ok(status)).map(|text| format!("{text}, {matches} matches")),
        }
    }

    async fn try_find(&self, study: &str) -> Result<(Status, u64), AssociationError> {
        let mut identifier = DataSet::new();
        identifier.put_text(tags::QUERY_RETRIEVE_LEVEL, "STUDY");
        identifier.put_text(tags::STUDY_INSTANCE_UID, study);
        identifier.put_empty(tags::STUDY_DATE);
        let encoded = identifier.encode(Encoding::ImplicitLittle, CharacterSet::DEFAULT);
        let encoded = encoded.map_err(|_| AssociationError::Protocol("an identifier that can't be written"))?;
        let mut association = self.associate(STUDY_ROOT_FIND, IMPLICIT_VR_LITTLE_ENDIAN).await?;
        let context = accepted(&association)?;
        let id = association.next_message_id();
        let mut command = Command::request(CommandField::C_FIND_RQ, id, STUDY_ROOT_FIND);
        command.priority = Some(0);
        association.send(context, &mut command, Some(&encoded)).await?;
        let mut matches = 0;
        loop {
            let received = tokio::time::timeout(PATIENCE, association.receive()).await;
            let Received::Message(message) = received.map_err(|_| AssociationError::Timeout("no response"))?? else {
                return Err(AssociationError::Released);
            };
            let status = message.command.status.ok_or(AssociationError::Protocol("response without a status"))?;
            if !status.is_pending() {
                association.release().await?;
                return Ok((status, matches));
            }
            // What is found is not looked at.
            while association.data().await?.is_some() {}
            matches += 1;
        }
    }

    /// C-STORE of a synthetic instance; gives what was answered.
    ///
    /// # Errors
    /// No answer, or another than success.
    pub async fn store(&self, instance: &Synthetic) -> Result<String, String> {
        let asked = async {
            let mut association = self.associate(&instance.sop_class_uid, EXPLICIT_VR_LITTLE_ENDIAN).await?;
            let context = accepted(&association)?;
            let id = association.next_message_id();
            let mut command = Command::request(CommandField::C_STORE_RQ, id, &instance.sop_class_uid);
            command.sop_instance_uid = Some(instance.made.sop_instance_uid.to_string());
            command.priority = Some(0);
            association.send(context, &mut command, Some(&instance.data_set)).await?;
            let response = association.response(id, |_| {}).await?;
            association.release().await?;
            response.status.ok_or(AssociationError::Protocol("response without a status"))
        };
        succeeded(asked.await)
    }
}

fn accepted(association: &Association) -> Result<u8, AssociationError> {
    let context = association.contexts().first().map(|context| context.id);
    context.ok_or(AssociationError::Protocol("the presentation context was not accepted"))
}

fn succeeded(answered: Result<Status, AssociationError>) -> Result<String, String> {
    match answered {
        Ok(Status::SUCCESS) => Ok("status 0000H".into()),
        Ok(status) => Err(format!("status {status}")),
        Err(error) => Err(error.to_string()),
    }
}

/// An instance that says of itself that it is synthetic.
pub struct Synthetic {
    pub made: Generated,
    sop_class_uid: String,
    /// In Explicit VR Little Endian.
    pub data_set: Vec<u8>,
}

impl Synthetic {
    /// The one of a seed: the same seed gives the same instance.
    pub fn of(seed: u64) -> Option<Self> {
        let made = one_study(seed, 1).into_iter().next()?;
        let start = Part10Reader::new(1 << 16).push(&made.file).ok()??;
        let sop_class_uid = start.meta.sop_class_uid()?.to_string();
        Some(Self { made, sop_class_uid, data_set: start.data_set })
    }
}
