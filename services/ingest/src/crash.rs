//! Kill points: named steps at which the process dies on request, to show that no step loses or invents anything.
//!
//! Inert unless `CAIRN_CRASH_AT` names a step when the process starts: `after-object-finish` dies the first time it is
//! passed, `after-object-finish:17` the seventeenth. The process aborts as if it were killed: no destructor runs, no
//! buffer is written.

use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering},
};

macro_rules! steps {
    ($($(#[$doc:meta])+ $name:ident = $number:literal $text:literal),+ $(,)?) => {
        /// A step between two effects of ingest, in the order of one store.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Step { $($(#[$doc])+ $name = $number,)+ }

        impl Step {
            /// Every step.
            pub const ALL: &[Step] = &[$(Step::$name,)+];

            /// Its name in `CAIRN_CRASH_AT`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }
        }
    };
}

steps! {
    /// Admitted; nothing written.
    Admitted = 1 "admitted",
    /// The object's writer is open; nothing written to it.
    AfterObjectBegin = 2 "after-object-begin",
    /// Some bytes of the object are written.
    AfterFirstBytes = 3 "after-first-bytes",
    /// All bytes are written; the object is not finished.
    BeforeObjectFinish = 4 "before-object-finish",
    /// The object is durable; no event names it.
    AfterObjectFinish = 5 "after-object-finish",
    /// The side object of a large header is durable too.
    AfterSideObject = 6 "after-side-object",
    /// Decided what becomes of the instance; the event is made, not appended.
    BeforeAppend = 7 "before-append",
    /// The event is durable; nobody was told.
    AfterAppend = 8 "after-append",
    /// Remembered; the answer is on its way to the door.
    BeforeAnswer = 9 "before-answer",
    /// A repeat: `InstanceReceivedAgain` is durable; the second copy is there.
    AfterRepeatAppend = 10 "after-repeat-append",
    /// A repeat: the index says that the first copy is live; the second copy is there.
    AfterRepeatConfirmed = 11 "after-repeat-confirmed",
    /// A repeat: the second copy is gone.
    AfterCopyDelete = 12 "after-copy-delete",
    /// A refusal: quarantined, not answered.
    AfterQuarantine = 13 "after-quarantine",
    /// A receipt is closed; its events are not appended.
    BeforeReceiptAppend = 14 "before-receipt-append",
    /// Its events are durable.
    AfterReceiptAppend = 15 "after-receipt-append",
    /// Two versions were compared; the result is not appended.
    BeforeComparisonAppend = 16 "before-comparison-append",
    /// A rejection note and what it says of its own study are durable; what it says of others is not.
    BeforeRejectionsElsewhere = 17 "before-rejections-elsewhere",
}

struct Plan {
    step: Step,
    passes_left: AtomicU64,
}

static PLAN: OnceLock<Option<Plan>> = OnceLock::new();

fn read(text: &str) -> Option<Plan> {
    let (name, passes) = text.split_once(':').unwrap_or((text, "1"));
    let step = Step::ALL.iter().find(|step| step.name() == name)?;
    Some(Plan { step: *step, passes_left: AtomicU64::new(passes.parse().ok()?) })
}

/// Dies here if that was asked for.
pub(crate) fn crash_point(step: Step) {
    let plan = PLAN.get_or_init(|| std::env::var("CAIRN_CRASH_AT").ok().as_deref().and_then(read));
    if let Some(plan) = plan
        && plan.step == step
        && plan.passes_left.fetch_sub(1, Ordering::Relaxed) == 1
    {
        std::process::abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_numbered_and_read_by_name() {
        for (index, step) in Step::ALL.iter().enumerate() {
            assert_eq!(*step as usize, index + 1);
            assert!(read(step.name()).is_some_and(|plan| plan.step == *step));
        }
        let plan = read("after-append:17").expect("a step and a count");
        assert_eq!((plan.step, plan.passes_left.into_inner()), (Step::AfterAppend, 17));
        assert!(read("nowhere").is_none() && read("after-append:x").is_none());
    }
}
