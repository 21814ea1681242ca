//! What an agent observes in a workspace and of its own host, in the words that the protocol, the
//! audit log and the rules share.

use serde::{Deserialize, Serialize};

use crate::{DatasetId, ObjectId};

/// Something that was done in a workspace.
///
/// Every text in it comes from the workspace, cut to a bounded length by whoever observed it. The log
/// records the fields of each under the names they have here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Observation {
    /// A program was executed (execve(2), execveat(2)).
    Process(Execution),
    /// A connection was asked for, or a datagram sent, by address.
    Connection(Attempt),
    /// Packets left the workspace's network and were dropped.
    Packets(Packets),
    /// A genome file was opened, is being read, or was closed.
    FileRead(FileRead),
    /// More was observed than is reported one by one.
    Overflow(Overflow),
}

/// A program that was executed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Execution {
    /// The file, as it is called in the workspace, links followed.
    pub program: String,
    /// Its arguments, the name it was called by first.
    pub argv: Vec<String>,
    /// The directory it was started in.
    pub directory: Option<String>,
    /// The number of the process on the host.
    pub pid: u32,
    /// The process that started it, if it was still there.
    pub parent_pid: u32,
    /// The parent's program, if it could be read.
    pub parent_program: Option<String>,
    /// The user, as numbered in the workspace.
    pub uid: u32,
    /// What came of it.
    pub outcome: ProcessOutcome,
}

/// A connection that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// The family of the address.
    pub family: NetworkFamily,
    /// The protocol, if the socket could be looked at.
    pub protocol: Transport,
    /// The address: an IP address, or the name of a unix socket (`@` first if abstract).
    pub address: String,
    /// The port, where there is one.
    pub port: Option<u16>,
    /// The number of the process on the host.
    pub pid: u32,
    /// The user, as numbered in the workspace.
    pub uid: u32,
    /// The program that asked, if it could be read.
    pub program: Option<String>,
    /// How often, since this was last reported.
    pub count: u64,
    /// What came of it.
    pub outcome: ConnectionOutcome,
}

/// Packets that were dropped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packets {
    /// Their protocol.
    pub protocol: Transport,
    /// From where: an IP address.
    pub source: String,
    /// From which port; the last one seen.
    pub source_port: Option<u16>,
    /// Where to: an IP address.
    pub destination: String,
    /// To which port.
    pub destination_port: Option<u16>,
    /// How many, since this was last reported.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How it is known which process sent the first of them.
    pub attribution: Attribution,
    /// The number of that process on the host.
    pub pid: Option<u32>,
    /// Its user, as numbered in the workspace.
    pub uid: Option<u32>,
    /// Its program, if it could be read.
    pub program: Option<String>,
}

/// A genome file that was opened, is being read, or was closed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRead {
    /// What is stored.
    pub object: ObjectId,
    /// The dataset it belongs to.
    pub dataset: DatasetId,
    /// Its name there.
    pub name: String,
    /// Bytes it has.
    pub size: u64,
    /// Which of its reports this is.
    pub phase: ReadPhase,
    /// Bytes handed out since it was opened.
    pub bytes: u64,
    /// How many reads those were.
    pub reads: u64,
    /// Who opened it, as numbered on the host, if that could be seen.
    pub pid: Option<u32>,
    /// The program that did, if it could be read.
    pub program: Option<String>,
}

/// What was only counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overflow {
    /// Executions.
    pub processes: u64,
    /// Attempts to connect.
    pub connections: u64,
    /// Packets.
    pub packets: u64,
    /// Reads of files.
    pub files: u64,
    /// Some of what was executed or addressed, each with how often.
    pub examples: Vec<String>,
}

/// The state of a host and of what runs on it, as it finds itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnosis {
    /// Why it is told now.
    pub cause: DiagnosisCause,
    /// What is there: versions, sums of configurations.
    pub facts: Vec<Fact>,
    /// What was looked at, and whether it is as it should be.
    pub checks: Vec<Check>,
    /// What is another than it was told last, in words.
    pub changes: Vec<String>,
}

