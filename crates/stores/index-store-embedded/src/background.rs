//! Threads that do what commits leave to be done.

use crate::{engine::Engine, store::Slot};
use cairn_store_api::StoreError;
use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Duration,
};
use tokio::sync::RwLock;

/// What failed is tried again after this time.
const RETRY: Duration = Duration::from_secs(1);

/// A thread that works when woken. Dropping it ends it.
pub(crate) struct Background {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    signal: Mutex<Signal>,
    changed: Condvar,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Signal {
    Idle,
    Awake,
    End,
}

impl Background {
    /// Starts a thread that, once woken, waits for `delay` and then works until `work` says that there is no more.
    pub(crate) fn start(
        name: &str,
        slot: Arc<RwLock<Slot>>,
        delay: Duration,
        work: impl Fn(&Engine) -> Result<bool, StoreError> + Send + 'static,
    ) -> Result<Self, StoreError> {
        let shared = Arc::new(Shared { signal: Mutex::new(Signal::Idle), changed: Condvar::new() });
        let own = shared.clone();
        let run = move || {
            let mut said = None;
            while own.wait(delay) {
                let done = match &*slot.blocking_read() {
                    Slot::Open(engine) => work(engine),
                    // Whoever mends it has it work again.
                    Slot::Broken => Ok(false),
                    Slot::Closed => return,
                };
                match done {
                    Ok(more) => {
                        said = None;
                        if more {
                            own.set(Signal::Awake);
                        }
                    }
                    Err(error) => {
                        // Once, however often it is tried again.
                        let error = error.to_string();
                        if said.as_ref() != Some(&error) {
                            tracing::error!("{error}");
                            said = Some(error);
                        }
                        own.set(Signal::Awake);
                        own.pause(RETRY);
                    }
                }
            }
        };
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run);
        let thread = thread.map_err(|error| StoreError::io("start index store thread", &error))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// There is something to do.
    pub(crate) fn wake(&self) {
        self.shared.set(Signal::Awake);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Signal> {
        self.signal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, to: Signal) {
        let mut signal = self.lock();
        if *signal != to && *signal != Signal::End {
            *signal = to;
            self.changed.notify_one();
        }
    }

    /// Waits to be woken, and then for the delay; `false` at the end.
    fn wait(&self, delay: Duration) -> bool {
        let woken = self.changed.wait_while(self.lock(), |signal| *signal == Signal::Idle);
        drop(woken);
        self.pause(delay);
        let mut signal = self.lock();
        let goes_on = *signal != Signal::End;
        if goes_on {
            *signal = Signal::Idle;
        }
        goes_on
    }

    /// Waits for some time, or for the end.
    fn pause(&self, time: Duration) {
        let waited = self.changed.wait_timeout_while(self.lock(), time, |signal| *signal != Signal::End);
        drop(waited);
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.shared.set(Signal::End);
        if let Some(thread) = self.thread.take() {
            // It does not panic; should it, there is nothing left to do.
            let _ = thread.join();
        }
    }
}
