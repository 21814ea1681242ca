//! What may be opened inside a connection.

use audit::{ChannelKind, EventKind};
use model::StudyId;
use policy::command::{Transfer, transfer};
use policy::{Action, CertificateRules, Channel, Decision, Denial, PolicySet, Request};

use crate::events::{Basis, permitted};
use crate::facts::StudyRecords;
use crate::{Entry, Gate, Refusal, facts};

/// What somebody wants to open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// A login shell.
    Shell,
    /// A command, as its line reads.
    Exec(String),
    /// Files, by the subsystem `sftp`.
    Sftp,
    /// A connection to a port that the workspace listens on.
    Forward(u16),
}

/// Which way files may go in a session of [`Wanted::Sftp`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FileRights {
    /// Into the workspace.
    pub upload: bool,
    /// Out of it.
    pub export: bool,
    /// Out of it, from below `/data`.
    pub export_data: bool,
}

/// A channel that policy permits, on its way into a permit and into the log.
#[derive(Debug)]
pub(crate) struct Opening {
    pub(crate) files: FileRights,
    pub(crate) environment: bool,
    /// What it rests on, one by one.
    pub(crate) channels: Vec<Channel>,
    pub(crate) basis: Basis,
    action: Action,
    kind: EventKind,
}

/// A channel that policy refuses.
#[derive(Debug)]
pub(crate) struct Closed {
    pub(crate) channel: Channel,
    pub(crate) denial: Denial,
    pub(crate) kind: EventKind,
}

impl Opening {
    pub(crate) fn record(&self, epoch: u64) -> (EventKind, audit::DecisionRecord) {
        (self.kind.clone(), permitted(self.action, &self.basis, epoch))
    }
}

impl Wanted {
    /// The kinds of channel that it takes, each of which must be permitted.
    fn takes(&self) -> Vec<Channel> {
        match self {
            Wanted::Shell => vec![Channel::Shell],
            Wanted::Exec(line) => match transfer(line.as_bytes()) {
                Transfer::None | Transfer::Sftp => vec![Channel::Exec],
                Transfer::Upload => vec![Channel::Exec, Channel::Upload],
                // Which files such a command sends is not seen at the door: all of them, then.
                Transfer::Export => vec![Channel::Exec, Channel::Export, Channel::ExportData],
            },
            Wanted::Sftp => Vec::new(),
            Wanted::Forward(_) => vec![Channel::LocalForward],
        }
    }

    /// Whether it counts where a study says how many sessions there may be: a page opens many ports.
    pub(crate) fn counts(&self) -> bool {
        !matches!(self, Wanted::Forward(_))
    }

    fn described(&self) -> (ChannelKind, String) {
        match self {
            Wanted::Shell => (ChannelKind::Shell, String::new()),
            Wanted::Exec(line) => (ChannelKind::Exec, line.clone()),
            Wanted::Sftp => (ChannelKind::Sftp, String::new()),
            Wanted::Forward(port) => {
                (ChannelKind::PortForwarding, format!("to port {port} of the workspace"))
            }
        }
    }
}

impl Gate {
    /// Asks whether a person could open a channel, before it is asked for in earnest: a terminal, a
    /// forwarded agent. A refusal is recorded. An answer of "yes" opens nothing.
    pub async fn weigh_channel(
        &self,
        entry: &Entry,
        study: &StudyId,
        certificate: CertificateRules,
        channel: Channel,
        detail: &str,
    ) -> Result<(), Refusal> {
        let policies = self.inner.policies.load_full();
        let records =
            facts::of_study(&self.inner.store, &entry.person, study).await.map_err(|e| Refusal::store(&e))?;
        let asked =
            Asked { entry, study, certificate, now: self.now(), policies: &policies, records: &records };
        match asked.decide(channel) {
            Ok(_) => Ok(()),
            Err(denial) => {
                let kind = EventKind::ChannelRefused { what: kind_of(channel), detail: detail.to_owned() };
                let event = audit::Event { study: Some(study.clone()), ..self.happened_to(entry, kind) };
                Err(self.refuse(event, Action::Channel(channel), &denial, policies.epoch()).await?)
            }
        }
    }
}

