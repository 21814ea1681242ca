//! What a channel is told before its command: a terminal, variables, things that are refused.

use russh::ChannelId;
use russh::server::Session;
use wire::message::{Pty, WindowSize};

use super::Connection;

/// Environment variables in one channel.
const VARIABLES: usize = 32;
/// The longest value of an environment variable, in bytes.
const VALUE: usize = 512;
/// The environment variable that names the purpose of a session.
const PURPOSE: &str = "SEKISHO_PURPOSE";

impl Connection {
    /// Notes the terminal that the command is to have. Whether it may have one is decided with the
    /// command: a client that insists on a terminal hangs up at a "failure" here, and its person
    /// would never read why.
    pub(super) fn set_terminal(
        &mut self,
        channel: ChannelId,
        term: &str,
        size: WindowSize,
        modes: &[(russh::Pty, u32)],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        let Some(setup) = self.waiting(channel) else { return session.channel_failure(channel) };
        setup.pty = Some(Pty {
            term: term.chars().filter(|c| c.is_ascii_graphic()).take(64).collect(),
            cols: size.cols.min(10_000),
            rows: size.rows.min(10_000),
            width_px: size.width_px.min(100_000),
            height_px: size.height_px.min(100_000),
            modes: modes
                .iter()
                .map(|&(code, value)| (code as u8, value))
                .filter(|&(code, _)| code != 0)
                .collect(),
        });
        session.channel_success(channel)
    }

    /// Keeps a variable for the command, if it is one of language. Whether the study lets any come
    /// along is decided with the command.
    pub(super) fn set_variable(
        &mut self,
        channel: ChannelId,
        name: &str,
        value: &str,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        let fits = value.len() <= VALUE && !value.contains('\0');
        let Some(setup) = self.waiting(channel) else { return session.channel_failure(channel) };
        if name == PURPOSE && fits {
            setup.purpose = Some(value.to_owned());
            return session.channel_success(channel);
        }
        if fits && may_pass(name) && setup.env.len() < VARIABLES {
            setup.env.push((name.to_owned(), value.to_owned()));
            return session.channel_success(channel);
        }
        // Clients send what they are configured to send; a word about each would be noise.
        session.channel_failure(channel)
    }
}

/// Whether a variable of the person's environment may reach the workspace: language only. `TERM`
/// travels with the terminal.
fn may_pass(name: &str) -> bool {
    let short = name.len() <= 32;
    short && (name == "LANG" || name == "TERM" || name == "LANGUAGE" || locale(name))
}

fn locale(name: &str) -> bool {
    name.strip_prefix("LC_")
        .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|c| c.is_ascii_uppercase()))
}

#[cfg(test)]
mod tests {
    use super::may_pass;

    #[test]
    fn only_language_comes_along() {
        for good in ["LANG", "LC_ALL", "LC_CTYPE", "TERM"] {
            assert!(may_pass(good), "{good}");
        }
        for bad in ["PATH", "LD_PRELOAD", "LC_", "LC_evil", "BASH_ENV", "SEKISHO_PURPOSE", &"LC_".repeat(20)]
        {
            assert!(!may_pass(bad), "{bad}");
        }
    }
}
