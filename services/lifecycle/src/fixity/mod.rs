//! Fixity: whether objects are what their events say.

mod damage;
mod pace;
mod round;

pub(crate) use damage::{Copies, Damages};
pub(crate) use pace::Pace;
pub(crate) use round::Rounds;
