//! What may be opened inside one SSH connection, channel by channel.
//!
//! Three must agree: the person's role ([`crate::authorisation_matrix`]), the certificate they came
//! with ([`CertificateRules`]), and the study ([`ChannelRules`]). What this gate does not offer at
//! all is refused before the study is asked.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// One kind of channel, or of request within one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Channel {
    /// A login shell.
    Shell,
    /// A command.
    Exec,
    /// A terminal for either.
    Terminal,
    /// Variables of the person's environment: language and time zone, nothing else ever.
    Environment,
    /// Files into the workspace: `sftp`, `scp`, `rsync`.
    Upload,
    /// Files of the workspace out of it.
    Export,
    /// Files below `/data` out of it; takes [`Channel::Export`] besides.
    ExportData,
    /// `-L` and `-D`: connections to ports that the workspace itself listens on.
    LocalForward,
    /// `-R`: ports here that lead to the person's machine.
    RemoteForward,
    /// Unix sockets, either way.
    StreamLocal,
    /// `-A`: the person's keys for use from the workspace.
    AgentForward,
    /// `-X`: windows on the person's screen.
    X11,
    /// A subsystem other than `sftp`.
    Subsystem,
}

impl Channel {
    /// Every one, in the order of the authorisation matrix.
    pub const ALL: [Channel; 13] = [
        Channel::Shell,
        Channel::Exec,
        Channel::Terminal,
        Channel::Environment,
        Channel::Upload,
        Channel::Export,
        Channel::ExportData,
        Channel::LocalForward,
        Channel::RemoteForward,
        Channel::StreamLocal,
        Channel::AgentForward,
        Channel::X11,
        Channel::Subsystem,
    ];

    /// Its stable name in rules, in records and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Channel::Shell => "shell",
            Channel::Exec => "exec",
            Channel::Terminal => "terminal",
            Channel::Environment => "environment",
            Channel::Upload => "upload",
            Channel::Export => "export",
            Channel::ExportData => "export-data",
            Channel::LocalForward => "port-forwarding",
            Channel::RemoteForward => "remote-forwarding",
            Channel::StreamLocal => "stream-local",
            Channel::AgentForward => "agent-forwarding",
            Channel::X11 => "x11",
            Channel::Subsystem => "subsystem",
        }
    }

    /// The name of the action in rules.
    pub(crate) const fn action(self) -> &'static str {
        match self {
            Channel::Shell => "channel-shell",
            Channel::Exec => "channel-exec",
            Channel::Terminal => "channel-terminal",
            Channel::Environment => "channel-environment",
            Channel::Upload => "channel-upload",
            Channel::Export => "channel-export",
            Channel::ExportData => "channel-export-data",
            Channel::LocalForward => "channel-port-forwarding",
            Channel::RemoteForward => "channel-remote-forwarding",
            Channel::StreamLocal => "channel-stream-local",
            Channel::AgentForward => "channel-agent-forwarding",
            Channel::X11 => "channel-x11",
            Channel::Subsystem => "channel-subsystem",
        }
    }

    /// Whether this gate can open it at all, whatever anybody permits.
    pub const fn is_offered(self) -> bool {
        !matches!(
            self,
            Channel::RemoteForward
                | Channel::StreamLocal
                | Channel::AgentForward
                | Channel::X11
                | Channel::Subsystem
        )
    }

    /// What it is, in words that begin a sentence about one or several.
    pub const fn words(self) -> &'static str {
        match self {
            Channel::Shell => "login shells are",
            Channel::Exec => "single commands are",
            Channel::Terminal => "terminals are",
            Channel::Environment => "variables of your environment are",
            Channel::Upload => "uploads by sftp, scp and rsync are",
            Channel::Export => "downloads by sftp, scp and rsync are",
            Channel::ExportData => "downloads of files below /data are",
            Channel::LocalForward => "forwarded ports (-L, -D) are",
            Channel::RemoteForward => "ports forwarded to your machine (-R) are",
            Channel::StreamLocal => "forwarded unix sockets are",
            Channel::AgentForward => "forwarded key agents (-A) are",
            Channel::X11 => "forwarded X11 windows (-X) are",
            Channel::Subsystem => "subsystems other than sftp are",
        }
    }

    /// What to do instead.
    pub(crate) const fn advice(self) -> &'static str {
        match self {
            Channel::Export | Channel::ExportData => {
                "results leave the enclave only through the airlock, where a second person reviews them: ask your study's data steward"
            }
            Channel::Upload => {
                "bring files in with `sekisho put`, or ask a data steward to open uploads for the study"
            }
            Channel::RemoteForward | Channel::StreamLocal => "let your machine connect with -L instead",
            Channel::AgentForward => "keep your keys on your machine and copy through it",
            Channel::X11 => "work in the terminal, or reach a program that serves pages with -L",
            Channel::Subsystem => "use ssh, sftp, scp or rsync",
            Channel::Terminal => "work without one (ssh -T), or ask a data steward if the study needs them",
            Channel::Shell | Channel::Exec | Channel::Environment | Channel::LocalForward => {
                "ask a data steward if the study needs them"
            }
        }
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No channel has this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no kind of channel; the kinds are {all}", all = Channel::ALL.map(Channel::name).join(", "))]
pub struct UnknownChannel(pub String);

