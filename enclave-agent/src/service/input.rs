//! What comes from a person's client, taken apart.

use nix::sys::signal::Signal;
use wire::message::{Command, Exited, Pty, Refused, WindowSize};

use super::refused;
use crate::init_protocol::{End, Program, Terminal};
use crate::workspace::{Launch, Owner};

/// The longest command line.
const COMMAND_MAX: usize = 100 * 1024;
/// The longest value of an environment variable, and how many a client may send.
const VALUE_MAX: usize = 256;
const VARIABLES_MAX: usize = 32;
/// The longest command that a forced one may be told of.
const ORIGINAL_MAX: usize = 20 * 1024;
/// Terminal modes a client may send; there are fewer opcodes.
const MODES_MAX: usize = 256;
/// No terminal is larger.
const SIDE_MAX: u32 = 4096;

/// What to start for a session.
pub fn launch(
    owner: &Owner,
    command: Command,
    pty: Option<Pty>,
    env: Vec<(String, String)>,
) -> Result<Launch, Refused> {
    let program = match command {
        Command::Shell => Program::Shell,
        Command::Sftp { data } => Program::Files { data },
        Command::Connect { port: 0 } => {
            return Err(refused("connect.port", "There is no port 0."));
        }
        Command::Connect { port } => Program::Connect { port },
        Command::Exec(line) if line.len() > COMMAND_MAX => {
            return Err(refused(
                "command.too_long",
                format!("A command line has at most {COMMAND_MAX} bytes. Put a longer one into a script."),
            ));
        }
        Command::Exec(line) if line.contains(&0) => {
            return Err(refused("command.malformed", "A NUL byte stands in the command line."));
        }
        Command::Exec(line) => Program::Command(line),
    };
    let (name, home) = (owner.person.name(), owner.home());
    let mut all: Vec<(String, String)> = [
        ("PATH", "/usr/local/bin:/usr/bin:/bin"),
        ("HOME", &home),
        ("USER", name),
        ("LOGNAME", name),
        ("SHELL", "/bin/bash"),
        ("LANG", "C.UTF-8"),
        ("SEKISHO_STUDY", owner.study.name()),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .to_vec();
    for (key, value) in env.into_iter().take(VARIABLES_MAX).filter(|(key, value)| is_let_in(key, value)) {
        all.retain(|(known, _)| *known != key);
        all.push((key, value));
    }
    if let Some(pty) = &pty {
        all.push(("TERM".to_owned(), term(&pty.term)));
    }
    let plain = matches!(program, Program::Files { .. } | Program::Connect { .. });
    let terminal = pty.filter(|_| !plain).map(terminal);
    Ok(Launch { program, env: all, home, terminal })
}

/// The number of a signal, named as in RFC 4254, section 6.9.
pub fn parse_signal(name: &str) -> Option<i32> {
    const NAMED: [&str; 16] = [
        "ABRT", "ALRM", "CONT", "FPE", "HUP", "ILL", "INT", "KILL", "PIPE", "QUIT", "SEGV", "STOP", "TERM",
        "TSTP", "USR1", "USR2",
    ];
    NAMED.contains(&name).then(|| format!("SIG{name}").parse::<Signal>().ok().map(|s| s as i32)).flatten()
}

/// A terminal's size in what the kernel takes.
pub fn size(size: WindowSize) -> (u16, u16, u16, u16) {
    let side = |n: u32| u16::try_from(n.min(SIDE_MAX)).unwrap_or(0);
    let pixels = |n: u32| u16::try_from(n).unwrap_or(0);
    (side(size.rows), side(size.cols), pixels(size.width_px), pixels(size.height_px))
}

/// How a command ended, for the broker.
pub fn exited(end: End) -> Exited {
    match end {
        End::Code(code) => Exited::Code(code),
        End::Signal { number, core } => {
            let name = Signal::try_from(number).map_or("UNKNOWN", Signal::as_str);
            Exited::Signal { name: name.trim_start_matches("SIG").to_owned(), core }
        }
    }
}

fn terminal(pty: Pty) -> Terminal {
    let (rows, cols, width_px, height_px) = size(pty.size());
    let modes = pty.modes.into_iter().take(MODES_MAX).collect();
    Terminal { rows, cols, width_px, height_px, modes }
}

fn is_let_in(key: &str, value: &str) -> bool {
    // The broker's own word, when a certificate forces a command; clients cannot send it.
    if key == "SSH_ORIGINAL_COMMAND" {
        return value.len() <= ORIGINAL_MAX && !value.contains('\0');
    }
    let known = matches!(key, "LANG" | "LANGUAGE" | "TZ" | "COLORTERM" | "NO_COLOR")
        || key.strip_prefix("LC_").is_some_and(|rest| {
            (1..=32).contains(&rest.len()) && rest.bytes().all(|c| c.is_ascii_uppercase() || c == b'_')
        });
    // A path here would have a library read a file of the client's choice.
    known && value.len() <= VALUE_MAX && !value.contains('/') && !value.chars().any(char::is_control)
        || known && key == "TZ" && is_zone(value)
}

/// `Asia/Tokyo` and its like.
fn is_zone(value: &str) -> bool {
    value.len() <= 64
        && value.starts_with(|c: char| c.is_ascii_uppercase())
        && value.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '/' | '_' | '+' | '-'))
}