impl Diagnosis {
    /// The worst state of all checks.
    pub fn state(&self) -> CheckState {
        self.checks.iter().map(|check| check.state).max().unwrap_or(CheckState::Ok)
    }
}

/// Something that is so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    /// What, such as `kernel`.
    pub name: String,
    /// How it is.
    pub value: String,
}

/// Something that should be so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What, such as `cpu.meltdown`.
    pub name: String,
    /// Whether it is.
    pub state: CheckState,
    /// How it is, in words.
    pub detail: String,
}

macro_rules! words {
    ($($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $code:literal,)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name { $($(#[$vdoc])* #[serde(rename = $code)] $variant,)* }

        impl $name {
            /// The stable word that stands for it in records.
            pub const fn code(self) -> &'static str {
                match self { $($name::$variant => $code,)* }
            }
        }
    )*};
}

words! {
    /// What came of an execution.
    ProcessOutcome {
        /// The file was there and executable.
        Started = "started",
        /// There was no such file.
        NotFound = "not-found",
        /// The file may not be executed.
        Denied = "denied",
        /// It could not be seen in time.
        Unknown = "unknown",
    }

    /// The family of an address.
    NetworkFamily {
        /// IPv4.
        Inet = "inet",
        /// IPv6.
        Inet6 = "inet6",
        /// Within the workspace.
        Unix = "unix",
        /// Any other.
        Other = "other",
    }

    /// What is spoken to an address.
    Transport {
        /// TCP.
        Tcp = "tcp",
        /// UDP.
        Udp = "udp",
        /// ICMP.
        Icmp = "icmp",
        /// ICMPv6.
        Icmp6 = "icmp6",
        /// SCTP.
        Sctp = "sctp",
        /// A stream of a unix socket.
        Stream = "stream",
        /// Datagrams or packets of a unix socket.
        Datagram = "datagram",
        /// Another, or one that could not be seen.
        Other = "other",
    }

    /// How it is known which process sent packets.
    Attribution {
        /// It had asked for a connection to there just before.
        Attempt = "attempt",
        /// It had the socket open from which they came.
        Socket = "socket",
        /// It is not known.
        Unknown = "unknown",
    }

    /// What came of an attempt to connect.
    ConnectionOutcome {
        /// There is no way there.
        Blocked = "blocked",
        /// It stays within the workspace's own loopback.
        Loopback = "loopback",
        /// A unix socket of the workspace.
        Local = "local",
    }

    /// Which report of a reading this is.
    ReadPhase {
        /// It begins.
        Opened = "opened",
        /// It goes on, for a long time.
        Continued = "continued",
        /// It ended.
        Closed = "closed",
    }

    /// Why a diagnosis is told.
    DiagnosisCause {
        /// The process has just started.
        Start = "start",
        /// Something changed.
        Change = "change",
        /// It was time.
        Interval = "interval",
    }

    /// How it stands with something; later ones are worse.
    CheckState {
        /// As it should be.
        Ok = "ok",
        /// Not as it should be, and bearable.
        Warning = "warning",
        /// Not as it should be.
        Failed = "failed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diagnosis_is_as_bad_as_its_worst_check() {
        let check = |state| Check { name: "x".to_owned(), state, detail: String::new() };
        let mut diagnosis = Diagnosis {
            cause: DiagnosisCause::Start,
            facts: Vec::new(),
            checks: Vec::new(),
            changes: Vec::new(),
        };
        assert_eq!(diagnosis.state(), CheckState::Ok);
        diagnosis.checks = vec![check(CheckState::Ok), check(CheckState::Failed), check(CheckState::Warning)];
        assert_eq!(diagnosis.state(), CheckState::Failed);
    }

    #[test]
    fn words_stand_in_records_as_they_are_called() {
        let text = serde_json::to_string(&ProcessOutcome::NotFound).unwrap();
        assert_eq!(text, format!("\"{}\"", ProcessOutcome::NotFound.code()));
    }
}
