//! How a broker asks the signer, the one process that holds the certificate authorities' keys.
//!
//! Here are the requests, the answers and the client. The keys and the rules under which they sign
//! are in the binary, `sekisho-signer`, so that whoever links this crate links no key.

mod client;
mod protocol;

pub use client::{SignerClient, SignerError};
pub use protocol::{
    Answer, Authorities, FRAME_MAX, IssueX509, ProtocolError, Request, SignHost, SignUser, TIMEOUT,
    read_frame, write_frame,
};
