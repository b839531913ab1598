//! When the standby site does what the original one did: it is asked again and again until it has answered everything.

use super::{
    asked::{self, Study},
    dicom::{Caller, Synthetic},
    report::{Ready, millis},
    sides::Side,
};
use cairn_service_api::Replication;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Between two rounds of questions.
const LOOK: Duration = Duration::from_millis(50);

/// A question whose answer shows that a site is at work.
enum Probe {
    Authority,
    Query,
    Retrieval,
    Echo(Caller),
    Find(Caller),
    Store(Caller),
}

/// What is asked.
pub struct Probes {
    /// A study to ask for, if there is any.
    pub study: Option<Study>,
    /// Who calls by DICOM, once for each AE title of the original site.
    pub callers: Vec<Caller>,
    /// What is stored, by the first of them.
    pub store: Option<Synthetic>,
}

impl Probes {
    fn all(&self) -> Vec<(String, Probe)> {
        let mut probes = vec![("has authority".to_owned(), Probe::Authority), ("query".to_owned(), Probe::Query)];
        if self.study.is_some() {
            probes.push(("retrieval".to_owned(), Probe::Retrieval));
        }
        for caller in &self.callers {
            probes.push((format!("C-ECHO, called {}", caller.called), Probe::Echo(caller.clone())));
            probes.push((format!("C-FIND, called {}", caller.called), Probe::Find(caller.clone())));
        }
        if let (Some(caller), Some(_)) = (self.callers.first(), &self.store) {
            probes.push((format!("C-STORE, called {}", caller.called), Probe::Store(caller.clone())));
        }
        probes
    }

    async fn ask(&self, side: &Side, probe: &Probe) -> Result<String, String> {
        let study = self.study.as_ref();
        match probe {
            Probe::Authority => {
                let site = side.replication.site().await.map_err(|error| error.to_string())?;
                if site.primary.as_ref() == Some(&side.name) {
                    return Ok(format!("epoch {}", site.epoch));
                }
                Err("not known yet".into())
            }
            Probe::Query => asked::list(side, study.is_some())
                .await
                .map(|_| "a list of studies".into())
                .map_err(|error| error.to_string()),
            Probe::Retrieval => {
                let Some(study) = study else { return Ok("no study".into()) };
                let came = asked::retrieve(side, study, 1).await;
                came.map(|bytes| format!("{bytes} bytes of an instance")).map_err(|error| error.to_string())
            }
            Probe::Echo(caller) => caller.echo().await,
            Probe::Find(caller) => caller.find(study.map(|study| study.uid.as_str())).await,
            Probe::Store(caller) => match &self.store {
                Some(instance) => caller.store(instance).await,
                None => Ok("nothing to store".into()),
            },
        }
    }
}

/// Asks until everything was answered, for so long at most. Times are since `isolated`.
pub async fn wait(
    side: &Side,
    probes: &Probes,
    isolated: Instant,
    within: Duration,
    stop: &watch::Receiver<bool>,
) -> Vec<Ready> {
    let mut open = probes.all();
    let mut ready: Vec<Ready> = Vec::new();
    loop {
        let mut failed = Vec::new();
        for (what, probe) in std::mem::take(&mut open) {
            let asked = tokio::time::timeout(asked::PATIENCE, probes.ask(side, &probe)).await;
            match asked.unwrap_or_else(|_| Err("no answer".into())) {
                Ok(detail) => ready.push(Ready { what, after_ms: Some(millis(isolated.elapsed())), detail }),
                Err(why) => failed.push((what, probe, why)),
            }
        }
        if failed.is_empty() {
            return ready;
        }
        if isolated.elapsed() > within || *stop.borrow() {
            ready.extend(failed.into_iter().map(|(what, _, detail)| Ready { what, after_ms: None, detail }));
            return ready;
        }
        open = failed.into_iter().map(|(what, probe, _)| (what, probe)).collect();
        tokio::time::sleep(LOOK).await;
    }
}

/// From the isolation until the last of all answers; nothing if one did not come.
pub fn recovery_time(ready: &[Ready]) -> Option<u64> {
    let times: Option<Vec<u64>> = ready.iter().map(|each| each.after_ms).collect();
    times?.into_iter().max()
}
