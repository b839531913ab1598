//! The door over real sockets, with an archive in memory behind it.

mod archive;
mod files;
mod hostile;
mod http;
mod qido;
mod serving;
mod stow;
mod viewer_contract;
mod wado;
