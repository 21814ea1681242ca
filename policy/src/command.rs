//! Which command lines move files.
//!
//! `scp -O` and `rsync` have no channel of their own: the client has the other side run
//! `scp -t DIR` or `rsync --server …`, and the direction stands in the options. This reads a command
//! line the way a shell would begin to, to find those programs in it. It keeps honest tools to the
//! rules for files. It is no wall against somebody who writes their own: whoever may run commands
//! can print a file, and a study that must not have that refuses `exec` and `shell`.

/// What a command line is for, as far as it shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transfer {
    /// No transfer of files that we know.
    None,
    /// The subsystem `sftp` by the name of its program.
    Sftp,
    /// Files into the workspace.
    Upload,
    /// Files out of it.
    Export,
}

/// What a command line is for. Of several commands in a line the gravest counts.
pub fn transfer(line: &[u8]) -> Transfer {
    let line = String::from_utf8_lossy(line);
    let commands: Vec<&str> =
        line.split(['\n', ';', '&', '|', '(', ')', '`', '{', '}']).map(str::trim).collect();
    let alone = commands.iter().filter(|command| !command.is_empty()).count() == 1;
    let found = commands.iter().map(|command| of_command(command)).max().unwrap_or(Transfer::None);
    if found == Transfer::Sftp && !alone { Transfer::None } else { found }
}

fn of_command(command: &str) -> Transfer {
    let words: Vec<String> = command.split_whitespace().map(plain).collect();
    let before = |word: &String| {
        // `A=b env nice -n 5 scp …`
        let assigned = word.split_once('=').is_some_and(|(name, _)| {
            !name.is_empty() && name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_')
        });
        assigned || matches!(base(word), "env" | "exec" | "command" | "nice" | "ionice" | "nohup" | "time")
    };
    let mut rest = words.iter().skip_while(|word| before(word)).peekable();
    let Some(program) = rest.next() else { return Transfer::None };
    let options = || words.iter().skip(1).take_while(|word| *word != "--").map(String::as_str);
    match base(program) {
        "sftp-server" => Transfer::Sftp,
        "scp" => {
            let has = |letter| options().any(|o| o.starts_with('-') && o.contains(letter));
            match (has('f'), has('t')) {
                (true, _) => Transfer::Export,
                (false, true) => Transfer::Upload,
                (false, false) => Transfer::None,
            }
        }
        "rsync" if options().any(|o| o == "--sender") => Transfer::Export,
        "rsync" if options().any(|o| o == "--server") => Transfer::Upload,
        _ => Transfer::None,
    }
}

/// A word without what quotes it.
fn plain(word: &str) -> String {
    word.chars().filter(|c| !matches!(c, '\'' | '"' | '\\')).collect()
}

fn base(word: &str) -> &str {
    word.rsplit('/').next().unwrap_or(word)
}

#[cfg(test)]
mod tests {
    use super::{Transfer, transfer};

    #[test]
    fn what_clients_really_send_is_known() {
        for (line, expected) in [
            ("scp -t .", Transfer::Upload),
            ("scp -v -r -p -d -t /tmp/x", Transfer::Upload),
            ("scp -f results.csv", Transfer::Export),
            ("scp -pf '/data/a b'", Transfer::Export),
            ("rsync --server -logDtpre.iLsfxCIvu . up/", Transfer::Upload),
            ("rsync --server --sender -logDtpre.iLsfxCIvu . down", Transfer::Export),
            ("/usr/lib/openssh/sftp-server", Transfer::Sftp),
            ("ls -t", Transfer::None),
            ("rsync --version", Transfer::None),
            ("echo scp -f x", Transfer::None),
            ("", Transfer::None),
        ] {
            assert_eq!(transfer(line.as_bytes()), expected, "{line}");
        }
    }

    #[test]
    fn simple_disguises_change_nothing() {
        for line in [
            "/usr/bin/scp -f x",
            "cd /tmp; scp -f x",
            "true && LC_ALL=C env scp -f x",
            "exec 'scp' -f x",
            "s\\cp -f x",
            "(scp -f x)",
            "scp -t . ; scp -f x",
        ] {
            assert_eq!(transfer(line.as_bytes()), Transfer::Export, "{line}");
        }
        // What comes after is a command of its own, and is not ours to serve.
        assert_eq!(transfer(b"sftp-server; id"), Transfer::None);
        assert_eq!(transfer(&[0xff, b' ', 0xfe]), Transfer::None);
    }
}