fn term(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '+' | '.' | '_');
    if !text.is_empty() && text.len() <= 64 && text.chars().all(plain) && !text.starts_with('.') {
        text.to_owned()
    } else {
        "dumb".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use model::{PersonId, StudyId};

    use super::*;

    fn owner() -> Owner {
        Owner {
            study: StudyId::from_name("brca").unwrap(),
            person: PersonId::from_name("alice").unwrap(),
            workspace: model::WorkspaceName::default(),
        }
    }

    #[test]
    fn only_harmless_variables_are_let_in() {
        let sent = [
            ("LANG", "ja_JP.UTF-8"),
            ("LC_ALL", "C"),
            ("TZ", "Asia/Tokyo"),
            ("LD_PRELOAD", "x.so"),
            ("PATH", "bin"),
            ("BASH_ENV", "x"),
            ("LC_PATH", "/etc/passwd"),
            ("LC_x", "y"),
            ("TZ", ":/etc/passwd"),
            ("COLORTERM", "a\u{1b}b"),
        ];
        let sent = sent.map(|(k, v)| (k.to_owned(), v.to_owned())).to_vec();
        let launch = launch(&owner(), Command::Shell, None, sent).unwrap();
        let get = |key: &str| launch.env.iter().rfind(|(k, _)| k == key).map(|(_, v)| v.as_str());
        assert_eq!(get("LANG"), Some("ja_JP.UTF-8"));
        assert_eq!((get("LC_ALL"), get("TZ")), (Some("C"), Some("Asia/Tokyo")));
        assert_eq!(get("PATH"), Some("/usr/local/bin:/usr/bin:/bin"));
        assert!(
            [get("LD_PRELOAD"), get("BASH_ENV"), get("LC_PATH"), get("LC_x"), get("COLORTERM")]
                .iter()
                .all(Option::is_none)
        );
    }

    #[test]
    fn commands_that_cannot_run_are_refused_with_a_reason() {
        let refuse =
            |line: Vec<u8>| launch(&owner(), Command::Exec(line), None, Vec::new()).unwrap_err().code;
        assert_eq!(refuse(vec![b'x'; COMMAND_MAX + 1]), "command.too_long");
        assert_eq!(refuse(b"a\0b".to_vec()), "command.malformed");
    }

    #[test]
    fn terminals_have_sane_names_and_sizes() {
        for (sent, taken) in
            [("xterm-256color", "xterm-256color"), ("../../x", "dumb"), ("", "dumb"), ("a b", "dumb")]
        {
            assert_eq!(term(sent), taken);
        }
        let huge = WindowSize { cols: u32::MAX, rows: 0, width_px: 70_000, height_px: 900 };
        assert_eq!(size(huge), (0, 4096, 0, 900));
    }

    #[test]
    fn signals_go_by_the_names_of_ssh() {
        assert_eq!(parse_signal("INT"), Some(2));
        assert_eq!(parse_signal("SIGINT"), None);
        assert_eq!(parse_signal("VTALRM"), None);
        let killed = exited(End::Signal { number: 9, core: false });
        assert_eq!(killed, Exited::Signal { name: "KILL".into(), core: false });
    }
}
