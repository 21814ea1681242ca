//! OpenSSH certificates (PROTOCOL.certkeys of OpenSSH): how people enter the front door.

mod check;
mod cidr;
mod issue;
mod refusal;

pub use check::{Principal, SshPermits, SshTrust, check_user_certificate};
pub use cidr::{Cidr, CidrError};
pub use issue::{
    BACKDATE, HOST_LIFETIME_MAX, HostCertificateRequest, SshIssueError, SshSigner, SshSigningFailed,
    USER_LIFETIME_DEFAULT, USER_LIFETIME_MAX, UserCertificateRequest, check_subject_key, generate_key,
    issue_host_certificate, issue_user_certificate,
};
pub use refusal::CertRefusal;