/// A question about channels, with everything that decides it.
pub(crate) struct Asked<'a> {
    pub(crate) entry: &'a Entry,
    pub(crate) study: &'a StudyId,
    pub(crate) certificate: CertificateRules,
    pub(crate) now: model::Timestamp,
    pub(crate) policies: &'a PolicySet,
    pub(crate) records: &'a StudyRecords,
}

impl Asked<'_> {
    /// Decides everything that `wanted` takes.
    pub(crate) fn open(&self, wanted: &Wanted, terminal: bool) -> Result<Opening, Box<Closed>> {
        let (what, detail) = wanted.described();
        let closed = |channel, denial| {
            // What was refused is the part, not the whole: an `scp` is refused as an export.
            let what = if channel == Channel::Exec { what } else { kind_of(channel) };
            Box::new(Closed {
                channel,
                denial,
                kind: EventKind::ChannelRefused { what, detail: detail.clone() },
            })
        };
        let mut channels = wanted.takes();
        let mut files = FileRights::default();
        if *wanted == Wanted::Sftp {
            let (upload, export) = (self.decide(Channel::Upload), self.decide(Channel::Export));
            files = FileRights {
                upload: upload.is_ok(),
                export: export.is_ok(),
                export_data: export.is_ok() && self.decide(Channel::ExportData).is_ok(),
            };
            if let (Err(denial), Err(_)) = (upload, export) {
                return Err(closed(Channel::Upload, denial));
            }
            let each = [
                (files.upload, Channel::Upload),
                (files.export, Channel::Export),
                (files.export_data, Channel::ExportData),
            ];
            channels.extend(each.into_iter().filter(|(open, _)| *open).map(|(_, channel)| channel));
        }
        if terminal {
            channels.push(Channel::Terminal);
        }
        let mut basis: Option<Basis> = None;
        for channel in &channels {
            let more = self.decide(*channel).map_err(|denial| closed(*channel, denial))?;
            match &mut basis {
                Some(basis) => basis.add(&more),
                None => basis = Some(Basis::from(&more)),
            }
        }
        let first = channels.first().copied();
        let (Some(basis), Some(first)) = (basis, first) else {
            return Err(closed(Channel::Subsystem, Denial::Malformed("nothing was asked for")));
        };
        Ok(Opening {
            files,
            environment: self.decide(Channel::Environment).is_ok(),
            channels,
            basis,
            action: Action::Channel(first),
            kind: EventKind::ChannelOpened { what, detail },
        })
    }

    fn decide(&self, channel: Channel) -> Result<policy::Basis, Denial> {
        let request = Request {
            person: self.entry.person.clone(),
            study: Some(self.study.clone()),
            dataset: None,
            action: Action::Channel(channel),
            purpose: None,
            now: self.now,
        };
        let facts = policy::Facts { certificate: self.certificate, ..self.records.facts(&[]) };
        match policy::decide(&request, self.policies, &facts) {
            Decision::Permit(basis) => Ok(basis),
            Decision::Deny(denial) | Decision::Manual(denial) => Err(denial),
        }
    }
}

/// How records name a kind of channel.
pub(crate) fn kind_of(channel: Channel) -> ChannelKind {
    match channel {
        Channel::Shell => ChannelKind::Shell,
        Channel::Exec => ChannelKind::Exec,
        Channel::Terminal => ChannelKind::Terminal,
        Channel::Environment => ChannelKind::Environment,
        Channel::Upload => ChannelKind::Upload,
        Channel::Export => ChannelKind::Export,
        Channel::ExportData => ChannelKind::ExportData,
        Channel::LocalForward => ChannelKind::PortForwarding,
        Channel::RemoteForward => ChannelKind::RemoteForwarding,
        Channel::StreamLocal => ChannelKind::StreamLocal,
        Channel::AgentForward => ChannelKind::AgentForwarding,
        Channel::X11 => ChannelKind::X11,
        Channel::Subsystem => ChannelKind::Subsystem,
    }
}