impl FromStr for Channel {
    type Err = UnknownChannel;

    fn from_str(text: &str) -> Result<Channel, UnknownChannel> {
        let known = Channel::ALL.into_iter().find(|channel| channel.name() == text);
        known.ok_or_else(|| UnknownChannel(text.chars().take(64).collect()))
    }
}

/// The channels that a study permits. The default is what a study begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelRules(BTreeSet<Channel>);

impl Default for ChannelRules {
    fn default() -> ChannelRules {
        use Channel::{Environment, Exec, Shell, Terminal, Upload};
        ChannelRules([Shell, Exec, Terminal, Environment, Upload].into())
    }
}

impl ChannelRules {
    /// Rules that permit nothing.
    pub const fn none() -> ChannelRules {
        ChannelRules(BTreeSet::new())
    }

    /// Whether they permit a channel.
    pub fn allows(&self, channel: Channel) -> bool {
        // Data is part of what is exported: the narrower rule alone opens nothing.
        let export = channel != Channel::ExportData || self.0.contains(&Channel::Export);
        export && self.0.contains(&channel)
    }

    /// Permits a channel from now on.
    pub fn allow(&mut self, channel: Channel) {
        self.0.insert(channel);
    }

    /// Refuses a channel from now on.
    pub fn refuse(&mut self, channel: Channel) {
        self.0.remove(&channel);
    }

    /// The names of what they permit, in order.
    pub fn names(&self) -> Vec<&'static str> {
        self.0.iter().map(|channel| channel.name()).collect()
    }

    /// The rules that permit exactly what is named.
    pub fn parse<S: AsRef<str>>(names: &[S]) -> Result<ChannelRules, UnknownChannel> {
        names.iter().map(|name| name.as_ref().parse()).collect::<Result<_, _>>().map(ChannelRules)
    }
}

/// What the certificate of whoever asks permits (`permit-pty` and its like). The default permits
/// none of what a certificate has a word about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CertificateRules {
    /// `permit-pty`.
    pub terminal: bool,
    /// `permit-port-forwarding`.
    pub port_forwarding: bool,
    /// `permit-agent-forwarding`.
    pub agent_forwarding: bool,
    /// `permit-X11-forwarding`.
    pub x11: bool,
}

impl CertificateRules {
    /// Whether the certificate permits a channel. OpenSSH's certificates have no word about shells,
    /// commands and files; there the study decides alone.
    pub const fn allows(self, channel: Channel) -> bool {
        match channel {
            Channel::Terminal => self.terminal,
            Channel::LocalForward | Channel::RemoteForward | Channel::StreamLocal => self.port_forwarding,
            Channel::AgentForward => self.agent_forwarding,
            Channel::X11 => self.x11,
            Channel::Shell
            | Channel::Exec
            | Channel::Environment
            | Channel::Upload
            | Channel::Export
            | Channel::ExportData
            | Channel::Subsystem => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_study_begins_with_little_and_data_needs_both_words() {
        let mut rules = ChannelRules::default();
        let open = |rules: &ChannelRules| {
            Channel::ALL.into_iter().filter(|c| rules.allows(*c)).map(Channel::name).collect::<Vec<_>>()
        };
        assert_eq!(open(&rules), ["shell", "exec", "terminal", "environment", "upload"]);
        rules.allow(Channel::ExportData);
        assert!(!rules.allows(Channel::ExportData));
        rules.allow(Channel::Export);
        assert!(rules.allows(Channel::ExportData));
        rules.refuse(Channel::Export);
        assert!(!rules.allows(Channel::ExportData));
        assert_eq!(open(&ChannelRules::none()), Vec::<&str>::new());
    }

    #[test]
    fn names_come_back_as_they_went() {
        for channel in Channel::ALL {
            assert_eq!(channel.name().parse(), Ok(channel));
            assert_eq!(channel.action().strip_prefix("channel-"), Some(channel.name()));
        }
        let rules = ChannelRules::default();
        assert_eq!(ChannelRules::parse(&rules.names()), Ok(rules));
        assert!(ChannelRules::parse(&["shell", "telnet"]).is_err());
    }
}
